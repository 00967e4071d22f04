"""The pages of boards: values for the templates in ``templates``, where all the words are."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from jinja2 import Environment
from markupsafe import Markup

from mia_bench.api.dataset import Dataset
from mia_bench.api.metric import Quantity
from mia_bench.components import OPTION_KINDS
from mia_bench.leaderboard.advice import advice, in_points
from mia_bench.leaderboard.aggregate import FEW_SEEDS, Missing, Row, Shown
from mia_bench.leaderboard.board import Board, Section
from mia_bench.leaderboard.compare import FromBaseline
from mia_bench.leaderboard.drawing import forests, levels, plane
from mia_bench.leaderboard.escape import as_it_is, make_environment, page_text
from mia_bench.leaderboard.flags import AT_FLOOR, NOT_PAIRED, NOT_RUN, USELESS
from mia_bench.leaderboard.standings import KINDS, Standings
from mia_bench.leaderboard.strongest import attack_set, comparisons
from mia_bench.leaderboard.trainings import several_trainings
from mia_bench.leaderboard.tuning import LEVELS, MARGIN, Tuning, other_choices, rule_chose, unchanged
from mia_bench.leaderboard.verdicts import ACCURACY_MARGIN, ENOUGH_SEEDS, MORE_THAN, NOT_BEYOND
from mia_bench.leaderboard.words import (
    accuracy_change,
    brief,
    change,
    common_remarks,
    points,
    remarks,
    reservations,
    unit_of_points,
    with_sign,
)
from mia_bench.names import DISTRIBUTION
from mia_bench.provenance import HOST, package_url
from mia_bench.record import ComponentRef, Record
from mia_bench.recorded_options import differing, options_text, usual_options
from mia_bench.registry import Registry
from mia_bench.statistics import RESAMPLES, Estimate
from mia_bench.statistics.letters import letter
from mia_bench.text import prose, shortened
from mia_bench.track import Track

TITLE = "# Leaderboard: "
"""What the page of a track begins with."""

Drawn: TypeAlias = Mapping[str, tuple[str, str]]
"""Of each figure of a page the name of its file, its words and its SVG."""


def page(
    decided: Standings,
    registry: Registry,
    tuning: Tuning | None = None,
    *,
    sweep: bool = False,
    drawn: Drawn | None = None,
    strip: bool = False,
    starred: bool = False,
    folds: Sequence[Board] = (),
    docs: str = "",
) -> str:
    """The page of one track; its text depends on the records and the track only.

    Args:
        decided: the board with its verdicts.
        registry: what is installed.
        tuning: what chose the settings of the defenses.
        sweep: the page is that of the sweep which chose them.
        drawn: its :func:`figures`, where they are drawn already.
        strip: whether there is a picture of reconstructions beside the page.
        starred: whether ranks in it are of other runs than the published ones.
        folds: the boards of the sweep's further folds.
        docs: where the findings and the protocol are, seen from the page; empty where they are not.
    """
    board = decided.board
    options = board.track.defenses
    return _render(
        "page.md.j2",
        board=board,
        decided=decided,
        track=board.track,
        drawn={} if sweep else drawn or figures(decided),
        strip=strip,
        starred=starred,
        docs=docs,
        tuning=tuning,
        sweep=sweep,
        above={} if sweep else {row.defense: options.get(row.defense, {}) for row in decided.defenses},
        folds=folds,
        notes=_notes(record for one in (board, *folds) for record in one.records),
        apart=[line for one in (board, *folds) for line in several_trainings(one)],
        packages=_packages(board, registry),
        on_disk=_reads_disk(board.track, registry),
        runs=[arguments for one in (board, *folds) for arguments in run_arguments(one, registry)],
    )


def figures(decided: Standings) -> Drawn:
    """The figures of a page."""
    name = decided.board.track.name
    found = {
        f"{name}.svg": ("Accuracy and leakage of every row", plane(decided)),
        f"{name}-differences.svg": ("Differences of leakage from the baseline by attack", forests(decided)),
    }
    return {file: (words, svg) for file, (words, svg) in found.items() if svg}


def index(boards: Sequence[Standings], docs: str = "") -> str:
    """The page that lists the boards; ``docs`` as in :func:`page`."""
    named = [(one.board, name) for one in boards for name in (one.board.primary, one.accuracy) if name]
    defined = dict.fromkeys((name, board.quantities[name]) for board, name in named)
    return _render("index.md.j2", boards=boards, defined=list(defined), docs=docs)


def _render(template: str, **values: Any) -> str:
    return page_text(_environment(), template, values)


@cache
def _environment() -> Environment:
    environment = make_environment()
    environment.filters |= {
        "options": options_text,
        "paper": paper_link,
        "sentence": _sentence,
    }
    environment.tests["package"] = DISTRIBUTION.matches
    functions = (
        advice,
        attack_set,
        common_remarks,
        comparisons,
        difference,
        differing,
        footnotes,
        in_points,
        levels,
        other_choices,
        paired_names,
        remarks,
        reservations,
        rule_chose,
        show,
        unchanged,
        unit_of_points,
        usual_options,
    )
    environment.globals |= {function.__name__: function for function in functions}
    environment.globals |= {
        number.__name__: as_it_is(number) for number in (accuracy_change, brief, change, points, with_sign)
    }
    environment.globals |= {
        "ACCURACY_MARGIN": ACCURACY_MARGIN,
        "ENOUGH_SEEDS": ENOUGH_SEEDS,
        "MORE_THAN": MORE_THAN,
        "NOT_BEYOND": NOT_BEYOND,
        "FEW_SEEDS": FEW_SEEDS,
        "KINDS": KINDS,
        "LEVELS": LEVELS,
        "MARGIN": MARGIN,
        "RESAMPLES": RESAMPLES,
        "AT_FLOOR": AT_FLOOR,
        "NOT_PAIRED": NOT_PAIRED,
        "NOT_RUN": NOT_RUN,
        "USELESS": USELESS,
    }
    return environment


def show(quantity: Quantity, shown: Shown | float | None, letters: Mapping[str, str] | None = None) -> Markup:
    """``0.842 [0.801, 0.880]``, the value alone where it has no interval, or a dash and a footnote.

    What is certain, such as a budget that was set, has none either.
    """
    if isinstance(shown, Missing):
        return Markup(f"– ({letters[shown.reason]})" if letters else "–")
    if not isinstance(shown, Estimate):
        return Markup("–" if shown is None else quantity.format(shown))
    value = quantity.format(shown.value)
    certain = shown.low == shown.high == shown.value and quantity.kind not in ("share", "rank")
    if certain or shown.low is None:
        return Markup(value)
    low, high = map(quantity.format, shown.interval)
    return Markup(f"{value} [{low}, {high}]")


_ARXIV = re.compile(r"arXiv:? ?(\d{4}\.\d{4,5})\b")
_VENUE = re.compile(r"\b([A-Z][A-Za-z&]+ (?:19|20)\d\d)\b")


def paper_link(text: str) -> Markup:
    """A link to the paper where its number at arXiv is given; else its beginning."""
    if found := _ARXIV.search(text):
        venue = _VENUE.search(text)
        words = venue[1] if venue else f"arXiv {found[1]}"
        return Markup(f"[{prose(words)}](https://arxiv.org/abs/{found[1]})")
    return prose(shortened(text, 24))


def difference(found: FromBaseline | None) -> Markup:
    """``-0.120 [-0.171, -0.069]``; never ``-0.000``."""
    if found is None:
        return Markup("–")
    numbers = (found.mean, found.low, found.high)
    mean, low, high = (f"{round(number, 3) + 0.0:+.3f}" for number in numbers)
    return Markup(f"{mean} [{low}, {high}]")


def paired_names(board: Board, section: Section) -> list[str]:
    """The quantities of which some row has a difference to the baseline."""
    return [name for name in board.paired if any(d.metrics[name] for d in section.differences)]


def footnotes(rows: Iterable[Row], names: Sequence[str]) -> dict[str, str]:
    """The letter of each reason why a number of a table is missing."""
    shown = (row.metrics.get(name) for row in rows for name in names)
    reasons = dict.fromkeys(one.reason for one in shown if isinstance(one, Missing))
    return {reason: letter(number) for number, reason in enumerate(reasons)}


def _sentence(text: str) -> str:
    text = text.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


_Words = tuple[str, ...]


def _reads_disk(track: Track, registry: Registry) -> bool:
    """Whether a track reads images from a folder of the user's; False if its data set is not installed."""
    name = track.data.dataset.name
    if name not in registry.names("dataset"):
        return False
    dataset: type[Dataset] = registry.get("dataset", name).load()
    return dataset.needs_root


def run_arguments(board: Board, registry: Registry) -> list[_Words]:
    """Arguments of ``mia-bench run`` that make exactly the finished cells, in few commands."""
    seeds: dict[tuple[_Words, _Words], set[int]] = defaultdict(set)
    fold = board.track.target.recipe.fold  # which is not attacked
    for record in board.done:
        words = {kind: _arguments(registry, kind, part) for kind, part in record.components.items()}
        usual = ("--prior", board.track.prior_of(record.attack.name))
        prior = () if words["prior"] == usual else words["prior"]
        attack = ("--fold", str(fold)) if fold else words["attack"]
        seeds[words["defense"], (*attack, *prior)].add(record.seed)
    cells = [(defense, (attack, sorted(found))) for (defense, attack), found in seeds.items()]
    by_attack = _joined(sorted(cells))
    by_defense = _joined((attack, (words, found)) for words, (attack, found) in by_attack)
    return [
        (*defenses, *attacks, *(word for seed in found for word in ("--seed", str(seed))))
        for attacks, (defenses, found) in by_defense
    ]


def _joined(pairs: Iterable[tuple[_Words, Any]]) -> list[tuple[_Words, Any]]:
    """The words of pairs that share the rest together; those with options stay alone, they would multiply."""
    groups: dict[str, tuple[_Words, Any]] = {}
    for number, (words, rest) in enumerate(pairs):
        key = repr((rest, number if len(words) > 2 else None))
        groups[key] = (*groups.get(key, ((), rest))[0], *words), rest
    return list(groups.values())


def _arguments(registry: Registry, kind: str, component: ComponentRef) -> _Words:
    """``--defense NAME -o NAME.KEY=VALUE …``, with the options that are not the track's."""
    kinds = [other for other in OPTION_KINDS if component.name in registry.names(other)]
    owner = f"{kind}:{component.name}" if len(kinds) > 1 else component.name
    words = [f"--{kind}", component.name]
    for key, option in sorted(component.options.items()):
        if key in component.about.changed:
            compact = json.dumps(option, ensure_ascii=False, separators=(",", ":"))
            words += ["-o", f"{owner}.{key}={option if isinstance(option, str) else compact}"]
    return tuple(words)


def _packages(board: Board, registry: Registry) -> dict[str, str]:
    """The distributions that the cells need besides mia-bench, and where they are to be had."""
    owner = registry.get("track", board.track.name).plugin.distribution
    urls = {owner: package_url(owner)}
    for record in board.records:
        for part in record.components.values():
            urls[part.distribution] = part.about.url or urls.get(part.distribution, "")
    return {name: url for name, url in sorted(urls.items()) if name != HOST}


def _notes(records: Iterable[Record]) -> list[tuple[str, int]]:
    """What the runs had to say, and in how many cells; without what belongs to a quantity, and doubts."""
    found = Counter(
        note for r in records for name, note in r.notes.items() if name not in (*r.metrics, "gallery")
    )
    return sorted(found.items())
