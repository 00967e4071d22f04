"""The numbers of ``docs/findings.md``: ``python docs/findings.py`` writes it from ``findings.md.j2``.

The template asks for numbers of a board (``lfw.less("mid")``), of its sweep
(``lfw_sweep.less("mid", "mirror")``) and of the experiments
(``experiments.change("strength", "lfw", "neg-ls alpha=-1")``), all from records of this repository. What they
don't give is an error.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mia_bench.api.metric import Quantity
from mia_bench.experiments.analysis import Number
from mia_bench.experiments.folder import Published
from mia_bench.leaderboard import records
from mia_bench.leaderboard.aggregate import Row
from mia_bench.leaderboard.board import Section, build_board
from mia_bench.leaderboard.grouping import row_key
from mia_bench.leaderboard.standings import Standing, Standings, standings
from mia_bench.leaderboard.verdicts import rounded_up
from mia_bench.leaderboard.words import brief, change
from mia_bench.plugins import host
from mia_bench.statistics import Effect
from mia_bench.track import load_track

DOCS = Path(__file__).parent
BOARDS = DOCS.parent / "leaderboards"
PAGE = "findings.md"


def number(value: float, decimals: int) -> str:
    """With a minus that is one."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def interval(effect: Effect, *, scale: float = 1.0, decimals: int = 2, sign: int = 1, unit: str = "") -> str:
    """``−0.46 [−0.65, −0.27]``, or with the other sign, or with a unit before the interval."""
    low, high = sorted(sign * scale * end for end in effect.interval())
    value, low_, high_ = (number(one, decimals) for one in (sign * scale * effect.value, low, high))
    return f"{value}{unit and ' '}{unit} [{low_}, {high_}]"


class Boards:
    """The board of a track, or its sweep."""

    def __init__(self, decided: Standings) -> None:
        self._decided = decided
        self._board = decided.board

    def _row(self, label: str) -> Standing:
        (row,) = [row for row in self._decided.rows if row.label == label]
        return row

    def leaks(self, label: str, attack: str = "", sign: int = 1) -> str:
        """Of a row the difference in leakage: under its strongest attack, unless one is named."""
        return interval(self._difference(label, attack), sign=sign)

    def less(self, label: str, attack: str = "") -> str:
        """The same with the other sign."""
        return self.leaks(label, attack, -1)

    def fewer(self, label: str, attack: str = "", decimals: int = 1) -> str:
        """The same without interval."""
        return number(-self._difference(label, attack).value, decimals)

    def beyond(self, label: str) -> str:
        """What the difference in leakage does not exceed."""
        return str(rounded_up(max(map(abs, self._difference(label, "").interval()))))

    def accuracy(self, label: str, sign: int = 1, unit: str = "") -> str:
        """The difference in accuracy, in points."""
        effect = self._row(label).accuracy_difference
        return interval(effect, scale=100, decimals=1, sign=sign, unit=unit)

    def costs(self, label: str, unit: str = "") -> str:
        """The same with the other sign."""
        return self.accuracy(label, -1, unit)

    def points(self, label: str, decimals: int = 1) -> str:
        """The difference in accuracy, in points, without sign and interval."""
        return number(abs(100 * self._row(label).accuracy_difference.value), decimals)

    def percent(self, label: str) -> str:
        """The accuracy of a row."""
        return number(100 * self._row(label).accuracy.value, 0)

    def _validation(self, label: str) -> float:
        key = self._row(label).key
        by_seed = {
            one.seed: one.metrics["validation_accuracy"] for one in self._board.done if row_key(one) == key
        }
        return fmean(one.value for one in by_seed.values())

    def validation(self, label: str, decimals: int = 3) -> str:
        """The accuracy of a row on the validation images."""
        return number(self._validation(label), decimals)

    def apart(self, more: str, less: str) -> str:
        """The difference between the validation accuracies of two rows, in points."""
        return number(100 * (self._validation(more) - self._validation(less)), 1)

    def ceiling(self) -> str:
        """The leakage of real images."""
        name = f"{self._board.primary}_ceiling"
        return number(next(one.metrics[name].value for one in self._board.done if one.metrics.get(name)), 1)

    def matched(self, label: str) -> tuple[str, str]:
        """The differences from the undefended target of the same architecture: leakage and accuracy."""
        matched = self._row(label).matched
        return interval(matched.leakage), interval(matched.accuracy, scale=100, decimals=1)

    def bits(self, label: str, attack: str = "", decimals: int = 1) -> str:
        """The leakage of a row: under its strongest attack, unless one is named."""
        shown = (
            self._row(label).leakage if not attack else self._of(label, attack).metrics[self._board.primary]
        )
        return number(shown.value, decimals)

    def _section(self, attack: str) -> Section:
        (section,) = [one for one in self._board.sections if self._board.label(one) == attack]
        return section

    def _of(self, label: str, attack: str) -> Row:
        key = self._row(label).key
        (row,) = [row for row in self._section(attack).rows if row.key == key]
        return row

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

    def size(self, *which: str, **where: str) -> str:
        """The same without its sign."""
        return self.change(*which, **where).lstrip("−+")

    def plain(self, *which: str, **where: str) -> str:
        """The same without interval, too."""
        return self.size(*which, **where).partition(" ±")[0]

    def points(self, *which: str) -> str:
        """The difference in accuracy, in points, without sign and interval."""
        _, found = self._number(*which, "test_accuracy", "")
        return number(abs(100 * found.change.value), 0)

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

    def beyond(self, name: str, track: str, target: str, attack: str = "ppa") -> str:
        """The difference of a target from undefended ones as accurate, without its sign."""
        (part,) = self._found[name, track].parts
        (line,) = [line for line in part.lines if line.label == target]
        return change(part.leakage, line.beyond[attack]).lstrip("−+")

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
        swept = records.load(BOARDS / records.TUNING, name)
        values[f"{words}_sweep"] = Boards(standings(build_board(registry, load_track(registry, name), swept)))
    return wrapped(environment.get_template(f"{PAGE}.j2").render(values))


def wrapped(text: str) -> str:
    """Markdown with its paragraphs and items in lines of one width; tables and headings as they are."""
    blocks = []
    for block in text.rstrip("\n").split("\n\n"):
        if block.startswith(("|", "#")):
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
