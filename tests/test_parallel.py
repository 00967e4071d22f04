"""Several processes: the same records as one, each stage once, deaths and signals survived."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

import mia_bench
from mia_bench.engine import parallel
from mia_bench.engine.parallel import assign_devices
from mia_bench.engine.progress import PlainProgress, ProgressDisplay
from mia_bench.errors import UsageError

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
    once = {"data": 1, "evaluator": 1, "train": 2, "assess": 2, "prepare": 2, "invert": 4}
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
    assert listener.begun == {"train": 1, "assess": 1, "invert": 1, "measure": 1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(device_count=lambda: 2))
    assert assign_devices("auto", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert assign_devices("cuda", 2) == ["cuda:0", "cuda:1"]
    assert assign_devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert assign_devices("cpu", 2) == ["cpu", "cpu"]
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(device_count=lambda: 0))
    assert assign_devices("auto", 2) == ["auto", "auto"]


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
