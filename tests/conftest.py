"""Fixtures: third-party distributions really installed, a store, a command line in this process."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

from installing import MakeOnce, install, on_path
from mia_bench import plugins as plugins_module

HERE = Path(__file__).parent

# A slow example on a busy machine is no failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# The toy networks gain nothing from more threads, and runs beside each other lose much; read when
# torch is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "MIA_BENCH_CACHE" not in os.environ:  # the processes of xdist share that of the first one
    os.environ["MIA_BENCH_CACHE"] = tempfile.mkdtemp(prefix="mia-bench-cache-")
    atexit.register(shutil.rmtree, os.environ["MIA_BENCH_CACHE"], ignore_errors=True)

# Ignored where pytest runs in the background or under nohup; the processes that tests start inherit it.
for ignored in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler if ignored == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """``make_once(name, make)``: a folder that ``make(folder)`` fills once for all processes of xdist."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, unfinished = shared / f"once-{name}", shared / f"unfinished-{name}"
        with FileLock(shared / f"once-{name}.lock"):
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return get


@pytest.fixture(scope="session")
def toy_site(make_once: MakeOnce) -> Path:
    """A folder with the toy distribution installed."""
    return make_once("toy", lambda folder: install(folder, HERE / "distributions" / "toy"))


@pytest.fixture(scope="session")
def broken_site(make_once: MakeOnce) -> Path:
    """A folder with the broken plugins installed."""
    return make_once("broken", lambda folder: install(folder, HERE / "distributions" / "broken"))


@pytest.fixture(scope="session")
def examples_site(make_once: MakeOnce) -> Path:
    """A folder with the three distributions of ``plugins/examples`` installed."""
    projects = sorted(path.parent for path in (HERE.parent / "plugins" / "examples").glob("*/pyproject.toml"))
    return make_once("examples", lambda folder: install(folder, *projects))


@pytest.fixture
def sites(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put folders of installed distributions on the path and discover plugins anew."""

    def use(*folders: Path) -> None:
        for folder in folders:
            monkeypatch.syspath_prepend(str(folder))
        on_path(monkeypatch, *folders)
        plugins_module.host.cache_clear()

    yield use
    plugins_module.host.cache_clear()


@pytest.fixture
def toy(sites: Callable[..., None], toy_site: Path) -> None:
    """The toy track and its plugins."""
    sites(toy_site)


@pytest.fixture
def broken(
    sites: Callable[..., None],
    toy_site: Path,
    broken_site: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken plugins beside the toy ones."""
    monkeypatch.delenv("MIA_BENCH_STRICT", raising=False)
    sites(toy_site, broken_site)


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict]:
        """Standard output as JSON."""
        return json.loads(self.out)


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Outcome]:
    """Run ``mia-bench`` in this process with a store of its own."""
    from mia_bench.cli import main

    monkeypatch.setenv("MIA_BENCH_STORE", str(tmp_path / "store"))

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        code = 0
        handler = signal.getsignal(signal.SIGTERM)
        log = logging.getLogger("mia_bench")
        logged = log.handlers, log.propagate
        try:
            main([str(arg) for arg in args])
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        finally:
            signal.signal(signal.SIGTERM, handler)
            log.handlers, log.propagate = logged
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


COMMAND_LINE = """
import sys
from mia_bench.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = sorted({"torch", "torchvision", "pandas"} & set(sys.modules))
    print("imported:", *heavy, file=sys.stderr)
"""


@pytest.fixture
def spawn(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start ``mia-bench`` in a process of its own; its last line of stderr names heavy imports."""

    def start(*args: object, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND_LINE, *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "MIA_BENCH_STORE": str(tmp_path / "store"), **more},
        )

    return start


@dataclass(frozen=True)
class Undisturbed:
    """A toy run that nothing disturbed."""

    store: Path
    records: dict[str, dict]

    def copy(self, store: Path, stages: Sequence[str]) -> None:
        """A new store with the artifacts of some stages."""
        store.mkdir()
        shutil.copy(self.store / "version.json", store)
        for stage in stages:
            shutil.copytree(self.store / "artifacts" / stage, store / "artifacts" / stage)


@pytest.fixture(scope="session")
def undisturbed(toy_site: Path, make_once: MakeOnce) -> Undisturbed:
    """none and neg-ls against ppa and toy-prepared, on the toy track, on the CPU."""
    import mia_bench

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MIA_BENCH_DISABLE_PLUGINS", raising=False)
            patch.syspath_prepend(str(toy_site))
            plugins_module.host.cache_clear()
            records = mia_bench.run(
                track="toy",
                defense=["none", "neg-ls"],
                attack=["ppa", "toy-prepared"],
                device="cpu",
                store=folder / "store",
            )
            plugins_module.host.cache_clear()
        assert [record.status for record in records] == ["done"] * 4
        (folder / "records.json").write_text(json.dumps([record.to_json() for record in records]))

    folder = make_once("undisturbed", make)
    records = json.loads((folder / "records.json").read_text())
    return Undisturbed(folder / "store", {record["key"]: record for record in records})


@pytest.fixture
def store(undisturbed: Undisturbed, tmp_path: Path) -> Callable[..., Path]:
    """Make the test's store, with finished artifacts of the undisturbed run's stages named."""

    def make(*stages: str) -> Path:
        undisturbed.copy(tmp_path / "store", stages)
        return tmp_path / "store"

    return make


@pytest.fixture
def make_tree() -> Callable[..., Path]:
    """Make ``<root>/<identity>/<image>``: noisy variations of one pattern for each identity."""
    import numpy as np
    from PIL import Image

    def make(
        root: Path,
        counts: Mapping[str, int],
        *,
        name: str = "{identity}_{number:04d}.jpg",
        size: tuple[int, int] = (48, 40),
        mode: str = "RGB",
    ) -> Path:
        for index, (identity, count) in enumerate(counts.items()):
            draws = np.random.default_rng(index)
            pattern = draws.integers(40, 215, (5, 5, 3))
            (root / identity).mkdir(parents=True)
            for number in range(1, count + 1):
                pixels = pattern + draws.integers(-25, 25, pattern.shape)
                image = Image.fromarray(pixels.astype(np.uint8)).resize(size).convert(mode)
                image.save(root / identity / name.format(identity=identity, number=number))
        return root

    return make


@pytest.fixture
def real_data() -> Path:
    """The root of real data sets, or skip."""
    given = os.environ.get("MIA_BENCH_DATA")
    if not given:
        pytest.skip("MIA_BENCH_DATA is not set: no real photographs to test with")
    return Path(given)


@pytest.fixture
def real_weights() -> Path:
    """The folder of local weight files, or skip."""
    given = os.environ.get("MIA_BENCH_WEIGHTS")
    if not given:
        pytest.skip("MIA_BENCH_WEIGHTS is not set: no weight files to test with")
    return Path(given)
