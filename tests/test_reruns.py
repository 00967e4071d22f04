"""Cells of a board run again: which are chosen, and what counts as the same numbers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mia_bench.config import load_config
from mia_bench.engine.rerun import prepare_again, run_again
from mia_bench.engine.run import prepare
from mia_bench.errors import MiaBenchError, Unavailable
from mia_bench.leaderboard.reruns import SPREAD, allowed, far, half_widths, moved, sample, under
from mia_bench.record import MetricValue, Record, read_record
from mia_bench.track import Track
from mia_bench.upkeep.planning import Planner
from mia_bench_plugins.encoders.synth_encoder import SynthEncoder
from stored import record_text, without_hash
from test_leaderboard import make_record, read

SHARED = ("data", "prior", "gallery", "evaluator")


def test_cells_of_all_attacks_and_defenses_are_chosen() -> None:
    grid = [
        make_record(defense, seed, attack)
        for defense in ("plain", "guard", "veil")
        for attack in ("aim", "shot")
        for seed in range(5)
    ]
    failed = make_record("plain", 9) | {"status": "failed", "reason": "x", "metrics": {}, "per_class": {}}
    records = read(*grid, failed)
    for seed in range(3):
        chosen = sample(records, 6, seed)
        assert Counter(record.defense.name for record in chosen) == dict.fromkeys(
            ("plain", "guard", "veil"), 2
        )
        assert Counter(record.attack.name for record in chosen) == {"aim": 3, "shot": 3}
        assert chosen == sample(records[::-1], 6, seed)
        assert all(record.status == "done" for record in chosen)
    assert sample(records, 6, 0) != sample(records, 6, 1)
    assert len(sample(records, 99, 0)) == len(grid)


def test_the_same_conditions_allow_rounding_and_others_the_measured_spread() -> None:
    value = MetricValue(value=0.5, low=0.4, high=0.7, n=100)
    assert allowed(value, same=True) == pytest.approx(1e-9)
    assert allowed(value, same=False) == pytest.approx(SPREAD * 0.15)
    exact = MetricValue(value=1.0, low=1.0, high=1.0, n=100)
    assert allowed(exact, same=False) == pytest.approx(SPREAD * 0.005)  # half a sample
    assert allowed(MetricValue(value=1.0, low=None, high=None, n=1), same=False) is None


def with_value(record: Record, name: str, value: float | None, **provenance: object) -> Record:
    data = record.model_dump(mode="json", by_alias=True)
    data["metrics"][name] = None if value is None else {"value": value, "low": None, "high": None, "n": 9}
    data["provenance"] |= provenance
    return read_record(data)


def test_numbers_that_moved_too_far_are_named() -> None:
    (made,) = read(make_record())
    value = made.metrics["test_accuracy"].value
    published = with_value(made, "test_accuracy", value, processor="Maker 6-1-1")
    published.metrics["test_accuracy"] = made.metrics["test_accuracy"]
    assert moved(published, published) == []
    (one,) = moved(published, with_value(published, "test_accuracy", 0.8001))
    assert str(one) == "test_accuracy is 0.8001, published is 0.8 (may differ by 1e-09)"
    for unlike in ({"processor": "Maker 6-2-1"}, {"processor": None}):
        assert moved(published, with_value(published, "test_accuracy", 0.8001, **unlike)) == []
    elsewhere = {"threads": 2}
    assert moved(published, with_value(published, "test_accuracy", 0.8001, **elsewhere)) == []
    (wrong,) = moved(published, with_value(published, "test_accuracy", 0.1, **elsewhere))
    assert wrong.name == "test_accuracy"
    (gone,) = moved(published, with_value(published, "attack_acc1", None))
    assert str(gone).startswith("attack_acc1 is null, published is 0.9")
    (new,) = moved(published, with_value(published, "attack_acc5", 0.5))
    assert (new.published, new.again) == (None, 0.5)


def test_means_of_classes_that_moved_are_named_where_conditions_are_the_same() -> None:
    (published,) = read(make_record(gallery=0.5))
    again = published.model_copy(deep=True)
    again.per_class["id_gallery_acc1"].reverse()
    for record in (published, again):
        record.provenance.processor = "Maker 6-1-1"
    (one,) = moved(published, again)
    assert str(one).startswith("id_gallery_acc1 of class 0 is 0.6, published is 0.4")
    again.provenance.processor = "Maker 6-2-1"
    assert moved(published, again) == []


def test_how_far_numbers_of_other_conditions_are_is_told() -> None:
    (made,) = read(make_record())
    value = made.metrics["test_accuracy"].value
    published = with_value(made, "test_accuracy", value, processor="Maker 6-1-1")
    published.metrics["test_accuracy"] = MetricValue(value=0.8, low=0.7, high=0.9, n=100)
    published.metrics["attack_acc1"] = MetricValue(value=0.5, low=0.5, high=0.5, n=100)
    again = with_value(published, "test_accuracy", 0.83, processor="Maker 6-2-1")
    again.metrics["attack_acc1"] = None
    found = half_widths(published, again)
    assert found["test_accuracy"] == pytest.approx(0.3)
    assert "attack_acc1" not in found
    again = with_value(again, "attack_acc1", 0.52)
    assert half_widths(published, again)["attack_acc1"] == pytest.approx(4)  # of half a sample
    two = {"a": 0.3, "b": 0.0}, {"a": 0.4}
    assert far(two).startswith("0.29 half-widths of the published intervals away (root mean square), at most")
    assert far(two).endswith("0.40 (a)")
    assert far([{}]) == "no number with an interval"
    assert under(published, again).startswith("on another kind of processor")
    assert under(published, published).startswith("under the same conditions")
    assert ", published cpu" in under(published, with_value(made, "test_accuracy", value, threads=2))


@pytest.fixture
def board(toy, undisturbed, tmp_path: Path) -> Path:
    """A folder with the records of the undisturbed run."""
    folder = tmp_path / "boards"
    (folder / "results" / "toy").mkdir(parents=True)
    for key, made in undisturbed.records.items():
        record = {**made, "provenance": {**made["provenance"], "git": "abc"}}  # of no changed checkout
        (folder / "results" / "toy" / f"{key}.json").write_text(record_text(record))
    return folder


def test_a_cell_run_again_has_the_numbers_published(cli, board, store, tmp_path) -> None:
    assert cli("leaderboard", "build", "--folder", board).code == 0
    store(*SHARED)
    again = ("leaderboard", "check", "--folder", board, "--device", "cpu", "--store", tmp_path / "store")
    result = cli(*again, "--rerun", 1)
    assert result.code == 0, result.err + result.out
    assert len(result.out.splitlines()) == 1
    assert "under the same conditions (cpu, 1 thread" in result.out
    assert "the numbers published" in result.out


def test_how_far_cells_are_on_another_processor_is_told(cli, board, store, tmp_path) -> None:
    for path in (board / "results" / "toy").glob("*.json"):
        record = without_hash(json.loads(path.read_text()))
        record["provenance"]["processor"] = "Maker 1-2-3"
        path.write_text(record_text(record))
    cli("leaderboard", "build", "--folder", board)
    store(*SHARED)
    result = cli("leaderboard", "check", "--folder", board, "--device", "cpu", "--rerun", 2,
                 "--store", tmp_path / "store")  # fmt: skip
    assert result.code == 0, result.err + result.out
    *cells, every = result.out.splitlines()
    assert len(cells) == 2
    for line in cells:
        assert "on another kind of processor" in line
        assert "0.00 half-widths of the published intervals away (root mean square), at most 0.00" in line
    assert every.startswith("2 cells under other conditions: 0.00 half-widths")


def test_a_track_without_records_is_not_run_again(cli, board) -> None:
    result = cli("leaderboard", "check", "--folder", board, "--rerun", 1, "--track", "toi")
    assert (result.code, "has no records of 'toi'; did you mean 'toy'?" in result.err) == (2, True)


def test_another_number_or_another_cell_is_told(cli, board, store, tmp_path, undisturbed) -> None:
    path = min((board / "results" / "toy").glob("*.json"))
    record = json.loads(path.read_text())
    for other in (board / "results" / "toy").glob("*.json"):
        other.unlink()
    record["metrics"]["test_accuracy"] |= {"low": 0.0, "high": 1.0, "value": 0.123}
    record["per_class"].pop("test_accuracy", None)
    record["class_counts"].pop("test_accuracy", None)
    path.write_text(record_text(without_hash(record)))
    cli("leaderboard", "build", "--folder", board)
    store(*SHARED)
    result = cli("leaderboard", "check", "--folder", board, "--device", "cpu", "--rerun", 1,
                 "--store", tmp_path / "store")  # fmt: skip
    assert result.code == 1
    assert "published is 0.123 (may differ by 1e-09)" in result.out
    data = {**next(iter(undisturbed.records.values())), "key": "0" * 20}
    moved_on = read_record(without_hash(data))
    with pytest.raises(MiaBenchError, match="it is another cell now"):
        run_again(moved_on, {"store": tmp_path / "store", "device": "cpu"})


def test_the_cell_of_a_record_on_changed_data_is_planned_again(toy, undisturbed, tmp_path) -> None:
    where = {"store": tmp_path / "store", "device": "cpu"}
    options = {"dataset:synth-faces.nuisance": "0.9"}
    cell = {"track": "toy", "defense": "none", "attack": "ppa"}
    (planned,) = prepare(load_config({**cell, **where, "options": options})).cells
    made = next(one for one in undisturbed.records.values() if one["defense"]["name"] == "none")
    changed = {**made, "key": planned.key, "track": {**made["track"], "data": planned.data_fingerprint}}
    record = read_record(without_hash(changed))
    assert record.key != made["key"]
    for again in (prepare_again(record, where).cells[0], Planner().cell(record)):
        assert again.key == record.key


def test_a_track_that_was_changed_without_a_new_version_is_found(
    toy, undisturbed, monkeypatch, cli, tmp_path: Path
) -> None:
    folder = tmp_path / "boards"
    assert cli("leaderboard", "submit", "--folder", folder, "--store", undisturbed.store).code == 0
    assert cli("leaderboard", "build", "--folder", folder).err == ""
    assert "new version" not in cli("leaderboard", "check", "--folder", folder).out
    record = read_record(next(iter(undisturbed.records.values())))
    validate = Track.model_validate

    def changed(**parts: Any) -> str | None:
        with monkeypatch.context() as patch:
            patch.setattr(Track, "model_validate", lambda data: validate({**data, **parts}))
            return Planner().changed_protocol(record)

    assert changed() == changed(summary="other words") == ""
    assert "changed without a new version" in (changed(images_per_class=5) or "")
    assert changed(images_per_class=5, version=99) is None
    assert Planner().changed_protocol(record.model_copy(update={"track": other_data(record)})) is None
    with monkeypatch.context() as patch:
        patch.setattr(SynthEncoder, "fingerprint", no_weights)
        without, *_ = prepare(load_config({"track": "toy", "attack": "ppa", "store": tmp_path / "s"})).cells
        assert Planner().changed_protocol(record) is None  # the weights are not here
    made = record.track.model_copy(update={"protocol": without.protocol})
    assert made.protocol != record.track.protocol
    assert Planner().changed_protocol(record.model_copy(update={"track": made})) == ""
    monkeypatch.setattr(Track, "model_validate", lambda data: validate({**data, "images_per_class": 5}))
    assert "changed without a new version" in cli("leaderboard", "build", "--folder", folder).err
    checked = cli("leaderboard", "check", "--folder", folder)
    assert (checked.code, "changed without a new version" in checked.out) == (1, True)


def no_weights(self: Any, root: Any) -> str:
    raise Unavailable("no weights")


def other_data(record: Record) -> Any:
    """What the record would say of its track with other data, which are not here."""
    return record.track.model_copy(update={"data": "0" * 12, "protocol": "1" * 12})
