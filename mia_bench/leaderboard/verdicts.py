"""What a row's differences to the baseline amount to: one verdict by rule, the same for every defense."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

from mia_bench.api.metric import Direction, Quantity
from mia_bench.statistics import Effect, adjusted_p_values
from mia_bench.strength import EQUAL

Kind: TypeAlias = Literal[
    "baseline", "leaks less", "leaks less, at a cost", "leaks more", "no difference", "unclear"
]

ACCURACY_MARGIN = 0.03
"""A defense costs little if its test accuracy is not lower than the baseline's by this much."""

LEVEL = 0.05
"""Chance of a difference where there is none, among all comparisons of a track together."""

ENOUGH_SEEDS = 5
"""Verdicts on fewer seeds are flagged."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Verdict:
    """The outcome for one row.

    Attributes:
        kind: the rule that applied.
        detail: the words that complete it: what is not known of the cost, beyond which difference there is
            none.
        front: which of :data:`AGAINST_FRONT` holds; empty where nothing needs to be said.
        flags: why it may not hold, a few words each.
    """

    kind: Kind
    detail: str = ""
    front: str = ""
    flags: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """``no difference beyond 0.3 bits``; *at a cost* only where the records show one."""
        if self.kind == "no difference":
            return f"{self.kind} {self.detail}"
        return f"leaks less, {self.detail}" if self.detail in UNKNOWN_COSTS else self.kind

    @property
    def text(self) -> str:
        """Outcome and front: ``leaks less, at a cost; beats the undefended front``."""
        return "; ".join(filter(None, (self.outcome, self.front)))


MASKING = "masking suspected"
"""The flag of a defense under which gradients may be masked."""

NOT_BEYOND, MORE_THAN = BESIDE_ARCHITECTURE = (
    "not shown to beat its architecture",
    "leaks more than its architecture",
)
"""The flags of a defense that may leak as much as its architecture alone, and of one that leaks more."""

BEATS, NOT_SHOWN, WORSE, NOT_COMPARED = AGAINST_FRONT = (
    "beats the undefended front",
    "not shown to beat the undefended front",
    "leaks more than the undefended front",
    "not compared with the undefended front",
)
"""What a verdict on a defense that costs accuracy, or may, says of the undefended front."""

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
        front: leakage minus that of the undefended front at the row's accuracy; None where the row gives no
            accuracy, and where it is not known.
        architecture: leakage minus that of an undefended classifier with the row's architecture; None where
            that is the baseline's, and where it is not known.
        flags: what is known from elsewhere, as ``randomised`` or ``masking suspected``.
    """

    leakage: Effect
    accuracy: Effect | None = None
    front: Effect | None = None
    architecture: Effect | None = None
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

    @classmethod
    def of(cls, leakage: Quantity) -> Margins:
        """The margins of a quantity of leakage; of some kinds none is known."""
        return cls(EQUAL.get(leakage.kind, 0.0), "bits" if leakage.kind == "bits" else "")


def decide(
    comparison: Comparison,
    p_value: float,
    better: Direction,
    margins: Margins,
    *,
    front_p_value: float = 1.0,
    architecture_p_value: float = 1.0,
) -> Verdict:
    """The verdict on one row; a tie has no winner.

    Args:
        comparison: what is known of it.
        p_value: that of the difference of leakage, two-sided and adjusted to the number of comparisons.
        better: which direction of the leakage is better for the defender.
        margins: differences too small to matter.
        front_p_value: that of the difference from the undefended front, likewise.
        architecture_p_value: that of the difference from the same architecture without a defense, likewise.
    """
    leakage = _less_is_better(comparison.leakage, better)
    flags = ("few seeds",) * (leakage.seeds < ENOUGH_SEEDS) + comparison.flags
    front = _outcome(comparison.front, front_p_value, better, (BEATS, NOT_SHOWN, WORSE))
    beside = _outcome(comparison.architecture, architecture_p_value, better, ("", *BESIDE_ARCHITECTURE))
    if beside == MORE_THAN or (beside and p_value < LEVEL and leakage.value <= 0):
        flags = (beside, *flags)
    if p_value < LEVEL:
        if leakage.value > 0:
            return Verdict("leaks more", flags=flags)
        if comparison.accuracy and not _costs(comparison.accuracy, margins):
            return Verdict("leaks less", front=front, flags=flags)
        cost = _cost(comparison.accuracy)
        return Verdict("leaks less, at a cost", cost, front or NOT_COMPARED, flags)
    if front != WORSE:  # no row that leaks as much as the baseline is expected to beat the front
        front = ""
    widest = leakage.bound
    if widest < margins.leakage:
        detail = f"beyond {rounded_up(widest)} {margins.unit}".rstrip()
        return Verdict("no difference", detail, front, flags)
    return Verdict("unclear", front=front, flags=flags)


def _less_is_better(effect: Effect, better: Direction) -> Effect:
    """The difference with the sign that makes less the better for the defender."""
    return replace(effect, value=-effect.value) if better == "higher" else effect


def _costs(accuracy: Effect, margins: Margins) -> bool:
    """Whether a loss of accuracy that matters is not excluded."""
    return accuracy.interval()[0] <= -margins.accuracy


def _cost(accuracy: Effect | None) -> str:
    """Words for a cost that was not shown: a loss that matters was not excluded, but neither was none."""
    not_tested, unclear = UNKNOWN_COSTS
    if accuracy is None:
        return not_tested
    return unclear if accuracy.interval()[1] >= 0 else ""


def _outcome(minus: Effect | None, p_value: float, better: Direction, words: tuple[str, str, str]) -> str:
    """The words for less leakage, for neither or for more, as a difference shows; empty if it is unknown."""
    if minus is None:
        return ""
    less, neither, more = words
    if p_value >= LEVEL:
        return neither
    return less if _less_is_better(minus, better).value < 0 else more


def gives_accuracy(accuracy: Effect | None, margins: Margins) -> bool:
    """Whether a row with this difference in accuracy is held against the undefended front.

    It is less accurate than the baseline on average, or may be so by what matters.
    """
    return accuracy is None or accuracy.value < 0 or _costs(accuracy, margins)


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

    The differences from the baseline are one family, those from the undefended front another, those from the
    same architecture without a defense a third.

    Args:
        comparisons: the rows that are judged together, without the baseline.
        better: which direction of the leakage is better for the defender.
        margins: differences too small to matter.
    """
    of_baseline = adjusted_p_values({row: one.leakage for row, one in comparisons.items()})
    of_front = adjusted_p_values({row: one.front for row, one in comparisons.items() if one.front})
    same = {row: one.architecture for row, one in comparisons.items() if one.architecture}
    of_architecture = adjusted_p_values(same)
    return {
        row: decide(
            one,
            of_baseline[row],
            better,
            margins,
            front_p_value=of_front.get(row, 1.0),
            architecture_p_value=of_architecture.get(row, 1.0),
        )
        for row, one in comparisons.items()
    }
