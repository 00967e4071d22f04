"""The boards: what is refused, what the numbers are, and pages that follow from the records."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

import mia_bench.engine.run  # noqa: F401  (before a test replaces what it imports)
from mia_bench import Attack, AttackMetric, Defense, Prior, Quantity, TargetMetric
from mia_bench.components import parse_option_values
from mia_bench.config import flatten_options
from mia_bench.engine.grid import build_grid
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.leaderboard import admit, pages, records, tuning
from mia_bench.leaderboard.aggregate import Missing, combine
from mia_bench.leaderboard.board import build_board
from mia_bench.leaderboard.described import known_quantities
from mia_bench.leaderboard.overview import overviews
from mia_bench.leaderboard.records import read_file
from mia_bench.leaderboard.standings import standings
from mia_bench.leaderboard.submission import Submission
from mia_bench.leaderboard.submission import submit as submit_records
from mia_bench.leaderboard.tables import class_table
from mia_bench.record import About, ComponentRef, Record, read_record
from mia_bench.recorded_options import said_of_itself, usual_options
from mia_bench.registry import PluginInfo, Registry
from mia_bench.results import read_store
from mia_bench.statistics import (
    Estimate,
    below_median,
    bounded_interval,
    crossed_means,
    design_effect,
    median_interval,
    proportion_interval,
    weighted,
)
from mia_bench.store import Store
from mia_bench.strength import EQUAL
from mia_bench.track import Standard, StandardAttack, Track, load_track
from stored import record_text, write_json

TRACK = """
name = "little"
version = 2
summary = "a made track"
images_per_class = 3
metrics = ["cost", "leak"]
ranked_by = ["id_gallery_acc1", "id_acc1", "attack_acc1"]
default_prior = "faces"
[data]
resolution = 32
FINGERPRINT
dataset = { name = "drawn" }
[target]
architecture = { name = "net", options = { widths = [8, 16] } }
recipe = { epochs = 4, shift = 2, jitter = 0.1 }
[evaluation]
architecture = { name = "net" }
recipe = { epochs = 5 }
[encoder]
name = "eyes"
[defenses.guard]
alpha = 0.5
[attacks.aim]
prior = "faces"
options = { steps = 7 }
"""


class Plain(Defense):
    version = "1"
    baseline: ClassVar[bool] = True


class Guard(Defense):
    version = "1"

    class Options(Defense.Options):
        alpha: float = 0.1
        widths: tuple[int, ...] = (1, 2)


class Aim(Attack):
    version = "1"

    class Options(Attack.Options):
        steps: int = 1

    def invert(self, task: Any) -> Any:
        raise NotImplementedError


class Samples(Aim):
    version = "1"
    reference: ClassVar[str] = "floor"


class Faces(Prior):
    version = "1"

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def build(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


class CostMetric(TargetMetric):
    quantities: ClassVar[Any] = {
        "test_accuracy": Quantity("how often it is right", "higher", "share", "utility"),
        "validation_accuracy": Quantity("on validation images", "higher", "share", "selection"),
        "miscalibration": Quantity("biased", "lower", "share", "utility", paired=True, interval=False),
    }

    def compute(self, evidence: Any) -> Any:
        raise NotImplementedError


class LeakMetric(AttackMetric):
    quantities: ClassVar[Any] = {
        "attack_acc1": Quantity("", "lower", "share", "leakage", paired=True),
        "attack_acc5": Quantity("", "lower", "share", "leakage"),
        "id_acc1": Quantity("", "lower", "share", "leakage", paired=True),
        "id_gallery_acc1": Quantity(
            "", "lower", "share", "leakage", paired=True, ceiling="id_gallery_acc1_ceiling"
        ),
        "id_gallery_acc1_ceiling": Quantity("", "neutral", "share", "reference"),
        "id_median_rank": Quantity("", "higher", "rank", "leakage"),
        "blurriness": Quantity("", "higher"),
        "verification_accuracy": Quantity("pairs", "neutral", "share", "reference", unfit_below=0.9),
    }

    def compute(self, evidence: Any) -> Any:
        raise NotImplementedError


PARTS = {
    ("defense", "plain"): Plain,
    ("defense", "guard"): Guard,
    ("attack", "aim"): Aim,
    ("attack", "samples"): Samples,
    ("prior", "faces"): Faces,
    ("metric", "cost"): CostMetric,
    ("metric", "leak"): LeakMetric,
}


def submit(store: Store, track: str | None, folder: Path, registry: Registry, **how: Any) -> Submission:
    """Submit the records of a store, as the command does."""
    return submit_records(read_store(store.root, track, strict=True), folder, registry, **how)


def make_registry(folder: Path, fingerprint: str = "") -> Registry:
    registry = Registry()
    owner = PluginInfo("made", "made-dist", "1", "made")
    for (kind, name), component in PARTS.items():
        registry.add(kind, name, component, "", owner)
    path = folder / "little.toml"
    line = f'fingerprint = "{fingerprint}"' if fingerprint else ""
    path.write_text(TRACK.replace("FINGERPRINT", line))
    registry.add("track", "little", path, "", owner)
    return registry


def part(name: str, version: str = "1", **options: Any) -> dict[str, Any]:
    return {"name": name, "distribution": "made-dist", "version": version, "options": options}


def metric(value: float, half: float = 0.1, n: int = 10) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": n}


PROVENANCE = {
    "mia_bench": "0.1.0",
    "git": "abc",
    "python": "3.12.1",
    "torch": "2.11.0",
    "device": "cpu",
    "platform": "Linux x86_64, 2 cores",
    "started": "2026-01-01T00:00:00+00:00",
    "finished": "2026-01-01T01:00:00+00:00",
}


def two_classes(gallery: float) -> dict[str, list[float]]:
    """Means of two classes around the value."""
    apart = min(0.1, gallery, 1 - gallery)
    return {"id_gallery_acc1": [gallery - apart, gallery + apart]}


def make_record(
    defense: str = "plain",
    seed: int = 0,
    attack: str = "aim",
    *,
    gallery: float | None = 0.5,
    accuracy: float = 0.8,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A finished cell; ``changes`` replace whole parts of the record."""
    options = ({"alpha": 0.5, "widths": [1, 2]} if defense == "guard" else {}) | (options or {})
    parts = {
        "track": {"name": "little", "version": 2, "data": "fp", "protocol": "p1"},
        "defense": part(defense, **options),
        "prior": part("faces"),
        "attack": part(attack, steps=7),
        "seed": seed,
    }
    key = f"{random.Random(json.dumps(parts, sort_keys=True)).getrandbits(80):020x}"
    return {
        "schema": 1,
        "key": key,
        **parts,
        "status": "done",
        "reason": None,
        "metrics": {
            "test_accuracy": metric(accuracy),
            "attack_acc1": metric(0.9),
            "attack_acc5": None,
            "id_gallery_acc1": None if gallery is None else metric(gallery),
            "id_gallery_acc1_ceiling": metric(0.97, 0.01),
            "id_median_rank": metric(1.5, 2),
            "blurriness": metric(12.5),
            "verification_accuracy": metric(0.99, 0.005),
        },
        "per_class": {} if gallery is None or "metrics" in changes else two_classes(gallery),
        "cost": {
            "train_seconds": 10.0 + seed,
            "invert_seconds": 5.0,
            "peak_memory_bytes": 1,
            "target_queries": 100,
        },
        "provenance": {
            **PROVENANCE,
            "started": f"2026-01-0{seed + 1}T00:00:00+00:00",
            "finished": f"2026-01-0{seed + 1}T01:00:00+00:00",
        },
        "notes": {"attack_acc5": "5 classes only", "id_gallery_acc1": "no weights"},
        **changes,
    }


def read(*made: dict[str, Any]) -> list[Record]:
    return [read_record(record) for record in made]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


@pytest.fixture
def track(registry: Registry) -> Track:
    return load_track(registry, "little")


@pytest.fixture
def some() -> list[dict[str, Any]]:
    """Three seeds of two defenses under two attacks."""
    return [
        make_record(defense, seed, attack, gallery=level + seed * step)
        for defense, level, step in (("plain", 0.6, 0.05), ("guard", 0.4, 0.01))
        for seed in range(3)
        for attack in ("aim", "samples")
    ]


@pytest.fixture
def folder(tmp_path: Path, registry: Registry, some: list[dict[str, Any]]) -> Path:
    """A folder of boards with records."""
    store = Store(tmp_path / "made-store")
    for record in some:
        write_json(store, record)
    target = tmp_path / "leaderboards"
    (tmp_path / "pyproject.toml").touch()  # the track and the boards are of one checkout
    assert len(submit(store, None, target, registry).written) == len(some)
    return target


# --- numbers ---------------------------------------------------------------------------------


def test_seeds_are_combined_and_cut_at_the_values_a_metric_can_have(registry: Registry, track: Track) -> None:
    seeds = enumerate((0.8, 0.9, 1.0))
    made = [make_record("plain", seed, gallery=value, per_class={}) for seed, value in seeds]
    [section] = build_board(registry, track, read(*made)).sections
    [row] = section.rows
    shown = row.metrics["id_gallery_acc1"]
    # Mean .9; spread t(2) · .1 / √3; half-width of every bootstrap .1; both in quadrature.
    half = math.hypot(4.30265273 * 0.1 / math.sqrt(3), 0.1)
    assert isinstance(shown, Estimate)
    assert shown.value == pytest.approx(0.9)
    assert shown.low == pytest.approx(0.9 - half)
    assert shown.high == 1.0  # .9 + half is more than a share can be
    assert shown.n == 30
    rank = row.metrics["id_median_rank"]
    assert isinstance(rank, Estimate)
    assert (rank.low, rank.high) == (1.0, 3.5)
    blurriness = row.metrics["blurriness"]
    assert isinstance(blurriness, Estimate)
    assert blurriness.high == pytest.approx(12.6)
    assert row.cost == {"train_seconds": 11.0, "invert_seconds": 5.0, "target_queries": 100.0}


def test_a_quantity_without_an_interval_has_none_on_the_page_whatever_the_records_hold(
    registry: Registry, track: Track
) -> None:
    made = []
    for seed, ends in enumerate([(0.02, 0.2), (None, None), (0.03, 0.3)]):
        found = make_record(seed=seed)
        biased = {"value": 0.05 + seed / 100, "low": ends[0], "high": ends[1], "n": 10}
        found["metrics"]["miscalibration"] = biased
        made += [found, *([make_record("guard", seed, metrics=found["metrics"])] if seed else [])]
    for some in (made, made[:1]):
        board = build_board(registry, track, read(*some))
        row = board.utility[0]
        n = 10 * len(row.seeds)
        assert row.metrics["miscalibration"] == Estimate(
            pytest.approx(row.value("miscalibration")), None, None, n
        )
        text = pages.page(standings(board), registry)
        assert f"] | {row.value('miscalibration'):.3f} |" in text  # after the interval of the accuracy
    ranked = dataclasses.replace(board, ranked=("miscalibration", "id_gallery_acc1"))
    assert ranked.paired == ("id_gallery_acc1",)


def test_differences_are_paired_by_seed_and_class(registry: Registry, track: Track) -> None:
    plain, guard = {0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.4, 1: 0.5, 3: 0.0}
    made = [make_record("plain", seed, gallery=value) for seed, value in plain.items()]
    made += [make_record("guard", seed, gallery=value) for seed, value in guard.items()]
    [section] = build_board(registry, track, read(*made)).sections
    [difference] = section.differences
    found = difference.metrics["id_gallery_acc1"]
    assert found is not None
    # On the seeds 0 and 1 only: −.1 and −.2; t(1) · s / √2 with s = .1/√2.
    assert section.baseline is not None
    assert (section.baseline.defense, difference.defense) == ("plain", "guard")
    assert found.seeds == (0, 1)
    assert found.mean == pytest.approx(-0.15)
    assert found.low == pytest.approx(-0.15 - 12.7062047 * (0.1 / math.sqrt(2)) / math.sqrt(2))
    assert found.high == pytest.approx(-0.15 + 12.7062047 * 0.05)


def test_the_difference_of_one_seed_has_the_interval_of_its_classes(registry: Registry, track: Track) -> None:
    classes = {"id_gallery_acc1": [0.5 + 0.01 * number for number in range(20)]}
    other = {"id_gallery_acc1": [0.3 + 0.02 * number for number in range(20)]}
    made = read(make_record("plain", per_class=classes), make_record("guard", per_class=other))
    [section] = build_board(registry, track, made).sections
    found = section.differences[0].metrics["id_gallery_acc1"]
    assert found is not None
    assert found.mean == pytest.approx(-0.2 + 0.01 * 9.5)
    half = 1.96 * 0.01 * math.sqrt(20 * 21 / 12 / 20)  # of the mean of 20 numbers in a row
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    assert found.seeds == (0,)


def test_records_of_different_protocols_are_refused_naming_both(registry: Registry, track: Track) -> None:
    changed = {"name": "little", "version": 2, "data": "fp", "protocol": "p2"}
    made = read(make_record(), make_record(seed=1, track=changed))
    with pytest.raises(MiaBenchError, match=r"different protocols .*p1 \(1 records.*p2 \(1 rec"):
        build_board(registry, track, made)
    failed = make_record(seed=1, track=changed, status="failed", reason="no luck", metrics={})
    assert build_board(registry, track, read(make_record(), failed)).seeds == (0, 1)


def test_an_option_that_came_later_is_at_its_default_in_older_records(
    registry: Registry, track: Track
) -> None:
    older = make_record("guard", 0)
    older["defense"]["options"] = {"alpha": 0.5}  # before there were widths
    newer = make_record("guard", 1)
    board = build_board(registry, track, read(older, newer))
    [row] = board.sections[0].rows
    assert row.seeds == (0, 1)
    assert row.options == "alpha=0.5, widths=[1, 2]"


def test_notes_of_the_runs_are_on_the_page(registry: Registry, track: Track) -> None:
    noted = make_record(notes={"data": "unreadable image skipped: a/b.jpg", "attack_acc5": "few"})
    text = pages.page(standings(build_board(registry, track, read(noted, make_record(seed=1)))), registry)
    assert "- `unreadable image skipped: a/b.jpg` (1 cell)" in text


def test_an_unfit_judge_is_said_on_the_page_and_in_the_index(registry: Registry, track: Track) -> None:
    made = [make_record(seed=seed) for seed in range(2)]
    board = build_board(registry, track, read(*made))
    assert board.doubts == ()
    assert "Warning" not in pages.page(standings(board), registry) + pages.index([standings(board)])
    for record in made:
        record["metrics"]["verification_accuracy"] = metric(0.64, 0.05)
        record["notes"]["gallery"] = "6 decoys, fewer than 100: <b>"
    board = build_board(registry, track, read(*made))
    low, few = board.doubts
    assert low.startswith("verification_accuracy is 0.640, below 0.900: ")
    assert few == "6 decoys, fewer than 100: <b>"
    text = pages.page(standings(board), registry)
    lines = [line for line in text.splitlines() if line.startswith("- **Warning:** ")]
    assert len(lines) == 2
    assert text.count("6 decoys") == 1  # not among the other notes again
    assert text.index(lines[0]) < text.index("## Details")
    assert "- **Warning:** what judges reconstructions on `little` is in doubt" in pages.index(
        [standings(board)]
    )
    assert board.ceiling is not None
    assert "| *real held-out images* |" in text


def test_there_are_no_differences_without_the_baseline(registry: Registry, track: Track) -> None:
    assert not build_board(registry, track, read(make_record("guard"))).sections[0].differences
    apart = read(make_record("guard", 0), make_record("plain", 1))
    assert not build_board(registry, track, apart).sections[0].differences


def test_the_baseline_is_the_undefended_target_as_the_track_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Options(Defense.Options):
        norm: str = "batch"

    monkeypatch.setattr(Plain, "Options", Options)
    registry = make_registry(tmp_path)
    group = make_record("plain", options={"norm": "a-group"}, gallery=0.1)  # sorts and leaks before it
    plain = make_record("plain", options={"norm": "batch"}, gallery=0.6)
    board = build_board(registry, load_track(registry, "little"), read(group, plain))
    [section] = board.sections
    assert section.baseline is not None
    assert section.baseline.options == board.utility[0].options == "norm=batch"
    [difference] = section.differences
    assert difference.options == "norm=a-group"
    text = pages.index([standings(board)])
    # Another undefended row is no defense: it is under no verdict.
    baseline = "`plain`: `id_gallery_acc1` 0.60 ± 0.10, `test_accuracy` 0.80 ± 0.10".replace(
        " ±", "\N{NO-BREAK SPACE}±"
    ).replace("± ", "±\N{NO-BREAK SPACE}")
    assert f"v2 | {baseline} | – | – | – | – | – | 2026-01-01 |" in text


@pytest.mark.parametrize(
    ("measured", "primary"),
    [
        (["id_gallery_acc1", "id_acc1"], "id_gallery_acc1"),
        (["id_acc1"], "id_acc1"),
        ([], "attack_acc1"),
    ],
)
def test_the_best_independent_judge_that_a_board_has_orders_it(
    registry: Registry, track: Track, measured: list[str], primary: str
) -> None:
    made = []
    for defense, value in (("plain", 0.2), ("guard", 0.1)):
        record = make_record(defense)
        for name in ("id_gallery_acc1", "id_acc1", "attack_acc1"):
            record["metrics"][name] = None
        values = {name: value if name == primary else 1 - value for name in [*measured, "attack_acc1"]}
        record["metrics"] |= {name: metric(one) for name, one in values.items()}
        record["per_class"] = {name: [one, one] for name, one in values.items()}
        made.append(record)
    board = build_board(registry, track, read(*made))
    assert board.primary == primary
    assert [row.defense for row in board.sections[0].rows] == ["guard", "plain"]
    assert set(board.paired) == {primary, "attack_acc1"}
    [difference] = board.sections[0].differences
    assert difference.metrics[primary].mean == pytest.approx(-0.1)
    assert f"ordered by `{primary}`" in pages.page(standings(board), registry)


def test_a_metric_that_one_seed_lacks_is_missing_with_the_reason(registry: Registry, track: Track) -> None:
    made = [make_record("plain", 0), make_record("plain", 1, gallery=None)]
    row = build_board(registry, track, read(*made)).sections[0].rows[0]
    assert row.metrics["id_gallery_acc1"] == Missing("seed 1: no weights")
    assert row.metrics["attack_acc5"] == Missing("5 classes only")


def test_rows_are_ordered_by_what_leaks_least_and_nulls_come_last(registry: Registry, track: Track) -> None:
    made = read(
        make_record("plain", gallery=0.5),
        make_record("guard", gallery=None),
        make_record("guard", gallery=0.2, options={"alpha": 0.1}),
    )
    [section] = build_board(registry, track, made).sections
    assert [row.options for row in section.rows] == [
        "alpha=0.1, widths=[1, 2]",
        "",
        "alpha=0.5, widths=[1, 2]",
    ]


@pytest.mark.slow
@given(order=st.permutations(range(8)))
def test_the_page_does_not_depend_on_the_order_of_records(
    order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    registry = make_registry(tmp_path_factory.mktemp("order"))
    track = load_track(registry, "little")
    made = [
        make_record(defense, seed, attack, gallery=0.1 * seed + 0.3)
        for defense in ("plain", "guard")
        for seed in (0, 1)
        for attack in ("aim", "samples")
    ]
    made[3] |= {"status": "failed", "reason": "boom", "metrics": {}, "per_class": {}, "cost": {}}
    texts = {
        pages.page(standings(build_board(registry, track, read(*some))), registry)
        for some in (made, [made[i] for i in order])
    }
    assert len(texts) == 1


# --- how settings are chosen -----------------------------------------------------------------


def swept(alpha: float, accuracy: float, leakage: float, **more: Any) -> dict[str, Any]:
    """A setting of ``guard`` on the tuning seed."""
    record = make_record("guard", 1000, options={"alpha": alpha}, gallery=leakage, **more)
    if record["status"] == "done":
        record["metrics"]["validation_accuracy"] = metric(accuracy)
    return record


def chosen(registry: Registry, track: Track, *made: dict[str, Any]) -> tuning.Tuning | None:
    undefended = make_record("plain", 1000, gallery=0.7)
    undefended["metrics"]["validation_accuracy"] = metric(0.9)
    return tuning.choose(build_board(registry, track, read(undefended, *made)))


def test_the_least_leaking_setting_near_the_undefended_accuracy_is_chosen(
    registry: Registry, track: Track
) -> None:
    found = chosen(
        registry,
        track,
        swept(0.1, 0.95, 0.6),
        swept(0.2, 0.87, 0.4),  # exactly 3 points below
        swept(0.3, 0.869, 0.1),  # 3.1 points below
        swept(0.4, 0.99, 0.0, attack="samples"),  # the floor
        swept(0.5, 0.99, 0.0) | {"attack": part("aim", steps=8)},  # not the track's options
        swept(0.6, 0.99, 0.0) | {"prior": part("others")},  # not the track's prior
    )
    assert found is not None
    assert (found.metric, found.seeds, found.images) == ("id_gallery_acc1", (1000,), 10)
    assert found.error == pytest.approx(math.sqrt(0.9 * 0.1 / 10))
    [chosen_ones] = found.choices
    assert chosen_ones.attacks == ("aim",)
    assert len(chosen_ones.tried) == 3
    at = {choice.loss: (choice.setting.options["alpha"], choice.near) for choice in chosen_ones.choices}
    assert at == {0.01: (0.1, True), 0.03: (0.2, True), 0.1: (0.3, True)}
    assert chosen_ones.setting is chosen_ones.tried[1]


def test_the_floor_attack_never_judges_a_sweep(registry: Registry, track: Track) -> None:
    floor = [
        swept(alpha, 0.9, leakage) | {"attack": part("samples", steps=1)}
        for alpha, leakage in ((0.1, 0.0), (0.2, 0.5), (0.3, 0.5))
    ]
    found = chosen(registry, track, swept(0.1, 0.9, 0.5), swept(0.2, 0.9, 0.1), *floor)
    assert found is not None
    assert found.choices[0].setting is not None
    assert found.choices[0].setting.options["alpha"] == 0.2


def test_a_setting_is_compared_on_the_seeds_of_the_undefended_target(
    registry: Registry, track: Track
) -> None:
    more = swept(0.1, 0.9, 0.0)
    more.update(seed=1001, key="a" * 20)
    less = swept(0.2, 0.9, 0.0)
    less.update(seed=1001, key="b" * 20)
    found = chosen(registry, track, swept(0.1, 0.9, 0.5), more, less, swept(0.3, 0.9, 0.4))
    assert found is not None
    [choice] = found.choices
    assert [setting.leakage for setting in choice.tried] == [0.5, None, 0.4]
    assert choice.setting is choice.tried[2]
    text = pages.page(standings(build_board(registry, track, read(less))), registry, found, sweep=True)
    assert "| `guard` | `alpha=0.2` | – | – | – |  | only run on other seeds |" in text


def test_the_strongest_attacks_say_their_seeds_where_rows_differ_in_them(
    registry: Registry, track: Track
) -> None:
    alone, pair = swept(0.1, 0.9, 0.0), swept(0.2, 0.9, 0.0)
    made = [under(alone, steps, 0.5) for steps in (7, 9)]
    made += [under(pair, steps, 0.4, seed) for steps in (7, 9) for seed in (1000, 1001)]
    board = build_board(registry, standard_track(track), read(*made))
    text = pages.page(standings(board), registry, sweep=True)
    assert "| `guard` | `alpha=0.1` | 1000 | 0.500 | 0.500 | – | `aim` |" in text
    assert "| `guard` | `alpha=0.2` | 1000, 1001 | 0.400 | 0.400 | – | `aim` |" in text
    board = build_board(registry, standard_track(track), read(*made[2:]))
    assert "| `guard` | `alpha=0.2` | 0.400 | 0.400 | – | `aim` |" in pages.page(
        standings(board), registry, sweep=True
    )


def test_where_no_setting_is_near_the_nearest_is_chosen_and_said(
    registry: Registry, track: Track, some: list
) -> None:
    failed = swept(0.3, 0, 0.0, status="failed", reason="it broke", metrics={}, per_class={})
    found = chosen(registry, track, swept(0.1, 0.5, 0.2), swept(0.2, 0.6, 0.3), failed)
    assert found is not None
    [settings] = found.choices
    assert settings.setting is not None
    assert settings.setting.options["alpha"] == 0.2
    assert not any(choice.near for choice in settings.choices)
    board = build_board(registry, track, read(*some))
    text = pages.page(standings(board), registry, found)
    at = "1 point (nearest), **3 points** (nearest), 10 points (nearest) |"
    last = f"| `guard` | `alpha=0.2` | 0.600 | −30.0 | 0.300 | `aim` | {at}"
    assert last in text
    assert "`alpha=0.1`" not in text
    assert "`validation_accuracy` is 0.900 (standard error 0.095, for other images)" in text
    whole = pages.page(standings(board), registry, found, sweep=True)
    assert "| `guard` | `alpha=0.1` | 0.500 | −40.0 | 0.200 | `aim` | |" in whole
    assert "| `guard` | `alpha=0.3` | – | – | – |  | failed: `it broke` |" in whole
    assert "submit --track little --folder leaderboards/tuning" in whole


def test_a_setting_that_nothing_was_compared_with_is_said(registry: Registry, track: Track) -> None:
    alone, pair = (
        chosen(registry, track, *made)
        for made in ([swept(0.1, 0.9, 0.5)], [swept(0.1, 0.9, 0.5), swept(0.2, 0.9, 0.4)])
    )
    board = standings(build_board(registry, track, read(make_record())))
    assert "**3 points**, 10 points; the only one tried |" in pages.page(board, registry, alone)
    assert "the only one tried" not in pages.page(board, registry, pair)


def test_a_sweep_without_the_undefended_target_says_what_to_run(registry: Registry, track: Track) -> None:
    board = build_board(registry, track, read(swept(0.1, 0.9, 0.5)))
    with pytest.raises(MiaBenchError, match=r"no undefended target .* same seeds \(--seed 1000\) and submit"):
        tuning.choose(board)


def test_a_defense_without_a_finished_setting_is_said(registry: Registry, track: Track, some: list) -> None:
    failed = swept(0.3, 0, 0.0, status="failed", reason="it broke", metrics={}, per_class={})
    found = chosen(registry, track, failed)
    assert found is not None
    text = pages.page(standings(build_board(registry, track, read(*some))), registry, found)
    assert "| `guard` | – | – | – | – | – | no setting finished |" in text


def under(record: dict[str, Any], steps: int, leakage: float, seed: int = 1000) -> dict[str, Any]:
    """The record of another attack, or seed."""
    changed = record | {"attack": part("aim", steps=steps), "seed": seed, "metrics": dict(record["metrics"])}
    changed["metrics"]["id_gallery_acc1"] = metric(leakage)
    changed["per_class"] = two_classes(leakage)
    return changed | {"key": f"{random.Random(json.dumps(changed, sort_keys=True)).getrandbits(80):020x}"}


def standard_track(track: Track) -> Track:
    """The track with a standard set of two attacks."""
    attacks = (
        StandardAttack(name="aim", default=True),
        StandardAttack(name="aim", options={"steps": 9}),
        StandardAttack(name="aim", options={"steps": 11}),
    )
    return track.model_copy(update={"standard": Standard(version=1, attacks=attacks)})


def test_the_strongest_of_the_attacks_tried_on_all_settings_counts(registry: Registry, track: Track) -> None:
    settings = {0.1: (0.2, 0.5), 0.2: (0.3, 0.4), 0.3: (0.1, 0.6)}
    made = []
    for seed in (1000, 1001):
        undefended = make_record("plain", 1000, gallery=0.7)
        undefended["metrics"]["validation_accuracy"] = metric(0.9)
        made.append(under(undefended, 7, 0.7, seed))
        for alpha, (first, second) in settings.items():
            one = swept(alpha, 0.9, 0.0)
            made += [under(one, 7, first, seed), under(one, 9, second + (seed - 1000) / 10, seed)]
    made.append(under(swept(0.2, 0.9, 0.0), 11, 0.9))  # one attack more on one setting is no equal budget
    found = tuning.choose(build_board(registry, standard_track(track), read(*made)))
    assert found is not None
    assert found.seeds == (1000, 1001)
    [settings_tried] = found.choices
    assert settings_tried.attacks == ("aim", "aim (steps=9)")
    assert settings_tried.setting is not None
    assert settings_tried.setting.options["alpha"] == 0.2
    assert settings_tried.setting.leakage == pytest.approx(0.45)
    assert {one.attack for one in settings_tried.tried} == {"aim (steps=9)"}
    apart = [made[0], made[1], under(swept(0.2, 0.9, 0.0), 9, 0.1, 1000)]
    with pytest.raises(MiaBenchError, match="no attack under which all settings of 'guard'"):
        tuning.choose(build_board(registry, standard_track(track), read(*apart)))


@pytest.mark.parametrize(
    ("tried", "setting", "further"),
    [
        ([-0.1, -0.3, -1.0], -1.0, [-3.33]),
        ([-0.1, -0.3, -1.0], -0.1, [-0.0333]),
        ([-0.1, -0.3, -1.0], -0.3, []),
        ([4, 8, 16], 16, [32]),
        ([1, 4], 1, []),  # the next whole number would be 0
        ([0.0, 0.1, 0.2], 0.0, []),  # no geometric step leads below 0
        ([0.5], 0.5, []),
        ([None, 0.5, 1.0], 1.0, [2.0]),
        ([False, True], True, []),
    ],
)
def test_beyond_the_edge_of_a_sweep_lies_the_next_geometric_step(
    tried: list[Any], setting: Any, further: list[Any]
) -> None:
    candidates = {value: tuning.Candidate({"x": value, "fixed": 3}, 0.9, 0.1) for value in tried}
    found = list(tuning.edges_of(candidates[setting], list(candidates.values())))
    assert [edge.beyond["x"] for edge in found] == further
    assert all((edge.name, edge.beyond["fixed"]) == ("x", 3) for edge in found)


@pytest.mark.parametrize(
    ("leakages", "step"),
    [
        ({1.0: 5.0, 2.0: 5.1, 4.0: 5.9}, 0.1),
        ({1.0: 5.0, 2.0: 4.8, 4.0: 5.0}, 0.2),
        ({1.0: 5.0, 2.0: None, 4.0: 5.0}, math.inf),  # the step is not known
    ],
)
def test_an_edge_says_by_how_much_the_last_step_changed_leakage(leakages: dict, step: float) -> None:
    tried = [tuning.Candidate({"x": value}, 0.9, leakage) for value, leakage in leakages.items()]
    (edge,) = tuning.edges_of(tried[0], tried)
    assert (edge.beyond, edge.step) == ({"x": 0.5}, pytest.approx(step))
    other = [tried[0], tuning.Candidate({"x": 2.0, "y": 1}, 0.9, 5.0)]
    assert [edge.step for edge in tuning.edges_of(tried[0], other)] == [math.inf]


@pytest.mark.parametrize(("part", "further"), [(0.19, []), (0.21, [0.4])])
def test_a_sweep_is_widened_where_its_last_step_changed_a_fifth_of_the_margin(
    registry: Registry, track: Track, part: float, further: list[float]
) -> None:
    margin = EQUAL["share"]
    found = chosen(registry, track, swept(0.1, 0.9, 0.5), swept(0.2, 0.9, 0.5 - part * margin))
    assert found is not None
    for choice in found.choices[0].choices:
        assert [options["alpha"] for options in choice.further] == further
        assert choice.settled == ({} if further else {"alpha": 0.2})


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "tried",
    [
        # Of those within the price that leak the same the more accurate one.
        [(0.1, 0.9, 0.5), (0.2, 0.89, 0.4), (0.3, 0.9, 0.4), (0.4, 0.88, 0.4)],
        # With none within the price, of the nearest the one that leaks least.
        [(0.1, 0.3, 0.1), (0.2, 0.35, 0.5), (0.3, 0.35, 0.4), (0.4, 0.35, 0.6)],
    ],
)
def test_ties_are_settled_by_accuracy_then_by_leakage(
    registry: Registry, track: Track, tried: list[tuple[float, float, float]], order: int
) -> None:
    found = chosen(registry, track, *[swept(*values) for values in tried][::order])
    assert found is not None
    assert found.choices[0].setting is not None
    assert found.choices[0].setting.options["alpha"] == 0.3


def test_a_page_says_how_to_widen_a_sweep_within_the_limits_of_the_options(
    registry: Registry, track: Track, some: list
) -> None:
    made = [swept(0.1, 0.9, 0.3), swept(0.5, 0.9, 0.2)]
    found = chosen(registry, track, *made)
    assert found is not None
    text = pages.page(standings(build_board(registry, track, read(*some))), registry, found)
    assert "**the sweep should be widened** by" in text
    assert "- `guard`: `alpha=2.5`" in text
    undefended = make_record("plain", 1000, gallery=0.7)
    undefended["metrics"]["validation_accuracy"] = metric(0.9)
    board = build_board(registry, track, read(undefended, *made))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guard, "Options", BoundedOptions)
        within = tuning.choose(board, registry)
    assert within is not None
    assert within.choices[0].further == ()
    assert within.choices[0].refused == ({"alpha": 2.5},)
    told = pages.page(standings(build_board(registry, track, read(*some))), registry, within)
    assert "widened" not in told
    assert "does not accept the next step:\n\n- `guard`: `alpha=2.5`\n" in told
    still = chosen(registry, track, swept(0.1, 0.9, 0.3), swept(0.5, 0.9, 0.2999))
    assert still is not None
    told = pages.page(standings(build_board(registry, track, read(*some))), registry, still)
    assert "changed leakage by less than 0.01:\n\n- `guard`: `alpha=0.5`\n" in told
    inside = chosen(registry, track, *made, swept(2.0, 0.2, 0.1))
    assert inside is not None
    assert "widened" not in pages.page(standings(build_board(registry, track, read(*some))), registry, inside)


def test_a_page_says_which_rows_a_rule_chose(registry: Registry, track: Track, some: list) -> None:
    found = chosen(registry, track, swept(0.1, 0.9, 0.3), swept(0.6, 0.85, 0.2), swept(0.7, 0.7, 0.1))
    assert found is not None
    board = standings(build_board(registry, track, read(*some)))
    other = tuning.OtherChoice("guard alpha=0.6", shown=False, near=True)
    assert tuning.other_choices(found, board, 0.1) == [other]
    assert tuning.other_choices(found, board, 0.01) == []
    assert not tuning.rule_chose(found, board)  # the row without options is of 0.5
    assert "**Settings**" not in pages.page(board, registry, found)
    usual = chosen(registry, track, swept(0.5, 0.9, 0.3), swept(0.6, 0.85, 0.2))
    assert usual is not None
    text = pages.page(board, registry, usual)
    assert (
        "At 1 point it chose the same. At 10 points it chose `guard alpha=0.6` (not run on these seeds).\n"
        in text
    )
    far = chosen(registry, track, swept(0.5, 0.88, 0.3), swept(0.6, 0.885, 0.4))
    assert far is not None
    assert tuning.other_choices(far, board, 0.01) == [
        tuning.OtherChoice("guard alpha=0.6", shown=False, near=False)
    ]
    assert "At 1 point it chose `guard alpha=0.6` (the nearest) (not run on" in pages.page(
        board, registry, far
    )
    made = make_record("guard", 0, options={"alpha": 0.6})
    there = standings(build_board(registry, track, [*read(*some), *read(made)]))
    assert tuning.other_choices(found, there, 0.1) == [dataclasses.replace(other, shown=True)]


class BoundedOptions(Defense.Options):
    alpha: float = Field(0.1, le=1)
    widths: tuple[int, ...] = (1, 2)


def test_a_sweep_that_allows_no_choice_is_an_error(registry: Registry, track: Track) -> None:
    assert chosen(registry, track) is None  # it tried no defense
    only = build_board(registry, track, read(swept(0.1, 0.9, 0.1)))
    with pytest.raises(MiaBenchError, match="no undefended target"):
        tuning.choose(only)
    with pytest.raises(MiaBenchError, match="no defense was tried under an attack that counts: aim"):
        chosen(registry, track, swept(0.1, 0.9, 0.1) | {"attack": part("aim", steps=8)})


def test_the_sweep_below_the_folder_has_a_page_and_is_checked(folder: Path, registry: Registry) -> None:
    undefended = make_record("plain", 1000)
    undefended["metrics"]["validation_accuracy"] = metric(0.9)
    for record in (undefended, swept(0.1, 0.9, 0.3), swept(0.2, 0.9, 0.2)):
        path = folder / "tuning" / "results" / "little" / f"{record['key']}.json"
        records.write(path, record_text(record))
    records.build(folder, registry)
    row = "| `guard` | `alpha=0.2` | 0.900 | 0.0 | 0.200 | `aim` | 1 point, **3 points**, 10 points |"
    assert row in (folder / "little.md").read_text()
    assert row in (folder / "tuning" / "little.md").read_text()
    assert records.check(folder, registry) == []
    shared = folder / "results" / "little" / f"{undefended['key']}.json"
    records.write(shared, record_text(undefended))
    records.build(folder, registry)
    assert records.check(folder, registry) == [
        "track 'little': settings were chosen on seeds of the board: 1000"
    ]
    shared.unlink()
    records.build(folder, registry)
    path.write_text(record_text(record | {"schema": 99}))
    [line] = records.check(folder, registry)
    assert "schema" in line
    assert str(path) in line
    path.unlink()
    assert len(records.check(folder, registry)) == 2  # both pages differ


# --- what is refused -------------------------------------------------------------------------


def refused(registry: Registry, track: Track, *made: dict[str, Any]) -> str:
    with pytest.raises(MiaBenchError) as caught:
        build_board(registry, track, read(*made))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_another_version_of_the_track_is_refused(registry: Registry, track: Track) -> None:
    old = make_record(track={"name": "little", "version": 1, "data": "fp"})
    message = refused(registry, track, make_record(seed=1), old)
    assert old["key"] in message
    assert "version 1" in message


def test_another_track_is_refused(registry: Registry, track: Track) -> None:
    assert "'big'" in refused(registry, track, make_record(track={"name": "big", "version": 2, "data": "fp"}))


def test_other_data_are_refused(tmp_path: Path) -> None:
    registry = make_registry(tmp_path, fingerprint="official")
    track = load_track(registry, "little")
    assert "official" in refused(registry, track, make_record())
    right = make_record(track={"name": "little", "version": 2, "data": "official"})
    assert build_board(registry, track, read(right)).sections


def test_mixed_data_are_refused_when_the_track_declares_none(registry: Registry, track: Track) -> None:
    one = make_record(seed=0)
    other = make_record(seed=1, track={"name": "little", "version": 2, "data": "changed"})
    message = refused(registry, track, one, other)
    assert one["key"] in message
    assert other["key"] in message


def test_the_same_cell_twice_is_refused(registry: Registry, track: Track) -> None:
    one, other = make_record(), make_record(key="f" * 20)
    message = refused(registry, track, one, other)
    assert one["key"] in message
    assert "f" * 20 in message
    assert "remove the file of the older" in message


def test_two_versions_of_a_component_never_share_a_board(registry: Registry, track: Track) -> None:
    message = refused(registry, track, make_record(seed=0), make_record("guard", 1, prior=part("faces", "0")))
    assert "prior 'faces'" in message


def test_an_interrupted_cell_is_refused(registry: Registry, track: Track) -> None:
    assert "interrupted" in refused(registry, track, make_record(status="interrupted", metrics={}, cost={}))


def test_a_newer_schema_is_refused_and_the_file_named(folder: Path, registry: Registry) -> None:
    path = folder / "results" / "little" / "new.json"
    path.write_text(json.dumps(make_record(schema=99, key="new")))
    with pytest.raises(MiaBenchError, match=r"new\.json: record schema 99 is newer"):
        records.load(folder, "little")
    assert any("new.json" in line for line in records.check(folder, registry))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "schema"),
        (record_text(make_record(key="other")), "name must be its key"),
        (record_text(make_record(key="../up")), "key: '../up' is not letters"),
        (record_text({**make_record(key="bad"), "seed": "x"}), "seed"),
        (json.dumps(make_record(key="bad")), "it has no sha256"),
        (record_text(make_record(key="bad")).replace("12.5", "13.5"), "its hash differs"),
        (record_text({**make_record(key="bad"), "provenance": None}), "provenance"),
        (record_text({**make_record(key="bad"), "seed": 10**23}), "seed"),
        (json.dumps({**make_record(key="bad"), "seed": math.nan}), "NaN is no number of JSON"),
        (record_text(make_record(key="bad")).replace("12.5", "1e999"), "a number is too large"),
        ('{"seed": ' + "9" * 5000 + "}", "5000 digits"),
        ('{"seed": ' + "[" * 100_000 + "]" * 100_000 + "}", "within each other"),
        ('{"seed": ' + "[" * 60 + "]" * 60 + "}", "within each other"),
        ('{"key": "bad", "key": "bad"}', "the key 'key' is there twice"),
        ("", "it is empty"),
        ("\ufeff{}", "not valid JSON"),
        (r'{"key": "\ud800"}', "surrogates"),
    ],
)
def test_an_invalid_file_is_one_line_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results" / "little" / "bad.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(MiaBenchError) as caught:
        records.load(tmp_path, "little")
    line = str(caught.value)
    assert line.startswith(str(path))
    assert message in line
    assert "\n" not in line


def test_what_is_no_file_is_named_and_never_waited_for(
    folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.build(folder, registry)
    place = folder / "results" / "little"
    os.mkfifo(place / "pipe.json")
    (place / "folder.json").mkdir()
    (place / "zero.json").symlink_to("/dev/zero")
    (place / "loop.json").symlink_to("loop.json")
    (place / "gone.json").symlink_to("nowhere.json")
    monkeypatch.chdir(place)  # the path of a socket may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.json")
        lines = records.check(folder, registry)
    assert [line.split(": ")[0] for line in lines] == [
        str(place / f"{name}.json") for name in ("folder", "gone", "loop", "pipe", "socket", "zero")
    ]
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    for path in place.iterdir():
        if not path.is_file() or path.is_symlink():
            path.rmdir() if path.is_dir() else path.unlink()
    assert "README.md: missing" in records.check(folder, registry)[0]
    assert records.build(folder, registry) == [folder / "README.md"]


def with_number(name: str, value: Any, **more: Any) -> dict[str, Any]:
    """A record in which one number, or its class means, is another."""
    made = make_record()
    made["metrics"] |= {name: value}
    made["per_class"] |= more
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (with_number("attack_acc1", metric(5.0)), "attack_acc1 is 5.0, it can only be from 0.0 to 1.0"),
        (with_number("test_accuracy", metric(-0.1)), "test_accuracy is -0.1"),
        (with_number("id_median_rank", metric(0.5)), "id_median_rank is 0.5, it can only be from 1.0 to inf"),
        (with_number("id_gallery_acc1", metric(0.7)), "id_gallery_acc1 is 0.7, but the mean of its classes"),
        (with_number("attack_acc1", metric(0.9), attack_acc1=[0.8, 1.2]), "attack_acc1 is 1.2"),
        (with_number("attack_acc1", metric(0.9, n=6), attack_acc1=[0.8, 0.9]), "mean of its classes is 0.85"),
        (with_number("attack_acc1", None, attack_acc1=[0.8, 0.9]), "but it has no value"),
        (with_number("attack_acc1", metric(0.9), attack_acc1=[0.9]), "different numbers of classes"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    folder: Path, registry: Registry, track: Track, made: dict[str, Any], message: str
) -> None:
    assert message in refused(registry, track, made)
    place_of(folder, made).write_text(record_text(made))
    [line] = [line for line in records.check(folder, registry) if message in line]
    assert made["key"] in line


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": 0.9, "low": 0.95, "high": 1.0, "n": 4},
        {"value": 0.9, "low": 0.8, "high": 0.85, "n": 4},
        {"value": 0.9, "low": 0.8, "high": 1.0, "n": 0},
        {"value": 0.9, "low": 0.8, "high": 1.0, "n": -1},
        {"value": 0.9, "low": 0.8, "high": 1.0, "n": 1.5},
        {"value": math.inf, "low": 0.8, "high": math.inf, "n": 4},
        {"value": math.nan, "low": math.nan, "high": math.nan, "n": 4},
    ],
)
@pytest.mark.parametrize("name", ["attack_acc1", "unheard_of"])
def test_numbers_that_are_none_are_refused_whoever_measured_them(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}|NaN|Infinity"):
        read_record(with_number(name, wrong))


def test_classes_that_are_not_equally_many_may_have_another_mean(registry: Registry, track: Track) -> None:
    made = with_number("attack_acc1", metric(0.9, n=7), attack_acc1=[0.8, 0.92])
    assert build_board(registry, track, read(made)).sections


def test_what_a_metric_says_against_a_record_is_found(
    folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def contradictions(cls, recorded):
        seen.append(recorded)
        if recorded.values.get("attack_acc1", 0) > 0.85:
            yield "attack_acc1 is too good"

    given = registry.get("metric", load_track(registry, "little").metrics[0]).load()
    monkeypatch.setattr(given, "contradictions", classmethod(contradictions))
    records.build(folder, registry)
    lines = [line for line in records.check(folder, registry) if "too good" in line]
    assert len(lines) == len(seen) > 0
    assert lines[0].endswith(": attack_acc1 is too good")
    assert any(recorded.per_class for recorded in seen)


@pytest.mark.parametrize(
    ("n", "counts", "right"),
    [(7, [3, 4], True), (7, None, False), (6, None, False), (7, [4, 3], False), (7, [3, 3], False)],
)
def test_means_are_weighted_by_the_counts_of_classes_that_records_of_schema_2_hold(
    registry: Registry, track: Track, n: int, counts: list[int] | None, right: bool
) -> None:
    value = (3 * 0.8 + 4 * 0.92) / 7
    made = with_number("attack_acc1", metric(value, n=n), attack_acc1=[0.8, 0.92]) | {"schema": 2}
    if counts:
        made["class_counts"] = {"attack_acc1": counts}
    if right:
        assert build_board(registry, track, read(made)).sections
    else:
        assert "attack_acc1" in refused(registry, track, made)


def test_a_table_has_the_mean_of_the_records_of_a_seed_weighted_by_the_counts_of_classes() -> None:
    def one(seed: int, attack: str, means: list[float], **more: Any) -> dict[str, Any]:
        return make_record(seed=seed, attack=attack, per_class={"test_accuracy": means}, **more)

    made = [one(0, "aim", [0.2, 0.4]), one(0, "sight", [0.4, 0.6]), one(1, "aim", [0.6, 1.0])]
    table = class_table("test_accuracy", read(*made))
    assert table is not None
    assert table.seeds == (0, 1)
    assert table.means == pytest.approx(np.array([[0.3, 0.5], [0.6, 1.0]]))
    for record in made:
        record["class_counts"] = {"test_accuracy": [1, 3]}
    table = class_table("test_accuracy", read(*made))
    assert table is not None
    assert table.means == pytest.approx(weighted(np.array([[0.3, 0.5], [0.6, 1.0]]), [1, 3]))
    assert table.means.mean(1) == pytest.approx([0.45, 0.9])


def test_intervals_over_seeds_are_those_of_the_kind_of_quantity() -> None:
    drawn = random.Random(0)
    classes = [[drawn.uniform(0.0, 0.1) for _ in range(20)] for _ in range(3)]
    images = [[[drawn.randint(1, 40) for _ in range(4)] for _ in range(20)] for _ in range(3)]
    made = []
    for seed in range(3):
        record = make_record(
            seed=seed,
            per_class={"share": classes[seed], "bits": classes[seed]},
            per_image={"r": images[seed]},
        )
        mean = sum(classes[seed]) / 20
        record["metrics"] = {"share": metric(mean, 0.01, 80), "bits": metric(mean, 0.01, 80)}
        record["metrics"]["rank"] = metric(float(np.median(images[seed])), 1.0, 80)
        made.append(record)
    [effect] = crossed_means([np.array(classes)])

    def interval(name: str, **kind: Any) -> tuple[float | None, float | None]:
        [found] = combine(name, Quantity("", "lower", role="leakage", **kind), [read(*made)])
        assert isinstance(found, Estimate)
        return found.low, found.high

    assert interval("share", kind="share") == pytest.approx(proportion_interval(effect, 240))
    assert interval("bits", kind="bits") == pytest.approx(effect.interval())
    logs = np.log2(np.array(images[0])).mean()
    most = float(np.mean(classes[0])) + logs  # as the mean of log2(most / rank) is the value
    assert interval("bits", kind="bits", ranks="r") == pytest.approx(bounded_interval(effect, 0.0, most))
    [below] = crossed_means([below_median(images)])
    assert interval("rank", kind="rank", per_image="r") == pytest.approx(median_interval(images, below))


def with_shares(seeds: int, *classes: float) -> list[dict[str, Any]]:
    """The records of a row with a share in each class, the same on all seeds but for 0.01."""
    made = []
    for seed in range(seeds):
        means = [one + 0.01 * (seed % 2) * (one > 0) for one in classes]
        record = make_record(seed=seed, per_class={"share": means})
        record["metrics"] = {"share": metric(sum(means) / len(means), 0.01, 40)}
        made.append(record)
    return made


def test_a_share_of_0_has_the_design_effect_of_rows_with_as_many_seeds() -> None:
    none, some, alone = (
        with_shares(3, 0, 0, 0, 0),
        with_shares(3, 0.1, 0.2, 0.3, 0),
        with_shares(2, 0.9, 0, 0, 0),
    )
    rows = [read(*one) for one in (none, some, alone)]
    found = combine("share", Quantity("", "lower", kind="share", role="leakage"), rows)
    [effect] = crossed_means([np.array([record["per_class"]["share"] for record in some])])
    [nothing] = crossed_means([np.zeros((3, 4))])
    wanted = proportion_interval(nothing, 120, design_effect([(effect, 120)]))
    assert isinstance(found[0], Estimate)
    assert (found[0].low, found[0].high) == pytest.approx(wanted)
    assert wanted[1] < proportion_interval(nothing, 120)[1]


@pytest.mark.parametrize("ranks", [[], [[], []], [[0, 3], [2, 2]], [[-1, 3], [2, 2]]])
def test_bits_without_the_ranks_that_they_are_of_have_students_interval(ranks: list[list[int]]) -> None:
    made = []
    for seed in range(3):
        record = make_record(seed=seed, per_class={"bits": [1.0, 2.0 + seed]}, per_image={"r": ranks})
        record["metrics"] = {"bits": metric(1.5 + seed / 2, 0.01, 4)}
        made.append(record)
    quantity = Quantity("", "lower", kind="bits", role="leakage", ranks="r")
    [found] = combine("bits", quantity, [read(*made)])
    [effect] = crossed_means([np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0]])])
    assert isinstance(found, Estimate)
    assert (found.low, found.high) == pytest.approx((max(effect.interval()[0], 0), effect.interval()[1]))


def test_utility_may_be_of_more_classes_than_leakage(registry: Registry, track: Track) -> None:
    made = with_number("test_accuracy", metric(0.5, n=3), test_accuracy=[0.5, 0.4, 0.6])
    assert build_board(registry, track, read(made)).sections


def test_records_with_different_numbers_of_classes_are_refused(registry: Registry, track: Track) -> None:
    other = make_record(seed=1, per_class={"id_gallery_acc1": [0.4, 0.5, 0.6]})
    assert "different numbers of classes" in refused(registry, track, make_record(), other)


def test_a_changed_byte_of_a_record_is_found_or_changes_nothing(folder: Path, registry: Registry) -> None:
    records.build(folder, registry)
    paths, draws = sorted((folder / "results").rglob("*.json")), random.Random(0)
    found = 0
    for _ in range(60):
        path = draws.choice(paths)
        before, whole = read_file(path), path.read_bytes()
        changed = bytearray(whole)
        changed[draws.randrange(len(whole))] ^= 1 << draws.randrange(8)
        path.write_bytes(bytes(changed))
        try:
            assert read_file(path) == before
        except MiaBenchError as error:
            assert str(path) in str(error)  # noqa: PT017
            found += 1
        path.write_bytes(whole)
    assert found > 40


def test_a_record_with_wrong_numbers_condemns_no_other_of_its_row(registry: Registry, track: Track) -> None:
    wrong, *right = [make_record("guard", seed) for seed in (2, 0, 4, 3)]
    wrong["per_class"] = {"id_gallery_acc1": [0.1, 0.2]}
    new = read(make_record("plain", 0))
    known = known_quantities(registry, track, new)
    for order in ([wrong, *right], [*right, wrong]):
        found = admit.misfits(track, new, read(*order), known)
        assert [record.seed for record in found] == [2]


def test_what_is_measured_on_the_target_has_means_of_all_classes(registry: Registry, track: Track) -> None:
    """Attacks meet two of the three; what else is known of the target has three, whatever its role."""
    made = make_record()
    made["per_class"] |= {"miscalibration": [0.1, 0.2, 0.3], "spread": [1.0, 2.0, 3.0]}
    made["metrics"] |= {"miscalibration": metric(0.2), "spread": metric(2.0)}
    assert not admit.refusals(track, read(made), known_quantities(registry, track, read(made)))
    made["per_class"]["spread"] = [2.0] * 4
    (line,) = admit.refusals(track, read(made), known_quantities(registry, track, read(made)))
    assert "means of different numbers of classes" in line


def test_attacks_on_different_trainings_of_a_target_are_told(
    folder: Path, registry: Registry, some: list[dict[str, Any]]
) -> None:
    records.build(folder, registry)
    assert "different trainings" not in (folder / "little.md").read_text()
    later = [make_record("guard", seed, accuracy=0.81) for seed in (1, 2)]
    for record in later:
        record["attack"]["options"] = {"steps": 9}
        record["attack"]["about"] = {"changed": ["steps"]}
        record["key"] = record["key"][::-1]
        place_of(folder, record).write_text(record_text(record))
    records.build(folder, registry)
    words = "- guard, seeds 1, 2: one training of the target was attacked by aim; another by aim (steps=9)\n"
    assert words in (folder / "little.md").read_text()
    assert records.check(folder, registry) == []
    for record in some + later:
        record["provenance"]["processor"] = "one"
        place_of(folder, record).write_text(record_text(record))
    records.build(folder, registry)
    (line,) = records.check(folder, registry)
    assert "guard, seeds 1, 2: attacks met different trainings of the target though" in line


# --- pages -----------------------------------------------------------------------------------


def test_the_page_says_what_was_measured(registry: Registry, track: Track, some: list) -> None:
    text = pages.page(standings(build_board(registry, track, read(*some))), registry)
    assert text.startswith("# Leaderboard: little (version 2)\n")
    first = text.split("\n## Details")[0]
    assert [line.split(" | ")[0] for line in first.splitlines() if line.startswith("| `")] == [
        "| `plain` *(baseline)*",
        "| `guard`",
    ]
    table = text.split("<b>Leakage under aim</b>")[1].split("</details>")[0].splitlines()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table if line.startswith("| ")]
    assert rows[:4] == ["defense", "---", "`guard`", "`plain`"]  # best defended first
    for reference in ("*real held-out images*", "*floor: samples (steps=7)*"):
        assert text.count(reference) == 1
    assert "0.970 [0.960, 0.980]" in text
    assert "`id_gallery_acc1` ↓" in text
    assert "- `test_accuracy` ↑: how often it is right\n" in text
    assert "- `id_median_rank` ↑\n" in text  # declared without a description
    assert "- (a) `5 classes only`" in text
    assert "`verification_accuracy` 0.990 [0.985, 0.995]" in text
    assert "Difference from `plain` on the same seeds" in text
    assert "2026-01-03" in text
    assert "†" not in text
    nowhere = "```sh\npip install made-dist  # its records name no address\nmia-bench run --track little "
    assert nowhere in text
    assert "mia-bench leaderboard submit --track little" in text


def test_the_page_says_where_a_plugin_is_to_be_had(registry: Registry, track: Track) -> None:
    known = make_record()
    known["defense"]["about"] = {"url": "https://example.org/made"}
    made = read(known, make_record(seed=1))
    text = pages.page(standings(build_board(registry, track, made)), registry)
    assert "\npip install made-dist  # https://example.org/made\n" in text


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://a b", "https://a`b", "see me"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    made = make_record()
    made["defense"]["about"] = {"url": url}
    with pytest.raises(ValueError, match=r"defense\.about\.url"):
        read(made)


def test_failed_and_skipped_cells_are_listed_without_numbers(registry: Registry, track: Track) -> None:
    made = [
        make_record("plain"),
        *(
            make_record("guard", seed, status="failed", reason="| boom\n`x` <b>", metrics={}, cost={})
            for seed in (0, 1)
        ),
        make_record("guard", 2, status="skipped", reason="no latents", metrics={}, cost={}),
    ]
    board = build_board(registry, track, read(*made))
    assert [row.defense for row in board.sections[0].rows] == ["plain"]
    text = pages.page(standings(board), registry)
    shown = "&#124; `boom` &#96;`x`&#96; `<b>`"
    assert f"- `guard` (`alpha=0.5, widths=[1, 2]`), seeds 0, 1: failed, {shown}" in text
    assert "seeds 2: skipped, `no latents`" in text
    assert "1 †" in text  # plain has one seed
    assert "- One seed: the intervals are for other classes only" in text


def test_every_column_of_a_table_is_there(registry: Registry, track: Track, some: list) -> None:
    text = pages.page(standings(build_board(registry, track, read(*some))), registry)
    for block in text.split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, block


def test_the_commands_run_exactly_the_finished_cells(registry: Registry, track: Track) -> None:
    made = [
        make_record(defense, seed, attack, options=options)
        for defense, options in (
            ("plain", {}),
            ("guard", {}),
            ("guard", {"alpha": 0.25, "widths": [3, 4]}),
        )
        for seed in (0, 2)
        for attack in ("aim", "samples")
    ]
    made.append(make_record("guard", 5))
    board = build_board(registry, track, read(*made))
    cells = set()
    for command in pages.page(standings(board), registry).splitlines():
        if command.startswith("mia-bench run "):
            cells |= planned(registry, track, command)
    assert cells == {
        (m["defense"]["name"], json.dumps(m["defense"]["options"]), m["attack"]["name"], m["seed"])
        for m in made
    }


def planned(registry: Registry, track: Track, command: str) -> set[tuple[str, str, str, int]]:
    """The cells that a ``mia-bench run`` command asks for."""
    import shlex

    words = shlex.split(command)
    assert words[:4] == ["mia-bench", "run", "--track", "little"]
    options: dict[str, list[str]] = {}
    for flag, value in zip(words[4::2], words[5::2], strict=True):
        options.setdefault(flag, []).append(value)
    grid = build_grid(
        registry,
        track,
        defenses=options["--defense"],
        attacks=options["--attack"],
        priors=options.get("--prior", ()),
        seeds=[int(seed) for seed in options["--seed"]],
        options=parse_option_values(registry, flatten_options(options.get("-o", []))),
    )
    return {
        (
            c.defense.name,
            json.dumps(c.defense.options.model_dump(mode="json")),
            c.attack.name,
            c.seed,
        )
        for c in grid
    }


def test_a_track_with_references_only_is_in_the_index(registry: Registry, track: Track) -> None:
    text = pages.index([standings(build_board(registry, track, read(make_record(attack="samples"))))])
    assert "| [little](little.md) v2 |" in text


# --- folder: submit, build, check ------------------------------------------------------------


def test_submitted_records_are_the_stores_bytes(
    folder: Path, tmp_path: Path, registry: Registry, some: list[dict[str, Any]]
) -> None:
    store = Store(tmp_path / "made-store")
    for record in some:
        submitted = folder / "results" / "little" / f"{record['key']}.json"
        assert submitted.read_bytes() == store.record_path("little", record["key"]).read_bytes()
    assert {r.key for r in records.load(folder, "little")} == {r["key"] for r in some}
    assert submit(store, "little", folder, registry) == Submission()


def test_submit_leaves_out_what_is_interrupted_or_outdated(tmp_path: Path, registry: Registry) -> None:
    store = Store(tmp_path / "made-store")
    write_json(store, make_record(seed=0))
    write_json(store, make_record(seed=1, status="interrupted", metrics={}, cost={}))
    write_json(store, make_record(seed=2, attack="aim", prior=part("faces", "0")))
    write_json(store, make_record(seed=3, track={"name": "little", "version": 1, "data": "fp"}))
    done = submit(store, None, tmp_path / "boards", registry)
    assert [path.stem for path in done.written] == [make_record(seed=0)["key"]]


def test_submit_copies_nothing_when_a_record_is_invalid(tmp_path: Path, registry: Registry) -> None:
    store = Store(tmp_path / "made-store")
    write_json(store, make_record(seed=0))
    write_json(store, make_record(seed=1, schema=99))
    with pytest.raises(MiaBenchError, match="schema 99"):
        submit(store, None, tmp_path / "boards", registry)
    assert not (tmp_path / "boards").exists()


def test_a_failure_never_replaces_a_finished_record(tmp_path: Path, folder: Path, registry: Registry) -> None:
    failed = make_record(status="failed", reason="boom", metrics={}, cost={})
    for number, key in enumerate((failed["key"], "another")):
        store = Store(tmp_path / f"store-{number}")
        write_json(store, {**failed, "key": key})
        assert submit(store, None, folder, registry) == Submission()
    assert {record.status for record in records.load(folder, "little")} == {"done"}


def place_of(folder: Path, record: dict[str, Any]) -> Path:
    return folder / "results" / "little" / f"{record['key']}.json"


def later(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Another record of a cell that ended after all others."""
    provenance = {**record["provenance"], "finished": "2026-02-01T00:00:00+00:00"}
    return {**record, "key": "later", "provenance": provenance, **changes}


def test_a_newer_record_of_a_cell_takes_the_place_of_the_older(
    tmp_path: Path, folder: Path, registry: Registry
) -> None:
    """That of an older version of a plugin which isn't installed here, say."""
    old = make_record("foreign")
    new = later(old, defense=part("foreign", "2"))
    place_of(folder, old).write_text(record_text(old))
    store = Store(tmp_path / "another-store")
    write_json(store, new)
    done = submit(store, None, folder, registry)
    assert (done.written, done.removed) == ([place_of(folder, new)], [place_of(folder, old)])
    assert not place_of(folder, old).exists()
    assert records.build(folder, registry)


def test_an_older_record_of_a_cell_takes_no_place(
    tmp_path: Path, folder: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    old = make_record("foreign")
    new = later(old, defense=part("foreign", "2"))
    place_of(folder, new).write_text(record_text(new))
    store = Store(tmp_path / "another-store")
    write_json(store, old)
    assert submit(store, None, folder, registry) == Submission()
    assert "a finished or newer one is there already" in caplog.text


def test_an_older_record_under_the_same_key_takes_no_place(
    tmp_path: Path, folder: Path, registry: Registry, some: list[dict[str, Any]]
) -> None:
    newer = {**later(some[0]), "key": some[0]["key"]}
    place_of(folder, newer).write_text(record_text(newer))
    store = Store(tmp_path / "another-store")
    write_json(store, some[0])
    assert submit(store, None, folder, registry) == Submission()


def test_a_record_of_too_few_seeds_removes_nothing(tmp_path: Path, folder: Path, registry: Registry) -> None:
    old = make_record("foreign")
    place_of(folder, old).write_text(record_text(old))
    store = Store(tmp_path / "another-store")
    write_json(store, later(old, defense=part("foreign", "2")))
    assert submit(store, None, folder, registry, least_seeds=3) == Submission()
    assert place_of(folder, old).exists()
    for seed in (1, 2):
        write_json(store, {**make_record("foreign", seed), "defense": part("foreign", "2")})
    done = submit(store, None, folder, registry, least_seeds=3)
    assert (len(done.written), done.removed) == (3, [place_of(folder, old)])


def test_of_two_records_of_a_cell_in_a_store_one_is_copied(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_record("foreign")
    failed = later(first, status="failed", reason="boom", metrics={}, cost={})
    store = Store(tmp_path / "made-store")
    write_json(store, first)
    write_json(store, failed)
    (written,) = submit(store, None, tmp_path / "boards", registry).written
    assert written.stem == first["key"]
    assert "another of the cell is finished or newer" in caplog.text


def test_records_that_cannot_stay_beside_the_new_ones_are_removed_only_when_asked(
    tmp_path: Path, folder: Path, registry: Registry
) -> None:
    old = [make_record("foreign", seed) for seed in (0, 1)]
    for record in old:
        place_of(folder, record).write_text(record_text(record))
    before = sorted(folder.rglob("*.json"))
    store = Store(tmp_path / "another-store")
    write_json(store, later(old[0], defense=part("foreign", "2")))
    with pytest.raises(
        MiaBenchError,
        match=r"has 1 more .*: foreign × aim, seed 1\. .*--replace",
    ):
        submit(store, None, folder, registry)
    assert sorted(folder.rglob("*.json")) == before
    done = submit(store, None, folder, registry, replace=True)
    assert set(done.removed) == {place_of(folder, record) for record in old}
    assert records.build(folder, registry)


def test_the_work_of_submit_grows_with_the_records_not_with_their_square(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """800 into 800 once took 35 s."""
    looked_at = Counter()
    unfit = admit._unfit

    def counted(track: Track, record: Record, quantities: Any) -> str:
        looked_at[record.key] += 1
        return unfit(track, record, quantities)

    monkeypatch.setattr(admit, "_unfit", counted)
    for number, seeds in enumerate((range(40), range(40, 80))):
        store = Store(tmp_path / f"store-{number}")
        for seed in seeds:
            write_json(store, make_record(seed=seed, provenance=PROVENANCE))
        looked_at.clear()
        assert len(submit(store, None, tmp_path / "boards", registry).written) == 40
    assert len(looked_at) == 80
    assert looked_at.total() < 3 * 80


def test_records_that_share_no_board_are_not_copied(tmp_path: Path, registry: Registry) -> None:
    store = Store(tmp_path / "made-store")
    write_json(store, make_record())
    write_json(
        store,
        make_record("guard", track={"name": "little", "version": 2, "data": "fp", "protocol": "p2"}),
    )
    with pytest.raises(MiaBenchError, match="different protocols"):
        submit(store, None, tmp_path / "boards", registry)
    assert not (tmp_path / "boards").exists()


def test_records_of_an_unknown_track_are_left_out(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "made-store")
    write_json(store, make_record(track={"name": "gone", "version": 1, "data": "fp"}))
    write_json(store, make_record())
    assert len(submit(store, None, tmp_path / "boards", registry).written) == 1
    assert "no track is called 'gone'" in caplog.text


def test_cells_without_numbers_are_told_and_can_be_left_out(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "made-store")
    write_json(store, make_record())
    for seed in (1, 2):
        write_json(store, make_record(seed=seed, status="failed", reason="boom", metrics={}, cost={}))
    only = submit(store, None, tmp_path / "only", registry, finished_only=True)
    assert (len(only.written), caplog.text) == (1, "")
    assert len(submit(store, None, tmp_path / "boards", registry).written) == 3
    assert "2 cells without numbers" in caplog.text
    assert "boom" in caplog.text


def test_a_row_whose_cells_all_failed_is_copied(tmp_path: Path, registry: Registry) -> None:
    store = Store(tmp_path / "made-store")
    write_json(store, make_record())
    write_json(store, make_record("guard", status="failed", reason="boom", metrics={}, cost={}))
    assert len(submit(store, None, tmp_path / "boards", registry).written) == 2


def test_rows_with_few_seeds_can_be_left_out(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    store, boards = Store(tmp_path / "made-store"), tmp_path / "boards"
    for seed in (0, 1, 2, 1000):
        write_json(store, make_record(seed=seed))
    for seed in (0, 1):
        write_json(store, make_record("guard", seed))
    write_json(store, make_record("guard", 2, status="failed", reason="boom", metrics={}, cost={}))
    written = submit(store, None, boards, registry, least_seeds=3).written
    rows = [(path.is_relative_to(boards / "tuning"), json.loads(path.read_text())) for path in written]
    assert sorted((tuning, record["defense"]["name"], record["seed"]) for tuning, record in rows) == [
        (False, "plain", 0), (False, "plain", 1), (False, "plain", 2), (True, "plain", 1000),
    ]  # fmt: skip
    assert "3 records are left out: fewer than 3 seeds are finished" in caplog.text
    # Those of the folder count.
    (store.root / "records").rename(tmp_path / "before")
    write_json(store, make_record(seed=3))
    assert len(submit(store, None, boards, registry, least_seeds=4).written) == 1
    assert submit(store, None, boards, registry, least_seeds=5) == Submission()


@pytest.mark.parametrize("other", ["boards", "site-packages/leaderboards"])
def test_a_folder_of_ones_own_changes_nothing_beside_the_track(
    folder: Path, tmp_path: Path, registry: Registry, monkeypatch, other: str
) -> None:
    """Another folder of the checkout, and one below which the track is installed."""
    own = tmp_path / other
    own.parent.mkdir(exist_ok=True)
    folder.rename(own)
    summary = records.summary_path(registry, "little")
    if "/" in other:
        summary = own.parent / summary.name
        monkeypatch.setattr(records, "summary_path", lambda registry, track: summary)
    assert summary not in records.build(own, registry)
    assert not summary.exists()
    assert records.check(own, registry) == []


def test_build_then_check_finds_nothing(folder: Path, registry: Registry) -> None:
    written = records.build(folder, registry)
    assert {path.name for path in written} == {
        "little.md", "README.md", "little.svg", "little-differences.svg", "little.board.json"
    }  # fmt: skip
    assert "[little](little.md) v2" in (folder / "README.md").read_text()
    assert records.check(folder, registry) == []
    assert records.build(folder, registry) == []
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {
        ".md", ".json", ".svg"
    }  # fmt: skip


def test_check_finds_missing_tampered_and_stale_pages(folder: Path, registry: Registry) -> None:
    assert len(records.check(folder, registry)) == 5
    records.build(folder, registry)
    page = folder / "little.md"
    page.write_text(page.read_text().replace("0.410", "0.110"))
    (folder / "gone.md").write_text(pages.TITLE + "gone\n")
    (folder / "figures" / "gone.svg").write_text("<svg/>\n")
    (folder / "notes.md").write_text("# Notes\n")
    lines = records.check(folder, registry)
    gone = [str(folder / "gone.md"), str(folder / "figures" / "gone.svg")]
    assert [line.split(":")[0] for line in lines] == [str(page), *gone]


def test_check_finds_records_of_a_changed_checkout(folder: Path, registry: Registry) -> None:
    made = make_record("plain", 4)
    made["provenance"] |= {"git": "abc-dirty"}
    path = folder / "results" / "little" / f"{made['key']}.json"
    path.write_text(record_text(made))
    records.build(folder, registry)
    [line] = records.check(folder, registry)
    assert made["key"] in line
    assert "abc-dirty" in line


def test_build_writes_no_page_when_a_record_is_refused(folder: Path, registry: Registry) -> None:
    old = make_record(track={"name": "little", "version": 1, "data": "fp"})
    (folder / "results" / "little" / f"{old['key']}.json").write_text(record_text(old))
    with pytest.raises(MiaBenchError, match=old["key"]):
        records.build(folder, registry)
    assert not list(folder.glob("*.md"))
    assert any(old["key"] in line for line in records.check(folder, registry))


def test_records_of_an_unknown_track_are_a_problem(folder: Path, registry: Registry) -> None:
    (folder / "results" / "little").rename(folder / "results" / "other")
    assert any("unknown track" in line for line in records.check(folder, registry))
    with pytest.raises(UsageError, match="no records"):
        records.build(folder / "nowhere", registry)


def test_a_row_whose_plugin_is_not_installed_is_shown_with_all_its_options(
    registry: Registry, track: Track
) -> None:
    made = read(make_record("foreign", options={"strength": 3}))
    text = pages.page(standings(build_board(registry, track, made)), registry)
    assert "| `foreign strength=3` |" in text
    assert "-o foreign.strength=3" in text


def test_usual_options_are_those_that_no_label_gives() -> None:
    def used(name: str, changed: list[str], **options: int) -> ComponentRef:
        about = {"changed": changed}
        return ComponentRef(name=name, options=options, distribution="d", version="1", about=about)

    found = [used("b", ["z"], z=1), used("a", ["x"], x=1, y=2, w=0), used("a", [], x=3, y=2, w=0)]
    assert usual_options(found) == {"a": {"x": 3, "y": 2, "w": 0}, "b": {}}
    assert usual_options(found, {"a": ["y"], "c": ["x"]}) == {"a": {"x": 3, "w": 0}, "b": {}}


def test_options_stand_once_on_a_page(registry: Registry, track: Track) -> None:
    given = track.model_copy(update={"defenses": {"guard": {"alpha": 0.5}}})
    made = read(make_record("plain"), make_record("guard"))
    text = pages.page(standings(build_board(registry, given, made)), registry)
    assert "- defense `guard`: `widths=[1, 2]`\n" in text
    assert text.count("alpha=0.5") == text.count("widths=[1, 2]") == text.count("steps=7") == 1


def test_the_page_is_the_same_where_a_plugin_is_not_installed(
    tmp_path: Path, registry: Registry, track: Track
) -> None:
    said = {
        "plain": {"baseline": True},
        "guard": {"summary": "guards <b>", "changed": ["alpha"]},
        "aim": {"access": "black-box", "paper": "Aim et al.", "changed": ["steps"]},
        "samples": {"reference": "floor", "changed": []},
    }
    made = []
    for defense in ("plain", "guard"):
        for attack in ("aim", "samples"):
            record = make_record(defense, attack=attack)
            record["defense"]["about"] = said[defense]
            record["attack"]["about"] = said[attack]
            record["prior"]["about"] = {"summary": "faces"}
            made.append(record)
    without = Registry()
    for (kind, name), entries in registry._entries.items():
        if kind in ("metric", "track"):
            without.add(kind, name, entries[0].component, "", entries[0].plugin)
    text, other = (
        pages.page(standings(build_board(one, track, read(*made))), one) for one in (registry, without)
    )
    assert text == other
    assert "<summary><b>Leakage under aim (steps=7)</b></summary>" in text
    assert "- attack `aim` (black-box), prior " in text
    assert "- defense `guard`: guards \\<b\\>\n" in text
    assert "- attack `aim`: Aim et al.\n" in text
    assert "*floor: samples*" in text
    assert "Difference from `plain`" in text
    assert "--defense guard -o guard.alpha=0.5 --attack" in text


def test_one_record_that_speaks_of_an_uninstalled_plugin_is_enough(registry: Registry, track: Track) -> None:
    """As for the baseline and the floor here: their older records say nothing."""
    made = [make_record("guard"), make_record("guard", attack="sketch")]
    for attack in ("aim", "sketch"):
        for seed in (0, 1):
            record = make_record("undefended", seed, attack)
            if seed:
                record["defense"]["about"] = {"baseline": True}
                record["attack"]["about"] = {"reference": "floor"} if attack == "sketch" else {}
            made.append(record)
    for order in (made, made[::-1]):
        board = build_board(registry, track, read(*order))
        real, floor = board.sections
        assert (real.reference, floor.reference) == ("", "floor")
        assert real.baseline is not None
        assert real.baseline.defense == "undefended"
        assert [row.label for _, row in board.floors] == ["floor: sketch"]


def test_code_that_changed_under_a_version_is_told_by_the_check(folder: Path, registry: Registry) -> None:
    for seed, code in ((0, "0.1.0 aaa"), (1, "0.1.0 bbb"), (2, "0.2.0 ccc")):
        made = make_record("foreign", seed)
        made["defense"]["about"] = {"code": code}
        place_of(folder, made).write_text(record_text(made))
        records.build(folder, registry)
        lines = records.check(folder, registry)
        assert len(lines) == (seed > 0)
    assert "the code of defense 'foreign' changed between records of its version 1" in lines[0]


def test_what_a_defense_reports_stands_with_utility(registry: Registry, track: Track) -> None:
    spent = {"value": 8.0, "low": 8.0, "high": 8.0, "n": 1}
    guard = make_record("guard")
    guard["metrics"]["epsilon"] = spent
    board = build_board(registry, track, read(make_record("plain"), guard))
    assert board.utility_metrics == ("test_accuracy", "epsilon")
    assert board.further_metrics == ("blurriness",)
    assert board.utility[0].defense == "plain"
    assert board.utility[0].metrics["epsilon"] == Missing("these records do not report it")


def test_kinds_of_numbers(registry: Registry, track: Track) -> None:
    guard = make_record("guard")
    guard["metrics"]["x"] = metric(-3.0)
    board = build_board(registry, track, read(guard))
    kinds = {name: board.quantities[name].kind for name in ("id_gallery_acc1_ceiling", "id_median_rank", "x")}
    assert kinds == {"id_gallery_acc1_ceiling": "share", "id_median_rank": "rank", "x": "number"}
    assert board.utility[0].metrics["x"] == Estimate(-3.0, -3.1, -2.9, 10)  # no bounds are known


def test_a_sweep_without_a_board_has_its_page(tmp_path: Path, registry: Registry) -> None:
    undefended = make_record("plain", 1000)
    undefended["metrics"]["validation_accuracy"] = metric(0.9)
    for record in (undefended, swept(0.2, 0.9, 0.4)):
        path = tmp_path / "tuning" / "results" / "little" / f"{record['key']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record_text(record))
    built = records.build(tmp_path, registry)
    assert tmp_path / "tuning" / "little.md" in built
    assert records.check(tmp_path, registry) == []


def test_an_overview_knows_cells_from_before_an_option_existed(registry: Registry) -> None:
    older = make_record("guard", 0)
    older |= {"key": "older", "defense": {**older["defense"], "options": {"alpha": 0.5}}}
    (found,) = overviews(read(older, make_record("guard", 0), make_record("plain", 0)), registry)
    assert (found.reason, len(found.decided.rows)) == ("", 2)


# --- a third party's metric ------------------------------------------------------------------


class Farness(AttackMetric):
    """As a plugin of somebody else would declare it: the farther, the better; from 0 to infinity."""

    quantities: ClassVar[Any] = {
        "farness": Quantity("how far off", "higher", "distance", "leakage", paired=True),
        "sharpness": Quantity("how sharp"),
    }

    def compute(self, evidence: Any) -> Any:
        raise NotImplementedError


def far_registry(folder: Path, ranked_by: str) -> Registry:
    """The made registry, with a metric from another distribution on the track."""
    registry = make_registry(folder)
    owner = PluginInfo("far", "far-dist", "1", "far")
    registry.add("metric", "far", Farness, "", owner)
    path = folder / "little.toml"
    ours = 'ranked_by = ["id_gallery_acc1", "id_acc1", "attack_acc1"]\n'
    text = path.read_text().replace(ours, ranked_by)
    path.write_text(text.replace('"cost", "leak"', '"far", "cost", "leak"'))
    return registry


def far_record(defense: str, seed: int, classes: list[float], **changes: Any) -> dict[str, Any]:
    made = make_record(defense, seed, **changes)
    value = sum(classes) / len(classes)
    made["metrics"] |= {"farness": metric(value, 1.0), "sharpness": metric(value)}
    made["per_class"] = {"farness": classes, "attack_acc1": [0.9] * len(classes)}
    return made


def test_a_third_partys_metric_orders_a_board_is_paired_and_bounded(tmp_path: Path) -> None:
    registry = far_registry(tmp_path, 'ranked_by = ["farness"]\n')
    made = [
        far_record("plain", 0, [0.2, 0.4]),
        far_record("plain", 1, [0.6, 0.8]),
        far_record("guard", 0, [3.0, 5.0]),
        far_record("guard", 1, [3.4, 5.4]),
        far_record("guard", 0, [9.0, 9.0], options={"alpha": 0.1}),
        far_record("guard", 1, [9.4, 9.4], options={"alpha": 0.1}),
    ]
    board = build_board(registry, load_track(registry, "little"), read(*made))
    assert (board.primary, board.paired) == ("farness", ("farness",))
    # In the order of the track's metrics, and of each metric's quantities.
    assert board.leakage_metrics[:2] == ("farness", "attack_acc1")
    assert board.further_metrics == ("sharpness", "blurriness")
    [section] = board.sections
    assert [(row.defense, row.value("farness")) for row in section.rows] == [
        ("guard", pytest.approx(9.2)),
        ("guard", pytest.approx(4.2)),
        ("plain", pytest.approx(0.5)),
    ]
    plain = section.rows[-1].metrics["farness"]
    assert isinstance(plain, Estimate)
    assert plain.low == 0.0  # a distance is not below
    assert plain.high > 1.5
    best, other = (difference.metrics["farness"] for difference in section.differences)
    assert best is not None
    assert other is not None
    assert (best.mean, other.mean) == (pytest.approx(8.7), pytest.approx(3.7))
    assert best.seeds == (0, 1)
    text = pages.page(standings(board), registry)
    assert "- `farness` ↑: how far off\n" in text
    assert "ordered by `farness`" in text


def test_a_sweep_is_judged_by_the_direction_of_what_orders_the_board(tmp_path: Path) -> None:
    registry = far_registry(tmp_path, 'ranked_by = ["farness"]\n')
    made = [far_record("plain", 1000, [1.0])]
    made += [far_record("guard", 1000, [value], options={"alpha": value}) for value in (2.0, 5.0, 3.0)]
    for record in made:
        record["metrics"]["validation_accuracy"] = metric(0.9)
    board = build_board(registry, load_track(registry, "little"), read(*made))
    found = tuning.choose(board)
    assert found is not None
    assert (found.metric, found.selection) == ("farness", "validation_accuracy")
    assert found.choices[0].setting is not None
    assert found.choices[0].setting.options["alpha"] == 5.0


def test_without_a_ranking_the_paired_quantities_of_leakage_rank(tmp_path: Path) -> None:
    registry = far_registry(tmp_path, "")
    made = far_record("plain", 0, [1.0, 2.0])
    board = build_board(registry, load_track(registry, "little"), read(made))
    assert board.paired == ("farness", "id_gallery_acc1")  # the first that is measured, the last
    made["metrics"]["farness"] = None
    del made["per_class"]["farness"]
    board = build_board(registry, load_track(registry, "little"), read(made))
    assert board.paired == ("attack_acc1", "id_gallery_acc1")


def test_a_ranking_by_what_no_metric_gives_is_an_error(tmp_path: Path) -> None:
    registry = far_registry(tmp_path, 'ranked_by = ["nearness"]\n')
    with pytest.raises(MiaBenchError, match=r"ranked by 'nearness', which none of its metrics"):
        build_board(registry, load_track(registry, "little"), read(make_record()))


def test_ties_are_broken_by_the_last_of_the_ranking(registry: Registry, track: Track) -> None:
    tied, less = make_record("plain", gallery=0.4), make_record("guard", gallery=0.4)
    tied["metrics"]["attack_acc1"], less["metrics"]["attack_acc1"] = metric(0.8), metric(0.7)
    tied["metrics"]["id_acc1"], less["metrics"]["id_acc1"] = metric(0.1), metric(0.2)
    for made in ([tied, less], [less, tied]):
        [section] = build_board(registry, track, read(*made)).sections
        assert [row.defense for row in section.rows] == ["guard", "plain"]


def test_the_ceiling_of_a_quantity_is_the_one_that_it_names(registry: Registry, track: Track) -> None:
    made = make_record()
    made["metrics"]["attack_acc1_ceiling"] = metric(0.99)  # attack_acc1 names none
    board = build_board(registry, track, read(made))
    assert board.ceiling is not None
    assert list(board.ceiling.metrics) == ["id_gallery_acc1"]


def test_what_no_cell_sets_or_settings_are_chosen_by_is_no_column(registry: Registry, track: Track) -> None:
    made = [make_record(), make_record(seed=1)]
    for record in made:
        record["metrics"]["validation_accuracy"] = metric(0.7)
    board = build_board(registry, track, read(*made))
    assert board.references == {"verification_accuracy": Estimate(0.99, 0.985, 0.995, 10)}
    shown = {*board.utility_metrics, *board.leakage_metrics, *board.further_metrics}
    assert not shown & {"verification_accuracy", "id_gallery_acc1_ceiling", "validation_accuracy"}


def test_what_a_defense_says_of_its_report_does_not_depend_on_what_is_installed(
    registry: Registry, track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guard, "reports", {"spent": Quantity("budget spent", kind="amount")})
    made = make_record("guard")
    made["metrics"]["spent"] = metric(2.0)
    [installed] = [build_board(registry, track, read(made)).quantities["spent"]]
    assert (installed.description, installed.kind) == ("budget spent", "amount")
    made["defense"]["about"] = {"summary": "speaks for itself"}
    board = build_board(registry, track, read(made))
    assert board.quantities["spent"].description == "reported by the defense"
    assert board.utility_metrics[-1] == "spent"


# --- command line ----------------------------------------------------------------------------


@pytest.fixture
def made_host(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line sees the made registry."""
    from mia_bench import results
    from mia_bench.cli import leaderboard
    from mia_bench.plugins import Host

    host = Host(())
    host.registry = registry
    for module in (leaderboard, results):
        monkeypatch.setattr(module, "host", lambda: host)


@pytest.mark.usefixtures("made_host")
def test_the_commands(
    cli: Callable[..., Any],
    tmp_path: Path,
    some: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(tmp_path / "made-store")
    for record in some:
        write_json(store, record)
    folder = tmp_path / "boards"
    where = ("--folder", folder)
    assert cli("leaderboard", "build", *where).code == 2
    submitted = cli("leaderboard", "submit", *where, "--store", store.root)
    assert (submitted.code, len(submitted.out.splitlines())) == (0, len(some))
    assert cli("leaderboard", "check", *where).code == 1
    built = cli("leaderboard", "build", *where)
    assert (built.code, built.out.splitlines()) == (
        0,
        [
            str(tmp_path / name)
            for name in (
                "boards/little.md",
                "boards/figures/little.svg",
                "boards/figures/little-differences.svg",
                "boards/README.md",
            )
        ],
    )
    checked = cli("leaderboard", "check", *where)
    assert (checked.code, checked.out) == (0, "")
    assert cli("leaderboard", "submit", *where, "--store", tmp_path / "none").code == 2
    replaced = make_record("foreign")
    place_of(folder, replaced).write_text(record_text(replaced))
    write_json(store, later(replaced))
    again = cli("leaderboard", "submit", *where, "--store", store.root)
    assert again.out.splitlines()[-1] == f"removed {place_of(folder, replaced)}"
    assert "1 new, 0 changed, 1 removed" in again.err
    rerun = later(some[0], key=some[0]["key"], metrics={**some[0]["metrics"], "test_accuracy": metric(0.8)})
    write_json(store, rerun | {"per_class": {}, "class_counts": {}})
    told = cli("leaderboard", "submit", *where, "--store", store.root)
    (line,) = told.out.splitlines()
    assert line.startswith("changed, ")
    assert "half-widths of the published intervals away" in line
    assert line.endswith(f": {place_of(folder, some[0])}")
    assert "0 new, 1 changed, 0 removed" in told.err
    monkeypatch.chdir(tmp_path)
    outside = cli("leaderboard", "submit", "--store", store.root)
    assert (outside.code, (tmp_path / "leaderboards").exists()) == (2, False)
    assert "name one by --folder" in outside.err
    mistyped = cli("leaderboard", "submit", *where, "--store", store.root, "--track", "litle")
    assert mistyped.code == 2
    assert "did you mean 'little'?" in mistyped.err


def test_boards_need_no_torch() -> None:
    program = (
        "import sys, mia_bench.leaderboard, mia_bench.results, mia_bench.cli.leaderboard; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- the undefended front, matched baselines ------------------------------------------------------


class FrontBaseline(Plain):
    front_options: ClassVar[tuple[str, ...]] = ("epochs", "images")

    class Options(Defense.Options):
        epochs: float = 1.0
        images: float = 1.0
        norm: str = "batch"


class MatchedGuard(Guard):
    matched: ClassVar[tuple[str, dict[str, Any]]] = ("plain", {"norm": "group"})


@pytest.mark.parametrize(
    ("changed", "front"),
    [
        ({}, False),
        ({"epochs": 0.5}, True),
        ({"epochs": 0.5, "images": 0.5}, True),
        ({"norm": "group"}, False),
        ({"norm": "group", "epochs": 0.5}, False),
    ],
)
def test_the_front_is_the_baseline_with_nothing_changed_but_front_options(
    changed: dict[str, Any], front: bool
) -> None:
    assert said_of_itself(FrontBaseline, changed)["front"] is front
    assert not said_of_itself(Guard, changed)["front"]


def test_a_record_holds_the_matched_baseline() -> None:
    about = About(**said_of_itself(MatchedGuard, ["alpha"]))
    assert about.matched is not None
    assert (about.matched.name, about.matched.options) == ("plain", {"norm": "group"})
    assert About.model_validate(about.model_dump()) == about
    assert said_of_itself(Guard, [])["matched"] is None


class Layered(Guard):
    matched: ClassVar[tuple[str, dict[str, Any]]] = ("layered", {"alpha": 0.0})

    class Options(Defense.Options):
        alpha: float = 0.5
        width: int = 2


@pytest.mark.parametrize(("name", "alpha", "undefended"), [("layered", 0.0, True), ("layered", 0.5, False)])
def test_a_defense_may_name_itself_with_options_that_leave_its_architecture_alone(
    name: str, alpha: float, undefended: bool
) -> None:
    about = About(**said_of_itself(Layered, ["alpha"], Layered.Options(alpha=alpha), name))
    assert about.baseline is undefended
    assert not about.front
    assert (about.matched is None) is undefended


def test_a_record_says_whether_the_targets_answers_are_random() -> None:
    class Sampling(Guard):
        @property
        def stochastic(self) -> bool:
            return self.options.alpha > 0.5

    for alpha in (0.4, 0.6):
        assert said_of_itself(Sampling, [], Sampling.Options(alpha=alpha))["randomised"] is (alpha > 0.5)
    assert not said_of_itself(Sampling, [])["randomised"]
    assert not said_of_itself(Aim, [], Aim.Options())["randomised"]


@pytest.mark.parametrize("wrong", [{"front_options": "epochs"}, {"front_options": (1,)}, {"matched": "none"}])
def test_attributes_of_another_form_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"front_options|matched"):
        type("Wrong", (Defense,), wrong)
