"""The attack in the plane: targets of two numbers, which show in seconds what label smoothing does.

Five classes are Gaussian blobs round the corners of a pentagon. A network with two hidden layers is trained
on them under each defense, and a gradient attack starts at the same random points for all of them. There is
no image, no prior and no identity: what is measured is how far from its class the attack ends, in standard
deviations of a blob.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from etils.epy import lazy_imports
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mia_bench import jsonfile, provenance
from mia_bench.api.metric import Quantity
from mia_bench.api.progress import Progress
from mia_bench.components import resolve
from mia_bench.device import threads
from mia_bench.errors import MiaBenchError
from mia_bench.experiments.analysis import Outcome, judged
from mia_bench.experiments.definition import FOLDER, WITHOUT_TRACK, Claim, Grid, read_definition, settings_of
from mia_bench.leaderboard.aggregate import shown
from mia_bench.leaderboard.figures import Cloud, Region, Spot, clouds
from mia_bench.leaderboard.tables import Table, effects
from mia_bench.registry import Registry
from mia_bench.statistics import Effect, Estimate

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from mia_bench import seeds as streams
    from mia_bench.api import classifier, defense

NAME = WITHOUT_TRACK
"""Of its file, page and record."""

QUANTITIES = {
    "accuracy": Quantity("share of new points that are classified correctly", kind="share"),
    "end_distance": Quantity(
        "mean distance of the attack's ends from the centre of their class, in standard deviations of a blob",
        kind="amount",
    ),
    "gradient_cosine": Quantity("mean cosine between consecutive gradients of the attack that are not 0"),
    "no_gradient": Quantity("share of the attack's steps at which the gradient is exactly 0", kind="share"),
}
CELLS = 48
"""Cells of the drawn plane along each side."""

DRAWN = 4
"""Paths of each class that are drawn."""


class Settings(BaseModel):
    """What is trained and attacked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: int = Field(ge=2, le=10)
    """Blobs, round the corners of a polygon."""
    points: int = Field(ge=1)
    """Training points of each."""
    spread: float = Field(gt=0)
    """Standard deviation of a blob."""
    radius: float = Field(gt=0)
    """Distance of the blobs' centres from the origin."""
    width: int = Field(ge=1)
    """Units of each of the two hidden layers."""
    epochs: int = Field(ge=1)
    """Steps of training, each on all points."""
    rate: float = Field(gt=0)
    """Learning rate of Adam in training."""
    starts: int = Field(ge=1)
    """Attacks of each class."""
    steps: int = Field(ge=2, multiple_of=2)
    """Steps of an attack; every second one is drawn."""
    step_size: float = Field(gt=0)
    """Learning rate of Adam in an attack."""
    reach: float = Field(gt=0)
    """Attacks start in a square with this half-width; half as much again is drawn."""

    @property
    def edge(self) -> float:
        """Half-width of the picture."""
        return 1.5 * self.reach

    def numbers(self) -> dict[str, float]:
        """The settings as the record has them."""
        return {name: float(value) for name, value in self.model_dump().items()}


class Plane(BaseModel):
    """The experiment, as its file defines it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    """Of its page."""
    question: str
    """In a sentence."""
    method: str
    """In a paragraph."""
    setting: str
    """What differs from the setting in which others made the claims."""
    reading: str
    """What the picture shows."""
    checks: str = ""
    """What surprised, and how it was checked."""
    seeds: int = Field(ge=2)
    """Number of seeds."""
    settings: Settings
    """What is trained and attacked."""
    grid: tuple[Grid, ...]
    """The targets, one of each defense; the first is undefended, and the others are compared with it."""
    claims: tuple[Claim, ...]
    """What is tested."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        names = [name for name, _ in self.targets]
        if len(set(names)) < len(names):
            raise ValueError("the grid has several targets of one defense")
        if not names or self.targets[0][1]:
            raise ValueError("the first target of the grid is undefended: it has no options")
        for claim in self.claims:
            if claim.defense not in names[1:] or claim.quantity not in QUANTITIES:
                raise ValueError(f"there is no {claim.quantity!r} of {claim.defense!r} to compare")
            if claim.options or claim.attacks or claim.attack or claim.trend:
                raise ValueError("a claim is about a quantity of a defense, and nothing else")
        return self

    @property
    def targets(self) -> list[tuple[str, dict[str, Any]]]:
        """The name and options of each target's defense."""
        return [(one.defense, options) for one, options in settings_of(self.grid)]


def load() -> Plane:
    """Read and check the experiment's file.

    Raises:
        MiaBenchError: it is damaged.
    """
    return read_definition(Plane, FOLDER / f"{NAME}.toml")


class Run(BaseModel):
    """A target of one seed, and the attack on it.

    Attributes:
        means: by quantity, the mean of each class.
        surface: the class of each cell of a grid over the plane, row by row from the top; of one seed.
        points: training points with their class, likewise.
        paths: some paths of the attack with their class, likewise.
    """

    model_config = ConfigDict(extra="forbid")

    defense: str
    options: dict[str, Any]
    seed: int
    means: dict[str, list[float]]
    surface: list[str] = []
    points: list[tuple[float, float, int]] = []
    paths: list[tuple[int, list[tuple[float, float]]]] = []


class PlaneRecord(BaseModel):
    """All runs, what they were made with, and where."""

    model_config = ConfigDict(extra="forbid")

    runs: list[Run]
    settings: dict[str, float]
    torch: str
    mia_bench: str
    git: str | None

    def text(self) -> str:
        """The text of its file, with a hash."""
        return jsonfile.sealed_text(self.model_dump(mode="json"))


def place_in(store: Path) -> Path:
    """Where a store keeps the record."""
    return store / "experiments" / f"{NAME}.json"


def read(path: Path) -> PlaneRecord:
    """Read a record.

    Raises:
        MiaBenchError: it can't be read, or was changed.
    """
    try:
        content = jsonfile.read_object(path)
        if not jsonfile.seal_holds(content):
            raise ValueError("its hash differs: it was changed after it was written")
        return PlaneRecord.model_validate({k: v for k, v in content.items() if k != jsonfile.SEAL})
    except (OSError, ValueError) as error:
        raise MiaBenchError(f"{path}: {error}") from error


def compute(plane: Plane, registry: Registry, seeds: Sequence[int], progress: Progress) -> PlaneRecord:
    """Train and attack every target on every seed; on one thread, so that it can be repeated.

    The first seed is drawn.
    """
    runs: list[Run] = []
    wanted = list(itertools.product(seeds, plane.targets))
    with threads(1):
        for seed, (name, options) in wanted:
            runs.append(_run(plane.settings, registry, name, options, seed, drawn=seed == seeds[0]))
            progress(len(runs), len(wanted), "target")
    return PlaneRecord(
        runs=runs,
        settings=plane.settings.numbers(),
        torch=torch.__version__,
        mia_bench=provenance.package_version("mia-bench"),
        git=provenance.git_commit(),
    )


def centres(given: Settings) -> Tensor:
    """Centres of the classes ``(C, 2)``."""
    angles = torch.arange(given.classes) * (2 * math.pi / given.classes) + math.pi / 2
    return given.radius * torch.stack([angles.cos(), angles.sin()], dim=1)


def _blobs(given: Settings, seed: int, part: str) -> tuple[Tensor, Tensor]:
    """Points ``(N, 2)`` and their classes ``(N,)``."""
    labels = torch.arange(given.classes).repeat_interleave(given.points)
    noise = torch.randn(len(labels), 2, generator=streams.generator(seed, "plane", part))
    return centres(given)[labels] + given.spread * noise, labels


def _trained(
    given: Settings, registry: Registry, name: str, options: Mapping[str, Any], seed: int
) -> nn.Module:
    """The network under a defense."""
    protection = resolve(registry, "defense", name, {}, dict(options)).make()
    points, labels = _blobs(given, seed, "train")
    with streams.seeded(seed, "plane"):
        network = nn.Sequential(
            nn.Linear(2, given.width), nn.ReLU(),
            nn.Linear(given.width, given.width), nn.ReLU(),
            nn.Linear(given.width, given.classes),
        )  # fmt: skip
        adam = torch.optim.Adam(network.parameters(), lr=given.rate)
        draws = streams.generator(seed, "plane", "defense")
        for epoch in range(given.epochs):
            logits = network(points)
            outputs = classifier.Activations(logits, logits, ())
            step = defense.TrainingStep(points, labels, outputs, network, epoch, given.epochs, draws)
            adam.zero_grad(set_to_none=True)
            protection.loss(step).backward()
            adam.step()
    return network.requires_grad_(False).eval()


def _attacked(given: Settings, network: nn.Module, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Paths ``(N, T + 1, 2)``, their classes ``(N,)``, and gradients ``(N, T, 2)``."""
    labels = torch.arange(given.classes).repeat_interleave(given.starts)
    draws = streams.generator(seed, "plane", "attack")
    place = given.reach * (2 * torch.rand(len(labels), 2, generator=draws) - 1)
    place.requires_grad_(True)
    adam = torch.optim.Adam([place], lr=given.step_size)
    path, gradients = [place.detach().clone()], []
    for _ in range(given.steps):
        adam.zero_grad(set_to_none=True)
        F.cross_entropy(network(place), labels, reduction="sum").backward()
        assert place.grad is not None
        gradients.append(place.grad.clone())
        adam.step()
        path.append(place.detach().clone())
    return torch.stack(path, dim=1), labels, torch.stack(gradients, dim=1).double()


def _run(
    given: Settings, registry: Registry, name: str, options: Mapping[str, Any], seed: int, *, drawn: bool
) -> Run:
    network = _trained(given, registry, name, options, seed)
    test, labels = _blobs(given, seed, "test")
    right = (network(test).argmax(1) == labels).double()
    paths, wanted, gradients = _attacked(given, network, seed)
    vanished = (gradients == 0).all(2)
    unit = F.normalize(gradients, dim=2, eps=1e-300)
    cosines = (unit[:, 1:] * unit[:, :-1]).sum(2)
    cosines[vanished[:, 1:] | vanished[:, :-1]] = torch.nan  # nothing has no direction
    away = (paths[:, -1] - centres(given)[wanted]).norm(dim=1).double() / given.spread
    values = {
        "accuracy": right.view(given.classes, -1),
        "end_distance": away.view(given.classes, -1),
        "gradient_cosine": cosines.view(given.classes, -1),
        "no_gradient": vanished.double().view(given.classes, -1),
    }
    made = Run(
        defense=name,
        options=dict(options),
        seed=seed,
        means={key: [round(float(mean), 6) for mean in rows.nanmean(1)] for key, rows in values.items()},
    )
    if not drawn:
        return made
    train, classes = _blobs(given, seed, "train")
    shown = [number for number in range(len(wanted)) if number % given.starts < DRAWN]
    return made.model_copy(
        update={
            "surface": _surface(network, given.edge),
            "points": [(*_rounded(point), int(c)) for point, c in zip(train[::3], classes[::3], strict=True)],
            "paths": [(int(wanted[n]), [_rounded(p) for p in paths[n, ::2]]) for n in shown],
        }
    )


def _rounded(place: Tensor) -> tuple[float, float]:
    x, y = place.tolist()
    return round(x, 2), round(y, 2)


def _surface(network: nn.Module, edge: float) -> list[str]:
    """The class in the middle of each cell, a digit each, a row of cells from the top in each word."""
    middles = (torch.arange(CELLS) + 0.5) / CELLS * 2 * edge - edge
    grid = torch.stack(torch.meshgrid(middles, -middles, indexing="xy"), dim=2)
    return ["".join(map(str, row)) for row in network(grid).argmax(2).tolist()]


# --- what the record says ------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """A target: by quantity the mean and the difference from the undefended one."""

    label: str
    means: Mapping[str, Effect]
    changes: Mapping[str, Effect]

    def shown(self, name: str) -> Estimate:
        """The mean of a quantity with its interval, cut at the values that it can have."""
        effect = self.means[name]
        return shown(QUANTITIES[name], Estimate(effect.value, *effect.interval(), effect.seeds))


@dataclass(frozen=True)
class Told:
    """What became of a claim."""

    text: str
    outcome: Outcome
    name: str
    effect: Effect

    @property
    def opposite(self) -> bool:
        """Whether the opposite of the claim was seen."""
        return self.outcome == "not seen here"


def findings(plane: Plane, record: PlaneRecord) -> list[Finding]:
    """A line for each target, over seeds and classes.

    Raises:
        MiaBenchError: the record is not of these targets.
    """
    made = {(run.defense, *run.options.items()) for run in record.runs}
    targets = plane.targets
    wanted = {(target, *options.items()) for target, options in targets}
    if record.settings != plane.settings.numbers() or made != wanted:
        raise MiaBenchError("the record of the plane was made by another version: run it again")
    tables = {name: [_table(record, target, name) for target, _ in targets] for name in QUANTITIES}
    share = {name: quantity.kind == "share" for name, quantity in QUANTITIES.items()}
    means = {name: _all(effects(list(found), share=share[name])) for name, found in tables.items()}
    changes = {
        name: _all(effects([table.minus(base) for table in others], share=share[name]))
        for name, (base, *others) in tables.items()
    }
    return [
        Finding(
            " ".join(filter(None, [target, *(f"{key}={value:g}" for key, value in options.items())])),
            {name: found[number] for name, found in means.items()},
            {name: found[number - 1] for name, found in changes.items()} if number else {},
        )
        for number, (target, options) in enumerate(targets)
    ]


def _table(record: PlaneRecord, target: str, name: str) -> Table:
    runs = [run for run in record.runs if run.defense == target]
    if len(runs) < 2:
        raise MiaBenchError(f"the record of the plane has fewer than two seeds of {target}")
    return Table(tuple(run.seed for run in runs), np.array([run.means[name] for run in runs]))


def _all(found: Sequence[Effect | None]) -> list[Effect]:
    return [effect for effect in found if effect]


def told(plane: Plane, found: Sequence[Finding]) -> list[Told]:
    """What became of each claim."""
    changes = {target: one.changes for (target, _), one in zip(plane.targets, found, strict=True)}
    effects_of = [(one, changes[one.defense][one.quantity]) for one in plane.claims]
    return [
        Told(one.text, judged([effect], 1 if one.says == "more" else -1, 0.0), one.quantity, effect)
        for one, effect in effects_of
    ]


def figure(plane: Plane, record: PlaneRecord) -> str:
    """The plane under each target on one seed: regions of the classes, training points, paths."""
    panels, edge = [], plane.settings.edge
    labels = [finding.label for finding in findings(plane, record)]
    for label, (target, _) in zip(labels, plane.targets, strict=True):
        run = next((run for run in record.runs if run.defense == target and run.surface), None)
        if run is None:
            raise MiaBenchError(f"the record of the plane has no picture of {target}")
        ends = [Spot(*path[-1], number, True) for number, path in run.paths]
        panels.append(
            Cloud(
                label,
                [*(Spot(x, y, number) for x, y, number in run.points), *ends],
                [(path, number) for number, path in run.paths],
                _regions(run.surface, edge),
            )
        )
    return clouds(panels, [f"class {number + 1}" for number in range(plane.settings.classes)], edge)


def _regions(surface: Sequence[str], edge: float) -> list[Region]:
    """Runs of cells of one class in a row."""
    side, found = 2 * edge / len(surface), []
    for row, cells in enumerate(surface):
        start = 0
        for column in range(1, len(cells) + 1):
            if column == len(cells) or cells[column] != cells[start]:
                x0, x1 = -edge + start * side, -edge + column * side
                top = edge - row * side
                found.append(Region(x0, top - side, x1, top, int(cells[start])))
                start = column
    return found
