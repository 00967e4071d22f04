"""Several processes: the same records as one, each stage once, deaths and signals survived."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import mia_bench
from mia_bench.config import load_config
from mia_bench.engine import jobs, parallel
from mia_bench.engine.parallel import ParallelExecutor, assign_devices
from mia_bench.engine.plan import Stage
from mia_bench.engine.progress import PlainProgress, ProgressDisplay
from mia_bench.engine.run import set_up
from mia_bench.engine.worker import WorkerSetup
from mia_bench.errors import MiaBenchError, UsageError

pytestmark = pytest.mark.slow

CELLS = ("none", "neg-ls"), ("ppa", "toy-prepared")


class Listener(ProgressDisplay):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.said: list[str] = []
        self.heard: set[str] = set()

    def stage_begins(self, stage, seconds: float) -> None:
        self.begun[stage.name] += 1

    def progress(self, stage, done: int, total: int, unit: str) -> None:
        self.heard.add(unit)

    def stage_ends(self, stage, seconds: float) -> None:
        self.ended[stage.name] += 1

    def say(self, line: str) -> None:
        self.said.append(line)


def run(tmp_path, defenses, attacks, **more) -> list[dict]:
    records = mia_bench.run(
        track="toy",
        defense=defenses,
        attack=attacks,
        device="cpu",
        store=tmp_path / "store",
        jobs=2,
        **more,
    )
    return [record.to_json() for record in records]


def test_two_processes_make_the_records_of_one(toy, store, undisturbed, tmp_path) -> None:
    store("prior", "gallery")
    listener = Listener()
    records = run(tmp_path, *CELLS, display=listener)
    assert [record["key"] for record in records] == list(undisturbed.records)
    for record in records:
        before = undisturbed.records[record["key"]]
        assert record["metrics"] == before["metrics"]
        assert record["status"] == "done"
        stored = tmp_path / "store" / "records" / "toy" / f"{record['key']}.json"
        assert json.loads(stored.read_text()) == record
    once = {"data": 1, "evaluator": 1, "train": 2, "assess": 2, "prepare": 4, "invert": 4}
    assert listener.begun == listener.ended == {**once, "measure": 4}
    assert {"epoch", "step"} <= listener.heard
    assert all(record["status"] == "done" for record in run(tmp_path, *CELLS))


def test_failures_and_deaths_stop_only_what_needs_them(toy, store, tmp_path) -> None:
    store("data", "prior", "gallery", "evaluator")
    listener = Listener()
    defenses = ["toy-deadly", "toy-failing", "none"]
    deadly, failing, fine = run(tmp_path, defenses, "prior-sample", display=listener)
    assert fine["status"] == "done"
    assert (
        failing["reason"]
        == "train of plugin mia-bench-toy:toy-failing: RuntimeError: toy failure (defense.py:33)"
    )
    died = "train of plugin mia-bench-toy:toy-deadly: its process died (exit code 9)"
    assert deadly["reason"].startswith(died)
    assert sum(line.startswith("FAILED") for line in listener.said) == 2
    assert listener.begun["train"] == 4  # the deadly one twice
    assert listener.ended["train"] == 1


class Deadly(Listener):
    """Kills the process that begins to train, some times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def stage_begins(self, stage, seconds: float) -> None:
        super().stage_begins(stage, seconds)
        if stage.name == "train" and self.times:
            self.times -= 1
            (process,) = multiprocessing.active_children()
            os.kill(process.pid, signal.SIGKILL)


@pytest.mark.thorough
def test_a_stage_whose_process_is_killed_is_begun_again_and_fails_at_the_second_time(
    toy, store, undisturbed, tmp_path
) -> None:
    store("data", "prior", "gallery", "evaluator")
    once, twice = Deadly(1), Deadly(2)
    given = {"track": "toy", "attack": "ppa", "device": "cpu", "time_limit": 600, "store": tmp_path / "store"}
    (failed,) = mia_bench.run(defense="neg-ls", display=twice, **given)
    cause = "SIGKILL: killed, perhaps out of memory"
    assert (
        failed.reason
        == f"train of plugin mia-bench:neg-ls: its process died ({cause}), as at the first attempt"
    )
    (done,) = mia_bench.run(defense="none", display=once, **given)
    assert done.status == "done"
    assert done.to_json()["metrics"] == undisturbed.records[done.key]["metrics"]
    assert once.said == [f"a process died at: target under none, seed 0 ({cause}); another takes its place"]
    assert once.begun["train"] == twice.begun["train"] == 2


@pytest.fixture
def stored(toy, store) -> tuple[WorkerSetup, Stage]:
    """What workers need, and a stage that is stored."""
    setup = set_up(load_config({"track": "toy", "store": store("data"), "device": "cpu"}))
    return WorkerSetup(setup.store, "cpu", setup.roots), setup.track_plan().data


def test_a_process_that_dies_while_it_is_idle_is_replaced_and_told(stored) -> None:
    setup, stage = stored
    listener = Listener()
    with closing(ParallelExecutor(setup, listener, jobs=1)) as executor:
        for number in (signal.SIGSEGV, signal.SIGTERM):
            executor.begin(stage, renew=False, seconds=1)
            assert executor.wait().reason is None
            (process,) = multiprocessing.active_children()
            os.kill(process.pid, number)
            process.join()
        executor.begin(stage, renew=False, seconds=1)
        assert executor.wait().reason is None
    words = "a process died while it was idle ({}); another takes its place"
    assert listener.said == [words.format("SIGSEGV"), words.format("SIGTERM")]


class Ends:
    """Ends the process in which it is unpickled."""

    def __reduce__(self):
        return os._exit, (7,)


def test_a_run_is_given_up_where_processes_die_while_they_start(stored) -> None:
    setup, stage = stored
    listener = Listener()
    with closing(ParallelExecutor(replace(setup, store=Ends()), listener, jobs=1)) as executor:
        executor.begin(stage, renew=False, seconds=1)
        with pytest.raises(MiaBenchError, match=r"processes die while they start \(exit code 7\)"):
            executor.wait()
    assert listener.said == ["a process died while it started (exit code 7); another takes its place"] * 2
    assert not multiprocessing.active_children()


WORKER = """
import os, subprocess
os.setpgid(0, 0)
child = subprocess.Popen(["sleep", "60"])
print(os.getpid(), child.pid, flush=True)
child.wait()
"""

DRIVER = f"""
import subprocess, sys, time
from mia_bench.engine.guard import Guard
guard = Guard()
for forgotten in (False, True):
    process = subprocess.Popen([sys.executable, "-c", {WORKER!r}], stdout=subprocess.PIPE)
    print(process.stdout.readline().decode(), end="", flush=True)
    guard.watch(process.pid)
    if forgotten:
        guard.forget(process.pid)
time.sleep(60)
"""


def states(*variables: str) -> dict[int, str]:
    """The states of the processes with these environment variables, but for the helpers of a run."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line, given = (folder / "cmdline").read_text(), (folder / "environ").read_text().split("\0")
            if {*variables} <= {*given} and "guard.py" not in line and "resource_tracker" not in line:
                found[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()[0]
    return found


def until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")


@needs_proc
def test_the_guard_ends_workers_and_what_they_started_when_the_driver_is_killed(monkeypatch) -> None:
    monkeypatch.setenv("TOY_GUARDED", "1")
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    watched, forgotten = ({*map(int, driver.stdout.readline().split())} for _ in range(2))
    os.kill(max(watched), signal.SIGSTOP)
    time.sleep(0.5)
    driver.kill()
    driver.wait()
    try:
        until(lambda: not watched & {*states("TOY_GUARDED=1")}, 5)
        assert {*states("TOY_GUARDED=1")} == forgotten
    finally:
        driver.stdout.close()
        for number in forgotten:
            os.kill(number, signal.SIGKILL)


@needs_proc
def test_ctrl_z_stops_the_processes_too(spawn, toy, store, tmp_path, monkeypatch) -> None:
    hangs = tmp_path / "hangs"
    monkeypatch.setenv("TOY_HANGING", str(hangs))
    store("data", "prior", "gallery", "evaluator")
    given = ("--track", "toy", "--defense", "toy-hanging", "--attack", "prior-sample", "--device", "cpu")
    process = spawn("run", *given, "--time-limit", 600)

    def until_all(state: str) -> None:
        until(lambda: list(states(f"TOY_HANGING={hangs}").values()) == [state] * 2, 20)

    until(hangs.exists, 60)
    until_all("S")
    process.send_signal(signal.SIGTSTP)
    until_all("T")
    process.send_signal(signal.SIGCONT)
    until_all("S")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert not states(f"TOY_HANGING={hangs}")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_store_that_is_deleted_during_a_run_is_said_in_one_line(spawn, toy, store, processes: int) -> None:
    root = store("data", "prior", "gallery")
    process = spawn("run", "--track", "toy", "--defense", "none", "--attack", "ppa", "--device", "cpu",
                    "--jobs", processes)  # fmt: skip
    for line in process.stderr:
        if "] target under none" in line:
            break
    shutil.rmtree(root)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: the store {root} is gone: it was deleted or moved during the run"]
    assert not (root / "version.json").exists()


def test_warnings_of_a_process_are_passed_on(toy, store, tmp_path) -> None:
    store("data", "prior", "gallery", "evaluator", "train", "assess")
    listener = Listener()
    (record,) = run(tmp_path, "none", "toy-hungry", options={"toy-hungry.fits": 64}, display=listener)
    assert record["notes"]["invert"] == "out of memory; the batch was halved to 32"
    assert any("the batch was halved to 32" in line for line in listener.said)


def test_rerun_computes_what_is_a_cells_own_anew(toy, store, tmp_path) -> None:
    store("data", "prior", "gallery", "evaluator", "train", "assess", "invert", "measure")
    listener = Listener()
    run(tmp_path, "none", "ppa", rerun="always", display=listener)
    assert listener.begun == {"train": 1, "assess": 1, "prepare": 1, "invert": 1, "measure": 1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_processes_and_a_later_run_goes_on(
    cli, spawn, toy, store, number: signal.Signals
) -> None:
    store("data", "prior", "gallery")
    cells = ("run", "--track", "toy", "--defense", "none", "--attack", "ppa", "--device", "cpu")
    process = spawn(*cells, "--jobs", 2, "--format", "json")
    for line in process.stderr:
        if "] target under none" in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=240)  # its standard error is open while one is alive
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "error: interrupted; what is finished is kept" in err
    assert [record["status"] for record in json.loads(out)] == ["interrupted"]
    assert cli(*cells).code == 0


def test_processes_take_the_gpus_in_turn_unless_one_is_named(monkeypatch) -> None:
    monkeypatch.setattr(jobs, "shows_gpu", lambda: True)
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(device_count=lambda: 2))
    assert assign_devices("auto", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert assign_devices("cuda", 2) == ["cuda:0", "cuda:1"]
    assert assign_devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert assign_devices("cpu", 2) == ["cpu", "cpu"]
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(device_count=lambda: 0))
    assert assign_devices("auto", 2) == ["auto", "auto"]


@pytest.mark.thorough
def test_a_stage_that_hangs_fails_after_the_time_limit_and_the_rest_goes_on(
    cli, toy, store, tmp_path, monkeypatch
) -> None:
    hangs, passed = tmp_path / "hangs", [0.0]
    monkeypatch.setenv("TOY_HANGING", str(hangs))
    monkeypatch.setattr(parallel, "PATIENCE_SECONDS", 0.1)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr(parallel, "time", clock)
    begins = PlainProgress.stage_begins

    def late(self, stage, seconds: float) -> None:
        begins(self, stage, seconds)
        if stage.name == "train" and not hangs.exists():
            while not hangs.exists():
                time.sleep(0.05)
            passed[0] += 700

    monkeypatch.setattr(PlainProgress, "stage_begins", late)
    store("data", "prior", "gallery", "evaluator")
    given = ("run", "--track", "toy", "--defense", "toy-hanging", "--defense", "none")
    result = cli(*given, "--attack", "prior-sample", "--device", "cpu", "--time-limit", 600,
                 "--format", "json")  # fmt: skip
    assert result.code == 1
    hanging, fine = result.records
    reason = "train of plugin mia-bench-toy:toy-hanging: it took longer than the time limit of 600 s"
    assert hanging["reason"] == reason
    assert f"FAILED toy-hanging × prior-sample, seed 0: {reason}" in result.err
    assert fine["status"] == "done"
    assert cli("run", "--time-limit", 0).code == 2
    with pytest.raises(UsageError, match="time_limit=-1: "):
        mia_bench.run(track="toy", store=tmp_path / "store", time_limit=-1)


def test_no_job_is_refused(cli, toy, tmp_path) -> None:
    with pytest.raises(UsageError, match="jobs=0: "):
        mia_bench.run(track="toy", store=tmp_path, jobs=0)
    assert cli("run", "--jobs", 0).code == 2
