"""The plan: the graph of cached stages behind a grid, shared stages once. Imports no torch.

A stage's key is the hash of its canonical spec and its inputs' keys: everything that changes its
result (options, track version, component versions, seeds, numeric precision) and nothing that
doesn't (paths, the device, the order of a grid).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mia_bench.api.attack import Attack
from mia_bench.api.dataset import Dataset
from mia_bench.api.encoder import Encoder
from mia_bench.api.metric import AttackMetric, TargetMetric
from mia_bench.api.prior import Prior
from mia_bench.components import (
    ConfiguredComponent,
    OptionValues,
    resolve,
    resolve_choice,
    short_choice,
    short_options,
)
from mia_bench.engine.grid import Cell, skip_reason
from mia_bench.errors import MiaBenchError, Unavailable, UsageError
from mia_bench.paths import Roots
from mia_bench.plugins import attribute_errors
from mia_bench.registry import Registry
from mia_bench.track import ClassifierSpec, Track

STAGE_VERSIONS = {
    "data": 1,
    "prior": 2,
    "evaluator": 2,
    "judge": 2,
    "gallery": 1,
    "train": 2,
    "assess": 2,
    "prepare": 3,
    "invert": 2,
    "measure": 3,
}
"""The host's own code in each stage; raised when a change there changes results."""


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


CELL_STAGES = ("train", "assess", "prepare", "invert", "measure")
"""The stages of a cell's own; the others are shared by the whole track."""


@dataclass(frozen=True)
class Stage:
    """One cached step.

    Attributes:
        name: one of :data:`STAGE_VERSIONS`.
        spec: what is computed, canonical JSON values only.
        inputs: role to the stage it reads.
        parts: the components it needs, by role.
        track: the protocol.
        label: in words, for progress and plans.
        seed: the cell's seed, or the track's for shared stages.
    """

    name: str
    spec: Mapping[str, Any]
    track: Track
    label: str
    seed: int
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """20 hexadecimal digits."""
        content = {
            "stage": self.name,
            "version": STAGE_VERSIONS[self.name],
            "spec": self.spec,
            "seed": self.seed,
            "inputs": {role: stage.key for role, stage in self.inputs.items()},
        }
        return _digest(content)[:20]

    @property
    def id(self) -> tuple[str, str]:
        """Stage name and key."""
        return self.name, self.key

    @property
    def subject(self) -> str:
        """Name of the component that the stage is there for, empty for what the whole track shares."""
        role = {"train": "defense", "prior": "prior", "prepare": "attack", "invert": "attack"}
        return str(self.parts[role[self.name]].name) if self.name in role else ""

    @property
    def settings(self) -> str:
        """Hash of what decides its cost beside the subject: the options, and of an attack the prior."""
        prior = self.inputs.get("prior")
        return _digest({"own": self.spec, "prior": prior.spec if prior else None})[:12]

    def upstream(self) -> Iterator[Stage]:
        """Every stage this one needs, inputs first, then itself; a stage may come up again."""
        for stage in self.inputs.values():
            yield from stage.upstream()
        yield self


@dataclass(frozen=True)
class PlannedCell:
    """A cell, the stage whose artifact is its result, and why it is skipped, if it is."""

    cell: Cell
    measure: Stage
    data_fingerprint: str
    protocol: str
    skip: str | None

    @property
    def key(self) -> str:
        """The cell's key, which is its last stage's."""
        return self.measure.key


@dataclass(frozen=True)
class Plan:
    """The cells, and what the user should know before the work begins."""

    cells: list[PlannedCell]
    warnings: list[str]
    left_out: list[str] = field(default_factory=list)
    """A line for each cell that can't be planned because a plugin fails."""


def build_plan(registry: Registry, cells: list[Cell], roots: Roots, options: OptionValues) -> Plan:
    """Plan every cell once; stages with the same content are one object."""
    if not cells:
        return Plan([], [])
    shared = _shared_stages(registry, cells[0].track, roots, options)
    unique: dict[tuple[str, str], Stage] = {}
    # Once a prior, not once a cell: a prior may hash the weights it comes with.
    priors = {_digest(cell.prior.spec()): cell.prior for cell in cells}
    stages: dict[str, Stage | MiaBenchError] = {}
    for key, prior in priors.items():
        try:
            stages[key] = _prior_stage(cells[0].track, prior, shared, roots)
        except UsageError:
            raise
        except MiaBenchError as error:
            stages[key] = error
    planned, left_out = [], []
    for cell in cells:
        try:
            stage = stages[_digest(cell.prior.spec())]
            if isinstance(stage, MiaBenchError):
                raise stage
            planned.append(_plan_cell(cell, shared, stage, unique))
        except UsageError:
            raise
        except MiaBenchError as error:
            left_out.append(f"{cell.label} is left out: {error}")
    unique_cells = {one.key: one for one in planned}  # "0.1" and "0.10" are one value
    return Plan(list(unique_cells.values()), shared.warnings, left_out)


@dataclass(frozen=True)
class _Shared:
    data: Stage
    evaluator: Stage
    judge: Stage | None
    gallery: Stage | None
    encoder: ConfiguredComponent | None
    missing: dict[str, str]
    warnings: list[str]
    fingerprint: str
    protocol: str
    architecture: ConfiguredComponent
    target_metrics: list[ConfiguredComponent]
    attack_metrics: list[ConfiguredComponent]


def _shared_stages(registry: Registry, track: Track, roots: Roots, options: OptionValues) -> _Shared:
    seed = track.data.split_seed
    chosen = resolve_choice(registry, "dataset", track.data.dataset, options)
    dataset: Dataset = chosen.make()
    if dataset.needs_root and roots.data is None:
        raise UsageError(
            f"track {track.name!r} reads images from disk: give --data DIR or set MIA_BENCH_DATA"
        )
    with attribute_errors(chosen.owner):
        fingerprint = dataset.fingerprint(roots.data)
    changed = "".join(
        short_choice(registry, kind, choice, options)
        for kind, choice in (("dataset", track.data.dataset), ("encoder", track.encoder))
        if choice is not None
    )
    data = Stage(
        name="data",
        spec={
            "track": {"name": track.name, "version": track.version},
            "dataset": chosen.spec(),
            "resolution": track.data.resolution,
            "fingerprint": fingerprint,
        },
        track=track,
        label=f"images of {track.name}",
        seed=seed,
        parts={"dataset": chosen},
    )
    evaluator = _classifier_stage(registry, "evaluator", "evaluation model", track.evaluation, data)
    judge = (
        _classifier_stage(registry, "judge", "independent judge", track.judge, data) if track.judge else None
    )
    gallery, missing = _gallery(registry, track, roots, options, data)
    metrics = [resolve(registry, "metric", name, {}, {}) for name in track.metrics]
    for metric in metrics:
        if not issubclass(metric.component, (TargetMetric, AttackMetric)):
            raise MiaBenchError(
                f"metric {metric.name!r} of plugin {metric.identity['distribution']} is neither a "
                "TargetMetric nor an AttackMetric"
            )
    architecture = resolve_choice(registry, "model", track.target.architecture, options)
    protocol = {
        "data": data.key,
        "evaluator": evaluator.key,
        **({"judge": judge.key} if judge else {}),
        "gallery": gallery.key if gallery else None,
        "architecture": architecture.spec(),
        "recipe": track.target.recipe.spec(),
        "metrics": [metric.spec() for metric in metrics],
        "images_per_class": track.images_per_class,
        "attacked_classes": track.attacked_classes,
        **_precision(track),
        # Those of the shared stages are in their keys.
        "stages": {name: STAGE_VERSIONS[name] for name in CELL_STAGES},
    }
    warnings = [f"{reason}: what needs it will be null" for reason in missing.values()]
    official = track.data.fingerprint
    if official and fingerprint + changed != official:
        warnings.append(
            f"these are not the data of the protocol (fingerprint {fingerprint + changed}, not "
            f"{official}): the rows can't be on its board"
        )
    return _Shared(
        data=data,
        evaluator=evaluator,
        judge=judge,
        gallery=gallery,
        encoder=gallery.parts["encoder"] if gallery else None,
        missing=missing,
        warnings=warnings if track.encoder else warnings[len(missing) :],
        # Other options of the data or the judge make another protocol: no board may mix them.
        fingerprint=fingerprint + changed,
        protocol=_digest(protocol)[:12],
        architecture=architecture,
        target_metrics=[m for m in metrics if issubclass(m.component, TargetMetric)],
        attack_metrics=[m for m in metrics if issubclass(m.component, AttackMetric)],
    )


def _classifier_stage(registry: Registry, name: str, words: str, spec: ClassifierSpec, data: Stage) -> Stage:
    """A classifier that the whole track shares."""
    architecture = resolve_choice(registry, "model", spec.architecture, OptionValues())
    return Stage(
        name=name,
        spec={"architecture": architecture.spec(), "recipe": spec.recipe.spec()},
        track=data.track,
        label=f"{words} ({architecture.name})",
        seed=data.seed,
        inputs={"data": data},
        parts={"architecture": architecture, "recipe": spec.recipe},
    )


def _gallery(
    registry: Registry, track: Track, roots: Roots, options: OptionValues, data: Stage
) -> tuple[Stage | None, dict[str, str]]:
    if track.encoder is None:
        return None, {"gallery": f"track {track.name!r} has no identity encoder"}
    chosen = resolve_choice(registry, "encoder", track.encoder, options)
    encoder: Encoder = chosen.make()
    try:
        with attribute_errors(chosen.owner):
            weights = encoder.fingerprint(roots.weights)
    except Unavailable as error:
        return None, {"gallery": str(error)}
    stage = Stage(
        name="gallery",
        spec={"encoder": chosen.spec(), "weights": weights},
        track=track,
        label=f"gallery of identities ({chosen.name})",
        seed=data.seed,
        inputs={"data": data},
        parts={"encoder": chosen},
    )
    return stage, {}


def _plan_cell(
    cell: Cell, shared: _Shared, prior: Stage, unique: dict[tuple[str, str], Stage]
) -> PlannedCell:
    track, data = cell.track, shared.data

    def stage(name: str, label: str, seed: int, **rest: Any) -> Stage:
        made = Stage(name=name, track=track, label=label, seed=seed, **rest)
        return unique.setdefault(made.id, made)

    train = stage(
        "train",
        f"target under {cell.named(cell.defense)}, seed {cell.seed}",
        cell.seed,
        spec={
            "defense": cell.defense.spec(),
            "architecture": shared.architecture.spec(),
            "recipe": track.target.recipe.spec(),
        },
        inputs={"data": data},
        parts={"defense": cell.defense, "architecture": shared.architecture},
    )
    assess = stage(
        "assess",
        f"utility of {cell.named(cell.defense)}, seed {cell.seed}",
        data.seed,
        spec={"metrics": [m.spec() for m in shared.target_metrics]},
        inputs={"data": data, "train": train},
        parts={"metrics": shared.target_metrics},
    )
    attack_spec = {
        "attack": cell.attack.spec(),
        "images_per_class": track.images_per_class,
        "attacked_classes": track.attacked_classes,
        "batch_size": track.attack_batch_size,
        **_precision(track),
    }
    attack_inputs = {"data": data, "train": train, "prior": prior}
    attack_parts = {"attack": cell.attack}
    if cell.attack.component.prepare is not Attack.prepare:
        prepare = stage(
            "prepare",
            f"preparation of {cell.label}",
            cell.seed,
            spec=attack_spec,
            inputs=attack_inputs,
            parts=attack_parts,
        )
        attack_inputs = {**attack_inputs, "prepare": prepare}
    invert = stage(
        "invert",
        f"attack {cell.label}",
        cell.seed,
        spec=attack_spec,
        inputs=attack_inputs,
        parts=attack_parts,
    )
    inputs = {
        "data": data,
        "train": train,
        "assess": assess,
        "invert": invert,
        "evaluator": shared.evaluator,
    }
    if shared.gallery is not None:
        inputs["gallery"] = shared.gallery
    if shared.judge is not None:
        inputs["judge"] = shared.judge
    measure = stage(
        "measure",
        f"measurement of {cell.label}",
        data.seed,
        spec={"metrics": [m.spec() for m in shared.attack_metrics], "missing": shared.missing},
        inputs=inputs,
        parts={"metrics": shared.attack_metrics},
    )
    return PlannedCell(cell, measure, shared.fingerprint, shared.protocol, skip_reason(cell))


def _precision(track: Track) -> dict[str, str]:
    """A part of specs, unless it is what it always was."""
    precision = track.attack_precision
    return {} if precision == "float32" else {"precision": precision}


def _prior_stage(track: Track, prior: ConfiguredComponent, shared: _Shared, roots: Roots) -> Stage:
    made: Prior = prior.make()
    with attribute_errors(prior.owner):
        weights = made.weights(shared.data.key, roots.weights)
    return Stage(
        name="prior",
        track=track,
        label=f"prior {prior.name}{short_options(prior, track)}",
        seed=shared.data.seed,
        spec={"prior": prior.spec(), **({"weights": weights} if weights else {})},
        inputs={"data": shared.data},
        parts={"prior": prior, "encoder": shared.encoder},
    )


def plan_data(registry: Registry, track: Track, roots: Roots, options: OptionValues) -> Stage:
    """The stage that decodes the images of ``track``."""
    return _shared_stages(registry, track, roots, options).data


def plan_prior(
    registry: Registry,
    track: Track,
    prior: ConfiguredComponent,
    roots: Roots,
    options: OptionValues,
) -> Stage:
    """The stage that makes a prior of ``track``."""
    return _prior_stage(track, prior, _shared_stages(registry, track, roots, options), roots)


def pending_stages(wanted: Iterable[Stage], has: Any) -> tuple[list[Stage], list[Stage]]:
    """(stages to compute, stages cached) for ``wanted``, each once, inputs before what needs them.

    ``has(name, key)`` says whether an artifact is in the store. A cached stage hides what is above.
    """
    todo: dict[tuple[str, str], Stage] = {}
    cached: dict[tuple[str, str], Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.id in todo or stage.id in cached:
            return
        if has(*stage.id):
            cached[stage.id] = stage
            return
        for needed in stage.inputs.values():
            visit(needed)
        todo[stage.id] = stage

    for stage in wanted:
        visit(stage)
    return list(todo.values()), list(cached.values())
