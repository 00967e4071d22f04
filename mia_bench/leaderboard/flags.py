"""Why the verdict on a row may not hold, in a few words each."""

from __future__ import annotations

from collections.abc import Iterator

from mia_bench.leaderboard.attacked import Attacked
from mia_bench.leaderboard.board import Board
from mia_bench.leaderboard.grouping import by_seed
from mia_bench.leaderboard.strongest import attack_of
from mia_bench.leaderboard.verdicts import MASKING, Margins
from mia_bench.statistics import Effect, Estimate

AT_FLOOR = "baseline at the floor"
"""The flag of all defenses where attacks on the baseline may recover no more than such as learn nothing."""

NOT_PAIRED = "not paired"
"""The flag of a defense that was computed under other conditions than the baseline."""

NOT_RUN = "strongest attack not run"
"""The flag of a defense of which the board lacks the attack that is strongest on other seeds."""

USELESS = "no usable classifier"
"""The flag of a defense that leaves less than half of the baseline's accuracy."""


def flags(
    board: Board, row: Attacked, difference: Effect | None, *, paired: bool, elsewhere: bool
) -> Iterator[str]:
    """What is to be said of a defense and of its difference from the baseline.

    Args:
        difference: of the leakage; None where it can't be compared.
        paired: whether both were computed under the same conditions.
        elsewhere: whether the strongest attack on some row was chosen on other seeds.
    """
    if row.about.own_model:
        yield "own model, one training"
    if not paired:
        yield NOT_PAIRED
    seeds = len(by_seed(row.under))
    if difference and difference.seeds != seeds:
        yield f"compared on {difference.seeds} of {seeds} seeds"
    if row.about.randomised:
        yield "randomised"
    if row.found and row.found.masking:
        yield MASKING
    if row.absent:
        yield NOT_RUN
    yield from _missed(board, row)
    if elsewhere and not (row.known or row.absent):
        yield from _tried_here(board, row)
    yield from _more_elsewhere(board, row)


def board_flags(board: Board, base: Attacked | None) -> Iterator[str]:
    """What is to be said of every defense of the board."""
    if board.doubts:
        yield "judge unfit"
    if base and _at_floor(board, base):
        yield AT_FLOOR


def useless(board: Board, row: Attacked, base: Attacked | None) -> bool:
    """Whether a defense leaves less than half of the baseline's accuracy."""
    quantity = board.quantities.get(board.accuracy)
    own, full = row.accuracy, base.accuracy if base else None
    if quantity is None or quantity.kind != "share":
        return False
    return isinstance(own, Estimate) and isinstance(full, Estimate) and own.value < full.value / 2


def _missed(board: Board, row: Attacked) -> Iterator[str]:
    """That the strongest attack may be another, as not all of the set were tried, or not on all seeds."""
    if row.found is None:
        return
    tried, total = len(row.found.candidates) - len(row.found.untried), len(row.found.candidates)
    if tried < total:
        yield f"{tried} of {total} attacks tried"
    standard = board.track.standard
    if standard and len(row.found.seeds) < len(standard.seeds):
        yield f"{len(row.found.seeds)} of {len(standard.seeds)} tuning seeds"


def _tried_here(board: Board, row: Attacked) -> Iterator[str]:
    """What a row's strongest attack was chosen from, where the board's seeds tell."""
    several = len(row.attacks) > 1
    if row.found is None and board.track.standard:
        whole = board.track.standard.attacks
        tried = {one.label for record in row.records if (one := attack_of(record, board, whole))}
        if len(tried) < len(whole):
            yield f"{len(tried)} of {len(whole)} attacks tried"
    elif not several:
        yield "one attack tried"
    if several:
        yield "attack chosen on these seeds"


def _more_elsewhere(board: Board, row: Attacked) -> Iterator[str]:
    """That another attack recovers more on the board's seeds, by more than the margin of equality."""
    if row.attack is None:
        return
    most = max(row.attacks, key=lambda one: one.strength)
    margin = Margins.of(board.quantities[board.primary]).leakage  # without one no difference is clear
    if margin and most.strength - row.attack.strength > margin:
        yield f"more under {board.label(most.section)}"


def _at_floor(board: Board, base: Attacked) -> bool:
    """Whether the strongest attack on the baseline may recover no more than attacks that learn nothing."""
    quantity = board.quantities.get(board.primary)
    found = base.attack.leakage if base.attack else None
    if quantity is None or not isinstance(found, Estimate):
        return False
    least = min(map(quantity.sort_key, found.ends))
    floors = [row.metrics.get(board.primary) for _, row in board.floors]
    return any(least <= max(map(quantity.sort_key, one.ends)) for one in floors if isinstance(one, Estimate))
