"""The pages of experiments and their figures: the same records give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mia_bench.api.metric import Quantity
from mia_bench.experiments import plane
from mia_bench.experiments.analysis import SMALL, Answer, Judgement, Line, Part
from mia_bench.experiments.definition import Claim, Experiment, Figure
from mia_bench.leaderboard.drawing import defense_colours, front, levels
from mia_bench.leaderboard.escape import as_it_is, make_environment, page_text
from mia_bench.leaderboard.figures import (
    Axis,
    Bar,
    Cloud,
    Curves,
    Panel,
    Point,
    Series,
    Spot,
    clouds,
    curves,
    forest,
    scatter,
)
from mia_bench.leaderboard.grouping import row_key, section_key
from mia_bench.leaderboard.pages import Drawn
from mia_bench.leaderboard.trainings import several_trainings
from mia_bench.leaderboard.words import brief, change
from mia_bench.statistics import Estimate
from mia_bench.strength import EQUAL

TEMPLATES = Path(__file__).parent / "templates"


def page(experiment: Experiment, answers: Sequence[Answer], drawn: Mapping[str, Drawn]) -> str:
    """The page of an experiment.

    Args:
        drawn: by track its :func:`figures`.
    """
    return _render(
        "experiment.md.j2",
        experiment=experiment,
        answers=answers,
        costs=costs,
        apart=several_trainings,
        drawn=drawn,
    )


@dataclass(frozen=True)
class Costs:
    """What the cells of an answer took, in minutes; targets that cells share are counted once."""

    cells: int
    training: int
    attacks: int


def costs(answer: Answer) -> Costs:
    """The sums over the records; those that do not say it are left out."""
    done = [record for part in answer.parts for record in part.board.done]
    trained = {(record.track.variant, row_key(record), record.seed): record.cost for record in done}
    training = sum(cost.train_seconds or 0.0 for cost in trained.values())
    attacks = sum(record.cost.invert_seconds or 0.0 for record in done)
    return Costs(len(done), round(training / 60), round(attacks / 60))


def plane_page(experiment: plane.Plane, record: plane.PlaneRecord) -> str:
    """The page of the plane."""
    found = plane.findings(experiment, record)
    return _render(
        "plane.md.j2",
        experiment=experiment,
        quantities=plane.QUANTITIES,
        drawn=plane.DRAWN,
        found=found,
        told=plane.told(experiment, found),
    )


def index(
    found: Sequence[tuple[Experiment, Sequence[Answer]]],
    points: tuple[plane.Plane, plane.PlaneRecord] | None = None,
) -> str:
    """The page that lists the experiments; with ``points`` that of the plane, too."""
    told = plane.told(points[0], plane.findings(*points)) if points else []
    return _render(
        "experiments.md.j2",
        found=found,
        plane=points and points[0],
        quantities=plane.QUANTITIES,
        told=told,
        by_claim=_by_claim,
    )


def _by_claim(
    experiment: Experiment, answers: Sequence[Answer]
) -> Iterator[tuple[tuple[Claim, str], list[Judgement | None]]]:
    """What became of each claim in each variant, by track; claims in the order of the experiment."""
    tested = [
        {(experiment.claims.index(one.claim), one.variant): one for one in answer.tested}
        for answer in answers
    ]
    every = dict.fromkeys(key for found in tested for key in found)
    for number, variant in sorted(every, key=lambda key: key[0]):
        found = [one.get((number, variant)) for one in tested]
        yield (experiment.claims[number], variant), found


def number_rows(experiment: Experiment, part: Part) -> list[dict[str, str]]:
    """The numbers for a terminal: a row for each setting along an axis, else for each quantity and attack."""
    rows = []
    for line in part.lines if experiment.axis else ():
        row = {"target": line.label}
        for (name, attack), numbers in part.numbers.items():
            quantity, found = part.board.quantities[name], numbers[line.label]
            under = f", {attack}" if attack else ""
            row[f"{name}{under}"] = brief(quantity, found.shown)
            row[f"change of {name}{under}"] = change(quantity, found.change)
        rows.append(row)
    for (name, attack), numbers in part.numbers.items() if not experiment.axis else ():
        row = {"quantity": name, "under": attack}
        for label, found in numbers.items():
            row[label] = brief(part.board.quantities[name], found.shown)
            row[f"change, {label}"] = change(part.board.quantities[name], found.change)
        rows.append({key: value for key, value in row.items() if key != f"change, {_plain(part)}"})
    return rows


def _plain(part: Part) -> str:
    """The label of the undefended target; empty where there is none."""
    return next((line.label for line in part.lines if line.baseline), "")


def figures(experiment: Experiment, answer: Answer) -> Drawn:
    """The figures of a track."""
    begin = f"{experiment.name}-{answer.track.name}"
    found = {}
    for kind in experiment.figures:
        end, words, draw = _FIGURES[kind]
        if svg := draw(experiment, answer):
            found[f"{begin}{end}.svg"] = words.format(axis=experiment.axis), svg
    return found


def _colours(answer: Answer, lines: Sequence[Line]) -> dict[str, int]:
    """The colours that defenses have on the track's board; the baseline has none."""
    bases = {line.defense for line in lines if line.baseline}
    return defense_colours(answer.track, {line.defense for line in lines} - bases)


_WIDE = 20
"""The ratio of the largest to the smallest value of an axis from which on those near 0 are drawn apart."""


def _across(experiment: Experiment, answer: Answer) -> str:
    """Leakage across the axis: a line for each attack, and for each variant of the settings."""
    series, part = [], answer.parts[0]
    along = [(line, line.at) for line in part.lines if line.at is not None]
    options = dict.fromkeys(line.options for line, _ in along)
    for number, (others, attack) in enumerate((v, a) for v in options for a in part.attacks):
        points = [
            Point("", Estimate(at, None, None, 1), leaked)
            for line, at in along
            if (line.options == others or line.baseline)
            and isinstance(leaked := line.leakage.get(attack), Estimate)
        ]
        if len(points) > 1:
            series.append(Series(tuple(points), number, True, f"{attack}, {others}" if others else attack))
    sizes = [abs(at) for _, at in along if at]
    wide = bool(sizes) and max(sizes) >= _WIDE * min(sizes)
    axes = Axis(experiment.axis, Quantity(""), wide), Axis(part.board.primary, part.leakage)
    return scatter(series, levels(part.decided), *axes) if series else ""


def _plane(experiment: Experiment, answer: Answer) -> str:
    """Accuracy against leakage under the first attack; the undefended targets as a line."""
    part = answer.parts[0]
    attack = part.first
    groups: dict[str, list[Point]] = {}
    for line in part.lines:
        leaked = line.leakage.get(attack)
        if isinstance(line.accuracy, Estimate) and isinstance(leaked, Estimate):
            groups.setdefault(line.defense, []).append(Point(line.label, line.accuracy, leaked))
    base = part.decided.baseline
    undefended = groups.pop(base.defense, []) if base else []
    colours = _colours(answer, part.lines)
    series = [Series(tuple(groups[name]), colours.get(name)) for name in sorted(groups)]
    series += front(undefended, part.leakage)
    y = Axis(f"{part.board.primary} under {attack}", part.leakage)
    return scatter(series, [], Axis(part.decided.accuracy, part.accuracy), y) if series else ""


def _variants(experiment: Experiment, answer: Answer) -> str:
    """Leakage under the first attack across the training images a class: a line for each target.

    It does not go on to a variant with other data, which are measured with an evaluation model of their own.
    """
    wanted = {one.label: one.images_per_class for one in experiment.variants}
    others = {one.label for one in experiment.variants if one.dataset}
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for part in answer.parts:
        attack, x = part.first, wanted[part.variant] or part.available_images
        other = part.variant if part.variant in others else ""
        for line in part.lines:
            leaked = line.leakage.get(attack)
            if x and isinstance(leaked, Estimate):
                points = groups.setdefault((line.label, line.defense, other), [])
                points.append(Point("", Estimate(x, None, None, 1), leaked))
    part = answer.parts[0]
    colours = _colours(answer, [line for one in answer.parts for line in one.lines])
    series = [
        Series(tuple(points), colours.get(name), True, "" if other else label)
        for (label, name, other), points in groups.items()
    ]
    axes = Axis("training images a class", Quantity("")), Axis(part.board.primary, part.leakage)
    return scatter(series, [], *axes) if series else ""


def _forest(experiment: Experiment, answer: Answer) -> str:
    """The differences, a panel for each target, a row for each quantity and attack in each variant."""
    bars: dict[str, dict[str, Bar]] = {}
    rows: dict[str, int | None] = {}
    primary = answer.parts[0].board.primary
    names = experiment.forest or (primary,)
    for part in answer.parts:
        for (quantity, attack), numbers in part.numbers.items():
            if quantity not in names:
                continue
            words = [part.variant, quantity if experiment.forest else ""]
            words += [attack] if len(part.attacks) > 1 else []
            row = ", ".join(filter(None, words)) or attack
            for label, number in numbers.items():
                if number.change:
                    low, high = number.change.interval()
                    found = Estimate(number.change.value, low, high, 1)
                    bars.setdefault(label, {})[row] = Bar(found)
                    rows.setdefault(row, 0)
    panels = []
    for label, found_bars in bars.items():
        defense, _, options = label.partition(" ")
        panels.append(Panel(defense, found_bars, options))
    axis = Axis("", Quantity("")) if experiment.forest else Axis(primary, answer.parts[0].leakage)
    return forest(panels, axis, rows, base=experiment.compared_with) if panels else ""


_OF_STEPS = {
    "gradient_log_norm": "gradient_log_norm",
    "gradient_cosine": "gradient_cosine",
    "attack_loss": "loss_fall",
}
"""What records have of each step, and as what it is drawn."""


def _steps(experiment: Experiment, answer: Answer) -> str:
    """What the attacks say of their steps: the mean over classes and seeds, a line for each target."""
    part = answer.parts[0]
    panels = []
    for name, drawn_as in _OF_STEPS.items():
        quantity = part.board.quantities.get(name)
        lines = {line.label: _by_step(name, part, line) for line in part.lines} if quantity else {}
        lines = {label: values for label, values in lines.items() if values}
        if lines:
            panels.append(Curves(drawn_as, lines, 2 if name == "gradient_cosine" else 1))
    colours = _colours(answer, part.lines)
    drawn = {line.label: colours.get(line.defense) for line in part.lines}
    return curves(panels, "step of the attack", drawn) if panels else ""


def _by_step(name: str, part: Part, line: Line) -> list[float]:
    """The mean of a quantity at each step under the first attack; nothing where no record has it.

    Of the loss it is what it has fallen by since the first step, as a share of its first value.
    """
    attack = part.attacks.get(part.first)
    found = []
    for record in part.board.done:
        classes = record.per_image.get(name, [])
        # Where gradients vanish, classes have unlike numbers of steps.
        if (row_key(record), section_key(record)) == (line.key, attack) and len({*map(len, classes)}) == 1:
            values = np.array(classes)
            if name == "attack_loss":  # each target has a level of its own
                if not values[:, 0].all():
                    continue
                values = (values[:, :1] - values) / np.abs(values[:, :1])
            found.append(values.mean(axis=0))
    return [float(value) for value in np.mean(found, axis=0)] if found else []


_DRAWN_CLASSES = 3


def _points(experiment: Experiment, answer: Answer) -> str:
    """Test images (full) and reconstructions (hollow) of the first three people, a panel for each target."""
    part = answer.parts[0]
    attack = part.attacks.get(part.first)
    panels = []
    for line in part.lines:
        record = next(
            (
                record
                for record in sorted(part.board.done, key=lambda one: one.seed)
                if row_key(record) == line.key and section_key(record) == attack
            ),
            None,
        )
        if record and "test_x" in record.per_image:
            spots = [
                Spot(x, y, number, kind == "reconstruction")
                for kind in ("test", "reconstruction")
                for number in range(_DRAWN_CLASSES)
                for x, y in zip(
                    record.per_image[f"{kind}_x"][number], record.per_image[f"{kind}_y"][number], strict=True
                )
            ]
            panels.append(Cloud(line.label, spots))
    names = [f"person {number + 1}" for number in range(_DRAWN_CLASSES)]
    return clouds(panels, names) if panels else ""


_FIGURES: Mapping[Figure, tuple[str, str, Callable[[Experiment, Answer], str]]] = {
    "across": ("", "Leakage across {axis}", _across),
    "plane": ("-accuracy", "Accuracy and leakage across {axis}", _plane),
    "variants": ("", "Leakage and training images a class", _variants),
    "forest": ("", "Differences", _forest),
    "steps": ("-steps", "The attack step by step", _steps),
    "points": ("-points", "Images of three people in the embedding space", _points),
}
"""Of each figure the end of its file's name, its words, and what draws it."""


def _render(template: str, **values: Any) -> str:
    environment = make_environment(TEMPLATES)
    environment.filters["plain"] = lambda text: Markup(" ".join(text.split()))
    environment.globals |= {number.__name__: as_it_is(number) for number in (brief, change)}
    environment.globals["small"] = {kind: SMALL * margin for kind, margin in EQUAL.items()}
    return page_text(environment, template, values)
