"""What results are computed under: threads, the C library's allocator; and what records say of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import mia_bench
from mia_bench import allocator, jsonfile
from mia_bench.api.metric import Quantity
from mia_bench.device import capability, threads
from mia_bench.leaderboard.admit import doubts
from mia_bench.leaderboard.compare import from_baseline
from mia_bench.leaderboard.conditions import conditions
from mia_bench.leaderboard.tables import Table, class_table, common
from mia_bench.record import Record
from mia_bench.store import Store
from mia_bench.track import Track
from test_leaderboard import make_record

pytestmark = pytest.mark.slow

SHARED = ("data", "prior", "gallery", "evaluator")


def run(folder: Path, **more) -> Record:
    given = {"track": "toy", "defense": "none", "attack": "prior-sample", "device": "cpu", "store": folder}
    (record,) = mia_bench.run(**given, **more)
    assert record.status == "done", record.reason
    return record


@pytest.fixture
def one_thread(toy, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy track, computed with one thread, where everything else would be with three."""
    validate = Track.model_validate
    monkeypatch.setattr(Track, "model_validate", lambda found: validate({**found, "threads": 1}))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with threads(3):
        yield


# --- threads -------------------------------------------------------------------------------------


def test_the_number_of_threads_holds_within_the_block() -> None:
    before = torch.get_num_threads()
    for inside in (before + 1, before):
        with threads(inside):
            assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == before
    with threads(None):
        assert torch.get_num_threads() == before


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_stage_computes_with_the_threads_of_the_track(one_thread, tmp_path, jobs: int) -> None:
    record = run(tmp_path / "store", jobs=jobs)
    assert record.provenance.threads == 1
    assert record.provenance.device == "cpu (1 thread)"
    assert record.provenance.capability == capability(torch.device("cpu"))
    store = Store(tmp_path / "store")
    runs = [meta["info"]["run"] for name in (*SHARED, "train", "measure") for meta in store.metas(name)]
    assert [found["threads"] for found in runs] == [1] * 6
    assert torch.get_num_threads() == 3


def test_sums_are_the_same_with_the_same_threads_whatever_the_environment_says() -> None:
    script = (
        "import hashlib, torch; from mia_bench.device import threads\n"
        "torch.manual_seed(0); x, w = torch.randn(64, 3, 32, 32), torch.randn(32, 3, 3, 3)\n"
        "with threads(1): y = torch.nn.functional.conv2d(x, w).relu().sum((0, 2, 3)) @ torch.randn(32, 500)\n"
        "print(hashlib.sha256(y.numpy().tobytes()).hexdigest())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "OMP_NUM_THREADS": str(count)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for count in (1, 2)
    }
    assert len(answers) == 1


def test_stages_of_several_conditions_leave_the_threads_open(toy, store, tmp_path) -> None:
    folder = store(*SHARED, "train", "assess")
    for path in folder.glob("artifacts/train/*/meta.json"):
        meta = json.loads(path.read_text())
        meta["info"]["run"] |= {"threads": 5, "capability": "OTHER"}
        path.write_text(jsonfile.file_text(jsonfile.seal(meta)))
    found = run(folder).provenance
    assert found.threads is None
    assert found.capability == f"{capability(torch.device('cpu'))}, OTHER"


def test_a_record_of_before_there_were_conditions_has_none(undisturbed) -> None:
    data = next(iter(undisturbed.records.values()))
    del data["provenance"]["threads"], data["provenance"]["capability"], data["sha256"]
    found = Record.model_validate(data).provenance
    assert (found.threads, found.capability) == (None, None)


def test_the_capability_of_what_computes_is_known(monkeypatch) -> None:
    assert capability(torch.device("cpu"))
    assert capability(torch.device("meta")) is None
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert capability(torch.device("cpu")).endswith(" ONEDNN_MAX_CPU_ISA=AVX2")


# --- the allocator -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "theirs"),
    [
        ({}, False),
        ({"MALLOC_TRIM_THRESHOLD_": "0"}, True),
        ({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}, True),
        ({"LD_PRELOAD": "/usr/lib/libfoo.so"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1"}, True),
    ],
)
def test_the_allocator_of_the_user_wins(environment: dict[str, str], theirs: bool) -> None:
    assert allocator.is_users(environment) is theirs


FAULTS = """
import resource, torch
from mia_bench.allocator import kept_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16_000_000)  # 64 MB: glibc itself comes to keep smaller ones
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with kept_memory():
    print(min(faults() for _ in range(6)))  # at first the heap grows
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_memory_is_kept_while_a_stage_computes_unless_the_user_says_otherwise() -> None:
    def faults(**more: str) -> int:
        environment = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC", "LD_"))}
        command = [sys.executable, "-c", FAULTS]
        done = subprocess.run(
            command, env={**environment, **more}, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    if allocator._glibc() is None:
        pytest.skip("no glibc")
    assert faults() < 1000
    assert faults(MALLOC_ARENA_TEST="8") > 10_000


# --- boards --------------------------------------------------------------------------------------


def recorded(defense: str, seed: int, **provenance: object) -> Record:
    """A finished cell under some conditions."""
    made = make_record(defense, seed)
    made["provenance"] = {**made["provenance"], "device": "cpu (1 thread)", **provenance}
    return Record.model_validate(made)


def test_conditions_are_the_kind_of_device_its_threads_and_its_capability() -> None:
    cpu = recorded("plain", 0, threads=1, capability="AVX512")
    assert str(conditions(cpu)) == "cpu, 1 thread, AVX512"
    gpus = recorded("plain", 0, device="cuda:0: a GPU, compiled", threads=None, capability="9.0")
    assert str(conditions(gpus)) == "cuda, 9.0"
    assert conditions(gpus) == conditions(recorded("guard", 1, device="cuda:1: a GPU", capability="9.0"))
    mixed = recorded("plain", 0, device="cuda:0: a GPU, cpu (1 thread)", capability="9.0, AVX2")
    assert str(conditions(mixed)) == "cpu and cuda, 9.0 and AVX2"
    assert str(conditions(recorded("plain", 0, device=None))) == "unknown"


def test_only_results_of_the_same_conditions_are_paired_and_only_those_of_one_device_compared() -> None:
    same = {"threads": 1, "capability": "AVX2"}
    base = [recorded("plain", seed, **same) for seed in range(4)]
    others = ({}, {"threads": 2}, {"capability": "AVX512"}, {"device": "cuda:0: a GPU"})
    guard = [recorded("guard", seed, **same | other) for seed, other in enumerate(others)]
    share = Quantity("", kind="share")
    (found,) = from_baseline("id_gallery_acc1", share, [guard], base)
    assert (found.seeds, found.paired) == ((0, 1, 2), False)
    (found,) = from_baseline("id_gallery_acc1", share, [[*guard[:1], recorded("guard", 1, **same)]], base)
    assert (found.seeds, found.paired) == ((0, 1), True)
    assert from_baseline("id_gallery_acc1", share, [guard[3:]], base) == [None]
    assert doubts([*base, *guard]) == []  # a board may have them


def test_rows_of_other_threads_or_instructions_are_compared_and_not_paired() -> None:
    def table(**other: object) -> Table:
        same = {"threads": 1, "capability": "AVX2"}
        found = class_table("id_gallery_acc1", [recorded("plain", seed, **same | other) for seed in range(3)])
        assert found is not None
        return found

    base = table()
    for other in ({"threads": 2}, {"capability": "AVX512"}):
        assert table(**other).minus(base) is None
        beside = table(**other).minus(base, beside=True)
        assert beside is not None
        assert (beside.seeds, beside.paired) == ((0, 1, 2), False)
    assert table(device="cuda:0: a GPU").minus(base, beside=True) is None
    alike = table().minus(base, beside=True)
    assert alike is not None
    assert alike.paired
    for unlike, expected in ((1, ((1, 2), True)), (2, ((0, 1, 2), False))):
        # Two seeds are enough to be paired; one would say nothing of another training.
        records = [
            recorded("plain", s, threads=1, capability="AVX512" if s < unlike else "AVX2") for s in range(3)
        ]
        mixed = class_table("id_gallery_acc1", records)
        assert mixed is not None
        assert common(mixed, base, beside=True) == expected
        assert common(mixed, base, beside=False) == (tuple(range(unlike, 3)), True)


@pytest.mark.parametrize(
    ("device", "said", "expected"),
    [
        ("cpu (1 thread)", None, 1),
        ("cpu (12 threads)", None, 12),
        ("cpu (1 thread), cuda:0: a GPU", None, 0),
        ("cpu (2 threads)", 1, 1),
        (None, None, 0),
    ],
)
def test_threads_that_no_record_says_are_those_of_its_device(
    device: str | None, said: int | None, expected: int
) -> None:
    made = make_record("plain")
    made["provenance"] |= {"device": device, "threads": said}
    made.pop("sha256", None)
    assert conditions(Record.model_validate(made)).threads == expected
