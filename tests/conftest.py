"""Fixtures: third-party distributions really installed, a store, a command line in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mia_bench import plugins as plugins_module

HERE = Path(__file__).parent


def install(distribution: str, target: Path) -> Path:
    """Install one of ``tests/distributions`` into a folder with pip."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", str(target), "."],
        cwd=HERE / "distributions" / distribution,
        check=True,
        capture_output=True,
    )  # fmt: skip
    return target


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy distribution installed."""
    return install("toy", tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def broken_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the broken plugins installed."""
    return install("broken", tmp_path_factory.mktemp("broken"))


@pytest.fixture
def sites(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put folders of installed distributions on the path and discover plugins anew."""

    def use(*folders: Path) -> None:
        for folder in folders:
            monkeypatch.syspath_prepend(str(folder))
        old = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*map(str, folders), old]))
        plugins_module.host.cache_clear()

    yield use
    plugins_module.host.cache_clear()


@pytest.fixture
def toy(sites: Callable[..., None], toy_site: Path) -> None:
    """The toy track and its plugins."""
    sites(toy_site)


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
        try:
            main([str(arg) for arg in args])
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


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
