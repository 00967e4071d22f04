"""Which defense to take, if some accuracy can be given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mia_bench.leaderboard.grouping import ComponentKey
from mia_bench.leaderboard.standings import Standing, Standings
from mia_bench.leaderboard.verdicts import NOT_SHOWN, WORSE

PRICES = (0.01, 0.03, 0.1)
"""Losses of accuracy that a reader may be ready to accept."""


@dataclass(frozen=True)
class Advice:
    """What the verdicts say to somebody who can give up some accuracy.

    Attributes:
        prices: the largest losses of accuracy that it holds for.
        best: of the defenses that leak less and lose no more, both beyond doubt, and than which none of them
            is shown to leak less, the one that loses least; None without such a defense.
        alike: the others than which none is shown to leak less.
        rest: those than which some is.
        perhaps: defenses that leak less and on average lose no more, though perhaps they do.
        no_better: defenses that leak less and on average lose no more, but are not shown to leak less than
            undefended targets that are as accurate.
    """

    prices: tuple[float, ...]
    best: Standing | None
    alike: tuple[Standing, ...]
    rest: tuple[Standing, ...]
    perhaps: tuple[Standing, ...]
    no_better: tuple[Standing, ...]


def in_points(*losses: float) -> str:
    """Losses of accuracy for people: ``1 point``, ``1, 3 or 10 points``."""
    *most, last = [f"{100 * loss:g}" for loss in losses]
    numbers = f"{', '.join(most)} or {last}" if most else last
    return f"{numbers} point{'s' * (numbers != '1')}"


def advice(decided: Standings) -> list[Advice]:
    """The advice for each of :data:`PRICES`; one for neighbours that get the same."""
    found: list[Advice] = []
    for price in PRICES:
        here = _at(decided, price)
        if found and _named(found[-1]) == _named(here):
            found[-1] = replace(here, prices=(*found[-1].prices, price))
        else:
            found.append(here)
    return found


def _named(one: Advice) -> tuple[list[ComponentKey], ...]:
    rows = ((one.best,) if one.best else (), one.alike, one.rest, one.perhaps, one.no_better)
    return tuple([row.key for row in same] for same in rows)


def _at(decided: Standings, price: float) -> Advice:
    priced = [
        (row, row.accuracy_difference)
        for row in decided.decided
        if row.verdict and row.verdict.kind.startswith("leaks less") and row.accuracy_difference
    ]
    near = [(row, lost) for row, lost in priced if lost.value >= -price]
    beating = [(row, lost) for row, lost in near if _front_is_no_hurdle(row)]
    sure = [(row, lost) for row, lost in beating if lost.interval()[0] > -price]
    least = _least(decided, [row for row, _ in sure])
    kept = [row.key for row in least]
    alike = sorted((one for one in sure if one[0].key in kept), key=lambda one: -one[1].value)
    return Advice(
        prices=(price,),
        best=alike[0][0] if alike else None,
        alike=tuple(row for row, _ in alike[1:]),
        rest=tuple(row for row, _ in sure if row.key not in kept),
        perhaps=tuple(row for row, lost in beating if (row, lost) not in sure),
        no_better=tuple(row for row, _ in near if not _front_is_no_hurdle(row)),
    )


def _front_is_no_hurdle(row: Standing) -> bool:
    """Whether the front was beaten, not met, or there was no need to."""
    return not (row.verdict and row.verdict.front in (NOT_SHOWN, WORSE))


def _least(decided: Standings, rows: Sequence[Standing]) -> list[Standing]:
    """The rows than which none of them is shown to leak less."""
    return [row for row in rows if not any(decided.leaks_less(other, row) for other in rows)]
