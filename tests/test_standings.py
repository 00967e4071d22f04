"""The verdict table: which attack and baseline a row is compared under, and what follows."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from mia_bench.leaderboard import pages
from mia_bench.leaderboard import pairs as pairs_module
from mia_bench.leaderboard.advice import advice, in_points
from mia_bench.leaderboard.board import Board, build_board
from mia_bench.leaderboard.drawing import forests, plane
from mia_bench.leaderboard.export import csv_lines
from mia_bench.leaderboard.flags import NOT_PAIRED
from mia_bench.leaderboard.grouping import ComponentKey
from mia_bench.leaderboard.pairs import Pairs, section_letters
from mia_bench.leaderboard.standings import Standings, standings
from mia_bench.leaderboard.strongest import strongest
from mia_bench.leaderboard.trainings import several_trainings
from mia_bench.leaderboard.verdicts import NOT_BEYOND
from mia_bench.leaderboard.words import remarks, reservations
from mia_bench.registry import Registry
from mia_bench.statistics import Effect, Estimate
from mia_bench.track import Standard, StandardAttack, load_track
from test_leaderboard import Guard, make_record, make_registry, metric, read

CLASSES = 12
NBSP = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return make_registry(tmp_path_factory.mktemp("standings"))


def cell(
    defense: str,
    seed: int,
    leakage: float,
    accuracy: float = 0.9,
    *,
    attack: str = "aim",
    steps: int = 7,
    options: dict[str, Any] | None = None,
    **about: Any,
) -> dict[str, Any]:
    """A cell with means of twelve classes around the values, with noise of its own."""
    noise = random.Random(f"{defense}{seed}{options}{attack}{steps}")
    people = random.Random(7)

    def means(value: float) -> list[float]:
        drawn = [people.gauss(0, 0.05) + noise.gauss(0, 0.01) for _ in range(CLASSES)]
        return [round(value + one - sum(drawn) / CLASSES, 6) for one in drawn]

    record = make_record(defense, seed, attack, options=options, gallery=leakage, accuracy=accuracy)
    record["attack"]["options"] = {"steps": steps}
    record["key"] = f"{noise.getrandbits(80):020x}"
    record["per_class"] = {"id_gallery_acc1": means(leakage), "test_accuracy": means(accuracy)}
    for name, found in record["per_class"].items():
        record["metrics"][name] = metric(sum(found) / CLASSES, 0.05, 3 * CLASSES)
    if about:
        record["defense"]["about"] = {"summary": "said", **about}
    return record


def rows(*settings: tuple[Any, ...], seeds: int = 5, **more: Any) -> list[dict[str, Any]]:
    return [cell(name, seed, *values, **more) for name, *values in settings for seed in range(seeds)]


def board_of(registry: Registry, made: list[dict[str, Any]]) -> Board:
    return build_board(registry, load_track(registry, "little"), read(*made))


def decide(registry: Registry, *made: dict[str, Any]) -> Standings:
    return standings(board_of(registry, list(made)))


BASE = rows(("plain", 0.6, 0.9))


@pytest.mark.parametrize(
    ("leakage", "accuracy", "kind"),
    [
        (0.3, 0.9, "leaks less"),
        (0.3, 0.6, "leaks less, at a cost"),
        (0.6, 0.9, "no difference"),
        (0.8, 0.9, "leaks more"),
    ],
)
def test_a_row_has_the_verdict_of_its_differences(
    registry: Registry, leakage: float, accuracy: float, kind: str
) -> None:
    decided = decide(registry, *BASE, *rows(("guard", leakage, accuracy)))
    base, guard = decided.rows
    assert (base.role, base.verdict and base.verdict.kind) == ("baseline", "baseline")
    assert guard.difference is not None
    assert guard.difference.value == pytest.approx(leakage - 0.6, abs=1e-6)
    assert guard.accuracy_difference is not None
    assert guard.accuracy_difference.value == pytest.approx(accuracy - 0.9, abs=1e-6)
    assert guard.verdict is not None
    assert guard.verdict.kind == kind


def test_random_answers_are_a_remark(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "stochastic", property(lambda self: self.options.alpha == 0.5))
    _, guard = decide(registry, *BASE, *rows(("guard", 0.3, 0.9))).rows
    assert guard.verdict is not None
    assert guard.verdict.flags == ("randomised",)


def under(made: list[dict[str, Any]], capability: str) -> list[dict[str, Any]]:
    """The cells, computed with these instructions."""
    said = {"device": "cpu (1 thread)", "threads": 1, "capability": capability}
    return [{**one, "provenance": {**one["provenance"], **said}} for one in made]


def test_a_row_of_other_instructions_is_compared_and_not_paired(registry: Registry) -> None:
    front = rows(("plain", 0.2, 0.5), options={"epochs": 0.5}, baseline=True, front=True, changed=["epochs"])
    base, guard = under(BASE + front, "AVX2"), rows(("guard", 0.3, 0.6))
    paired, beside = (
        next(iter(decide(registry, *base, *under(guard, capability)).defenses))
        for capability in ("AVX2", "AVX512")
    )
    assert paired.verdict
    assert beside.verdict
    assert paired.verdict.flags == ()
    assert beside.verdict.flags == (NOT_PAIRED,)
    for one in (paired, beside):
        assert one.difference is not None
        assert one.difference.value == pytest.approx(0.3 - 0.6, abs=1e-6)
        assert one.beyond is not None


@pytest.mark.parametrize(("leakage", "accuracy", "flags"), [(0.2, 0.9, ()), (0.5, 0.7, (NOT_PAIRED,))])
def test_the_accuracy_of_a_row_is_that_of_the_targets_that_its_attack_met(
    registry: Registry, leakage: float, accuracy: float, flags: tuple[str, ...]
) -> None:
    """The second attack was run later on another processor, and met another training of the target."""
    first = rows(("plain", 0.6, 0.9), ("guard", 0.4, 0.9))
    later = rows(("guard", leakage, 0.7), steps=9)
    for one in later:
        one["provenance"] = {**one["provenance"], "finished": "2026-02-01T00:00:00+00:00"}
    decided = decide(registry, *under(first, "AVX512"), *under(later, "AVX2"))
    (guard,) = decided.defenses
    assert guard.verdict
    assert tuple(flag for flag in guard.verdict.flags if flag == NOT_PAIRED) == flags
    assert isinstance(guard.accuracy, Estimate)
    assert guard.accuracy.value == pytest.approx(accuracy, abs=1e-6)
    assert guard.accuracy_difference is not None
    assert guard.accuracy_difference.value == pytest.approx(accuracy - 0.9, abs=1e-6)
    # Where every attack is shown it is the mean over both.
    (guard,) = standings(decided.board, own_targets=False).defenses
    assert isinstance(guard.accuracy, Estimate)
    assert guard.accuracy.value == pytest.approx(0.8, abs=1e-6)


def test_of_an_attack_with_fewer_seeds_accuracy_has_those_if_trainings_differ(registry: Registry) -> None:
    first = rows(("plain", 0.6, 0.9), ("guard", 0.4, 0.9))
    later = rows(("guard", 0.5, 0.7), steps=9, seeds=3)
    (guard,) = decide(registry, *under(first, "AVX512"), *under(later, "AVX2")).defenses
    assert isinstance(guard.accuracy, Estimate)
    assert guard.accuracy.value == pytest.approx(0.7, abs=1e-6)
    assert guard.accuracy_difference is not None
    assert guard.accuracy_difference.seeds == 3
    # Of one training the accuracy is known on all seeds.
    same = [
        {**one, "per_class": dict(one["per_class"])} for one in rows(("guard", 0.5, 0.9), steps=9, seeds=3)
    ]
    for one, other in zip(same, first[5:], strict=False):
        one["per_class"]["test_accuracy"] = other["per_class"]["test_accuracy"]
    (guard,) = decide(registry, *first, *same).defenses
    assert guard.accuracy_difference is not None
    assert guard.accuracy_difference.seeds == 5


def test_records_without_accuracy_go_with_those_of_their_conditions(registry: Registry) -> None:
    first = rows(("plain", 0.6, 0.9), ("guard", 0.4, 0.9))
    later = rows(("guard", 0.3, 0.7), steps=9)
    bare = rows(("guard", 0.5, 0.7), steps=11)
    for one in bare:
        del one["metrics"]["test_accuracy"], one["per_class"]["test_accuracy"]
    decided = decide(registry, *under(first, "AVX512"), *under(later + bare, "AVX2"))
    (guard,) = decided.defenses
    assert decided.board.label(guard.section) == "aim (steps=11)"
    assert isinstance(guard.accuracy, Estimate)
    assert guard.accuracy.value == pytest.approx(0.7, abs=1e-6)


def test_trainings_are_told_by_the_means_of_classes_and_named_with_the_attacks_that_met_them(
    registry: Registry,
) -> None:
    """Means over classes may be equal; attacks that are references don't count."""
    made = rows(("guard", 0.4, 0.9)) + rows(("guard", 0.3, 0.9), steps=9)
    made += rows(("guard", 0.1, 0.5), attack="samples", steps=1)
    board = board_of(registry, rows(("plain", 0.6, 0.9)) + made)
    assert several_trainings(board) == [
        "guard, seeds 0, 1, 2, 3, 4: one training of the target was attacked by aim; another by aim (steps=9)"
    ]
    for one in made[:10]:
        one["per_class"]["test_accuracy"] = [0.9] * CLASSES
    assert several_trainings(board_of(registry, rows(("plain", 0.6, 0.9)) + made)) == []


def test_seeds_of_conditions_that_the_baseline_lacks_are_a_remark(registry: Registry) -> None:
    guard = rows(("guard", 0.3, 0.9))
    made = under(BASE + guard[:3], "AVX512") + under(guard[3:], "AVX2")
    (one,) = decide(registry, *made).defenses
    assert one.verdict
    assert "compared on 3 of 5 seeds" in one.verdict.flags


def test_rows_are_compared_each_under_the_attack_that_is_strongest_on_it(registry: Registry) -> None:
    weak = rows(("plain", 0.5, 0.9), ("guard", 0.2, 0.9))
    other = rows(("plain", 0.4, 0.9), ("guard", 0.45, 0.9), steps=9)
    decided = decide(registry, *weak, *other)
    base, guard = decided.rows
    assert decided.chosen_here == decided.rows  # found on the same seeds
    assert (decided.board.label(base.section), decided.board.label(guard.section)) == ("aim", "aim (steps=9)")
    assert guard.difference is not None
    assert guard.difference.value == pytest.approx(0.45 - 0.5, abs=1e-6)
    # The tuning seeds say that the first attack is the stronger one, for both.
    tuned = [{**cell("guard", 1000, 0.5), "seed": 1000}, {**cell("plain", 1000, 0.5), "seed": 1000}]
    found = strongest(board_of(registry, tuned))
    told = standings(decided.board, found)
    assert not told.chosen_here
    assert {told.board.label(row.section) for row in told.rows} == {"aim"}
    text = pages.page(decided, registry)
    assert "chosen on the seeds of this page" in text
    assert "chosen on other seeds" in pages.page(told, registry)
    # Where one attack was tried nothing was chosen.
    more = rows(("guard", 0.3, 0.9), options={"alpha": 0.6})
    both = standings(board_of(registry, weak + other + more), found)
    once = {row.label: row.verdict.flags for row in both.defenses if row.verdict}
    assert once["guard alpha=0.6"] == ("one attack tried",)


def test_a_reference_attack_is_never_the_strongest(registry: Registry) -> None:
    floor = rows(("plain", 0.9, 0.9), attack="samples")
    [base] = decide(registry, *BASE, *floor).rows
    assert base.section is not None
    assert base.section.attack.name == "aim"


def test_a_page_says_what_leakage_compares_with(registry: Registry) -> None:
    attacked = rows(("plain", 0.6, 0.9), ("guard", 0.3, 0.9))
    floor = rows(("plain", 0.1, 0.9), attack="samples")
    for made, value in ((attacked, 0.25), (floor, 0.02)):
        for record in made:
            record["metrics"]["id_acc1"] = metric(value, 0.01)
    board = board_of(registry, attacked + floor)
    text = pages.page(standings(board), registry)
    assert "For comparison: attacks that learn nothing of the target 0.100 (*floor*); real held" in text
    assert "real held-out images 0.970 (*ceiling*).\n" in text
    assert "In plain terms" not in text  # the first quantity is a share itself
    first = dataclasses.replace(board.quantities["id_gallery_acc1"], kind="bits")
    quantities = {**board.quantities, "id_gallery_acc1": first}
    text = pages.page(standings(dataclasses.replace(board, quantities=quantities)), registry)
    shown = f"0.25{NBSP}±{NBSP}0.01"
    assert (
        f"In plain terms: `id_acc1` is {shown} for `plain`, and 0.020 where nothing is learnt of the target."
        in text
    )
    assert f"- **Under the same attacks** `id_acc1` is {shown} for `plain`, {shown} for `guard`." in text


def test_defenses_that_differ_share_no_letter_and_the_baseline_has_none(registry: Registry) -> None:
    made = rows(("guard", 0.3, 0.9)) + rows(("guard", 0.3005, 0.9), options={"alpha": 0.6})
    made += rows(("guard", 0.5, 0.9), options={"alpha": 0.7})
    decided = decide(registry, *BASE, *made)
    letters = {row.label: row.letters for row in decided.rows}
    assert letters == {"plain": "", "guard": "a", "guard alpha=0.6": "a", "guard alpha=0.7": "b"}


def test_one_seed_tells_no_pair_apart(registry: Registry) -> None:
    made = rows(("guard", 0.3, 0.9), seeds=1) + rows(("guard", 0.5, 0.9), options={"alpha": 0.6}, seeds=1)
    decided = decide(registry, *rows(("plain", 0.6, 0.9), seeds=1), *made)
    assert (decided.pairs.differences, {row.letters for row in decided.rows}) == ({}, {""})


def test_more_defenses_than_can_be_read_in_pairs_have_no_letters(registry: Registry, monkeypatch) -> None:
    made = rows(("guard", 0.3, 0.9)) + rows(("guard", 0.5, 0.9), options={"alpha": 0.6})
    assert "letters of pairs" in pages.page(decide(registry, *BASE, *made), registry)
    monkeypatch.setattr(pairs_module, "LETTERED", 1)
    decided = decide(registry, *BASE, *made)
    assert {row.letters for row in decided.rows} == {""}
    _, less, more = decided.rows
    assert decided.leaks_less(less, more)
    assert [one.best and one.best.label for one in advice(decided)] == ["guard"]
    text = pages.page(decided, registry)
    assert "Which of two defenses" not in text
    assert "without letters" in text
    assert "share a letter" not in text


def test_defenses_without_seeds_in_common_are_not_said_to_be_alike(registry: Registry) -> None:
    early = rows(("guard", 0.1, 0.9), options={"alpha": 0.1}, seeds=3)
    late = [one for one in rows(("guard", 0.5, 0.9), options={"alpha": 0.3}) if one["seed"] > 2]
    decided = decide(registry, *BASE, *early, *rows(("guard", 0.3, 0.9), options={"alpha": 0.2}), *late)
    _, first, second, third = decided.rows
    assert [row.label[-1] for row in (first, second, third)] == ["1", "2", "3"]
    assert {row.letters for row in decided.rows} == {""}
    assert decided.leaks_less(first, second)
    assert decided.leaks_less(second, third)
    assert not decided.leaks_less(third, second)
    assert "fewer than two seeds in common" in pages.page(decided, registry)


def test_every_pair_of_defenses_is_compared(registry: Registry) -> None:
    made = rows(("guard", 0.5, 0.9)) + rows(("guard", 0.3, 0.9), options={"alpha": 0.6})
    decided = decide(registry, *BASE, *made)
    assert [row.label for row in decided.in_pairs] == ["guard alpha=0.6", "guard"]
    [found] = decided.pairs.differences.values()
    assert found.value == pytest.approx(-0.2, abs=1e-6)
    alone = decide(registry, *BASE, *rows(("guard", 0.5, 0.9)))
    assert not alone.pairs.differences
    assert "leaks less: every pair" not in pages.page(alone, registry)
    made += rows(("guard", 0.4, 0.9), options={"alpha": 0.7})
    text = pages.page(decide(registry, *BASE, *made), registry)
    assert f"| `guard alpha=0.6` | **−0.10{NBSP}±" in text.split("leaks less: every pair")[1]


def test_random_answers_and_suspected_masking_are_remarks(registry: Registry) -> None:
    guard = rows(("guard", 0.3, 0.9), randomised=True, changed=[])
    board = board_of(registry, [*BASE, *guard])
    found = strongest(board_of(registry, [cell("guard", 1000, 0.5, randomised=True, changed=[])]))
    masked = {key: dataclasses.replace(one, masking="`aim` <recovers> more") for key, one in found.items()}
    decided = standings(board, masked)
    [row] = decided.defenses
    assert row.verdict is not None
    assert row.verdict.flags == ("randomised", "masking suspected")
    text = pages.page(decided, registry)
    assert "randomised; masking suspected" in text
    assert "gradient masking is suspected: on the tuning seeds \\`aim\\` \\<recovers\\> more" in text


def test_a_row_that_not_all_attacks_were_tried_on_says_so(registry: Registry) -> None:
    guard = rows(("guard", 0.3, 0.9), changed=[])
    found = strongest(board_of(registry, [cell("guard", 1000, 0.5, changed=[])]))
    [(key, one)] = found.items()
    missed = dataclasses.replace(one.candidates[0], leakage=None)
    partly = {key: dataclasses.replace(one, candidates=(one.candidates[0], missed, missed))}
    [row] = standings(board_of(registry, [*BASE, *guard]), partly).defenses
    assert row.verdict is not None
    assert row.verdict.flags == ("1 of 3 attacks tried",)


def test_a_row_without_its_strongest_attack_has_no_verdict_in_its_favour(registry: Registry) -> None:
    attacks = (StandardAttack(name="aim", default=True), StandardAttack(name="aim", options={"steps": 9}))
    standard = Standard(version=1, attacks=attacks, seeds=(1000,))
    track = load_track(registry, "little").model_copy(update={"standard": standard})
    strong = cell("guard", 1000, 0.58, steps=9, changed=[])
    strong["attack"]["about"] = {"changed": ["steps"]}
    tuned = read(cell("guard", 1000, 0.3, changed=[]), strong)
    found = {
        key: dataclasses.replace(one, masking="aim (steps=9) recovers more")
        for key, one in strongest(build_board(registry, track, tuned)).items()
    }
    made = rows(("guard", 0.3), changed=[])
    decided = standings(build_board(registry, track, read(*BASE, *made)), found)
    [row] = decided.defenses
    assert (row.known, row.absent) == (False, True)
    assert row.verdict is not None
    assert row.verdict.kind == "unclear"
    assert row.verdict.flags == ("masking suspected", "strongest attack not run")
    text = pages.page(decided, registry)
    assert "shows the stronger attack" not in text
    assert "overstates" not in text.split("How verdicts are made")[0]
    made = rows(("guard", 0.8), changed=[])
    [more] = standings(build_board(registry, track, read(*BASE, *made)), found).defenses
    assert more.verdict is not None
    assert more.verdict.kind == "leaks more"


def test_a_row_whose_attack_was_chosen_on_fewer_seeds_says_so(registry: Registry) -> None:
    guard = rows(("guard", 0.3, 0.9), changed=[])
    tuned = [cell("guard", seed, 0.5, changed=[]) for seed in (1000, 1001)]
    standard = Standard(version=1, attacks=(StandardAttack(name="aim", default=True),), seeds=(1000, 1001))
    track = load_track(registry, "little").model_copy(update={"standard": standard})
    board = build_board(registry, track, read(*BASE, *guard))
    for number, flags in ((1, ("1 of 2 tuning seeds",)), (2, ())):
        found = strongest(build_board(registry, track, read(*tuned[:number])))
        [row] = standings(board, found).defenses
        assert row.verdict is not None
        assert row.verdict.flags == flags


def test_a_row_without_tuning_seeds_says_how_many_of_the_set_it_met_on_the_boards(registry: Registry) -> None:
    attacks = (
        StandardAttack(name="aim", default=True),
        StandardAttack(name="aim", options={"steps": 9}),
        StandardAttack(name="aim", options={"steps": 8}),
    )
    standard = Standard(version=1, attacks=attacks, seeds=(1000,))
    track = load_track(registry, "little").model_copy(update={"standard": standard})

    def flags(*rest: dict[str, Any]) -> tuple[str, ...]:
        tuned = strongest(build_board(registry, track, read(cell("plain", 1000, 0.6, changed=[]))))
        made = [*rows(("plain", 0.6), changed=[], baseline=True), *rows(("guard", 0.3), changed=[]), *rest]
        [row] = standings(build_board(registry, track, read(*made)), tuned).defenses
        return row.verdict.flags if row.verdict else ()

    assert flags() == ("1 of 3 attacks tried",)
    more = rows(("guard", 0.31), steps=9, changed=["steps"])
    for record in more:
        record["attack"]["about"] = {"changed": ["steps"]}
    assert flags(*more) == ("2 of 3 attacks tried", "attack chosen on these seeds")


def test_where_the_judge_is_in_doubt_every_row_says_so(registry: Registry) -> None:
    made = rows(("plain", 0.6), ("guard", 0.3))
    for record in made:
        record["notes"] = {"gallery": "6 decoys, fewer than 100"}
    [row] = decide(registry, *made).defenses
    assert row.verdict is not None
    assert row.verdict.flags == ("judge unfit",)


def test_where_attacks_recover_no_more_than_the_floor_every_row_says_so(registry: Registry) -> None:
    for base, flags in ((0.6, ()), (0.12, ("baseline at the floor",))):
        made = rows(("plain", base), ("guard", base)) + rows(("plain", 0.1), attack="samples")
        [row] = decide(registry, *made).defenses
        assert row.verdict is not None
        assert (row.verdict.kind, row.verdict.flags) == ("no difference", flags)


def test_a_probe_is_no_floor(registry: Registry) -> None:
    made = rows(("plain", 0.3), ("guard", 0.3)) + rows(("plain", 0.3), attack="samples")
    for record in made[10:]:
        record["attack"]["about"] = {"reference": "probe"}
    [row] = decide(registry, *made).defenses
    assert row.verdict is not None
    assert row.verdict.flags == ()


def test_a_baseline_at_the_floor_is_said_wherever_a_verdict_is_named(registry: Registry) -> None:
    made = rows(("plain", 0.3), ("guard", 0.1)) + rows(("plain", 0.3), attack="samples")
    decided = decide(registry, *made)
    assert decided.defenses[0].verdict is not None
    assert decided.defenses[0].verdict.kind == "leaks less"
    assert "points; baseline at the floor)" in pages.page(decided, registry)
    assert "`guard` (baseline at the floor)" in pages.index([decided])


def test_the_seeds_are_those_under_the_attack_that_is_shown(registry: Registry) -> None:
    made = [*BASE, *rows(("plain", 0.6), steps=9), *rows(("guard", 0.3))]
    made += rows(("guard", 0.5), steps=9, seeds=1)
    failed = make_record("plain", 7, status="failed", reason="boom", metrics={}, per_class={})
    decided = decide(registry, *made, failed)
    assert "(5 seeds; `guard`: 1, for other classes alone)." in pages.page(decided, registry)


def test_another_attack_that_recovers_more_here_is_a_remark(registry: Registry) -> None:
    weak, strong = rows(("guard", 0.3), changed=[]), rows(("guard", 0.5), changed=[], steps=9)
    base = [*BASE, *rows(("plain", 0.6, 0.9), steps=9)]
    found = strongest(board_of(registry, [cell("guard", 1000, 0.5, changed=[])]))
    [row] = standings(board_of(registry, [*base, *weak, *strong]), found).defenses
    assert row.verdict is not None
    assert row.verdict.flags == ("more under aim (steps=9)",)


def test_what_recovers_a_little_more_here_is_no_remark(registry: Registry) -> None:
    """By no more than the margin of equality, 0.05 of a share."""
    weak = rows(("guard", 0.3), changed=[])
    base = [*BASE, *rows(("plain", 0.6, 0.9), steps=9)]
    found = strongest(board_of(registry, [cell("guard", 1000, 0.5, changed=[])]))
    for more, flags in ((0.34, ()), (0.36, ("more under aim (steps=9)",))):
        strong = rows(("guard", more), changed=[], steps=9)
        [row] = standings(board_of(registry, [*base, *weak, *strong]), found).defenses
        assert row.verdict is not None
        assert row.verdict.flags == flags


def test_a_row_without_tuning_seeds_beside_rows_that_have_them_says_so(registry: Registry) -> None:
    made = [*BASE, *rows(("plain", 0.6, 0.9), steps=9), *rows(("guard", 0.3))]
    made += rows(("guard", 0.4), options={"alpha": 0.7}, steps=7)
    made += rows(("guard", 0.5), options={"alpha": 0.7}, steps=9)
    found = strongest(board_of(registry, [cell("guard", 1000, 0.5)]))
    decided = standings(board_of(registry, made), found)
    flags = {row.label: row.verdict and row.verdict.flags for row in decided.defenses}
    assert flags == {"guard": (), "guard alpha=0.7": ("attack chosen on these seeds",)}


def test_an_undefended_row_of_another_architecture_is_no_part_of_the_front(registry: Registry) -> None:
    twin = rows(("plain", 0.1, 0.7), options={"norm": "group"}, baseline=True, changed=["norm"])
    decided = decide(registry, *BASE, *twin, *rows(("guard", 0.3, 0.8)))
    guard = decided.rows[1]
    assert guard.verdict is not None
    assert guard.verdict.front == "not compared with the undefended front"


def test_letters_are_of_differences_that_hold_among_all_pairs() -> None:
    """A p-value of .03 is enough for one pair, and not for one of three."""
    keys = [("guard", f'{{"alpha": {number}}}') for number in range(3)]
    effect = Effect(-0.3, 0.135, 60.0, 5, 60)
    assert 0.02 < effect.p_value() < 0.05
    alone = Pairs({(keys[0], keys[1]): effect}).letters
    assert alone == {keys[0]: "a", keys[1]: "b"}
    level = Effect(-0.1, 0.135, 60.0, 5, 60)
    several = {(keys[0], keys[1]): effect, (keys[0], keys[2]): level, (keys[1], keys[2]): level}
    assert set(Pairs(several).letters.values()) == {"a"}


def test_an_attack_with_other_options_than_the_tracks_names_them(registry: Registry) -> None:
    """Though all rows met the same."""
    made = rows(("plain", 0.6), ("guard", 0.3))
    for record in made:
        record["attack"]["options"] = {"steps": 1}
        record["attack"]["about"] = {"changed": ["steps"]}
    text = pages.page(decide(registry, *made), registry)
    assert text.count("| `aim (steps=1)` |") == 2
    assert "| `aim` |" not in text


def test_options_of_the_same_word_are_told_apart_by_their_names(registry: Registry) -> None:
    made = []
    for name, other in (("loss", "hinge"), ("search", "hinge"), ("loss", "logit")):
        made += rows(("plain", 0.6), steps=7)
        for record in made[-5:]:
            record["attack"]["options"] = {name: other}
            record["attack"]["about"] = {"changed": [name]}
            record["key"] = f"{random.Random(name + other + record['key']).getrandbits(80):020x}"
    board = board_of(registry, made)
    labels = {board.label(section) for section in board.sections}
    assert labels == {"aim (loss=hinge)", "aim (search=hinge)", "aim (logit)"}


def test_one_seed_has_no_verdict(registry: Registry) -> None:
    decided = decide(registry, *BASE, *rows(("guard", 0.3), seeds=1))
    assert "(5 seeds; `guard`: 1, for other classes alone)." in pages.page(decided, registry)
    assert "(5 seeds)." in pages.page(decide(registry, *BASE, *rows(("guard", 0.3))), registry)
    alone = pages.page(decide(registry, *rows(("plain", 0.6), ("guard", 0.3), seeds=1)), registry)
    assert "95 % confidence intervals: they are for other classes than these (1 seed)." in alone
    assert "- Without a verdict on `little`: `guard`\n" in pages.index([decided])
    assert "One seed says nothing of another training, so that there are no verdicts." in alone
    [row] = decided.defenses
    assert row.verdict is None
    assert row.difference is not None


def test_an_undefended_row_that_not_the_whole_set_met_is_attacked_as_the_baseline(registry: Registry) -> None:
    front = {"options": {"epochs": 0.5}, "baseline": True, "front": True, "changed": ["epochs"]}
    made = [*BASE, *rows(("plain", 0.7), steps=9), *rows(("plain", 0.4, 0.7), **front)]
    made += rows(("plain", 0.5, 0.7), steps=9, **front)
    tuned = [cell("plain", 1000, 0.3), cell("plain", 1000, 0.6, steps=9), cell("plain", 1000, 0.9, **front)]
    tried = strongest(board_of(registry, tuned))
    for key, one in tried.items():
        missed = dataclasses.replace(one.candidates[0], leakage=None)
        if len(one.candidates) == 1 or one.untried:
            tried[key] = dataclasses.replace(one, candidates=(one.candidates[0], missed))
    decided = standings(board_of(registry, made), tried)
    sections = {row.role: row.section for row in decided.rows}
    assert sections["front"] is sections["baseline"]
    # Where that attack was not run on it, it is attacked as its own tuning seeds say.
    (alone,) = [row for row in standings(board_of(registry, made[:-5]), tried).rows if row.role == "front"]
    assert (alone.section and decided.board.label(alone.section), alone.known) == ("aim", True)


def test_without_tuning_seeds_the_front_is_that_of_the_baselines_attack(registry: Registry) -> None:
    front = {"options": {"epochs": 0.5}, "baseline": True, "front": True, "changed": ["epochs"]}
    made = [
        *BASE,
        *rows(("plain", 0.7), steps=9),
        *rows(("guard", 0.4, 0.8)),
        *rows(("guard", 0.5, 0.8), steps=9),
    ]
    weak, strong = rows(("plain", 0.45, 0.7), **front), rows(("plain", 0.4, 0.7), steps=9, **front)
    decided = decide(registry, *made, *weak, *strong)
    sections = {row.role: row.section for row in decided.rows}
    assert sections["front"] is sections["baseline"]
    assert decided.against_front
    # Under a weaker attack it would be a front that is too hard to beat.
    assert not decide(registry, *made, *weak).against_front


def test_remarks_on_all_defenses_stand_once(registry: Registry) -> None:
    decided = decide(registry, *rows(("plain", 0.6), ("guard", 0.3), ("shield", 0.4), seeds=3))
    text = pages.page(decided, registry)
    assert "- **For all defenses:** few seeds (explained below)." in text
    assert "few seeds |" not in text
    assert "- For all defenses on `little`: few seeds" in pages.index([decided])


def test_the_front_is_no_defense_and_what_costs_is_compared_with_it(registry: Registry) -> None:
    front = rows(("plain", 0.4, 0.7), options={"epochs": 0.5}, baseline=True, front=True, changed=["epochs"])
    for leakage, words in ((0.3, "beats"), (0.55, "leaks more than"), (0.5, "not shown to beat")):
        decided = decide(registry, *BASE, *front, *rows(("guard", leakage, 0.8)))
        assert [row.role for row in decided.rows] == ["baseline", "defense", "front"]
        _, guard, early = decided.rows
        assert (early.label, early.verdict, early.letters) == ("plain epochs=0.5", None, "")
        assert guard.verdict is not None
        # At an accuracy of .8 the front leaks .5.
        assert guard.verdict.front == f"{words} the undefended front"
        assert decided.against_front == (guard,)
        shown = guard.verdict.front.replace("undefended ", "")
        assert f"| leaks less, at a cost |  | {shown} |" in pages.page(decided, registry)
    more = decide(registry, *BASE, *front, *rows(("guard", 0.3, 0.905)))
    assert (more.rows[1].verdict and more.rows[1].verdict.front, more.against_front) == ("", ())
    none = decide(registry, *BASE, *rows(("guard", 0.3, 0.85)))
    assert none.rows[1].verdict is not None
    assert none.rows[1].verdict.front == "not compared with the undefended front"
    assert none.against_front == ()
    assert "minus the front's" not in pages.page(none, registry)
    lost = decide(registry, *BASE, *front, *rows(("guard", 0.1, 0.5)))
    assert lost.rows[1].verdict is not None
    # It is less accurate than all of the front.
    assert lost.rows[1].verdict.front == "not compared with the undefended front"
    assert lost.against_front == ()
    drawn = plane(lost)
    assert "polyline" in drawn
    assert "plain epochs=0.5" in drawn


def test_defenses_that_cost_accuracy_are_ordered_by_the_front_and_wrecks_are_not_drawn(
    registry: Registry,
) -> None:
    front = rows(("plain", 0.4, 0.7), options={"epochs": 0.5}, baseline=True, front=True, changed=["epochs"])
    good, poor, wreck = (
        rows(("guard", leakage, accuracy), options={"alpha": alpha}, changed=["alpha"])
        for alpha, leakage, accuracy in ((0.1, 0.3, 0.8), (0.2, 0.45, 0.75), (0.9, 0.15, 0.3))
    )
    decided = decide(registry, *BASE, *front, *wreck, *poor, *good)
    assert [row.label for row in decided.defenses] == [f"guard alpha={alpha}" for alpha in (0.1, 0.2, 0.9)]
    assert [row.label for row in decided.unusable] == ["guard alpha=0.9"]
    *usable, useless = decided.defenses
    assert useless.verdict is not None
    assert "no usable classifier" in useless.verdict.flags
    assert not any(row.verdict and "no usable classifier" in row.verdict.flags for row in usable)
    drawn = plane(decided)
    assert "guard alpha=0.2" in drawn
    assert "guard alpha=0.9" not in drawn
    assert "guard alpha=0.2" in forests(decided)
    assert "guard alpha=0.9" not in forests(decided)
    assert "is left: `guard alpha=0.9`." in pages.page(decided, registry)
    listed = pages.index([decided])
    assert "`guard alpha=0.1`, `guard alpha=0.2` (not shown to beat the front), `guard alpha=0.9` (" in listed


def test_what_leaks_as_much_as_the_baseline_may_leak_more_than_the_front(registry: Registry) -> None:
    front = rows(("plain", 0.3, 0.7), options={"epochs": 0.5}, baseline=True, front=True, changed=["epochs"])
    decided = decide(registry, *BASE, *front, *rows(("guard", 0.599, 0.8)))
    guard = decided.rows[1]
    assert guard.verdict is not None
    assert guard.verdict.text.endswith("; leaks more than the undefended front")
    assert guard.verdict.kind == "no difference"
    assert remarks(guard) == ["leaks more than the front"]
    text = pages.page(decided, registry)
    assert f"| `guard` | −10.0{NBSP}±" in text.split("minus the front's |")[1]
    assert "`guard` (costs accuracy; leaks more than the front)" in pages.index([decided])
    header, _, line, *_ = csv_lines([decided])
    written = dict(zip(header.split(","), line.split(","), strict=True))
    assert float(written["front_difference"]) == pytest.approx(0.149, abs=1e-3)


def test_what_costs_accuracy_is_ordered_by_the_difference_from_the_front(registry: Registry) -> None:
    front = rows(("plain", 0.4, 0.7), options={"epochs": 0.5}, baseline=True, front=True, changed=["epochs"])
    less = rows(("guard", 0.3, 0.75), options={"alpha": 0.1})  # 0.15 below the front
    more = rows(("guard", 0.35, 0.85), options={"alpha": 0.2})  # 0.2 below it
    decided = decide(registry, *BASE, *front, *less, *more)
    assert [row.key[1] for row in decided.defenses] == [
        json.dumps({"alpha": alpha, "widths": [1, 2]}) for alpha in (0.2, 0.1)
    ]
    assert all(row.verdict and row.verdict.front.startswith("beats") for row in decided.defenses)


def test_letters_under_one_attack_are_of_the_rows_that_are_drawn(registry: Registry) -> None:
    """Rows of other conditions are compared too; those that are left out don't take part."""
    far, near, other = (
        rows(("guard", leakage, 0.8), options={"alpha": alpha})
        for alpha, leakage in ((0.1, 0.2), (0.2, 0.5), (0.3, 0.8))
    )
    for record in other:
        record["provenance"] |= {"capability": "AVX2"}
    board = board_of(registry, [*BASE, *far, *near, *other])
    (section,) = board.sections
    keys = {row.options.split(",")[0]: row.key for row in section.rows if row.key}
    a, b, c = (keys[f"alpha={alpha}"] for alpha in (0.1, 0.2, 0.3))
    assert section_letters(board, section, [a, b, c]) == {a: "a", b: "b", c: "c"}
    assert section_letters(board, section, [a, c]) == {a: "a", c: "b"}
    assert [bool(one.metrics[board.primary]) for one in section.differences] == [True] * 3
    assert pages.page(standings(board), registry).count(", 5 seeds, not paired |") == 1


def test_a_defense_without_a_seed_of_the_baseline_of_its_architecture_is_not_compared_with_it(
    registry: Registry,
) -> None:
    twin = rows(("plain", 0.5, 0.8), options={"norm": "group"}, baseline=True, changed=["norm"])
    matched = {"name": "plain", "options": {"norm": "group"}}
    early, late = twin[:2], [cell("guard", seed, 0.3, matched=matched, changed=[]) for seed in (2, 3, 4)]
    decided = decide(registry, *BASE, *early, *late)
    assert decided.defenses[0].matched is None
    assert "**Architecture**" not in pages.page(decided, registry)


def test_a_defense_is_compared_with_the_baseline_of_its_architecture(registry: Registry) -> None:
    twin = rows(("plain", 0.5, 0.85), options={"norm": "group"}, baseline=True, changed=["norm"])
    matched = {"name": "plain", "options": {"norm": "group"}}
    decided = decide(registry, *BASE, *twin, *rows(("guard", 0.3, 0.8), matched=matched))
    _, guard, undefended = decided.rows
    assert undefended.role == "undefended"
    assert guard.matched is not None
    assert guard.matched.key == undefended.key
    assert guard.matched.leakage is not None
    assert guard.matched.leakage.value == pytest.approx(-0.2, abs=1e-6)
    text = pages.page(decided, registry)
    assert (
        "- **Architecture**: `plain norm=group` has that of `guard`, and no defense. Minus that row: `guard`"
        in text
    )
    assert NOT_BEYOND not in remarks(guard)
    alone = decide(registry, *BASE, *rows(("guard", 0.3, 0.8), matched=matched))
    assert alone.rows[1].matched is None
    assert NOT_BEYOND not in remarks(alone.rows[1])


def test_a_defense_that_leaks_as_its_architecture_alone_does_is_not_shown_to_beat_that(
    registry: Registry,
) -> None:
    """The architecture is its own, under options that leave nothing else of it."""
    matched = {"name": "guard", "options": {"alpha": 0.0}}
    alone = rows(("guard", 0.3, 0.85), options={"alpha": 0.0, "width": 2}, baseline=True, changed=["alpha"])
    wider = rows(("guard", 0.9, 0.85), options={"alpha": 0.0, "width": 9}, baseline=True, changed=["alpha"])
    with_it = rows(("guard", 0.3, 0.85), options={"alpha": 0.5, "width": 2}, matched=matched, changed=[])
    decided = decide(registry, *BASE, *wider, *alone, *with_it)
    (guard,) = decided.defenses
    assert {row.role for row in decided.rows} == {"baseline", "defense", "undefended"}
    assert guard.matched is not None
    assert guard.matched.key == alone_key(decided, width=2)
    assert guard.verdict is not None
    assert guard.verdict.kind.startswith("leaks less")
    assert NOT_BEYOND in remarks(guard)
    assert NOT_BEYOND in reservations(guard)
    assert f"*{NOT_BEYOND}*" in pages.page(decided, registry)


def alone_key(decided: Standings, width: int) -> ComponentKey:
    undefended = (row for row in decided.rows if row.role == "undefended")
    return next(row.key for row in undefended if f'"width": {width}' in str(row.key))


def test_what_can_be_had_at_a_price(registry: Registry) -> None:
    cheap = rows(("guard", 0.3, 0.9))
    dear = rows(("guard", 0.1, 0.85), options={"alpha": 0.6})
    worse = rows(("guard", 0.7, 0.9), options={"alpha": 0.7})
    decided = decide(registry, *BASE, *cheap, *dear, *worse)
    little, much = advice(decided)
    assert (in_points(*little.prices), in_points(*much.prices)) == ("1 or 3 points", "10 points")
    assert little.best is not None
    assert little.best.label == "guard"
    assert much.best is not None
    assert (much.best.label, [row.label for row in much.rest]) == ("guard alpha=0.6", ["guard"])
    assert little.perhaps == much.perhaps == ()
    text = pages.page(decided, registry)
    assert "- **If you can give up 1 or 3 points of accuracy:** `guard` (`id_gallery_acc1` −0.30" in text
    assert "; shown to leak more than it, though less than the baseline: `guard`" in text
    # What can't be told from the one that leaks least is named by its cost.
    near = rows(("guard", 0.1003, 0.86), options={"alpha": 0.65})
    *_, found = advice(decide(registry, *BASE, *cheap, *dear, *near))
    assert found.best is not None
    assert (found.best.label, [row.label for row in found.alike]) == ("guard alpha=0.65", ["guard alpha=0.6"])
    doubtful = decide(registry, *BASE, *rows(("guard", 0.3, 0.8705)))
    least, some, most = advice(doubtful)
    assert (least.best, least.perhaps, some.best) == (None, (), None)
    assert [row.label for row in some.perhaps] == ["guard"]
    assert most.best is not None
    assert "; perhaps (the cost may be higher) `guard` (" in pages.page(doubtful, registry)
    front = rows(("plain", 0.25, 0.8), options={"epochs": 0.5}, baseline=True, front=True, changed=["epochs"])
    behind = decide(registry, *BASE, *front, *rows(("guard", 0.5, 0.82)))
    words = "no defense is shown to be worth it. These leak less than the baseline and on average lose"
    text = pages.page(behind, registry)
    assert words in text
    front_words = "that are as accurate (the *front*, made less accurate by `epochs`): `guard`"
    assert f"{front_words} (`id_gallery_acc1` −0.10{NBSP}±" in text
    *_, beaten = advice(behind)
    assert (beaten.best, [row.label for row in beaten.no_better]) == (None, ["guard"])
    none = pages.page(decide(registry, *BASE, *worse), registry)
    assert (
        "**If you can give up 1, 3 or 10 points of accuracy:** no defense is shown to leak less at that price"
        in none
    )


def test_what_leaks_more_than_another_is_not_the_best_though_it_can_not_be_told_from_a_third(
    registry: Registry,
) -> None:
    dear = rows(("guard", 0.1, 0.85), options={"alpha": 0.6})
    fair = rows(("guard", 0.15, 0.88), options={"alpha": 0.7})
    cheap = rows(("guard", 0.3, 0.9))
    decided = decide(registry, *BASE, *dear, *fair, *cheap)
    keys = {row.label: row.key for row in decided.rows}
    alone = keys["guard alpha=0.7"], keys["guard"]
    unclear = {
        pair: effect if pair == alone else dataclasses.replace(effect, error=1.0)
        for pair, effect in decided.pairs.differences.items()
    }
    assert Pairs(unclear).apart == {alone}
    *_, found = advice(dataclasses.replace(decided, pairs=Pairs(unclear)))
    assert found.best is not None
    assert (found.best.label, [row.label for row in found.alike]) == ("guard alpha=0.7", ["guard alpha=0.6"])
    assert [row.label for row in found.rest] == ["guard"]


def test_without_means_of_classes_there_is_no_verdict_but_a_page(registry: Registry) -> None:
    made = [*BASE, *rows(("guard", 0.3, 0.8))]
    decided = decide(registry, *({**record, "per_class": {}} for record in made))
    assert [row.verdict and row.verdict.kind for row in decided.rows] == ["baseline", None]
    assert (decided.rows[1].difference, decided.rows[1].letters) == (None, "")
    assert forests(decided) == ""
    assert f"| `guard` | 0.80{NBSP}±{NBSP}0.05 | −10.0 |" in pages.page(decided, registry)


def test_pages_beside_the_documentation_link_it(registry: Registry) -> None:
    decided = decide(registry, *BASE, *rows(("guard", 0.3)))
    for text in (pages.page(decided, registry, docs="../docs"), pages.index([decided], "../docs")):
        assert "[findings](../docs/findings.md)" in text
    assert "findings.md" not in pages.page(decided, registry) + pages.index([decided])
    assert "\n\n\n" not in pages.page(decided, registry) + pages.index([decided])


def test_a_page_says_why_there_are_no_verdicts(registry: Registry) -> None:
    text = pages.page(decide(registry, *rows(("guard", 0.3))), registry)
    assert "Without the undefended baseline there are no verdicts." in text
    early, late = BASE[:2], [cell("guard", seed, 0.3, 0.7) for seed in (2, 3)]
    apart = decide(registry, *early, *late)
    assert remarks(apart.defenses[0]) == ["not comparable with the baseline"]
    text = pages.page(apart, registry)
    assert "No defense was run on two seeds of the baseline" in text
    assert "−20.0" not in text  # of other seeds
    assert "**Defenses**" in text
    assert "**Defenses**" not in pages.page(decide(registry, *BASE), registry)


def test_a_track_may_have_no_verdicts(registry: Registry) -> None:
    board = board_of(registry, [*BASE, *rows(("guard", 0.3, 0.8))])
    silent = dataclasses.replace(board, track=board.track.model_copy(update={"verdicts": False}))
    decided = standings(silent)
    assert [(row.verdict, row.letters) for row in decided.defenses] == [(None, "")]
    assert decided.defenses[0].difference is not None
    text = pages.page(decided, registry)
    assert "| verdict |" not in text
    assert "there are no verdicts" in text
    assert "If you can give up" not in text
    assert "`little` only shows that everything runs" in pages.index([decided])


def test_no_finished_cell_is_an_empty_table(registry: Registry) -> None:
    failed = make_record(status="failed", reason="boom", metrics={}, per_class={})
    decided = decide(registry, failed)
    assert decided.rows == ()
    assert "No cell has finished." in pages.page(decided, registry)
    assert plane(decided) == ""


def test_figures_have_every_row(registry: Registry, tmp_path: Path) -> None:
    decided = decide(registry, *BASE, *rows(("guard", 0.3, 0.8)))
    found = pages.figures(decided)
    assert list(found) == ["little.svg", "little-differences.svg"]
    for _, svg in found.values():
        assert ">guard</text>" in svg
        assert ">plain</text>" in svg
    assert "ceiling 0.970" in found["little.svg"][1]
    assert "oracle" not in found["little.svg"][1]


def test_the_imitations_by_a_prior_are_a_level_and_a_row(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak = registry.get("metric", "leak").load()
    oracle = dataclasses.replace(leak.quantities["id_gallery_acc1"], oracle="reached")
    monkeypatch.setitem(leak.quantities, "id_gallery_acc1", oracle)
    made = [{**record, "metrics": {**record["metrics"], "reached": metric(0.88)}} for record in BASE]
    decided = decide(registry, *made, *rows(("guard", 0.3, 0.8)))
    assert decided.board.oracles["faces"].value("id_gallery_acc1") == pytest.approx(0.88)
    assert "oracle 0.880" in plane(decided)
    assert "| *real images imitated by faces* |" in pages.page(decided, registry)


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("Wang et al., AAAI 2021, arXiv 2009.05241", "[AAAI 2021](https://arxiv.org/abs/2009.05241)"),
        ("arXiv:2009.05241", "[arXiv 2009.05241](https://arxiv.org/abs/2009.05241)"),
        ("He et al., CVPR 2016", "He et al., CVPR 2016"),
        ("", ""),
    ],
)
def test_papers_are_linked_where_their_number_is_given(text: str, link: str) -> None:
    assert pages.paper_link(text) == link
