"""Figures of boards and sweeps as SVG text: utility against leakage, and forest plots.

Pure functions: the same values give the same bytes. A figure has a background of its own and the colours of
both schemes, so that it can be read on a light and on a dark page.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias
from xml.etree import ElementTree as ET

import numpy as np

from mia_bench.api.metric import Array, Quantity
from mia_bench.statistics import Estimate
from mia_bench.text import one_line, shortened

WIDTH = 860
"""Of every figure, in pixels."""

_LIGHT = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#0e7490", "#a40e26")
_DARK = ("#58a6ff", "#f0883e", "#3fb950", "#bc8cff", "#f778ba", "#d29922", "#39c5cf", "#ff7b72")
COLOURS = len(_LIGHT)
"""How many series can have a colour of their own."""

_SCHEMES = {
    "light": {"page": "#ffffff", "ink": "#1f2328", "soft": "#59636e", "line": "#d1d9e0"},
    "dark": {"page": "#0d1117", "ink": "#f0f6fc", "soft": "#9198a1", "line": "#3d444d"},
}
_FONT = "-apple-system, BlinkMacSystemFont, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
_SIZE = 12
_EM = 0.63
"""Width of a character at most, on average over a label, in sizes of the font."""

_GAP = 8
"""Pixels between labels that stand beside each other."""

_LONGEST = 40
"""Characters of a label that are shown."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        quantity: says what is better for the defender.
        stretched: whether values near 0 are drawn farther apart.
    """

    title: str
    quantity: Quantity
    stretched: bool = False


@dataclass(frozen=True)
class Point:
    """A target in the plane of utility (x) and leakage (y); an interval that is missing is not drawn."""

    label: str
    x: Estimate
    y: Estimate


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    Attributes:
        colour: a number; None for the undefended, which are grey.
        joined: draw a line through the points, in the order of x, as of a front.
        name: what the line is called above the figure; empty where its points have labels. A line whose
            colour an earlier one has is dashed.
    """

    points: tuple[Point, ...]
    colour: int | None = None
    joined: bool = False
    name: str = ""


@dataclass(frozen=True)
class Level:
    """A horizontal line: what real images reach, say."""

    label: str
    value: float


@dataclass(frozen=True)
class Bar:
    """A row of a forest plot.

    Attributes:
        difference: from the baseline; None where it is not known.
        letters: rows that share one can't be told apart.
        baseline: whether the row is the baseline itself, at 0.
    """

    difference: Estimate | None
    letters: str = ""
    baseline: bool = False


@dataclass(frozen=True)
class Panel:
    """A forest plot under one attack: a bar for each row's label."""

    title: str
    bars: Mapping[str, Bar]
    subtitle: str = ""


def scatter(series: Sequence[Series], levels: Sequence[Level], x: Axis, y: Axis) -> str:
    """Utility against leakage with intervals in both, and levels as horizontal lines.

    A level far beyond the points is named at the edge instead of squeezing them.
    """
    points = [point for one in series for point in one.points]
    if not points:
        raise ValueError("a figure needs points")
    dashed, legend, more = _named_lines({one.name: one.colour for one in series if one.name})
    left, top, right = 58.0, 70.0 + more if legend else 46.0, WIDTH - 132.0
    bottom = top + min(max(384.0, 26.0 * sum(bool(point.label) for point in points)), 640.0)
    if x.stretched:
        across: _Scale = _Stretched(sorted({p.x.value for p in points}), left, right)
    else:
        across = _Scale(_range([p.x for p in points], x.quantity), left, right)
    spread = _range([p.y for p in points], y.quantity)
    shown = _within(spread, levels, y.quantity)
    up = _Scale(shown, bottom, top)
    svg = _canvas(bottom + 60, f"{y.title} against {x.title}")
    _write(svg, legend)
    for tick in across.ticks(7):
        _line(svg, across(tick), top, across(tick), bottom, "grid")
        _text(svg, across(tick), bottom + 18, _number(tick), "soft", "middle")
    for tick in up.ticks(6):
        _line(svg, left, up(tick), right, up(tick), "grid")
        _text(svg, left - 8, up(tick) + 4, _number(tick), "soft", "end")
    _text(svg, left - 44, top - 22, f"{y.title} {_arrow(y.quantity)}".rstrip(), "ink")
    _text(svg, right, bottom + 42, f"{x.title} {_arrow(x.quantity)}".rstrip(), "ink", "end")
    if x.quantity.better == "higher" and y.quantity.better != "neutral":
        corner = bottom + 42
        better = "bottom" if y.quantity.better == "lower" else "top"
        _text(svg, left, corner, f"better for the defender: right and {better}", "soft")
    obstacles = _levels(svg, levels, y.quantity, up, (left, top, right, bottom))
    for one in series:
        obstacles += _join(svg, one, across, up, dashed.get(one.name, False)) if one.joined else []
    marks: list[Box] = []
    for one in series:
        for point in one.points:
            bars, mark = _mark(svg, point, one.colour, across, up)
            obstacles += bars
            marks.append(mark)
    _labels(svg, series, across, up, obstacles, marks, (left, top, right, bottom))
    return _finished(svg)


def forest(
    panels: Sequence[Panel],
    axis: Axis,
    colours: Mapping[str, int | None],
    columns: int = 3,
    base: str = "the baseline",
) -> str:
    """Differences with intervals, a panel for each attack, on one scale.

    Args:
        panels: every panel may have other rows.
        axis: the quantity that was subtracted; without a title where rows have several.
        colours: the rows' labels in their order, each with the number of its colour.
        columns: panels side by side at most.
        base: what they are from.
    """
    if not panels:
        raise ValueError("a figure needs panels")
    rows = [label for label in colours if any(label in panel.bars for panel in panels)]
    found = [bar.difference for p in panels for bar in p.bars.values() if bar.difference]
    scale = _range([*found, Estimate(0.0, None, None, 1)], Quantity(""))
    beside = min(columns, len(panels))
    names = max(_wide(_short(label)) for label in rows) + 18
    letters = max((_wide(b.letters) for p in panels for b in p.bars.values() if b.letters), default=0)
    width = (WIDTH - 8 - names) / beside
    step, foot = 24, 62 if axis.title else 46
    head = 54 if any(panel.subtitle for panel in panels) else 40
    tall = head + step * len(rows) + foot
    svg = _canvas(
        -(-len(panels) // beside) * tall + 8,
        f"Differences{f' of {axis.title}' if axis.title else ''} from {base}",
    )
    for number, panel in enumerate(panels):
        x0 = names + (number % beside) * width
        y0 = (number // beside) * tall
        left, right = x0 + 10, x0 + width - 14 - letters
        top, bottom = y0 + head, y0 + head + step * len(rows)
        across = _Scale(scale, left, right)
        longest = int((width - 12) / (_SIZE * _EM))
        _text(svg, left, y0 + 26, shortened(panel.title, longest), "ink strong")
        _text(svg, left, y0 + 42, shortened(panel.subtitle, longest), "soft small")
        for tick in across.ticks(5):
            _line(svg, across(tick), top, across(tick), bottom, "zero" if tick == 0 else "grid")
            _text(svg, across(tick), bottom + 16, _number(tick), "soft small", "middle")
        _direction(svg, axis.quantity, across, bottom + 34, left, right)
        if axis.title:
            _text(svg, across(0.0), bottom + 50, f"Δ {axis.title}", "soft small", "middle")
        for row, label in enumerate(rows):
            y = top + step * (row + 0.5)
            if number % beside == 0:
                _text(svg, names - 6, y + 4, _short(label), f"name {_class(colours[label])}", "end")
            if bar := panel.bars.get(label):
                _bar(svg, bar, colours[label], across, y)
                _text(svg, right + 10, y + 4, bar.letters, "soft")
    return _finished(svg)


@dataclass(frozen=True)
class Curves:
    """Lines over steps, one for each label, with a title; ``first`` is the number of their first step."""

    title: str
    lines: Mapping[str, Sequence[float]]
    first: int = 1


@dataclass(frozen=True)
class Spot:
    """A point of a cloud; hollow ones are drawn on top."""

    x: float
    y: float
    colour: int
    hollow: bool = False


@dataclass(frozen=True)
class Region:
    """A rectangle of one colour: left, bottom, right, top."""

    x0: float
    y0: float
    x1: float
    y1: float
    colour: int


@dataclass(frozen=True)
class Cloud:
    """Points in a plane, and lines through it: each a sequence of places, with the number of a colour."""

    title: str
    spots: Sequence[Spot]
    paths: Sequence[tuple[Sequence[tuple[float, float]], int]] = ()
    regions: Sequence[Region] = ()


def curves(panels: Sequence[Curves], x: str, colours: Mapping[str, int | None]) -> str:
    """Lines over steps, two panels side by side, each with a scale of its own.

    Args:
        x: what is counted, in words.
        colours: the lines' labels in their order, each with the number of its colour; a line whose colour an
            earlier one has is dashed.
    """
    if not panels or not any(panel.lines for panel in panels):
        raise ValueError("a figure needs lines")
    labels = [label for label in colours if any(label in panel.lines for panel in panels)]
    beside, tall = min(2, len(panels)), 290.0
    width = (WIDTH - 8) / beside
    dashed, legend, more = _named_lines({label: colours[label] for label in labels})
    head = 34 + more
    svg = _canvas(-(-len(panels) // beside) * tall + head, f"{', '.join(p.title for p in panels)}, {x}")
    _write(svg, legend)
    for number, panel in enumerate(panels):
        x0, y0 = (number % beside) * width, head + (number // beside) * tall
        left, right, top, bottom = x0 + 58, x0 + width - 14, y0 + 34, y0 + tall - 44
        found = [Estimate(value, None, None, 1) for line in panel.lines.values() for value in line]
        last = panel.first - 1 + max(map(len, panel.lines.values()))
        across, up = _Scale((1, max(2, last)), left, right), _Scale(_range(found, Quantity("")), bottom, top)
        _text(svg, left, y0 + 18, panel.title, "ink strong")
        _text(svg, right, bottom + 36, x, "soft", "end")
        for tick in across.ticks(5):
            _text(svg, across(tick), bottom + 18, _number(tick), "soft", "middle")
        for tick in up.ticks(5):
            _line(svg, left, up(tick), right, up(tick), "zero" if tick == 0 else "grid")
            _text(svg, left - 8, up(tick) + 4, _number(tick), "soft", "end")
        for label, line in panel.lines.items():
            path = [(across(step), up(value)) for step, value in enumerate(line, panel.first)]
            _polyline(svg, path, colours[label], dashed[label])
    return _finished(svg)


def clouds(panels: Sequence[Cloud], names: Sequence[str] = (), reach: float | None = None) -> str:
    """Points in a plane, three panels side by side on one scale, the same in both directions.

    Args:
        names: of the colours, for a line above the panels.
        reach: the largest coordinate that is shown; that of the points unless given. What is farther out is
            drawn at the edge.
    """
    spots = [spot for panel in panels for spot in panel.spots]
    if not spots:
        raise ValueError("a figure needs points")
    beside = min(3, len(panels))
    side = (WIDTH - 8) / beside
    legend, more = _legend({name: number for number, name in enumerate(names)})
    head = 40.0 + more if names else 8.0
    svg = _canvas(head + -(-len(panels) // beside) * (side + 30), ", ".join(panel.title for panel in panels))
    _write(svg, legend)
    edge = reach or 1.05 * max(max(abs(spot.x), abs(spot.y)) for spot in spots)
    for number, panel in enumerate(panels):
        x0, y0 = (number % beside) * side + 8, head + (number // beside) * (side + 30)
        across = _Scale((-edge, edge), x0, x0 + side - 16)
        up = _Scale((-edge, edge), y0 + 24 + side - 16, y0 + 24)
        _text(svg, x0, y0 + 14, panel.title, "ink strong")

        def seen(value: float) -> float:
            return max(-edge, min(edge, value))

        for region in panel.regions:
            wide, tall = across(region.x1) - across(region.x0), up(region.y0) - up(region.y1)
            box = {"x": _pixel(across(region.x0)), "y": _pixel(up(region.y1))}
            box |= {"width": _pixel(wide), "height": _pixel(tall), "opacity": "0.18"}
            ET.SubElement(svg, "rect", {**box, "class": f"name {_class(region.colour)}"})
        _line(svg, across(-edge), up(0), across(edge), up(0), "grid")
        _line(svg, across(0), up(-edge), across(0), up(edge), "grid")
        for path, colour in panel.paths:
            _polyline(svg, [(across(seen(x)), up(seen(y))) for x, y in path], colour)
        for spot in sorted(panel.spots, key=lambda one: one.hollow):
            place = {"cx": _pixel(across(seen(spot.x))), "cy": _pixel(up(seen(spot.y)))}
            kind = f"{'ring' if spot.hollow else 'dot'} {_class(spot.colour)}"
            ET.SubElement(svg, "circle", {**place, "r": "3.5" if spot.hollow else "3", "class": kind})
    return _finished(svg)


_Legend: TypeAlias = list[tuple[float, float, str, int | None]]
"""Where labels stand, and in which colours."""


def _named_lines(colours: Mapping[str, int | None]) -> tuple[dict[str, bool], _Legend, float]:
    """Of each line whether it is dashed, as an earlier one has its colour; with the legend that says so."""
    taken = list(colours.values())
    dashed = {label: colour in taken[:number] for number, (label, colour) in enumerate(colours.items())}
    return dashed, *_legend(
        {f"{label} (dashed)" if dashed[label] else label: colours[label] for label in colours}
    )


def _legend(labels: Mapping[str, int | None]) -> tuple[_Legend, float]:
    """The labels above a figure, in as many lines as they need, and how high the further lines are."""
    x, y = 14.0, 22.0
    found: _Legend = []
    for label, colour in labels.items():
        wide = _wide(_short(label))
        if found and x + wide > WIDTH - 8:
            x, y = 14.0, y + 18
        found.append((x, y, _short(label), colour))
        x += wide + 22
    return found, y - 22


def _write(svg: ET.Element, legend: _Legend) -> None:
    for x, y, label, colour in legend:
        _text(svg, x, y, label, f"name {_class(colour)}")


def _polyline(
    svg: ET.Element, path: Sequence[tuple[float, float]], colour: int | None, dashed: bool = False
) -> None:
    points = " ".join(f"{_pixel(x)},{_pixel(y)}" for x, y in path)
    shape = {"points": points, "class": f"join {_class(colour)}"}
    ET.SubElement(svg, "polyline", {**shape, "stroke-dasharray": "5 3"} if dashed else shape)


# --- scales ----------------------------------------------------------------------------------


class _Scale:
    """From values to pixels."""

    def __init__(self, ends: tuple[float, float], start: float, end: float) -> None:
        self.low, self.high = ends
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """Round numbers in the range, about ``count``."""
        raw = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 10) + 0.0 for number in range(first, last + 1)]


class _Stretched(_Scale):
    """A scale that is nearly logarithmic on both sides of 0, with the values themselves as ticks.

    The values are several, and not all of one size.
    """

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._values = values
        self._least = min(abs(one) for one in values if one)
        margin = 0.08 * (end - start)
        ends = math.asinh(min(values) / self._least), math.asinh(max(values) / self._least)
        super().__init__(ends, start + margin, end - margin)

    def __call__(self, value: float) -> float:
        return super().__call__(math.asinh(value / self._least))

    def ticks(self, count: int) -> list[float]:
        """Of the values those that are not too near to one that is nearer to the ends."""
        found: list[float] = []
        for value in sorted(self._values, key=abs, reverse=True):
            if all(abs(self(value) - self(other)) >= 32 for other in found):
                found.append(value)
        return sorted(found)


def _range(shown: Iterable[Estimate], quantity: Quantity) -> tuple[float, float]:
    """What an axis spans: the intervals with a margin, within the quantity's bounds."""
    ends = [end for one in shown for end in one.ends]
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.08 or max(abs(high) * 0.1, 0.05)
    least, most = quantity.bounds
    return max(low - margin, least - margin / 2), min(high + margin, most + margin / 2)


def _within(spread: tuple[float, float], levels: Sequence[Level], quantity: Quantity) -> tuple[float, float]:
    """The range with the levels that don't make it more than 2.4 times as wide."""
    low, high = spread
    for level in sorted(levels, key=lambda one: abs(one.value - (spread[0] + spread[1]) / 2)):
        margin = (spread[1] - spread[0]) * 0.06
        wider = min(low, level.value - margin), max(high, level.value + margin)
        if wider[1] - wider[0] <= 2.4 * (spread[1] - spread[0]):
            low, high = wider
    return low, high


# --- the plane -------------------------------------------------------------------------------


def _levels(
    svg: ET.Element, levels: Sequence[Level], quantity: Quantity, up: _Scale, frame: Box
) -> list[Box]:
    """Draw the levels and name them beside the plane, in an order and at distances that can be read."""
    left, top, right, bottom = frame
    boxes, places = [], []
    for level in sorted(levels, key=lambda one: -one.value):
        words = f"{level.label} {quantity.format(level.value)}"
        if up.low <= level.value <= up.high:
            y = up(level.value)
            _line(svg, left, y, right, y, "level")
            boxes.append((left, y - 1, right, y + 1))
            places.append((y, words))
        else:
            places.append((top, f"↑ {words}") if level.value > up.high else (bottom, f"↓ {words}"))
    for y, (_, words) in zip(_apart([y for y, _ in places], 15, top, bottom), places, strict=True):
        _text(svg, right + 8, y + 4, shortened(words, 19), "soft")
    return boxes


def _apart(places: Sequence[float], step: float, top: float, bottom: float) -> list[float]:
    """``places`` from top to bottom, at least ``step`` from each other."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + step if found else top))
    for number in range(len(found) - 1, -1, -1):
        below = found[number + 1] - step if number + 1 < len(found) else bottom
        found[number] = min(found[number], below)
    return found


def _join(svg: ET.Element, series: Series, across: _Scale, up: _Scale, dashed: bool) -> list[Box]:
    """The line through the points, and boxes along it that labels keep off."""
    ordered = sorted(series.points, key=lambda point: (point.x.value, point.y.value))
    corners = [(across(point.x.value), up(point.y.value)) for point in ordered]
    _polyline(svg, corners, series.colour, dashed)
    return [box for (x0, y0), (x1, y1) in pairwise(corners) for box in _along(x0, y0, x1, y1)]


def _along(x0: float, y0: float, x1: float, y1: float) -> list[Box]:
    """Boxes along a line."""
    steps = max(1, round(math.hypot(x1 - x0, y1 - y0) / 6))
    places = [(x0 + (x1 - x0) * n / steps, y0 + (y1 - y0) * n / steps) for n in range(steps + 1)]
    return [(x - 2, y - 2, x + 2, y + 2) for x, y in places]


def _mark(
    svg: ET.Element, point: Point, colour: int | None, across: _Scale, up: _Scale
) -> tuple[list[Box], Box]:
    """Draw a point with its intervals; the boxes of the intervals, and that of the point."""
    x, y, kind = across(point.x.value), up(point.y.value), _class(colour)
    (x0, x1), (y1, y0) = map(across, point.x.ends), map(up, point.y.ends)
    bars = []
    if x0 != x1:
        _line(svg, x0, y, x1, y, f"bar {kind}")
        bars.append((x0, y - 1, x1, y + 1))
    if y0 != y1:
        _line(svg, x, y0, x, y1, f"bar {kind}")
        bars.append((x - 1, y0, x + 1, y1))
    shape = {"cx": _pixel(x), "cy": _pixel(y), "r": "5", "class": f"dot {kind}"}
    title = ET.SubElement(ET.SubElement(svg, "circle", shape), "title")
    title.text = one_line(point.label)
    return bars, (x - 7, y - 7, x + 7, y + 7)


_SWEEPS = 4
"""How often every label is moved."""

_BESIDE = 18.0
"""A label this near to a point seems to name it, wherever its line leads."""

_MOVED = 30
"""Labels that are moved at most: the time grows with the square of their number."""

_TRIED = 32
"""Places of each label that are tried."""

_DISTANCES = (9.0, 20.0, 34.0, 52.0, 74.0, 100.0)
_DIRECTIONS = ((1, -1), (1, 1), (-1, -1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1))


def _labels(
    svg: ET.Element,
    series: Sequence[Series],
    across: _Scale,
    up: _Scale,
    obstacles: Sequence[Box],
    marks: Sequence[Box],
    frame: Box,
) -> None:
    """Put each label where it hides least, with a thin line to its point where that is not near.

    Labels are placed one after the other and then, if they are few, moved in turn as the others lie now.
    """
    labelled = [(point, one.colour) for one in series for point in one.points if point.label]
    offered = [
        _places(across(point.x.value), up(point.y.value), _short(point.label), obstacles, marks, frame)
        for point, _ in labelled
    ]
    chosen: list[_Place] = []
    for places in offered:
        chosen.append(_best(places, chosen))
    for _ in range(_SWEEPS if len(offered) <= _MOVED else 0):
        for number, places in enumerate(offered):
            chosen[number] = _best(places, chosen[:number] + chosen[number + 1 :])
    for place, (point, colour) in zip(chosen, labelled, strict=True):
        if place.lead:
            _line(svg, *place.lead, "lead")
        box = place.box
        _text(svg, box[0], box[3] - 3, _short(point.label), f"name {_class(colour)}")


@dataclass(frozen=True)
class _Place:
    """A place of a label, the line to its point where it has one, and what it hides apart from labels."""

    box: Box
    lead: Box | None
    cost: float

    @cached_property
    def along(self) -> list[Box]:
        """Boxes along the line."""
        return _along(*self.lead) if self.lead else []


def _places(
    x: float, y: float, label: str, obstacles: Sequence[Box], marks: Sequence[Box], frame: Box
) -> list[_Place]:
    """Where the label of a point can be, the best places first."""
    wide, high = _wide(label), _SIZE + 2
    boxes: list[Box] = []
    leads: list[Box | None] = []
    costs: list[float] = []
    for far, (number, (right, down)) in itertools.product(_DISTANCES, enumerate(_DIRECTIONS)):
        x0 = x + right * (far if right and not down else far * 0.7) - wide * (1 - right) / 2
        y0 = y + down * far * 0.8 - high / 2 + (down * 3 if not right else 0)
        box = x0, y0, x0 + wide, y0 + high
        end = min(max(x, box[0]), box[2]), box[1] if box[1] > y else box[3]
        boxes.append(box)
        leads.append((x, y, *end) if far > 20 else None)
        costs.append(far * 0.35 + number * 0.3)
    hidden = costs + _hidden(boxes, marks, obstacles, frame)
    if len(marks) <= 4 * _MOVED:
        hidden += _misleading((x, y), boxes, leads, np.array(marks))
    return [_Place(boxes[n], leads[n], float(hidden[n])) for n in np.argsort(hidden, kind="stable")]


def _misleading(
    point: tuple[float, float], boxes: Sequence[Box], leads: Sequence[Box | None], marks: Array
) -> Array:
    """What it costs that a label seems to name another point, or that its line goes through one."""
    costs = np.zeros(len(boxes))
    centres = (marks[:, :2] + marks[:, 2:]) / 2
    apart = (np.abs(centres - np.array(point)) > 7).any(1)
    others = marks[apart]
    for number, (box, lead) in enumerate(zip(boxes, leads, strict=True) if len(others) else ()):
        own, near = _distances(box, np.array([point]))[0], _distances(box, centres[apart]).min()
        if near <= own and (near < _BESIDE or not lead):
            costs[number] = 80
        if lead:
            costs[number] += 60 * bool(_meetings(_along(*lead), others).any())
    return costs


def _distances(box: Box, points: Array) -> Array:
    """How far points are from a box; 0 inside."""
    low, high = np.array(box[:2]), np.array(box[2:])
    found: Array = np.hypot(*np.maximum(np.maximum(low - points, points - high), 0.0).T)
    return found


def _best(places: Sequence[_Place], others: Sequence[_Place]) -> _Place:
    """The place that hides least, with other labels and their lines where they are."""
    boxes = [(x0 - _GAP, y0, x1 + _GAP, y1) for x0, y0, x1, y1 in (other.box for other in others)]
    few = len(others) < _MOVED
    lines = [box for other in others for box in other.along] if few else []
    near = places[:_TRIED]
    costs = np.array([place.cost for place in near])
    costs += 4000 * (_meetings([place.box for place in near], boxes) > 0)
    costs += 150 * (_meetings([place.box for place in near], lines) > 0)
    for number, place in enumerate(near):
        if few and place.along:
            costs[number] += 150 * bool(_meetings(place.along, boxes).any())
            costs[number] += 40 * bool(_meetings(place.along, lines).any())
    return near[int(np.argmin(costs))]


def _hidden(boxes: Sequence[Box], marks: Sequence[Box], obstacles: Sequence[Box], frame: Box) -> Array:
    """What each of these places of a label hides, and how far it is outside."""
    left, top, right, bottom = frame
    outside = [max(0.0, left - b[0], b[2] - right - 4, top - b[1], b[3] - bottom) for b in boxes]
    covered = 200 * _meetings(boxes, marks) + 0.4 * _overlap(boxes, obstacles)
    hidden: Array = np.array(outside) * 50 + covered
    return hidden


def _meetings(boxes: Sequence[Box], others: Sequence[Box] | Array) -> Array:
    """How many of the others each box meets."""
    one, other = np.array(boxes)[:, None], np.array(others).reshape(-1, 4)
    meet = (one[..., :2] < other[:, 2:]) & (other[:, :2] < one[..., 2:])
    met: Array = meet.all(-1).sum(1)
    return met


def _overlap(boxes: Sequence[Box], others: Sequence[Box]) -> Array:
    """The area of each box that lies under the others, each counted."""
    one, other = np.array(boxes)[:, None], np.array(others).reshape(-1, 4)
    sides = np.minimum(one[..., 2:], other[:, 2:]) - np.maximum(one[..., :2], other[:, :2])
    area: Array = sides.clip(0).prod(-1).sum(1)
    return area


# --- the forest ------------------------------------------------------------------------------


def _bar(svg: ET.Element, bar: Bar, colour: int | None, across: _Scale, y: float) -> None:
    kind = _class(colour)
    if bar.baseline:
        x = _pixel(across(0.0))
        ET.SubElement(svg, "circle", {"cx": x, "cy": _pixel(y), "r": "4.5", "class": f"ring {kind}"})
    elif bar.difference:
        low, high = bar.difference.ends
        _line(svg, across(low), y, across(high), y, f"whisker {kind}")
        x = _pixel(across(bar.difference.value))
        ET.SubElement(svg, "circle", {"cx": x, "cy": _pixel(y), "r": "4.5", "class": f"dot {kind}"})
    else:
        _text(svg, across(0.0) + 8, y + 4, "–", "soft")


def _direction(
    svg: ET.Element, quantity: Quantity, across: _Scale, y: float, left: float, right: float
) -> None:
    """Which side leaks less."""
    if quantity.better == "neutral":
        return
    less, more = ("leaks less", "leaks more") if quantity.better == "lower" else ("leaks more", "leaks less")
    zero = across(0.0)
    if zero - left > _wide(less):
        _text(svg, zero - 6, y, f"← {less}", "soft small", "end")
    if right - zero > _wide(more):
        _text(svg, zero + 6, y, f"{more} →", "soft small")


# --- SVG -------------------------------------------------------------------------------------


def _canvas(height: float, title: str) -> ET.Element:
    size = {"width": str(WIDTH), "height": f"{height:.0f}", "viewBox": f"0 0 {WIDTH} {height:.0f}"}
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size})
    ET.SubElement(svg, "title").text = one_line(title)
    ET.SubElement(svg, "style").text = _STYLE
    ET.SubElement(svg, "rect", {"width": "100%", "height": "100%", "rx": "6", "class": "page"})
    return svg


def _rules(scheme: str, colours: Sequence[str]) -> str:
    tone = _SCHEMES[scheme]
    rules = [
        f".page{{fill:{tone['page']}}}",
        f".ink{{fill:{tone['ink']}}}",
        f".soft{{fill:{tone['soft']}}}",
        f".grid{{stroke:{tone['line']}}}",
        f".zero,.level,.lead{{stroke:{tone['soft']}}}",
        f".ring{{fill:{tone['page']}}}",
        f".dot{{stroke:{tone['page']}}}",
    ]
    for name, colour in (("n", tone["soft"]), *((str(n), c) for n, c in enumerate(colours))):
        rules.append(
            f".dot.c{name},.name.c{name}{{fill:{colour}}}"
            f".bar.c{name},.whisker.c{name},.join.c{name},.ring.c{name}{{stroke:{colour}}}"
        )
    return "".join(rules)


_STYLE = (
    f"text{{font:{_SIZE}px {_FONT}}}"
    ".small{font-size:11px}.strong{font-weight:600}.name{font-weight:600}"
    ".grid{stroke-width:1}.zero{stroke-width:1.2}.level{stroke-width:1.2;stroke-dasharray:5 4}"
    ".lead{stroke-width:.7}.bar{stroke-width:1.4;opacity:.5}.whisker{stroke-width:2.2}"
    ".join{fill:none;stroke-width:1.6;opacity:.8}.ring{stroke-width:2}.dot{stroke-width:1}"
    + _rules("light", _LIGHT)
    + "@media (prefers-color-scheme:dark){"
    + _rules("dark", _DARK)
    + "}"
)


def _line(svg: ET.Element, x0: float, y0: float, x1: float, y1: float, kind: str) -> None:
    ends = dict(zip(("x1", "y1", "x2", "y2"), map(_pixel, (x0, y0, x1, y1)), strict=True))
    ET.SubElement(svg, "line", {**ends, "class": kind})


def _text(svg: ET.Element, x: float, y: float, words: str, kind: str, anchor: str = "start") -> None:
    if words:
        place = {"x": _pixel(x), "y": _pixel(y), "class": kind}
        more = {} if anchor == "start" else {"text-anchor": anchor}
        ET.SubElement(svg, "text", place | more).text = shortened(one_line(words), 2 * _LONGEST)


def _class(colour: int | None) -> str:
    return "cn" if colour is None else f"c{colour % COLOURS}"


def _short(label: str) -> str:
    return shortened(one_line(label), _LONGEST)


def _wide(words: str) -> float:
    return len(words) * _SIZE * _EM


def _pixel(value: float) -> str:
    return f"{value:.1f}"


def _number(value: float) -> str:
    """``0.25``, ``-3``, ``9.87``: three digits, without zeros at the end and without ``-0``."""
    return f"{round(value, 10) + 0.0:.3g}".replace("-", "−")


def _arrow(quantity: Quantity) -> str:
    return {"higher": "↑", "lower": "↓"}.get(quantity.better, "")


def _finished(svg: ET.Element) -> str:
    ET.indent(svg, " ")
    return ET.tostring(svg, encoding="unicode") + "\n"
