"""The attack in the plane: targets of two numbers, which show in seconds what label smoothing does.

Five classes are Gaussian blobs round the corners of a pentagon. A network with two hidden layers is trained
on them under each defense, and a gradient attack starts at the same random points for all of them. There is
no image, no prior and no identity: what is measured is how far from its class the attack ends, in standard
deviations of a blob.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from etils.epy import lazy_imports
from pydantic import BaseModel, ConfigDict

from mia_bench import jsonfile, provenance
from mia_bench.api.metric import Quantity
from mia_bench.api.progress import Progress
from mia_bench.components import resolve
from mia_bench.device import threads
from mia_bench.errors import MiaBenchError
from mia_bench.experiments.analysis import Outcome, judged
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

NAME = "plane"
TITLE = "The attack in the plane"
QUESTION = "What does label smoothing do to a gradient attack where everything can be drawn?"

SEEDS = 10
TARGETS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("none", {}),
    ("pos-ls", {"alpha": 0.1}),
    ("neg-ls", {"alpha": -1.0}),
)
QUANTITIES = {
    "accuracy": Quantity("share of new points that are classified correctly", kind="share"),
    "end_distance": Quantity(
        "mean distance of the attack's ends from the centre of their class, in standard deviations of a blob",
        kind="amount",
    ),
    "gradient_cosine": Quantity("mean cosine between consecutive gradients of the attack that are not 0"),
    "no_gradient": Quantity("share of the attack's steps at which the gradient is exactly 0", kind="share"),
}
CLAIMS = (
    ("Positive label smoothing brings the attack nearer to its class.", "pos-ls", "end_distance", -1),
    ("Negative label smoothing keeps the attack farther from its class.", "neg-ls", "end_distance", 1),
    (
        "Under negative label smoothing consecutive gradients point in more different directions.",
        "neg-ls",
        "gradient_cosine",
        -1,
    ),
)
"""Each with the defense, the quantity, and 1 where that is said to grow."""

CLASSES, POINTS, SPREAD, RADIUS = 5, 60, 0.5, 2.0
WIDTH, EPOCHS, RATE = 64, 400, 0.01
STARTS, STEPS, STEP_SIZE, REACH = 20, 100, 0.05, 4.0
CELLS = 48
DRAWN = 4


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


def _settings() -> dict[str, float]:
    """What the runs depend on, by the names on the page."""
    return {
        "classes": CLASSES,
        "points": POINTS,
        "spread": SPREAD,
        "radius": RADIUS,
        "width": WIDTH,
        "epochs": EPOCHS,
        "rate": RATE,
        "starts": STARTS,
        "steps": STEPS,
        "step_size": STEP_SIZE,
        "reach": REACH,
    }


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


def compute(registry: Registry, progress: Progress, seeds: int = SEEDS) -> PlaneRecord:
    """Train and attack every target on every seed; on one thread, so that it can be repeated."""
    runs = []
    with threads(1):
        for seed in range(seeds):
            for number, (name, options) in enumerate(TARGETS):
                runs.append(_run(registry, name, options, seed))
                progress(seed * len(TARGETS) + number + 1, seeds * len(TARGETS), "target")
    return PlaneRecord(
        runs=runs,
        settings=_settings(),
        torch=torch.__version__,
        mia_bench=provenance.package_version("mia-bench"),
        git=provenance.git_commit(),
    )


def centres() -> Tensor:
    """Centres of the classes ``(C, 2)``."""
    angles = torch.arange(CLASSES) * (2 * math.pi / CLASSES) + math.pi / 2
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def _blobs(seed: int, part: str) -> tuple[Tensor, Tensor]:
    """Points ``(N, 2)`` and their classes ``(N,)``."""
    labels = torch.arange(CLASSES).repeat_interleave(POINTS)
    noise = torch.randn(len(labels), 2, generator=streams.generator(seed, "plane", part))
    return centres()[labels] + SPREAD * noise, labels


def _trained(registry: Registry, name: str, options: Mapping[str, Any], seed: int) -> nn.Module:
    """The network under a defense."""
    protection = resolve(registry, "defense", name, {}, dict(options)).make()
    points, labels = _blobs(seed, "train")
    with streams.seeded(seed, "plane"):
        network = nn.Sequential(
            nn.Linear(2, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES)
        )
        adam = torch.optim.Adam(network.parameters(), lr=RATE)
        draws = streams.generator(seed, "plane", "defense")
        for epoch in range(EPOCHS):
            logits = network(points)
            outputs = classifier.Activations(logits, logits, ())
            step = defense.TrainingStep(points, labels, outputs, network, epoch, EPOCHS, draws)
            adam.zero_grad(set_to_none=True)
            protection.loss(step).backward()
            adam.step()
    return network.requires_grad_(False).eval()


def _attacked(network: nn.Module, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Paths ``(N, T + 1, 2)``, their classes ``(N,)``, and gradients ``(N, T, 2)``."""
    labels = torch.arange(CLASSES).repeat_interleave(STARTS)
    place = REACH * (2 * torch.rand(len(labels), 2, generator=streams.generator(seed, "plane", "attack")) - 1)
    place.requires_grad_(True)
    adam = torch.optim.Adam([place], lr=STEP_SIZE)
    path, gradients = [place.detach().clone()], []
    for _ in range(STEPS):
        adam.zero_grad(set_to_none=True)
        F.cross_entropy(network(place), labels, reduction="sum").backward()
        assert place.grad is not None
        gradients.append(place.grad.clone())
        adam.step()
        path.append(place.detach().clone())
    return torch.stack(path, dim=1), labels, torch.stack(gradients, dim=1).double()


def _run(registry: Registry, name: str, options: Mapping[str, Any], seed: int) -> Run:
    network = _trained(registry, name, options, seed)
    test, labels = _blobs(seed, "test")
    right = (network(test).argmax(1) == labels).double()
    paths, wanted, gradients = _attacked(network, seed)
    vanished = (gradients == 0).all(2)
    unit = F.normalize(gradients, dim=2, eps=1e-300)
    cosines = (unit[:, 1:] * unit[:, :-1]).sum(2)
    cosines[vanished[:, 1:] | vanished[:, :-1]] = torch.nan  # nothing has no direction
    away = (paths[:, -1] - centres()[wanted]).norm(dim=1).double() / SPREAD
    values = {
        "accuracy": right.view(CLASSES, -1),
        "end_distance": away.view(CLASSES, -1),
        "gradient_cosine": cosines.view(CLASSES, -1),
        "no_gradient": vanished.double().view(CLASSES, -1),
    }
    made = Run(
        defense=name,
        options=dict(options),
        seed=seed,
        means={key: [round(float(mean), 6) for mean in rows.nanmean(1)] for key, rows in values.items()},
    )
    if seed:
        return made
    train, classes = _blobs(seed, "train")
    shown = [number for number in range(len(wanted)) if number % STARTS < DRAWN]
    return made.model_copy(
        update={
            "surface": _surface(network),
            "points": [(*_rounded(point), int(c)) for point, c in zip(train[::3], classes[::3], strict=True)],
            "paths": [(int(wanted[n]), [_rounded(p) for p in paths[n, ::2]]) for n in shown],
        }
    )


def _rounded(place: Tensor) -> tuple[float, float]:
    x, y = place.tolist()
    return round(x, 2), round(y, 2)


def _surface(network: nn.Module) -> list[str]:
    """The class in the middle of each cell, a digit each, a row of cells from the top in each word."""
    middles = (torch.arange(CELLS) + 0.5) / CELLS * 2 * _EDGE - _EDGE
    grid = torch.stack(torch.meshgrid(middles, -middles, indexing="xy"), dim=2)
    return ["".join(map(str, row)) for row in network(grid).argmax(2).tolist()]


_EDGE = 1.5 * REACH


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


def findings(record: PlaneRecord) -> list[Finding]:
    """A line for each target, over seeds and classes.

    Raises:
        MiaBenchError: the record is not of these targets.
    """
    made = {(run.defense, *run.options.items()) for run in record.runs}
    if record.settings != _settings() or made != {(target, *options.items()) for target, options in TARGETS}:
        raise MiaBenchError("the record of the plane was made by another version: run it again")
    tables = {name: [_table(record, target, name) for target, _ in TARGETS] for name in QUANTITIES}
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
        for number, (target, options) in enumerate(TARGETS)
    ]


def _table(record: PlaneRecord, target: str, name: str) -> Table:
    runs = [run for run in record.runs if run.defense == target]
    if len(runs) < 2:
        raise MiaBenchError(f"the record of the plane has fewer than two seeds of {target}")
    return Table(tuple(run.seed for run in runs), np.array([run.means[name] for run in runs]))


def _all(found: Sequence[Effect | None]) -> list[Effect]:
    return [effect for effect in found if effect]


def told(found: Sequence[Finding]) -> list[Told]:
    """What became of each claim."""
    changes = {target: one.changes for (target, _), one in zip(TARGETS, found, strict=True)}
    return [
        Told(text, judged([changes[target][name]], said, 0.0), name, changes[target][name])
        for text, target, name, said in CLAIMS
    ]


def figure(record: PlaneRecord) -> str:
    """The plane under each target on one seed: regions of the classes, training points, paths."""
    panels = []
    labels = [finding.label for finding in findings(record)]
    for label, (target, _) in zip(labels, TARGETS, strict=True):
        run = next((run for run in record.runs if run.defense == target and run.surface), None)
        if run is None:
            raise MiaBenchError(f"the record of the plane has no picture of {target}")
        ends = [Spot(*path[-1], number, True) for number, path in run.paths]
        panels.append(
            Cloud(
                label,
                [*(Spot(x, y, number) for x, y, number in run.points), *ends],
                [(path, number) for number, path in run.paths],
                _regions(run.surface),
            )
        )
    return clouds(panels, [f"class {number + 1}" for number in range(CLASSES)], _EDGE)


def _regions(surface: Sequence[str]) -> list[Region]:
    """Runs of cells of one class in a row."""
    side, found = 2 * _EDGE / len(surface), []
    for row, cells in enumerate(surface):
        start = 0
        for column in range(1, len(cells) + 1):
            if column == len(cells) or cells[column] != cells[start]:
                x0, x1 = -_EDGE + start * side, -_EDGE + column * side
                top = _EDGE - row * side
                found.append(Region(x0, top - side, x1, top, int(cells[start])))
                start = column
    return found
