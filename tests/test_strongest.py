"""The strongest attack against each row: which one is chosen, and when gradient masking is suspected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mia_bench import Quantity
from mia_bench.leaderboard import pages, records
from mia_bench.leaderboard.board import build_board
from mia_bench.leaderboard.grouping import component_key, row_key
from mia_bench.leaderboard.standings import standings
from mia_bench.leaderboard.strongest import comparisons, section_of, strongest
from mia_bench.leaderboard.submission import submit
from mia_bench.registry import Registry
from mia_bench.strength import Strongest, compare
from mia_bench.track import Standard, StandardAttack, Track, load_track
from test_leaderboard import make_record, make_registry, metric, part, read

DEFAULT = StandardAttack(name="aim", default=True)
LOSS = StandardAttack(name="aim", options={"steps": 9})
OTHER = StandardAttack(name="sight", default=True)
BLIND = StandardAttack(name="blind")
SHARE = Quantity("", "lower", "share", "leakage")


def tried(
    attack: StandardAttack,
    *values: float | None,
    access: str = "white-box",
    queries: int = 100,
    seeds: tuple[int, ...] = (1000, 1001),
) -> tuple[StandardAttack, list[Any]]:
    """An attack with its records on the tuning seeds."""
    made = [
        make_record("guard", seed, gallery=value, cost={"target_queries": queries})
        | {"attack": part(attack.name, **attack.options) | {"about": {"access": access}}}
        for seed, value in zip(seeds, values, strict=False)
    ]
    return attack, read(*made)


def compared(*attacks: tuple[StandardAttack, list[Any]], **more: Any) -> Strongest:
    return compare(attacks, (1000, 1001), "id_gallery_acc1", more.pop("quantity", SHARE), **more)


@pytest.fixture
def track(tmp_path: Path) -> tuple[Registry, Track]:
    registry = make_registry(tmp_path)
    standard = Standard(version=1, attacks=(DEFAULT.model_copy(update={"options": {}}), LOSS))
    return registry, load_track(registry, "little").model_copy(update={"standard": standard})


# --- which one -----------------------------------------------------------------------------------


def test_the_largest_mean_over_the_tuning_seeds_is_the_strongest() -> None:
    found = compared(tried(DEFAULT, 0.5, 0.1), tried(LOSS, 0.2, 0.5), tried(BLIND, 0.3, 0.3))
    assert [one.attack for one in found.candidates] == [LOSS, DEFAULT, BLIND]
    assert found.chosen is not None
    assert found.chosen.leakage == pytest.approx(0.35)


def test_what_is_better_higher_is_strongest_where_it_is_lowest() -> None:
    found = compared(
        tried(DEFAULT, 0.5, 0.5), tried(LOSS, 0.2, 0.3), quantity=Quantity("", "higher", "share", "leakage")
    )
    assert found.chosen is not None
    assert found.chosen.attack is LOSS


def test_of_two_equally_strong_ones_the_first_of_the_set_is_taken() -> None:
    pairs = [tried(OTHER, 0.2, 0.4), tried(DEFAULT, 0.4, 0.2), tried(LOSS, 0.3, 0.3)]
    found = compared(*pairs)
    assert [one.attack for one in found.candidates] == [OTHER, DEFAULT, LOSS]
    assert compared(*pairs[::-1]).candidates[0].attack is LOSS


def test_an_attack_that_lacks_a_seed_is_not_compared_and_says_why() -> None:
    short = tried(LOSS, 0.9)
    without = tried(BLIND, 0.9, None)
    found = compared(tried(DEFAULT, 0.1, 0.1), short, without)
    assert found.chosen is not None
    assert found.chosen.attack is DEFAULT
    reasons = {one.attack.label: one.reason for one in found.candidates if one.leakage is None}
    assert reasons == {"aim (steps=9)": "seed 1001: not run", "blind": "seed 1001: no weights"}
    assert compared(short).chosen is None


# --- gradient masking ----------------------------------------------------------------------------


def test_less_access_that_recovers_more_is_suspected() -> None:
    best = tried(DEFAULT, 0.2, 0.2)
    same = compared(best, tried(BLIND, 0.2, 0.2), tried(OTHER, 0.2, 0.2))
    assert not same.masking
    blind = tried(BLIND, 0.25, 0.25, access="label-only", queries=10**6)
    assert compared(best, blind, baseline=same).masking == "blind, label-only, recovers 0.250; aim 0.200"
    assert not compared(best, blind).masking  # the undefended target says whether it is better everywhere
    assert not compared(best, blind, baseline=compared(best)).masking
    assert not compared(best, tried(BLIND, 0.24, 0.24, access="label-only"), baseline=same).masking
    assert not compared(best, tried(OTHER, 0.3, 0.3, queries=200), baseline=same).masking  # it costs more
    cheap = compared(best, tried(OTHER, 0.3, 0.3, queries=104), baseline=same)
    assert "at no more queries" in cheap.masking


def test_an_attack_that_is_better_everywhere_says_nothing_of_a_defense() -> None:
    default, loss = tried(DEFAULT, 0.2, 0.2), tried(LOSS, 0.4, 0.4)
    undefended = compared(tried(DEFAULT, 0.5, 0.5), tried(LOSS, 0.66, 0.66))
    assert not compared(default, loss, baseline=undefended).masking  # gains .20 here, .16 there
    assert compared(default, tried(LOSS, 0.42, 0.42), baseline=undefended).masking
    worse = compared(tried(DEFAULT, 0.5, 0.5), tried(LOSS, 0.1, 0.1))
    assert compared(default, loss, baseline=worse).masking
    # That it is worse on the undefended target makes no more of a gain that is small here.
    assert not compared(default, tried(LOSS, 0.24, 0.24), baseline=worse).masking
    assert not compared(default, loss, quantity=Quantity("", "lower", "distance", "leakage")).masking


# --- boards --------------------------------------------------------------------------------------


def test_rows_of_a_sweep_are_compared_under_the_standard_set(track: tuple[Registry, Track]) -> None:
    registry, little = track
    made = []
    for defense, values in (("plain", (0.6, 0.5)), ("guard", (0.1, 0.4))):
        for seed in (1000, 1001, 7):
            attacks = [(7, values[0], {}), (9, values[1], {}), (11, 0.99, {}), (9, 0.99, {"other": 1})]
            for steps, value, prior in attacks:
                made.append(make_record(defense, seed, gallery=value))
                made[-1]["attack"] = part("aim", steps=steps)
                made[-1]["prior"] = part("faces", **prior)
                made[-1]["key"] = f"{len(made):020x}"
    made.append(make_record("guard", 1000, options={"alpha": 0.9}, gallery=0.2))
    board = build_board(registry, little, read(*made))
    found = strongest(board)
    chosen = {key: one.chosen for key, one in found.items()}
    names = {key: one.attack.label for key, one in chosen.items() if one}
    plain, guard = (
        row_key(next(r for r in board.records if r.defense.name == n)) for n in ("plain", "guard")
    )
    assert names[plain] == "aim"
    assert sorted(names.values()) == ["aim", "aim", "aim (steps=9)"]
    assert {one.seeds for one in found.values()} == {(1000, 1001), (1000,)}
    masked = [one.masking for one in found.values() if one.masking]
    assert masked == ["aim (steps=9), at no more queries, recovers 0.400; aim 0.100"]
    sections = {(component_key(section.attack), component_key(section.prior)) for section in board.sections}
    assert all(section_of(one) in sections for one in chosen.values() if one)
    assert guard in found
    rows = [(row.defense, row.options, row.values) for row in comparisons(board)]
    assert rows == [("plain", {}, (0.6, 0.5)), ("guard", {}, (pytest.approx(0.1), pytest.approx(0.4)))]
    assert {one.untried for one in found.values()} == {(), ("aim (steps=9)",)}


def test_tuning_records_of_another_version_do_not_count(track: tuple[Registry, Track]) -> None:
    registry, little = track
    tuned = [make_record("guard", 1000), make_record("plain", 1000)]
    sweep = build_board(registry, little, read(*tuned))
    for changed, known in (("", {"guard", "plain"}), ("defense", {"plain"}), ("attack", set())):
        shown = [make_record("guard", 1), make_record("plain", 1)]
        if changed:
            shown[0][changed]["version"] = "2"
        if changed == "attack":
            shown[1][changed]["version"] = "2"
        found = strongest(sweep, build_board(registry, little, read(*shown)))
        assert {defense for defense, _ in found} == known


def test_without_a_standard_set_attacks_are_taken_as_the_track_has_them(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    made = [make_record("guard", 1000, gallery=0.4), make_record("guard", 1000, "samples", gallery=0.9)]
    made[1]["attack"]["options"] = {"steps": 1}
    other = make_record("guard", 1000, gallery=0.8) | {"attack": part("aim", steps=8), "key": "e" * 20}
    board = build_board(registry, load_track(registry, "little"), read(*made, other))
    [found] = strongest(board).values()
    assert [one.attack.label for one in found.candidates] == ["aim"]
    assert found.chosen is not None
    assert found.chosen.leakage == pytest.approx(0.4)


def test_records_of_tuning_seeds_are_no_boards(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = make_registry(tmp_path)
    path = tmp_path / "little.toml"
    more = '\n[standard]\nversion = 1\nattacks = [{ name = "aim", default = true }]\n'
    path.write_text(path.read_text() + more)
    made = read(*(make_record("plain", seed) for seed in (0, 1, 1000, 1001)))
    boards = tmp_path / "boards"
    done = submit(made, boards, registry)
    assert len(done.written) == 4
    assert {record.seed for record in records.load(boards, "little")} == {0, 1}
    assert {record.seed for record in records.load(boards / "tuning", "little")} == {1000, 1001}
    assert submit(made, boards, registry).written == []
    other = tmp_path / "other" / "tuning"
    assert len(submit(made, other, registry).written) == 2
    assert "2 records are left out: their seeds are no tuning seeds of 'little'" in caplog.text


# --- the set -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attacks",
    [(), (LOSS, BLIND), (DEFAULT, DEFAULT), (DEFAULT, DEFAULT.model_copy(update={"default": False}))],
)
def test_a_set_has_a_default_attack_and_none_twice(attacks: tuple[StandardAttack, ...]) -> None:
    with pytest.raises(ValidationError):
        Standard(version=1, attacks=attacks)


def test_the_page_of_a_sweep_compares_the_attacks(track: tuple[Registry, Track]) -> None:
    registry, little = track
    made = []
    for defense, values in (("plain", {7: 0.6, 9: 0.5}), ("guard", {7: 0.1, 9: 0.4})):
        for seed in (1000, 1001):
            for steps, value in values.items():
                made.append(make_record(defense, seed, gallery=value) | {"attack": part("aim", steps=steps)})
                made[-1]["metrics"]["validation_accuracy"] = metric(0.9)
                made[-1]["key"] = f"{len(made):020x}"
    board = build_board(registry, little, read(*made))
    text = pages.page(standings(board), registry, sweep=True)
    assert "2 attacks, the same for every defense, to be run once on each of the tuning seeds 1000" in text
    assert "| defense | options | `aim` * | `aim (steps=9)` | strongest |" in text
    assert "| `plain` |  | 0.600 | 0.500 | `aim` |" in text
    assert "| `guard` |  | 0.100 | 0.400 | `aim (steps=9)` |" in text
    assert "- `guard`: `aim (steps=9), at no more queries, recovers 0.400; aim 0.100`" in text
    shown = pages.page(standings(board, strongest(board)), registry)
    assert "on the tuning seeds 1000, 1001 to find the strongest on each row: `aim`, `aim (steps=9)`" in shown
    assert "The strongest attack on each row" not in shown
