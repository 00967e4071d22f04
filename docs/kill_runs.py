"""Kills runs at random and looks what is lost.

``python docs/kill_runs.py [--count 200] [--seed 0] [--executor ray]``

Runs of a grid of 4 cells (a few faces of 16 pixels, 16 stages, one thread) end in every way that a run can
end: its driver (the process that was started) is killed, gets SIGTERM, SIGINT or SIGHUP, or its terminal is
closed; a worker is killed, crashes or is told to end. The kind, the moment and the executor are drawn. The
next run goes on in the same store, until the grid is complete; then the next grid begins.

After each run: no process of it is alive 5 s after its driver (with Ray 20 s, not counting Ray's own agents);
nothing that was stored before is gone or different; every artifact, record and picture is whole; a signal
gave the documented exit code and no traceback. Each complete grid equals the undisturbed one bit for bit: the
hashes of all tensors, all metrics.
Prints a table of what was done and found; exit code 1 if anything was wrong. Linux only (``/proc``).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import termios
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mia_bench.pictures import is_whole
from mia_bench.store import Store

TRACK = """
name = "kill-runs"
version = 1
summary = "a few faces of 16 pixels"
images_per_class = 2
metrics = ["utility", "evaluation-classifier", "target-confidence"]
default_prior = "eigenfaces"
[data]
resolution = 16
split_seed = 1
[data.dataset]
name = "synth-faces"
[data.dataset.options]
identities = 6
train = 10
validation = 2
test = 4
public_identities = 20
public_images = 4
decoys = 10
[target]
architecture = { name = "resnet-small", options = { widths = [8, 16] } }
recipe = { epochs = 8, batch_size = 16 }
[evaluation]
architecture = { name = "convnet-small", options = { widths = [8, 16] } }
recipe = { epochs = 8, batch_size = 16 }
[priors.eigenfaces]
components = 16
[priors.wgan-gp]
latent = 8
width = 4
steps = 6
batch_size = 16
critic_steps = 2
[attacks.prior-sample]
prior = "wgan-gp"
[attacks.ppa]
prior = "eigenfaces"
options = { search = 40, candidates = 4, steps = 10, views = 2 }
"""

PLUGIN = """
from pathlib import Path
from mia_bench import hookimpl
@hookimpl
def mia_bench_register_tracks(register):
    register("kill-runs", Path(__file__).with_name("track.toml"))
"""

COMMAND_LINE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where this runs in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and where it runs under nohup
from mia_bench.cli import main
main()
"""

GRID = ["run", "--track", "kill-runs", "--defense", "none", "--defense", "neg-ls", "--attack", "prior-sample",
        "--attack", "ppa", "--device", "cpu", "--format", "json"]  # fmt: skip

DRIVER = {"SIGKILL": 9, "SIGTERM": 15, "SIGINT": 2, "SIGHUP": 1, "closed terminal": 0}
WORKER = {"SIGKILL": 9, "SIGTERM": 15, "SIGSEGV": 11, "SIGHUP": 1}
KINDS = [*(f"driver: {name}" for name in DRIVER), *(f"worker: {name}" for name in WORKER), "guard and driver"]
EXECUTORS = {
    "one process": ["--jobs", "1"],
    "--jobs 2": ["--jobs", "2"],
    "--time-limit": ["--time-limit", "600"],
    "ray": ["--executor", "ray", "--jobs", "2"],
}
WORKERS = {"ray": rb"^ray::(_compute|IDLE|_Mailbox)\b"}
"""Pattern of the command lines of an executor's workers; else ``spawn_main``."""

AGENTS = rb"^ray::\w+Agent\b"
"""Those of Ray's own, which compute nothing; they notice a killed driver after a minute."""

LIMIT = 5.0
"""Seconds after its driver's end in which the last process of a run must be gone."""

RAY_LIMIT = 20.0
"""The same, where Ray's own processes have to find out."""

MARK = "MIA_BENCH_KILL_RUNS"


def install(folder: Path) -> None:
    """A plugin with the track, as pip would lay it out."""
    folder.mkdir()
    (folder / "track.toml").write_text(TRACK, encoding="utf-8")
    (folder / "kill_runs_plugin.py").write_text(PLUGIN, encoding="utf-8")
    described = folder / "kill_runs-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: kill-runs-plugin\nVersion: 1\n", "utf-8"
    )
    (described / "entry_points.txt").write_text("[mia_bench]\nkill-runs = kill_runs_plugin\n", "utf-8")


def python_path(folder: Path) -> str:
    """``PYTHONPATH`` with the folder where a plugin was installed."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@dataclass
class Run:
    """A run under way: its driver, the mark of its processes, and how many stages it has finished."""

    driver: subprocess.Popen[bytes]
    mark: str
    terminal: int
    out: Path
    text: bytes = b""
    stages: int = 0
    closed: bool = False
    reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        with open(self.terminal, "rb", 0) as terminal, contextlib.suppress(OSError):
            while not self.closed:
                if select.select([terminal], [], [], 0.02)[0]:
                    if not (more := terminal.read(65536)):
                        return
                    self.text += more
                    self.stages = len(re.findall(rb": done in |\xe2\x9c\x93", self.text))

    @property
    def begun(self) -> bool:
        """Whether the program had told what it does; before, a signal interrupts Python's imports."""
        return b"to compute" in self.text or b"whole run" in self.text

    def close(self) -> None:
        """Close the terminal."""
        self.closed = True
        self.reader.join()

    def processes(self) -> dict[int, bytes]:
        """The living processes of the run, with their command lines."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found[int(entry.name)] = (entry / "cmdline").read_bytes()
        return found

    def computing(self) -> dict[int, bytes]:
        """The same, without Ray's agents."""
        return {p: line for p, line in self.processes().items() if not re.match(AGENTS, line)}

    def started(self, pattern: bytes) -> list[int]:
        """The processes with such command lines, but for the driver."""
        found = self.processes().items()
        return [p for p, line in found if re.search(pattern, line) and p != self.driver.pid]


def start(work: Path, store: Path, arguments: list[str], *, terminal: bool) -> Run:
    """Start the grid with its standard error in a pipe, or in a terminal of its own."""
    mark, out = uuid.uuid4().hex, work / "out.json"
    environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1", "MIA_BENCH_STORE": str(store),
                   "PYTHONPATH": python_path(work / "site")}  # fmt: skip
    ours, theirs = pty.openpty() if terminal else os.pipe()

    def control() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    with out.open("wb") as file:
        driver = subprocess.Popen(
            [sys.executable, "-c", COMMAND_LINE, *GRID, *arguments],
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=file,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=control if terminal else None,
        )
    os.close(theirs)
    return Run(driver, mark, ours, out)


@dataclass
class Looked:
    """What a store held: the hash of each artifact's tensors, and the numbers of each finished record."""

    artifacts: dict[str, str] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)


def look(root: Path, problems: list[str]) -> Looked:
    """Check every file of a store that appears whole or not at all."""
    found = Looked()
    if not (root / "version.json").exists():
        return found
    store = Store(root)
    for meta in sorted((root / "artifacts").glob("*/[!.]*/meta.json")):
        stage, key = meta.parts[-3:-1]
        try:
            store.arrays(stage, key)
            files = json.loads(meta.read_bytes())["files"]
            found.artifacts[f"{stage}/{key}"] = files["tensors.safetensors"]["sha256"]
        except Exception as error:
            problems.append(f"{stage}/{key}: {error}")
    for folder in (root / "artifacts").glob("*/[!.]*"):
        if not (folder / "meta.json").exists():
            problems.append(f"{folder} is not whole")
    try:
        for record in store.records(strict=True):
            if record.status == "done":
                content = record.to_json()
                numbers = {name: content[name] for name in ("key", "seed", "metrics", "per_class", "notes")}
                found.records[record.key] = json.dumps(numbers, sort_keys=True)
    except Exception as error:
        problems.append(f"a record: {error}")
    problems += [f"{path} is not whole" for path in root.glob("pictures/*.png") if not is_whole(path)]
    return found


@dataclass
class Result:
    """What became of a run.

    Attributes:
        late: there was no such process any more.
        ending: seconds from the disturbance to the driver's end.
        after: seconds from there to the end of the last process.
        stages: how many were finished.
    """

    kind: str
    executor: str
    late: bool
    ending: float
    after: float
    stages: int
    problems: list[str]


class Killer:
    """Runs the grid again and again and kills the runs."""

    def __init__(self, work: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._work = work
        self._store = work / "store"
        install(work / "site")
        self.grids = 0
        problems: list[str] = []
        run = start(work, work / "undisturbed", [], terminal=False)
        code = run.driver.wait()
        self._expected = look(work / "undisturbed", problems)
        if code or problems or len(self._expected.records) != 4:
            raise SystemExit(f"the undisturbed run failed: {problems} {run.text.decode()}")
        self._before = Looked()

    def kill(self, kind: str, executor: str) -> Result:
        """Start a run, disturb it at a random moment, see what it left."""
        run = start(self._work, self._store, EXECUTORS[executor], terminal=kind.endswith("terminal"))
        left = len(self._expected.artifacts) - len(self._before.artifacts)
        stages = self._random.randint(0, max(0, left - 1))
        moment = self._random.uniform(0, 0.4 if stages else 4)
        while run.stages < stages and run.driver.poll() is None:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.driver.wait(moment)
        problems: list[str] = []
        disturbed, stages = time.monotonic(), run.stages
        late = not self._disturb(kind, executor, run)
        code = self._wait(run, problems)
        ended = time.monotonic()
        limit = RAY_LIMIT if executor == "ray" else LIMIT
        while (alive := run.computing()) and time.monotonic() - ended < limit:
            time.sleep(0.02)
        gone = time.monotonic()
        if alive:
            problems.append(f"alive {limit:g} s after the driver: {alive}")
        for number in run.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        run.reader.join(1)
        run.close()
        text = run.text.decode(errors="replace")
        if "Traceback" in text and run.begun:
            problems.append(f"traceback: {text[text.index('Traceback') :]}")
        ending = executor == "ray" and run.stages >= left
        if code not in self._codes(kind, run, ending=ending):
            problems.append(f"exit code {code}: {text[-8000:]}")
        if kind.startswith("driver") and code == 0 and left - stages > 3:
            problems.append("it went on to the end")
        problems += self._compare()
        return Result(kind, executor, late, ended - disturbed, gone - ended, run.stages, problems)

    def _disturb(self, kind: str, executor: str, run: Run) -> bool:
        """Do what the kind says; return whether it met a process."""
        who, _, how = kind.partition(": ")
        if who == "worker":
            workers = run.started(WORKERS.get(executor, b"spawn_main"))
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._random.choice(workers), WORKER[how])
            return bool(workers)
        alive = run.driver.poll() is None
        if who == "guard and driver":
            for number in run.started(rb"guard\.py"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            run.driver.kill()
        elif DRIVER[how]:
            run.driver.send_signal(DRIVER[how])
        else:
            run.close()
        return alive

    def _codes(self, kind: str, run: Run, *, ending: bool) -> set[int]:
        """The exit codes that a driver may end with: of a run that was over, of an interrupted one.

        Args:
            ending: only Ray's end was left, in which it sets the default handler of SIGTERM.
        """
        who, _, how = kind.partition(": ")
        if who == "worker":
            return {0}
        if who == "guard and driver" or how == "SIGKILL":
            return {0, -signal.SIGKILL}
        # Before the program has begun and after it has printed its results, Python itself is interrupted.
        outside = (
            ending
            or not run.begun
            or run.out.read_text().count('"status": "done"') == len(self._expected.records)
        )
        return {0, 1} | ({-(DRIVER[how] or signal.SIGHUP)} if outside else set())

    def _wait(self, run: Run, problems: list[str]) -> int:
        try:
            return run.driver.wait(240)
        except subprocess.TimeoutExpired:
            problems.append("the driver did not end in 240 s")
            run.driver.kill()
            return run.driver.wait()

    def _compare(self) -> Iterator[str]:
        """Compare the store with before and with the undisturbed one; begin a new one if it is complete."""
        problems: list[str] = []
        after = look(self._store, problems)
        yield from problems
        for before, now, expected in (
            (self._before.artifacts, after.artifacts, self._expected.artifacts),
            (self._before.records, after.records, self._expected.records),
        ):
            yield from (f"{key} is lost or differs" for key in before if now.get(key) != before[key])
            yield from (f"{key} differs" for key in now if now[key] != expected.get(key))
        self._before = after
        if len(after.records) == len(self._expected.records):
            if after != self._expected:
                yield "the complete grid is not the undisturbed one"
            self.grids += 1
            shutil.rmtree(self._store)
            self._before = Looked()

    def draw(self, executors: list[str]) -> tuple[str, str]:
        """A kind, and one of the executors that has such processes."""
        executor = self._random.choice(executors)
        kinds = [kind for kind in KINDS if kind.startswith("driver") or executor != "one process"]
        if executor == "ray":  # it has no guard
            kinds.remove("guard and driver")
        return self._random.choice(kinds), executor


def table(results: list[Result]) -> Iterator[str]:
    """A row for each kind."""
    yield "| what happens | runs | within the run | driver gone after | last process gone | faults |"
    yield "|---|---|---|---|---|---|"
    for kind in KINDS:
        of_kind = [result for result in results if result.kind == kind]
        if of_kind:
            within = sum(not result.late for result in of_kind)
            ending = "–" if kind.startswith("worker") else _range([result.ending for result in of_kind])
            after = _range([result.after for result in of_kind])
            faults = sum(bool(result.problems) for result in of_kind)
            yield f"| {kind} | {len(of_kind)} | {within} | {ending} | {after} later | {faults} |"


def _range(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s"


def main() -> None:
    """Kill runs and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executor", choices=EXECUTORS, action="append", help="only these")
    given = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), given.seed)
        for number in range(given.count):
            result = killer.kill(*killer.draw(given.executor or [*EXECUTORS]))
            results.append(result)
            print(number, result, file=sys.stderr, flush=True)
    print("\n".join(table(results)))
    executors = Counter(result.executor for result in results)
    print(f"\n{killer.grids} grids were completed. Executors: {dict(executors)}")
    sys.exit(any(result.problems for result in results))


if __name__ == "__main__":
    main()
