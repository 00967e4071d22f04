"""Results as a data frame and as text."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mia_bench import load_results, plugins, results
from mia_bench.errors import UsageError
from mia_bench.record import read_record
from mia_bench.recorded_options import options_text
from mia_bench.results import ONE_SEED, results_table
from mia_bench.store import Store
from stored import without_hash, write_json
from test_leaderboard import make_record, make_registry, metric, read


@pytest.fixture(autouse=True)
def made_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The made track and its plugins instead of the installed ones."""
    host = plugins.Host(())
    host.registry = make_registry(tmp_path)
    monkeypatch.setattr(results, "host", lambda: host)


@pytest.fixture
def some() -> list[dict[str, Any]]:
    return [
        make_record("plain", 0, gallery=0.46),
        make_record("guard", 1, gallery=None),
        make_record("guard", 2, options={"alpha": 0.25}, status="failed", reason="boom\nat", metrics={},
                    cost={}),
    ]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path, some: list[dict[str, Any]]) -> Path:
    made = Store(tmp_path / "made-store")
    for record in some:
        write_json(made, record)
    return made.root


def test_one_row_a_record_with_its_metrics_and_intervals(store: Path) -> None:
    frame = load_results(store).set_index("seed")
    assert list(frame.columns[:6]) == [
        "track",
        "track_version",
        "variant",
        "defense",
        "defense_options",
        "prior",
    ]
    assert list(frame.columns[-4:]) == [
        "train_seconds",
        "invert_seconds",
        "peak_memory_bytes",
        "target_queries",
    ]
    assert frame.loc[0, "id_gallery_acc1"] == pytest.approx(0.46)
    assert frame.loc[0, "id_gallery_acc1_low"] == pytest.approx(0.36)
    assert frame.loc[0, "id_gallery_acc1_high"] == pytest.approx(0.56)
    assert frame["id_gallery_acc1"].dtype == "float64"
    assert pd.isna(frame.loc[1, "id_gallery_acc1"])  # null is never 0
    assert pd.isna(frame.loc[2, "test_accuracy"])
    assert pd.isna(frame.loc[2, "target_queries"])
    assert frame.loc[1, "defense_options"] == "alpha=0.5, widths=[1, 2]"
    assert frame.loc[2, "reason"] == "boom\nat"
    assert frame["attack_acc5"].isna().all()


def test_quantities_stand_in_the_order_of_the_tracks_metrics(some: list[dict[str, Any]]) -> None:
    some[0]["metrics"]["unknown"] = some[0]["metrics"]["blurriness"]
    header = results_table(read(*some), "csv").splitlines()[0].split(",")
    shown = [name for name in header if f"{name}_low" in header]
    assert shown[:2] == ["test_accuracy", "attack_acc1"]
    assert shown[-2:] == ["verification_accuracy", "unknown"]


def test_no_records_are_an_empty_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIA_BENCH_STORE", str(tmp_path / "not-yet"))
    frame = load_results()
    assert frame.empty
    assert "defense" in frame.columns
    assert not (tmp_path / "not-yet").exists()


def test_a_wrong_store_or_track_is_an_error(tmp_path: Path, store: Path) -> None:
    with pytest.raises(UsageError, match="no store"):
        load_results(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="did you mean 'little'"):
        load_results(store, track="litle")
    assert len(load_results(store, track="little")) == 3


def test_a_quantity_without_an_interval_is_a_value_alone(tmp_path: Path) -> None:
    older, newer = make_record(), make_record(seed=1)
    older["metrics"]["miscalibration"] = metric(0.25, 0.125)
    newer["metrics"]["miscalibration"] = {"value": 0.5, "low": None, "high": None, "n": 10}
    store = Store(tmp_path / "made-store")
    for record in (older, newer):
        write_json(store, record)
    frame = load_results(store.root).set_index("seed")
    assert frame["miscalibration"].tolist() == [0.25, 0.5]
    assert frame[["miscalibration_low", "miscalibration_high"]].isna().all(axis=None)
    for record in (older, newer):
        record["track"] |= {"version": 99}
    lines = results_table(read(older, newer)).splitlines()
    # It is paired, so it is shown where nothing is known of the track.
    assert lines[0].split()[6:8] == ["test_accuracy", "miscalibration"]
    assert [line.split("]")[1].split()[0] for line in lines[2:4]] == ["0.25", "0.50"]


def test_the_table_shows_what_orders_the_rows_of_the_board(some: list[dict[str, Any]]) -> None:
    shown = results_table(read(*some)).split("\n")[0].split()
    assert shown[6:-1] == ["test_accuracy", "attack_acc1", "id_gallery_acc1"]
    unknown = [{**record, "track": {**record["track"], "version": 99}} for record in some]
    assert "id_gallery_acc1" in results_table(read(*unknown)).split("\n")[0]


def test_the_table_shows_the_ceiling_beside_the_number(some: list[dict[str, Any]]) -> None:
    lines = results_table(read(*some)).splitlines()
    assert "0.46 [0.36, 0.56] (ceiling 0.97)" in lines[2]
    assert "0.90 [0.80, 1.00]  " in lines[2]  # no ceiling was declared


def test_an_unfit_judge_is_a_line_once(cli: Callable[..., Any], tmp_path: Path) -> None:
    unfit = [make_record(seed=seed) for seed in range(2)]
    for record in unfit:
        record["metrics"]["verification_accuracy"] = metric(0.64, 0.05)
        record["notes"]["gallery"] = "6 decoys, fewer than 100: few"
    assert results.doubts(read(make_record(seed=2))) == []
    low, few = results.doubts(read(*unfit, make_record(seed=2)))
    assert low.startswith("verification_accuracy is 0.640, below 0.900: ")
    assert few == "6 decoys, fewer than 100: few"
    other = {**unfit[0], "track": {**unfit[0]["track"], "name": "other"}}
    assert [line.split(":")[0] for line in results.doubts(read(*unfit, other))] == ["little"] * 2 + [
        "other"
    ] * 2
    store = Store(tmp_path / "made-store")
    for record in unfit:
        write_json(store, record)
    outcome = cli("results", "--store", store.root)
    assert outcome.err.splitlines() == [f"warning: {low}", f"warning: {few}"]
    assert cli("results", "--store", store.root, "--format", "json").err == ""


def test_json_is_the_records_themselves(some: list[dict[str, Any]]) -> None:
    checked = [read_record(record) for record in some]
    text = results_table(checked, "json")
    found = json.loads(text)
    assert [without_hash(one) for one in found] == [r.model_dump(mode="json", by_alias=True) for r in checked]
    assert [read_record(r) for r in json.loads(text)] == checked
    assert [without_hash(json.loads(record.file_text())) for record in checked] == some


def test_csv_has_the_columns_of_the_frame(store: Path, some: list[dict[str, Any]]) -> None:
    rows = list(csv.DictReader(results_table(read(*some), "csv").splitlines(keepends=True)))
    frame = load_results(store)
    assert len(rows) == 3
    assert list(rows[0]) == list(frame.columns)
    assert float(rows[0]["id_gallery_acc1"]) == some[0]["metrics"]["id_gallery_acc1"]["value"]
    assert rows[1]["id_gallery_acc1"] == ""
    assert rows[2]["reason"] == "boom\nat"


def test_the_table_shows_what_differs_from_the_track(some: list[dict[str, Any]]) -> None:
    text = results_table(read(*some), "table")
    lines = text.splitlines()
    assert lines[5:] == ["", ONE_SEED]
    assert some[0]["key"][:8] in lines[2]
    assert "0.46 [0.36, 0.56]" in lines[2]
    assert "alpha" not in lines[3]  # the track's own value
    assert "–" in lines[3]
    assert "guard (alpha=0.25)" in lines[4]
    assert lines[4].endswith("boom at")


def test_all_options_are_shown_when_the_track_has_changed() -> None:
    old = make_record("guard", track={"name": "little", "version": 1, "data": "fp"})
    gone = make_record("foreign", options={"strength": 3})
    text = results_table(read(old, gone))
    assert "guard (alpha=0.5, widths=[1, 2])" in text
    assert "foreign (strength=3)" in text


def test_several_tracks_have_a_column() -> None:
    other = make_record(track={"name": "big", "version": 1, "data": ""})
    assert "track" not in results_table(read(make_record())).splitlines()[0]
    assert "track" in results_table(read(make_record(), other)).splitlines()[0]


def test_versions_of_a_track_are_told_apart() -> None:
    older = make_record(track={"name": "little", "version": 1, "data": ""}, seed=0)
    newer = make_record(track={"name": "little", "version": 2, "data": ""}, seed=0)
    text = results_table(read(older, newer))
    assert "little, version 1" in text
    assert "little, version 2" in text
    assert "version" not in results_table(read(older))


def test_a_markdown_table_survives_pipes() -> None:
    failed = make_record(status="failed", reason="a | b", metrics={}, cost={})
    assert "a \\| b" in results_table(read(failed), "markdown")
    assert ONE_SEED not in results_table(read(failed))  # which has no interval
    assert results_table(read(make_record()), "markdown").endswith(f"|\n\n{ONE_SEED}")
    assert results_table(read(failed), "markdown").splitlines()[1].startswith("|--")


def test_an_unknown_format_is_one_line() -> None:
    with pytest.raises(UsageError, match="did you mean 'table'"):
        results_table([], "tabel")


def test_options_in_words() -> None:
    options = {"loss": "poincare", "crop": [0.9, 1.0], "mirror": True, "limit": None}
    assert options_text(options) == "crop=[0.9, 1.0], limit=null, loss=poincare, mirror=true"


def test_the_command(cli: Callable[..., Any], store: Path, some: list[dict[str, Any]]) -> None:
    outcome = cli("results", "--store", store, "--format", "json")
    assert outcome.code == 0
    assert {record["key"] for record in outcome.records} == {record["key"] for record in some}
    assert outcome.records[2]["cost"]["train_seconds"] is None
    assert "guard (alpha=0.25)" in cli("results", "--store", store, "--track", "little").out
    assert cli("results", "--store", store, "--track", "big").code == 2


def test_the_command_without_records(cli: Callable[..., Any]) -> None:
    outcome = cli("results")
    assert (outcome.code, outcome.out) == (0, "")
    assert "no records" in outcome.err
    assert json.loads(cli("results", "--format", "json").out) == []
