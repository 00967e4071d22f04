"""The pages of experiments and their figures: the same records give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mia_bench.api.metric import Quantity
from mia_bench.experiments.analysis import Answer
from mia_bench.experiments.definition import Experiment
from mia_bench.leaderboard.drawing import levels
from mia_bench.leaderboard.escape import as_it_is, make_environment, page_text
from mia_bench.leaderboard.figures import Axis, Point, Series, scatter
from mia_bench.leaderboard.records import FIGURES
from mia_bench.leaderboard.words import brief, change
from mia_bench.statistics import Estimate

TEMPLATES = Path(__file__).parent / "templates"


def page(experiment: Experiment, answers: Sequence[Answer]) -> str:
    """The page of an experiment."""
    drawn = {answer.track.name: figures(experiment, answer) for answer in answers}
    return _render(
        "experiment.md.j2",
        experiment=experiment,
        answers=answers,
        drawn={
            track: {f"{FIGURES}/{file}": words for file, (words, _) in found.items()}
            for track, found in drawn.items()
        },
    )


def index(found: Sequence[tuple[Experiment, Sequence[Answer]]]) -> str:
    """The page that lists the experiments."""
    return _render("experiments.md.j2", found=found)


def figures(experiment: Experiment, answer: Answer) -> dict[str, tuple[str, str]]:
    """Of each figure of a track the name of its file, its words and its SVG."""
    begin = f"{experiment.name}-{answer.track.name}"
    found = {
        f"{begin}.svg": (f"Leakage across {experiment.axis}", _across(experiment, answer)),
        f"{begin}-accuracy.svg": (f"Accuracy and leakage across {experiment.axis}", _plane(answer)),
    }
    return {file: (words, svg) for file, (words, svg) in found.items() if svg}


def _across(experiment: Experiment, answer: Answer) -> str:
    """Leakage across the axis: a line for each attack, and for each variant of the settings."""
    series = []
    along = [(line, line.at) for line in answer.lines if line.at is not None]
    variants = dict.fromkeys(line.variant for line, _ in along)
    for number, (variant, attack) in enumerate((v, a) for v in variants for a in answer.attacks):
        points = [
            Point("", Estimate(at, None, None, 1), leaked)
            for line, at in along
            if (line.variant == variant or line.baseline)
            and isinstance(leaked := line.leakage.get(attack), Estimate)
        ]
        if len(points) > 1:
            points[0] = replace(points[0], label=f"{attack}, {variant}" if variant else attack)
            series.append(Series(tuple(points), number, True))
    axes = Axis(experiment.axis, Quantity("")), Axis(answer.board.primary, answer.leakage)
    return scatter(series, levels(answer.decided), *axes) if series else ""


def _plane(answer: Answer) -> str:
    """Accuracy against leakage under the first attack; the undefended targets as a line."""
    attack = answer.attacks[0]
    groups: dict[str, list[Point]] = {}
    for line in answer.lines:
        leaked = line.leakage.get(attack)
        if isinstance(line.accuracy, Estimate) and isinstance(leaked, Estimate):
            groups.setdefault(line.defense, []).append(Point(line.label, line.accuracy, leaked))
    base = answer.decided.baseline
    undefended = groups.pop(base.defense, []) if base else []
    series = [Series(tuple(groups[name]), number) for number, name in enumerate(sorted(groups))]
    series += [Series(tuple(undefended), None, len(undefended) > 1)] if undefended else []
    y = Axis(f"{answer.board.primary} under {attack}", answer.leakage)
    return scatter(series, [], Axis(answer.decided.accuracy, answer.accuracy), y) if series else ""


def _render(template: str, **values: Any) -> str:
    environment = make_environment(TEMPLATES)
    environment.filters["plain"] = lambda text: Markup(" ".join(text.split()))
    environment.globals |= {number.__name__: as_it_is(number) for number in (brief, change)}
    return page_text(environment, template, values)
