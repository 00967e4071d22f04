"""The figures of a board, from its verdict table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mia_bench.api.metric import Quantity
from mia_bench.leaderboard.figures import Axis, Bar, Level, Panel, Point, Series, forest, scatter
from mia_bench.leaderboard.front import corners
from mia_bench.leaderboard.pairs import section_letters
from mia_bench.leaderboard.standings import Standings
from mia_bench.statistics import Estimate
from mia_bench.track import Track


def plane(decided: Standings) -> str:
    """Accuracy against leakage under each row's strongest attack; empty without two rows that have both.

    Defenses with little accuracy, which would leave no room for the others, are left out.
    """
    board = decided.board
    x, y = board.quantities.get(decided.accuracy), board.quantities.get(board.primary)
    if not x or not y:
        return ""
    colours = _colours(decided)
    grouped: dict[str | None, list[Point]] = {}
    useless = [row.key for row in decided.unusable]
    for row in decided.rows:
        if row.key in useless:
            continue
        if isinstance(row.accuracy, Estimate) and isinstance(row.leakage, Estimate):
            name = None if row.role in ("baseline", "front") else row.label
            grouped.setdefault(name, []).append(Point(row.label, row.accuracy, row.leakage))
    if sum(map(len, grouped.values())) < 2:
        return ""
    undefended = grouped.pop(None, [])
    series = [Series(tuple(points), colours.get(name)) for name, points in grouped.items() if name]
    series += front(undefended, y)  # drawn last, it is on top
    axes = Axis(decided.accuracy, x), Axis(f"{board.primary} under the strongest attack", y)
    return scatter(series, levels(decided), *axes)


def front(undefended: Sequence[Point], leakage: Quantity, name: str = "") -> list[Series]:
    """Undefended targets, with a line, which may have a name, through those that are corners of the front."""
    line = corners(undefended, lambda point: (point.x.value, point.y.value), leakage.better)
    others = [point for point in undefended if point not in line]
    series = [Series(tuple(others)), Series(tuple(line), joined=True, name=name)]
    return [one for one in series if one.points]


def levels(decided: Standings) -> list[Level]:
    """What real images, their imitations, and attacks that learn nothing reach in the board's first quantity.

    The imitations are those of the prior that the strongest attack on the baseline has.
    """
    board, base = decided.board, decided.baseline
    name = board.primary
    ceiling = board.ceiling.value(name) if board.ceiling else None
    floors = [value for _, row in board.floors if (value := row.value(name)) is not None]
    found = [] if ceiling is None else [Level("ceiling", ceiling)]
    oracle = board.oracles.get(base.section.prior.name) if base and base.section else None
    if oracle and (reached := oracle.value(name)) is not None:
        found.append(Level("oracle", reached))
    return found + ([Level("floor", max(floors, key=board.quantities[name].sort_key))] if floors else [])


def forests(decided: Standings) -> str:
    """Differences of leakage from the baseline, a panel for each attack; empty where there are none.

    Defenses with little accuracy are left out, and so are attacks that no other defense met.
    """
    board = decided.board
    quantity = board.quantities.get(board.primary)
    useless = [row.key for row in decided.unusable]
    defenses = [row.key for row in decided.defenses if row.key not in useless]
    panels = []
    for section in board.sections if quantity else ():
        keys = {(row.defense, row.options): row.key for row in section.rows if row.key}
        found = {
            keys[one.defense, one.options]: (board.short(one), difference)
            for one in section.differences
            if (difference := one.metrics.get(board.primary))
        }
        drawn = [key for key in found if key in defenses]
        letters = section_letters(board, section, drawn) if board.track.verdicts else {}
        bars = {
            label: Bar(Estimate(one.mean, one.low, one.high, 1), letters.get(key, ""))
            for key, (label, one) in found.items()
            if key not in useless
        }
        if drawn and section.baseline:
            bars[board.short(section.baseline)] = Bar(None, baseline=True)
            panels.append(Panel(section.attack.name, bars, board.variant(section)))
    if not panels or not quantity:
        return ""
    return forest(panels, Axis(board.primary, quantity), _colours(decided))


def _colours(decided: Standings) -> dict[str, int | None]:
    """Of each row's label its colour, in the order of the table: one for each defense."""
    found = defense_colours(decided.board.track, {row.defense for row in decided.defenses})
    return {row.label: found[row.defense] if row.role == "defense" else None for row in decided.rows}


def defense_colours(track: Track, defenses: Iterable[str]) -> dict[str, int]:
    """The numbers of colours: of a defense for which the track has options the same in all figures."""
    ours = sorted(track.defenses)
    return {name: number for number, name in enumerate([*ours, *sorted({*defenses} - {*ours})])}
