"""Figures: the values stand where the axes say, labels keep apart, and the text is safe and the same."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from mia_bench import Quantity
from mia_bench.leaderboard import figures
from mia_bench.leaderboard.drawing import front
from mia_bench.leaderboard.figures import (
    Axis,
    Bar,
    Curves,
    Level,
    Panel,
    Point,
    Series,
    curves,
    forest,
    scatter,
)
from mia_bench.statistics import Estimate

ACCURACY = Axis("test accuracy", Quantity("", "higher", "share"))
LEAKAGE = Axis("id_bits", Quantity("", "lower", "distance"))


def about(value: float, half: float = 0.05) -> Estimate:
    return Estimate(value, value - half, value + half, 9)


def elements(svg: str, kind: str) -> list[ET.Element]:
    found = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}" + kind)
    return list(found)


def places(svg: str) -> list[tuple[float, float]]:
    return [(float(e.attrib["cx"]), float(e.attrib["cy"])) for e in elements(svg, "circle")]


def named(svg: str) -> dict[str, ET.Element]:
    return {e.text or "": e for e in elements(svg, "text")}


def plane(levels: tuple[Level, ...] = (), *points: Point) -> str:
    return scatter([Series(points, 0)], levels, ACCURACY, LEAKAGE)


def test_the_line_of_the_front_has_its_corners_alone() -> None:
    undefended = [
        Point(f"{accuracy}", about(accuracy), about(leakage))
        for accuracy, leakage in ((0.9, 5.0), (0.7, 3.5), (0.8, 3.0), (0.5, 2.0))
    ]
    others, line = front(undefended, LEAKAGE.quantity, "the front")
    assert [point.label for point in others.points] == ["0.7"]
    assert [point.label for point in line.points] == ["0.5", "0.8", "0.9"]
    assert (others.joined, others.name, line.joined, line.name) == (False, "", True, "the front")
    svg = scatter([others, line], [], ACCURACY, LEAKAGE)
    (drawn,) = elements(svg, "polyline")
    assert len(drawn.attrib["points"].split()) == 3
    assert len(places(svg)) == 4
    assert front(undefended[:1], LEAKAGE.quantity) == [Series((undefended[0],), joined=True)]
    assert front([], LEAKAGE.quantity) == []


def test_points_stand_where_the_axes_say() -> None:
    svg = plane((), Point("low", about(0.5), about(2.0)), Point("high", about(0.9), about(6.0)))
    (x0, y0), (x1, y1) = places(svg)
    assert x0 < x1
    assert y0 > y1  # more leakage is higher up
    ticks = {e.text: (float(e.attrib["x"]), float(e.attrib["y"])) for e in elements(svg, "text")}
    assert ticks["0.6"][0] == pytest.approx(x0 + (x1 - x0) * 0.25, abs=0.2)
    assert ticks["4"][1] - 4 == pytest.approx((y0 + y1) / 2, abs=0.2)


def test_a_stretched_axis_is_logarithmic_on_both_sides_of_0() -> None:
    values = (-3.0, -1.0, -0.3, 0.0, 0.003, 0.3, 3.0)
    points = tuple(Point("", Estimate(value, None, None, 1), about(2.0)) for value in values)
    axis = Axis("alpha", Quantity(""), stretched=True)
    svg = scatter([Series(points, 0, True, "ppa")], [], axis, LEAKAGE)
    x = dict(zip(values, (place[0] for place in places(svg)), strict=True))
    assert x[-1.0] - x[-3.0] == pytest.approx(x[-0.3] - x[-1.0], rel=0.1)
    assert x[-3.0] - x[0.0] == pytest.approx(x[0.0] - x[3.0], abs=0.1)
    assert x[0.003] - x[0.0] > 20
    texts = {e.text: float(e.attrib["x"]) for e in elements(svg, "text")}
    for word, value in (("−3", -3.0), ("−0.3", -0.3), ("0", 0.0), ("0.003", 0.003), ("3", 3.0)):
        assert texts[word] == pytest.approx(x[value], abs=0.1)
    near = (-1.0, 0.0, 0.01, 0.99, 1.0)
    points = tuple(Point("", Estimate(value, None, None, 1), about(2.0)) for value in near)
    texts = named(scatter([Series(points, 0)], [], axis, LEAKAGE))
    assert {"−1", "1", "0"} <= texts.keys()
    assert "0.99" not in texts  # it would lie on 1


def test_lines_are_named_above_and_dashed_where_their_colours_are_the_same() -> None:
    def line(name: str, colour: int | None, leakage: float) -> Series:
        return Series(
            (Point("", about(0.5), about(leakage)), Point("", about(0.9), about(6))), colour, True, name
        )

    svg = scatter([line("none", None, 5), line("ppa", 0, 4), line("late", None, 3)], [], ACCURACY, LEAKAGE)
    texts = named(svg)
    above = [texts[name] for name in ("none", "ppa", "late (dashed)")]
    assert len({e.attrib["y"] for e in above}) == 1
    assert float(above[0].attrib["y"]) < min(y for _, y in places(svg)) - 20
    assert ["stroke-dasharray" in e.attrib for e in elements(svg, "polyline")] == [False, False, True]


def test_far_levels_are_named_at_the_edge_and_near_ones_drawn() -> None:
    points = Point("a", about(0.5), about(2.0)), Point("b", about(0.9), about(3.0))
    near, far = Level("floor", 1.5), Level("ceiling", 90.0)
    svg = plane((far, near), *points)
    assert "floor 1.5" in named(svg)
    assert "↑ ceiling 90" in named(svg)
    assert sum("level" in e.attrib["class"] for e in elements(svg, "line")) == 1


def test_labels_keep_apart_even_of_equal_points() -> None:
    points = [Point(f"defense-{n}", about(0.8 + n * 1e-4), about(3.0 + n * 1e-3)) for n in range(9)]
    svg = plane((), *points)
    texts = named(svg)
    boxes = []
    for point in points:
        x, y = (float(texts[point.label].attrib[key]) for key in "xy")
        boxes.append((x, y - 11, x + figures._wide(point.label), y + 3))
    assert figures._meetings(boxes, boxes).tolist() == [1] * len(boxes)  # itself
    assert min(box[0] for box in boxes) > 0
    assert max(box[2] for box in boxes) < figures.WIDTH


def test_levels_close_together_are_named_apart() -> None:
    assert figures._apart([100, 101, 102], 15, 46, 430) == [100, 115, 130]
    assert figures._apart([425, 429], 15, 46, 430) == [415, 430]
    assert figures._apart([], 15, 46, 430) == []


def test_a_single_point_without_intervals_is_drawn() -> None:
    alone = Point("a", Estimate(1.0, None, None, 1), Estimate(0.0, None, None, 1))
    assert len(places(plane((), alone))) == 1
    with pytest.raises(ValueError, match="points"):
        plane()


def test_a_forest_has_the_differences_and_letters_of_every_panel() -> None:
    rows = {
        "none": Bar(None, "a", baseline=True),
        "neg-ls": Bar(about(-1.0), "b"),
        "mid": Bar(None),
    }
    panels = [Panel("ppa", rows), Panel("gmi", {"none": rows["none"]})]
    svg = forest(panels, LEAKAGE, {"none": None, "neg-ls": 0, "mid": 1, "absent": 2})
    words = [e.text for e in elements(svg, "text")]
    assert [words.count(label) for label in ("none", "neg-ls", "mid", "absent")] == [1, 1, 1, 0]
    assert words.count("a") == 2
    assert words.count("b") == words.count("–") == 1
    (zero, _), (minus, _), _ = places(svg)
    assert minus < zero
    assert words.count("← leaks less") == 2


@pytest.mark.parametrize("hostile", ["</text><script>", "a&b\x00\x1b\ud800", "\u202e]]>", "x" * 500])
def test_hostile_labels_stay_text(hostile: str) -> None:
    svg = plane((Level(hostile, 2.0),), Point(hostile, about(0.5), about(2.0)))
    assert not elements(svg, "script")
    svg.encode()
    svg += forest([Panel(hostile, {hostile: Bar(about(1.0), hostile)})], LEAKAGE, {hostile: 0})
    assert "<script" not in svg


def test_long_labels_stay_inside() -> None:
    points = [Point("a-long-name " * 9 + str(n), about(0.5 + n / 10), about(2.0 + n)) for n in range(4)]
    for e in elements(plane((), *points), "text"):
        assert 0 <= float(e.attrib["x"]) <= figures.WIDTH
        if e.attrib.get("text-anchor") is None:
            assert float(e.attrib["x"]) + figures._wide(e.text or "") < figures.WIDTH
    bars = {"a-long-name " * 30: Bar(about(-1.0), "a")}
    svg = forest([Panel("title " * 30, bars, "more " * 50)] * 3, LEAKAGE, dict.fromkeys(bars, 0))
    lefts = [float(e.attrib["x1"]) for e in elements(svg, "line")]
    assert 0 < min(lefts) < max(lefts) < figures.WIDTH


def test_the_same_values_give_the_same_bytes_for_both_schemes() -> None:
    point = Point("a", about(0.5), about(2.0))
    assert plane((), point) == plane((), point)
    assert "prefers-color-scheme:dark" in plane((), point)
    for colour in (*figures._LIGHT, *figures._DARK):
        assert colour in plane((), point)


def test_a_legend_has_as_many_lines_as_it_needs() -> None:
    names = [f"a defense alpha=0.{number}" for number in range(9)]
    few, many = ({name: number for number, name in enumerate(names[:count])} for count in (2, 9))
    drawn = [
        curves([Curves("loss", {name: [0.0, 1.0] for name in lines})], "step", lines) for lines in (few, many)
    ]
    heights = [float(ET.fromstring(svg).attrib["height"]) for svg in drawn]
    written = {name: named(drawn[1])[name].attrib for name in names}
    lines = sorted({float(one["y"]) for one in written.values()})
    assert len(lines) > 1
    assert heights[1] - heights[0] == pytest.approx(lines[-1] - lines[0])
    assert all(float(one["x"]) + len(name) * 6 < figures.WIDTH for name, one in written.items())
    assert float(named(drawn[1])["loss"].attrib["y"]) > lines[-1] + 10
