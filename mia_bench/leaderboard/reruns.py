"""Cells of a board that are run again: which, and whether their numbers are those published."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from mia_bench.leaderboard.conditions import conditions
from mia_bench.record import MetricValue, Record

ROUNDING = 1e-9
"""How far numbers of the same conditions may differ, relative to their size."""

SPREAD = 1.5
"""How far numbers of other conditions may differ, in half-widths of the published interval: as measured for
``docs/reproducibility.md``."""


def sample(records: Iterable[Record], count: int, seed: int) -> list[Record]:
    """``count`` finished cells at random, of as many attacks and defenses as possible."""
    left = sorted((record for record in records if record.status == "done"), key=lambda record: record.key)
    random.Random(seed).shuffle(left)
    seen: Counter[tuple[str, str, str]] = Counter()

    def kinds(record: Record) -> list[tuple[str, str, str]]:
        parts = record.components
        return [(record.track.name, kind, parts[kind].name) for kind in ("defense", "attack")]

    chosen: list[Record] = []
    while left and len(chosen) < count:
        record = min(left, key=lambda one: sum(seen[kind] for kind in kinds(one)))
        left.remove(record)
        chosen.append(record)
        seen.update(kinds(record))
    return chosen


@dataclass(frozen=True)
class Moved:
    """A number that differs by more than it may; None where there was or is none."""

    name: str
    published: float | None
    again: float | None
    allowed: float

    def __str__(self) -> str:
        before, now = ("null" if value is None else f"{value:.6g}" for value in (self.published, self.again))
        return f"{self.name} is {now}, published is {before} (may differ by {self.allowed:.2g})"


def allowed(published: MetricValue, *, same: bool) -> float | None:
    """By how much a number may differ when its cell is run again; None where that is not known.

    Args:
        published: with its interval.
        same: whether it was run again under the same conditions, on the same kind of processor.
    """
    if same:
        return ROUNDING * max(1.0, abs(published.value))
    half = _half_width(published)
    return None if half is None else SPREAD * half


def _half_width(published: MetricValue) -> float | None:
    """Half the width of an interval, at least that of half a sample; None where there is none."""
    if published.low is None or published.high is None:
        return None
    return max(published.high - published.low, 1 / published.n) / 2


def _value(metric: MetricValue | None) -> float | None:
    return metric.value if metric else None


def same_conditions(published: Record, again: Record) -> bool:
    """Whether both were computed under the same conditions, on the same kind of processor."""
    processors = {published.provenance.processor, again.provenance.processor}
    on_one = len(processors) == 1 and (None not in processors or "cpu" not in conditions(again).device)
    return on_one and conditions(published) == conditions(again)


def half_widths(published: Record, again: Record) -> dict[str, float]:
    """By how much each number moved, in half-widths of its published interval; those without one left out."""
    found = {}
    for name, before in published.metrics.items():
        now, half = again.metrics.get(name), _half_width(before) if before else None
        if before and now and half:
            found[name] = abs(now.value - before.value) / half
    return found


def moved(published: Record, again: Record) -> list[Moved]:
    """The numbers of a record that differ by more than they may."""
    same = same_conditions(published, again)
    found = []
    for name, before in published.metrics.items():
        now = again.metrics.get(name)
        if before is None or now is None:
            if before is not now:
                found.append(Moved(name, _value(before), _value(now), 0.0))
            continue
        limit = allowed(before, same=same)
        if limit is not None and abs(now.value - before.value) > limit:
            found.append(Moved(name, before.value, now.value, limit))
    return found or (_moved_classes(published, again) if same else [])


def _moved_classes(published: Record, again: Record) -> list[Moved]:
    """The first class of each quantity whose mean differs; all rest on these, and their mean can stay."""
    found = []
    for name, means in published.per_class.items():
        for place, (before, now) in enumerate(zip_longest(means, again.per_class.get(name, ()))):
            if before is None or now is None or abs(now - before) > ROUNDING * max(1.0, abs(before)):
                found.append(Moved(f"{name} of class {place}", before, now, ROUNDING))
                break
    return found


def under(published: Record, again: Record) -> str:
    """The conditions of a cell that was run again, in words."""
    before, now = conditions(published), conditions(again)
    if before != now:
        return f"under {now}, published {before}"
    if same_conditions(published, again):
        return f"under the same conditions ({now})"
    return f"on another kind of processor, or on one that the record does not name ({now})"


def far(cells: Sequence[Mapping[str, float]]) -> str:
    """How far numbers are from those published, in words.

    Args:
        cells: of each what :func:`half_widths` gives.
    """
    found = [(distance, name) for one in cells for name, distance in one.items()]
    if not found:
        return "no number with an interval"
    mean = math.sqrt(sum(distance**2 for distance, _ in found) / len(found))
    most, name = max(found)
    away = f"{mean:.2f} half-widths of the published intervals away (root mean square)"
    return f"{away}, at most {most:.2f} ({name})"
