"""How many processes compute a run where nobody says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import mia_bench
from mia_bench.config import RunConfig
from mia_bench.engine import jobs
from mia_bench.engine.jobs import PROCESS_MEMORY, automatic_jobs, most_at_once
from mia_bench.engine.local import LocalExecutor
from mia_bench.engine.parallel import ParallelExecutor
from mia_bench.engine.plan import Stage
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.run import Prepared, prepare
from mia_bench.track import Track

GIB = 2**30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make it a machine of some cores, memory and GPUs."""

    def make(cores: int = 8, memory: int | None = 64 * GIB, gpus: int = 0) -> None:
        monkeypatch.setattr(jobs, "usable_cores", lambda: cores)
        monkeypatch.setattr(jobs, "available_memory", lambda: memory)
        monkeypatch.setattr(jobs, "shows_gpu", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    return make


@pytest.fixture
def planned(toy, monkeypatch, tmp_path: Path) -> Callable[..., Prepared]:
    """A planned run of a toy cell, of a track with so many threads and shards."""
    validate = Track.model_validate

    def make(threads: int | None = 1, shards: int = 1, **more) -> Prepared:
        changes = {"threads": threads, "shards": shards}
        monkeypatch.setattr(Track, "model_validate", lambda found: validate({**found, **changes}))
        given = {"track": "toy", "defense": ["none"], "attack": ["ppa"], "store": tmp_path / "store"}
        return prepare(RunConfig(**{**given, **more}))

    return make


def stages(prepared: Prepared, *names: str) -> list[Stage]:
    todo, _ = prepared.pending
    return [stage for stage in todo if stage.name in names] if names else todo


def test_stages_that_need_each_other_are_not_computed_at_once(planned) -> None:
    one, several = planned(), planned(shards=5)
    assert most_at_once([]) == 0
    assert most_at_once(stages(one, "data", "train", "invert", "measure")) == 1
    assert most_at_once(stages(one)) == 4  # target, evaluation model, gallery, prior
    assert most_at_once(stages(several)) == 5  # the parts of the attack
    assert most_at_once(stages(several, "invert", "measure")) == 1


def test_on_a_cpu_each_process_has_the_threads_of_the_track(planned, machine) -> None:
    machine(cores=8)
    counts = {threads: planned(threads=threads, shards=9) for threads in (1, 2, 3, 16, None)}
    found = {
        threads: automatic_jobs("auto", prepared.setup.track, stages(prepared))
        for threads, prepared in counts.items()
    }
    assert found == {1: 8, 2: 4, 3: 2, 16: 1, None: 1}


def test_memory_and_what_can_be_computed_at_once_bound_the_processes(planned, machine) -> None:
    prepared = planned(shards=9)
    track, todo = prepared.setup.track, stages(prepared)
    for memory, expected in ((3 * PROCESS_MEMORY, 3), (1, 1), (None, 8)):
        machine(memory=memory)
        assert automatic_jobs("cpu", track, todo) == expected
    machine(cores=64)
    assert automatic_jobs("cpu", track, todo) == 9
    assert automatic_jobs("cpu", track, stages(prepared, "train")) == 1


def test_each_gpu_has_a_process(planned, machine) -> None:
    machine(gpus=2)
    for threads in (1, None):
        prepared = planned(threads=threads, shards=9)
        found = {
            device: automatic_jobs(device, prepared.setup.track, stages(prepared))
            for device in ("auto", "cuda", "cuda:1", "mps", "cpu")
        }
        assert found == {"auto": 2, "cuda": 2, "cuda:1": 1, "mps": 1, "cpu": 8 if threads else 1}


def test_one_process_that_is_enough_is_this_one(planned, machine) -> None:
    machine()
    display = ProgressDisplay()
    several, one = planned(shards=2), planned(threads=None)
    assert isinstance(several.setup.executor(display, stages(several)), ParallelExecutor)
    assert isinstance(one.setup.executor(display, stages(one)), LocalExecutor)
    single = planned(shards=2, jobs=1)
    assert isinstance(single.setup.executor(display, stages(single)), LocalExecutor)


def test_a_script_computes_in_its_own_process_unless_it_says_otherwise(
    planned, machine, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("MIA_BENCH_STORE", str(tmp_path / "store"))
    machine()
    planned(shards=2)  # the track has a thread
    monkeypatch.setattr(ParallelExecutor, "begin", lambda *_, **__: pytest.fail("another process"))
    given = {"track": "toy", "defense": "none", "attack": "prior-sample", "device": "cpu"}
    (record,) = mia_bench.run(**given)
    assert record.status == "done"
    mia_bench.load_data(track="toy")
    with pytest.raises(pytest.fail.Exception, match="another process"):
        mia_bench.run(**given, jobs="auto", rerun="always")


def test_what_a_container_may_use_is_read(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jobs, "_CGROUP", tmp_path)
    monkeypatch.setattr(jobs, "os", SimpleNamespace(cpu_count=lambda: 12))
    assert jobs.usable_cores() == 12
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert jobs.usable_cores() == 12
    unlimited = jobs.available_memory()
    (tmp_path / "cpu.max").write_text("350000 100000\n")
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert jobs.usable_cores() == 3
    assert jobs.available_memory() == 600_000
    # A job of a batch system is in a group of its own, whose limits are those of a folder below.
    (tmp_path / "own").write_text("0::/slurm/job_7\n")
    monkeypatch.setattr(jobs, "_OWN_GROUP", tmp_path / "own")
    job = tmp_path / "slurm" / "job_7"
    job.mkdir(parents=True)
    (job / "cpu.max").write_text("200000 100000\n")
    (job / "memory.max").write_text("500\n")
    (job / "memory.current").write_text("600\n")
    assert jobs.usable_cores() == 2
    assert jobs.available_memory() == 0
    assert unlimited is None or unlimited > 1_000_000


def test_the_number_or_auto_is_taken(cli, toy) -> None:
    assert RunConfig().jobs == "auto"
    assert RunConfig(jobs="3").jobs == 3
    for wrong in ("0", "automatic", "1.5"):
        result = cli("run", "--jobs", wrong)
        assert (result.code, result.err.count("jobs")) == (2, 1)
