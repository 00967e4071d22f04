"""The numbers of ``docs/findings.md``: ``python docs/findings.py`` writes it from ``findings.md.j2``.

The template asks for numbers of a board (``lfw.less("mid")``), of its sweep
(``lfw_sweep.less("mid", "mirror")``) and of the experiments
(``experiments.change("strength", "lfw", "neg-ls alpha=-1")``), all from records of this repository. What they
don't give is an error.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mia_bench.api.metric import Quantity
from mia_bench.experiments.analysis import Number
from mia_bench.experiments.folder import Published
from mia_bench.leaderboard import records
from mia_bench.leaderboard.aggregate import Row
from mia_bench.leaderboard.board import Board, Section
from mia_bench.leaderboard.folds import boards_of
from mia_bench.leaderboard.grouping import row_key
from mia_bench.leaderboard.standings import Standing, Standings, standings
from mia_bench.leaderboard.verdicts import rounded_up
from mia_bench.leaderboard.words import brief, change
from mia_bench.plugins import host
from mia_bench.statistics import Effect, adjusted_p_values
from mia_bench.track import load_track

DOCS = Path(__file__).parent
BOARDS = DOCS.parent / "leaderboards"
PAGE = "findings.md"


def number(value: float, decimals: int) -> str:
    """With a minus that is one."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def signed(value: float, says: str) -> int:
    """The sign that makes a difference positive where the text says ``less`` or ``more``.

    Raises:
        ValueError: it is the other way round.
    """
    sign = {"": 1, "more": 1, "less": -1}[says]
    if says and sign * value < 0:
        raise ValueError(f"the text says {says} of a difference of {value:.3g}")
    return sign


def interval(effect: Effect, *, scale: float = 1.0, decimals: int = 2, says: str = "", unit: str = "") -> str:
    """``−0.46 [−0.65, −0.27]``; positive where the text says so, or with a unit before the interval."""
    sign = signed(effect.value, says)
    low, high = sorted(sign * scale * end for end in effect.interval())
    value, low_, high_ = (number(one, decimals) for one in (sign * scale * effect.value, low, high))
    return f"{value}{unit and ' '}{unit} [{low_}, {high_}]"


def _mean_over_folds(values: Mapping[tuple[int, int], float]) -> float:
    """The mean over the folds of means over the seeds, as the rule that chooses settings takes it."""
    folds = {fold: [value for (one, _), value in values.items() if one == fold] for fold, _ in values}
    return fmean(map(fmean, folds.values()))


class Boards:
    """The board of a track, or its sweep with its further folds."""

    def __init__(self, decided: Standings, folds: Sequence[Board] = ()) -> None:
        self._decided = decided
        self._board = decided.board
        self._folds = (decided.board, *folds)

    def _row(self, label: str) -> Standing:
        found = {row.label: row for row in self._decided.rows}
        if label not in found:
            raise ValueError(f"{self._board.track.name} has no row {label!r}")
        return found[label]

    def leaks(self, label: str, attack: str = "", says: str = "") -> str:
        """Of a row the difference in leakage: under its strongest attack, unless one is named."""
        return interval(self._difference(label, attack), says=says)

    def less(self, label: str, attack: str = "") -> str:
        """The same of one that leaks less, as a positive number."""
        return self.leaks(label, attack, "less")

    def more(self, label: str, attack: str = "") -> str:
        """The same of one that leaks more."""
        return self.leaks(label, attack, "more")

    def short(self, label: str, attack: str = "", says: str = "less", decimals: int = 1) -> str:
        """The same without interval."""
        value = self._difference(label, attack).value
        return number(signed(value, says) * value, decimals)

    def beyond(self, label: str, says: str, front: str = "") -> str:
        """The difference in leakage from undefended targets as accurate.

        Args:
            front: what the verdict says of the undefended front; a ValueError if it says something else.
        """
        row = self._row(label)
        said = row.verdict.front.removesuffix(" the undefended front") if row.verdict else ""
        if said != front:
            raise ValueError(f"{self._board.track.name}: of {label!r} is said {said!r}, not {front!r}")
        return interval(row.beyond, says=says)

    def fronts(self) -> str:
        """How many rows are held against the undefended front."""
        return str(len(self._decided.against_front))

    def front_chance(self, label: str) -> str:
        """The p-value of a row's difference from the front, adjusted to their number (Holm 1979)."""
        differences = {row.label: row.beyond for row in self._decided.against_front if row.beyond}
        return f"{adjusted_p_values(differences)[label]:.2g}"

    def within(self, label: str) -> str:
        """What the difference in leakage does not exceed."""
        return str(rounded_up(self._difference(label, "").bound))

    def pair(self, one: str, other: str) -> str:
        """The leakage of a defense less that of another, with their own interval."""
        keys = self._row(one).key, self._row(other).key
        pairs = self._decided.pairs.differences
        effect = pairs[keys] if keys in pairs else pairs[keys[::-1]]
        return interval(effect if keys in pairs else replace(effect, value=-effect.value))

    def accuracy(self, label: str, says: str = "", unit: str = "") -> str:
        """The difference in accuracy, in points."""
        effect = self._row(label).accuracy_difference
        return interval(effect, scale=100, decimals=1, says=says, unit=unit)

    def costs(self, label: str, unit: str = "") -> str:
        """The same of one that is less accurate, as a positive number."""
        return self.accuracy(label, "less", unit)

    def cost_limit(self, label: str, says: str, points: int) -> str:
        """What a row loses at most, the end of the interval, in points.

        Args:
            says: whether that is ``below`` so many points or ``above``; a ValueError if it is not.
        """
        found = -100 * self._row(label).accuracy_difference.interval()[0]
        if says != ("below" if found < points else "above"):
            raise ValueError(f"{self._board.track.name}: {label!r} costs {found:.3g}, not {says} {points}")
        return number(found, 2)

    def points(self, label: str, says: str, decimals: int = 1) -> str:
        """The difference in accuracy, in points, without interval."""
        value = 100 * self._row(label).accuracy_difference.value
        return number(signed(value, says) * value, decimals)

    def percent(self, label: str) -> str:
        """The accuracy of a row."""
        return number(100 * self._row(label).accuracy.value, 0)

    def _validation(self, label: str) -> dict[tuple[int, int], float]:
        """The accuracy on the validation images of each fold, with each seed."""
        key = self._row(label).key
        return {
            (fold, record.seed): record.metrics["validation_accuracy"].value
            for fold, board in enumerate(self._folds)
            for record in board.done
            if row_key(record) == key
        }

    def validation(self, label: str, decimals: int = 3) -> str:
        """The accuracy of a row on the validation images, mean over its folds, which ``none`` has too."""
        found = self._validation(label)
        if found.keys() != self._validation("none").keys():
            raise ValueError(f"{self._board.track.name}: {label!r} has other seeds and folds than 'none'")
        return number(_mean_over_folds(found), decimals)

    def apart(self, more: str, less: str) -> str:
        """By how many points the validation accuracy of one row exceeds that of another, on shared folds."""
        above, below = self._validation(more), self._validation(less)
        value = 100 * _mean_over_folds({one: above[one] - below[one] for one in above.keys() & below.keys()})
        return number(signed(value, "more") * value, 1)

    def ceiling(self) -> str:
        """The leakage of real images."""
        name = f"{self._board.primary}_ceiling"
        return number(next(one.metrics[name].value for one in self._board.done if one.metrics.get(name)), 1)

    def floor(self) -> str:
        """What attacks that learn nothing of the target recover."""
        found = (row.metrics.get(self._board.primary) for _, row in self._board.floors)
        return brief(self._board.quantities[self._board.primary], next(filter(None, found)))

    def strongest(self, label: str) -> str:
        """The strongest attack on a row."""
        return f"`{self._board.label(self._row(label).section)}`"

    def attacks(self) -> str:
        """How many attacks the standard set has.

        Raises:
            ValueError: some defense has not met all of them on all tuning seeds.
        """
        for row in self._decided.rows:
            if row.role == "defense" and not row.verdict:
                raise ValueError(f"{self._board.track.name}: {row.label!r} has no verdict")
            flags = row.verdict.flags if row.verdict else ()
            if lacking := [flag for flag in flags if "tried" in flag or "tuning seeds" in flag]:
                raise ValueError(f"{self._board.track.name}: of {row.label!r} is said {lacking[0]!r}")
        return str(len(self._board.track.standard.attacks))

    def matched(self, label: str) -> tuple[str, str]:
        """The differences from the undefended target of the same architecture: leakage and accuracy."""
        matched = self._row(label).matched
        return interval(matched.leakage), interval(matched.accuracy, scale=100, decimals=1)

    def bits(self, label: str, attack: str = "", decimals: int = 1) -> str:
        """The leakage of a row: under its strongest attack, unless one is named."""
        row = self._row(label)
        shown = self._of(label, attack).metrics[self._board.primary] if attack else row.leakage
        return number(shown.value, decimals)

    def _section(self, attack: str) -> Section:
        found = {self._board.label(one): one for one in self._board.sections}
        if attack not in found:
            raise ValueError(f"{self._board.track.name} has no attack {attack!r}")
        return found[attack]

    def _of(self, label: str, attack: str) -> Row:
        key = self._row(label).key
        found = [row for row in self._section(attack).rows if row.key == key]
        if not found:
            raise ValueError(f"{self._board.track.name}: {attack!r} was not run on {label!r}")
        return found[0]

    def _difference(self, label: str, attack: str) -> Effect:
        if not attack:
            return self._row(label).difference
        row = self._of(label, attack)
        (found,) = [
            one
            for one in self._section(attack).differences
            if (one.defense, one.options) == (row.defense, row.options)
        ]
        return found.metrics[self._board.primary].effect


class Experiments:
    """What the experiments say."""

    def __init__(self) -> None:
        published = Published(DOCS / "experiments", BOARDS, host().registry)
        self._found = {
            (experiment.name, answer.track.name): answer
            for experiment, answers in published.answers()
            for answer in answers
        }

    def _number(
        self,
        name: str,
        track: str,
        target: str,
        quantity: str = "id_bits",
        attack: str = "ppa",
        variant: str = "",
    ) -> tuple[Quantity, Number]:
        (part,) = [part for part in self._found[name, track].parts if part.variant == variant]
        return part.board.quantities[quantity], part.numbers[quantity, attack][target]

    def change(self, *which: str, **where: str) -> str:
        """The difference of a target: ``−0.5 ± 0.2``; arguments as of :meth:`_number`."""
        quantity, found = self._number(*which, **where)
        return change(quantity, found.change)

    def less(self, *which: str, **where: str) -> str:
        """The same of one that is less, as a positive number."""
        return self._unsigned("less", self._number(*which, **where))

    def more(self, *which: str, **where: str) -> str:
        """The same of one that is more."""
        return self._unsigned("more", self._number(*which, **where))

    def short(self, *which: str, **where: str) -> str:
        """The same of one that is less, without interval."""
        return self.less(*which, **where).partition(" ±")[0]

    def _unsigned(self, says: str, found: tuple[Quantity, Number]) -> str:
        quantity, one = found
        signed(one.change.value, says)
        return change(quantity, one.change).lstrip("−+")

    def points(self, *which: str, **where: str) -> str:
        """How much less accurate a target is, in points, without interval."""
        _, found = self._number(*which, "test_accuracy", "", **where)
        return number(100 * signed(found.change.value, "less") * found.change.value, 0)

    def percent(self, *which: str) -> str:
        """The accuracy of a target."""
        _, found = self._number(*which, "test_accuracy", "")
        return number(100 * found.shown.value, 0)

    def power(self, *which: str) -> str:
        """By what factor a quantity changes of which the common logarithm was measured."""
        _, found = self._number(*which)
        return number(10**found.change.value, 2)

    def level(self, *which: str, **where: str) -> str:
        """The quantity of a target."""
        quantity, found = self._number(*which, **where)
        return brief(quantity, found.shown)

    def beyond(self, name: str, track: str, target: str, says: str, attack: str = "ppa") -> str:
        """The difference of a target from undefended ones as accurate."""
        (part,) = self._found[name, track].parts
        (line,) = [line for line in part.lines if line.label == target]
        effect = line.beyond[attack]
        signed(effect.value, says)
        return change(part.leakage, effect).lstrip("−+")

    def widest(self, name: str, track: str, quantity: str, attack: str = "") -> str:
        """What the changes of a quantity do not exceed, whatever the target."""
        (part,) = self._found[name, track].parts
        found = part.numbers[quantity, attack].values()
        return str(rounded_up(max(one.change.bound for one in found if one.change)))

    def mean(self, name: str, track: str, claim: int, attack: str = "ppa") -> str:
        """The mean difference that decides a claim, the first being 0."""
        one = self._found[name, track].tested[claim]
        return change(one.quantity, one.effects[attack])

    def trend(self, name: str, track: str) -> str:
        """The difference between two variants that a claim is of."""
        (one,) = [one for one in self._found[name, track].tested if one.claim.trend]
        (effect,) = one.effects.values()
        return change(one.quantity, effect)


def text() -> str:
    """The page."""
    registry = host().registry
    environment = Environment(
        loader=FileSystemLoader(DOCS), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    values: dict[str, Any] = {"experiments": Experiments()}
    for name, words in (("lfw", "lfw"), ("synth-faces", "synth")):
        values[words] = Boards(records.decide(BOARDS, registry, name))
        found = records.load(BOARDS / records.TUNING, name)
        swept, *folds = boards_of(registry, load_track(registry, name), found)
        values[f"{words}_sweep"] = Boards(standings(swept), folds)
    return wrapped(environment.get_template(f"{PAGE}.j2").render(values))


def wrapped(text: str) -> str:
    """Markdown with its paragraphs and items in lines of one width.

    Headings, and blocks with a line that begins a table, a code block or a numbered item, stay as they are.
    """
    blocks = []
    for block in text.rstrip("\n").split("\n\n"):
        if block.startswith("#") or re.search(r"^(\||```|\d+\. |    )", block, re.MULTILINE):
            blocks.append(block)
            continue
        items = re.split(r"\n(?=- )", block)
        blocks.append("\n".join(_filled(item, "  " if item.startswith("- ") else "") for item in items))
    return "\n\n".join(blocks) + "\n"


def _filled(words: str, indent: str) -> str:
    return textwrap.fill(
        " ".join(words.split()), 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    (DOCS / PAGE).write_text(text(), encoding="utf-8")
