"""Numbers and verdicts in a few characters: for verdict tables of pages, terminals and papers."""

from __future__ import annotations

import math

from mia_bench.api.metric import Quantity
from mia_bench.leaderboard.aggregate import Shown
from mia_bench.leaderboard.flags import AT_FLOOR, NOT_RUN, USELESS
from mia_bench.leaderboard.standings import Standing, Standings
from mia_bench.leaderboard.verdicts import BESIDE_ARCHITECTURE, MASKING, UNKNOWN_COSTS, Verdict
from mia_bench.statistics import Effect, Estimate

ONE_SEED = "no verdict from one seed"

NOT_COMPARABLE = "not comparable with the baseline"

DECIMALS = {"share": 2, "bits": 1, "rank": 0}
"""Of numbers in the verdict table, by kind of quantity; the others have as many as their interval allows."""

CHANGE_DECIMALS = {"bits": 2}
"""Of differences, by kind of quantity, where they have more."""


def brief(quantity: Quantity, shown: Shown | None) -> str:
    """``0.78 ± 0.03``, or ``3.1 [2.8, 3.4]`` where the ends are not equally far; a dash for none."""
    if not isinstance(shown, Estimate):
        return "–"
    if shown.low is None or shown.high is None:
        return _brief(quantity, shown.value)
    low, high = shown.interval
    decimals = _decimals(quantity, (high - low) / 2)
    value = _rounded(shown.value, decimals)
    below, above = (_rounded(width, decimals) for width in (shown.value - low, high - shown.value))
    if below == above:
        return f"{value} ± {below}"
    return f"{value} [{_rounded(low, decimals)}, {_rounded(high, decimals)}]"


def change(quantity: Quantity, effect: Effect | None) -> str:
    """``−0.12 ± 0.05``; nothing where there is no difference."""
    if effect is None:
        return ""
    low, high = effect.interval()
    decimals = CHANGE_DECIMALS.get(quantity.kind, _decimals(quantity, (high - low) / 2))
    return f"{with_sign(effect.value, decimals)} ± {_rounded((high - low) / 2, decimals)}"


def accuracy_change(decided: Standings, row: Standing) -> str:
    """The difference in accuracy from the baseline, alone where records hold no means of classes.

    Nothing where the two were run on different seeds.
    """
    quantity, base = decided.board.quantities[decided.accuracy], decided.baseline
    if row.accuracy_difference or not base or row is base or {*row.seeds}.isdisjoint(base.seeds):
        return points(quantity, row.accuracy_difference)
    if isinstance(row.accuracy, Estimate) and isinstance(base.accuracy, Estimate):
        return _signed(quantity, row.accuracy.value - base.accuracy.value)
    return ""


def points(quantity: Quantity, effect: Effect | None) -> str:
    """A difference as :func:`change` writes it, one of shares in percentage points: ``−1.5 ± 1.8``."""
    if effect is None or quantity.kind != "share":
        return change(quantity, effect)
    low, high = effect.interval()
    return f"{with_sign(100 * effect.value, 1)} ± {_rounded(50 * (high - low), 1)}"


def unit_of_points(quantity: Quantity) -> str:
    """The unit of :func:`points`: ``points``; empty where it is the quantity's own."""
    return "points" if quantity.kind == "share" else ""


def _signed(quantity: Quantity, value: float) -> str:
    if quantity.kind == "share":
        return with_sign(100 * value, 1)
    return with_sign(value, DECIMALS.get(quantity.kind))


def with_sign(value: float, decimals: int | None) -> str:
    """``−0.12``, ``+0.3``; 0 has no sign."""
    text = _rounded(abs(value), decimals)
    return text if not value or not text.strip("0.") else f"{'−' if value < 0 else '+'}{text}"


def _brief(quantity: Quantity, value: float) -> str:
    return _rounded(value, DECIMALS.get(quantity.kind))


def _decimals(quantity: Quantity, half: float) -> int | None:
    """Decimals of a number with its interval: two digits of the half-width, where the kind sets none."""
    known = DECIMALS.get(quantity.kind)
    if known is not None or not 0 < half < math.inf:
        return known
    return max(0, 1 - math.floor(math.log10(half)))


def _rounded(value: float, decimals: int | None) -> str:
    text = f"{value:.3g}" if decimals is None else f"{round(value, decimals) + 0.0:.{decimals}f}"
    return text.replace("-", "−")


def remarks(row: Standing) -> list[str]:
    """What a reader must know of a verdict, or why there is none, a few words each."""
    if not row.verdict:
        if row.role != "defense":
            return []
        if row.difference is None:
            return [NOT_COMPARABLE]
        return [ONE_SEED] * (row.difference.seeds < 2)
    return [words for words in (*_details(row.verdict), *row.verdict.flags) if words not in UNKNOWN_COSTS]


def reservations(row: Standing) -> list[str]:
    """What must be said of a verdict wherever it is named: of its cost, and why it may not hold."""
    if not row.verdict:
        return []
    lost, unlike = row.accuracy_difference, not row.verdict.kind.startswith("leaks less")
    costs = ["costs accuracy"] * bool(unlike and lost and lost.interval()[1] < 0)
    others = () if row.verdict.kind == "no difference" else (MASKING, NOT_RUN, USELESS)
    doubts = {*BESIDE_ARCHITECTURE, AT_FLOOR, *others}
    grave = [words for words in row.verdict.flags if words in doubts]
    return [words for words in (*costs, *_details(row.verdict), *grave) if words != "beats the front"]


def _details(verdict: Verdict) -> list[str]:
    """What completes the verdict, apart from its outcome."""
    cost = [verdict.detail] * bool(verdict.detail and verdict.kind != "no difference")
    return cost + [verdict.front.replace("the undefended front", "the front")] * bool(verdict.front)


def common_remarks(decided: Standings) -> list[str]:
    """The remarks that hold for every defense with a verdict, if there are several."""
    rows = [remarks(row) for row in decided.decided]
    return [words for words in rows[0] if all(words in row for row in rows)] if len(rows) > 1 else []
