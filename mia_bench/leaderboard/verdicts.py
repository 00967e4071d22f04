"""What a row's differences to the baseline amount to: one verdict by rule, the same for every defense."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

from mia_bench.api.metric import Direction
from mia_bench.statistics import Effect, holm

Kind: TypeAlias = Literal[
    "baseline", "leaks less", "leaks less, at a cost", "leaks more", "no difference", "unclear"
]

ACCURACY_MARGIN = 0.03
"""A defense costs little if its test accuracy is not lower than the baseline's by this much."""

LEVEL = 0.05
"""Chance of a difference where there is none, among all comparisons of a track together."""

FEW_SEEDS = 5
"""Verdicts on fewer seeds are flagged."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Verdict:
    """The outcome for one row.

    Attributes:
        kind: the rule that applied.
        detail: the words that complete it: what it costs, whether it beats the undefended front, beyond
            which difference there is none.
        flags: why it may not hold, a few words each.
    """

    kind: Kind
    detail: str = ""
    flags: tuple[str, ...] = ()

    @property
    def against_front(self) -> str:
        """Which of :data:`AGAINST_FRONT` the detail ends with; empty for none."""
        return next((words for words in AGAINST_FRONT if self.detail.endswith(words)), "")

    @property
    def text(self) -> str:
        """``leaks less, at a cost; beats the undefended front``, ``no difference beyond 0.3 bits``."""
        between = " " if self.kind == "no difference" else "; "
        return f"{self.kind}{between}{self.detail}" if self.detail else self.kind


MASKING = "masking suspected"
"""The flag of a defense under which gradients may be masked."""

AGAINST_FRONT = (
    "beats the undefended front",
    "does not beat the undefended front",
    "not compared with the undefended front",
)
"""What a verdict on a defense that costs accuracy says of the undefended front, the best first."""

UNKNOWN_COSTS = ("cost not tested", "cost unclear")
"""What a verdict says of a cost that was not shown."""

BASELINE = Verdict("baseline")
"""The verdict on the row that the others are compared with: it never wins."""


@dataclass(frozen=True)
class Comparison:
    """A row minus the baseline on the same seeds and classes.

    Attributes:
        leakage: the difference of leakage.
        accuracy: the difference of test accuracy; None where it is not known.
        front: leakage minus that of the undefended front at the row's accuracy; None where it is not known.
        flags: what is known from elsewhere, as ``randomised`` or ``masking suspected``.
    """

    leakage: Effect
    accuracy: Effect | None = None
    front: Effect | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Margins:
    """Differences too small to matter.

    Attributes:
        leakage: of the quantity of leakage; 0 where none is known, and then rows are never called equal.
        unit: its unit, in the plural: ``bits``; empty for a share.
        accuracy: of test accuracy.
    """

    leakage: float = 0.0
    unit: str = ""
    accuracy: float = ACCURACY_MARGIN


def decide(comparison: Comparison, p_value: float, better: Direction, margins: Margins) -> Verdict:
    """The verdict on one row; a tie has no winner.

    Args:
        comparison: what is known of it.
        p_value: that of the difference of leakage, two-sided and adjusted to the number of comparisons.
        better: which direction of the leakage is better for the defender.
        margins: differences too small to matter.
    """
    leakage = _less_is_better(comparison.leakage, better)
    flags = ("few seeds",) * (leakage.seeds < FEW_SEEDS) + comparison.flags
    if p_value < LEVEL:
        if leakage.value > 0:
            return Verdict("leaks more", "", flags)
        if comparison.accuracy and comparison.accuracy.interval()[0] > -margins.accuracy:
            return Verdict("leaks less", "", flags)
        words = (*_cost(comparison.accuracy), _against_front(comparison.front, better))
        return Verdict("leaks less, at a cost", "; ".join(words), flags)
    widest = leakage.bound
    if widest < margins.leakage:
        return Verdict("no difference", f"beyond {rounded_up(widest)} {margins.unit}".rstrip(), flags)
    return Verdict("unclear", "", flags)


def _less_is_better(effect: Effect, better: Direction) -> Effect:
    """The difference with the sign that makes less the better for the defender."""
    return replace(effect, value=-effect.value) if better == "higher" else effect


def _cost(accuracy: Effect | None) -> tuple[str, ...]:
    """Words for a cost that was not shown: a loss that matters was not excluded, but neither was none."""
    not_tested, unclear = UNKNOWN_COSTS
    if accuracy is None:
        return (not_tested,)
    return (unclear,) if accuracy.interval()[1] >= 0 else ()


def _against_front(front: Effect | None, better: Direction) -> str:
    beats, does_not, unknown = AGAINST_FRONT
    if front is None:
        return unknown
    return beats if _less_is_better(front, better).interval()[1] < 0 else does_not


def rounded_up(number: float) -> str:
    """Two significant digits, never less than the number."""
    if number == 0:
        return "0"
    digits = 1 - math.floor(math.log10(number))
    return f"{math.ceil(number * 10**digits) / 10**digits:.2g}"


def verdicts(
    comparisons: Mapping[Key, Comparison], better: Direction, margins: Margins
) -> dict[Key, Verdict]:
    """The verdict on each row of a track; p-values are adjusted to their number (Holm 1979).

    Args:
        comparisons: the rows that are judged together, without the baseline.
        better: which direction of the leakage is better for the defender.
        margins: differences too small to matter.
    """
    rows = list(comparisons)
    adjusted = holm([comparisons[row].leakage.p_value() for row in rows])
    return {row: decide(comparisons[row], p, better, margins) for row, p in zip(rows, adjusted, strict=True)}
