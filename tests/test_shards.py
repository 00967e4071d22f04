"""Attacks in parts: dealt out by class, computed one by one, and joined again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mia_bench
from mia_bench.cell import FinishedCell
from mia_bench.config import RunConfig
from mia_bench.engine import stages as stages_module
from mia_bench.engine.estimate import LOADED_SECONDS, estimates
from mia_bench.engine.plan import PlannedCell
from mia_bench.engine.run import prepare
from mia_bench.engine.scheduler import Interrupted
from mia_bench.protocol.attack import Budget, joined_notes
from mia_bench.record import Record
from mia_bench.store import Store
from mia_bench.track import Track
from mia_bench_plugins.attacks.ppa import PlugAndPlay

SHARED = ("data", "prior", "gallery", "evaluator")
TRAINED = (*SHARED, "train", "assess")


@pytest.fixture
def sharded(toy, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Give the toy track, which has six classes, a number of shards."""
    validate = Track.model_validate

    def use(count: int, **more: object) -> None:
        given = {"shards": count, **more}
        monkeypatch.setattr(Track, "model_validate", lambda found: validate({**found, **given}))

    return use


def plan(folder: Path, attack: str = "ppa") -> PlannedCell:
    (cell,) = prepare(RunConfig(track="toy", defense=["none"], attack=[attack], store=folder)).cells
    return cell


def run(folder: Path, attack: str = "ppa", **more) -> Record:
    given = {"track": "toy", "defense": "none", "attack": attack, "device": "cpu", "store": folder}
    (record,) = mia_bench.run(**given, **more)
    assert record.status == "done", record.reason
    return record


def images(folder: Path, record: Record) -> torch.Tensor:
    return torch.from_numpy(FinishedCell(record, Store(folder)).arrays()["reconstructions"])


def test_classes_are_dealt_out_in_contiguous_even_parts() -> None:
    attack = PlugAndPlay()
    parts = Budget(2, attacked_classes=7, shards=3).parts(attack, 10)
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [len(part) for part in Budget(2, shards=4).parts(attack, 3)] == [1, 1, 1, 0]
    assert [part.tolist() for part in Budget(2).parts(attack, 3)] == [[0, 1, 2]]


def test_an_attack_that_needs_all_classes_together_is_not_shared_out(sharded, monkeypatch, tmp_path) -> None:
    sharded(3)
    assert len(plan(tmp_path).measure.inputs["invert"].shards) == 3
    monkeypatch.setattr(PlugAndPlay, "by_class", False)
    assert plan(tmp_path).measure.inputs["invert"].shards == []
    assert [len(part) for part in Budget(2, shards=3).parts(PlugAndPlay(), 6)] == [6]


def test_one_shard_changes_no_key_and_more_are_another_protocol(sharded, tmp_path) -> None:
    sharded(1)
    whole = plan(tmp_path, "toy-prepared")
    assert {stage.name for stage in whole.measure.upstream()} >= {"prepare", "invert"}
    assert not whole.measure.inputs["invert"].shards
    sharded(3)
    shared_out = plan(tmp_path, "toy-prepared")
    assert shared_out.protocol != whole.protocol
    keys, others = ({stage.id for stage in cell.measure.upstream()} for cell in (whole, shared_out))
    assert {name for name, _ in keys - others} == {"invert", "measure"}
    assert {name for name, _ in others - keys} == {"shard", "invert", "measure"}


@pytest.mark.parametrize("attack", ["ppa", "toy-prepared"])
def test_parts_are_joined_in_the_order_of_the_classes(sharded, store, tmp_path, attack: str) -> None:
    sharded(4)
    folder = store(*TRAINED)
    record = run(folder, attack)
    stored = Store(folder)
    invert = plan(folder, attack).measure.inputs["invert"]
    parts = [stored.tensors(*shard.id) for shard in invert.shards]
    assert [len(part["images"]) for part in parts] == [2, 2, 1, 1]
    assert images(folder, record).equal(torch.cat([part["images"] for part in parts]))
    infos = [stored.info(*shard.id) for shard in invert.shards]
    prepare = invert.attacks[0].inputs.get("prepare")
    before = stored.info(*prepare.id) if prepare else {"queries": 0, "run": {"seconds": 0.0}}
    seconds = before["run"]["seconds"] + sum(info["run"]["seconds"] for info in infos)
    assert record.cost.invert_seconds == round(seconds, 2)
    assert record.cost.peak_memory_bytes >= max(info["run"]["peak_memory"] for info in infos)
    assert record.cost.target_queries == before["queries"] + sum(info["queries"] for info in infos)


def test_a_part_meets_the_candidates_that_the_whole_would(sharded, store, tmp_path) -> None:
    folder, found = store(*TRAINED), []
    for count in (1, 6):
        sharded(count)
        found.append(images(folder, run(folder, options=["ppa.steps=0"])))
    whole, parts = found
    assert (whole.int() - parts.int()).abs().max() <= 1


def test_more_parts_than_classes_leave_some_empty(sharded, store, tmp_path) -> None:
    sharded(8)
    folder = store(*TRAINED)
    record = run(folder, "prior-sample")
    assert len(images(folder, record)) == 6


def test_a_stopped_attack_goes_on_with_the_part_it_was_at(sharded, store, monkeypatch, tmp_path) -> None:
    sharded(3)
    folder, begun = store(*TRAINED), []
    compute = stages_module.COMPUTE["shard"]

    def stopping(stage, workspace):
        begun.append(stage.spec["shard"])
        if len(begun) == 2:
            raise KeyboardInterrupt
        return compute(stage, workspace)

    monkeypatch.setitem(stages_module.COMPUTE, "shard", stopping)
    with pytest.raises(Interrupted):
        run(folder)
    run(folder)
    assert begun == [1, 2, 2, 3]


def test_a_model_evaluated_here_gets_the_images_of_a_run(sharded, store, tmp_path) -> None:
    sharded(4)
    folder = store(*TRAINED)
    record = run(folder, "toy-prepared")
    train = plan(folder).measure.inputs["train"]
    weights = folder / "artifacts" / "train" / train.key / "tensors.safetensors"
    found = mia_bench.evaluate(weights, track="toy", attack="toy-prepared", device="cpu", store=folder)
    assert found.reconstructions.equal(images(folder, record))
    assert found.queries == record.cost.target_queries
    assert {name: value and vars(value) for name, value in found.metrics.items()} == json.loads(
        json.dumps({name: value and value.model_dump() for name, value in record.metrics.items()})
    )


@pytest.mark.slow
def test_it_does_not_matter_how_many_processes_compute_the_parts(sharded, store, tmp_path) -> None:
    sharded(4)
    folder = store(*TRAINED)
    shutil.copytree(folder, tmp_path / "other")
    one, several = run(folder), run(tmp_path / "other", jobs=3)
    assert images(folder, one).equal(images(tmp_path / "other", several))
    assert one.metrics == several.metrics


def test_a_part_takes_its_share_of_the_time(sharded, tmp_path) -> None:
    sharded(4, seconds={"invert.ppa": 80})
    invert = plan(tmp_path / "store").measure.inputs["invert"]
    store = Store(tmp_path / "store")
    found = estimates(store, [*invert.shards, invert])
    assert [one.seconds for one in found.values()] == [20, 20, 20, 20, LOADED_SECONDS]
    first, second = invert.shards[:2]
    run = {"track": "toy", "subject": "ppa", "settings": first.settings_hash}
    store.save(*first.id, {}, {"run": {**run, "seconds": 12.0}})
    joined = {"seconds": 0.1, "track": "toy", "subject": "ppa", "settings": invert.settings_hash}
    store.save(*invert.id, {}, {"run": joined, "shards": {"seconds": 48.0, "peak_memory": 1}})
    found = estimates(store, [second, invert])
    assert [one.seconds for one in found.values()] == [12, LOADED_SECONDS]


def test_notes_of_the_parts_are_told_once() -> None:
    notes = [{"invert": "halved to 8"}, {"invert": "halved to 8"}, {"invert": "halved to 4", "other": "x"}]
    assert joined_notes(notes) == {"invert": "halved to 8; halved to 4", "other": "x"}
