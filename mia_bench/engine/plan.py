"""The plan: the graph of cached stages behind a grid, shared stages once. Imports no torch.

A stage's key is the hash of its canonical spec and its inputs' keys: everything that changes its
result (options, track version, component versions, seeds, numeric precision) and nothing that
doesn't (paths, the device, the order of a grid).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    baseline,
    resolve,
    resolve_choice,
    track_options,
)
from mia_bench.engine.grid import Cell, skip_reason
from mia_bench.errors import MiaBenchError, Unavailable, UsageError
from mia_bench.fetch import file_hash, find
from mia_bench.origin import Origin, digest, key_of
from mia_bench.own_models import OwnTarget
from mia_bench.paths import Roots
from mia_bench.plugins import attribute_errors
from mia_bench.registry import Registry
from mia_bench.track import Choice, ClassifierSpec, Track

STAGE_VERSIONS = {
    "data": 1,
    "prior": 2,
    "evaluator": 2,
    "judge": 2,
    "gallery": 1,
    "oracle": 1,
    "train": 2,
    "load": 1,
    "assess": 3,
    "prepare": 3,
    "shard": 1,
    "invert": 2,
    "measure": 4,
    "metric": 1,
}
"""Version of the host's code in each stage; raised when a change there changes results.

No key contains that of ``prepare``: when its version is raised, those of ``shard`` and ``invert`` are too.
"""


CELL_STAGES = ("train", "load", "assess", "prepare", "shard", "invert", "measure", "metric")
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
        inputs = {role: stage.key for role, stage in self.keyed.items()}
        return key_of(self.name, STAGE_VERSIONS[self.name], self.spec, self.seed, inputs)

    @property
    def keyed(self) -> dict[str, Stage]:
        """The inputs in the key: all but an attack's preparation, which is made of nothing but the others."""
        return {role: stage for role, stage in self.inputs.items() if role != "prepare"}

    @property
    def origin(self) -> Origin:
        """What its key is the hash of, and everything it needs."""
        needed = dict.fromkeys(stage.id for stage in self.upstream() if stage is not self)
        inputs = {role: stage.id for role, stage in self.keyed.items()}
        return Origin(self.name, STAGE_VERSIONS[self.name], self.spec, self.seed, inputs, tuple(needed))

    @property
    def id(self) -> tuple[str, str]:
        """Stage name and key."""
        return self.name, self.key

    @property
    def subject(self) -> str:
        """Name of the component that the stage is there for, empty for what the whole track shares."""
        role = {"train": "defense", "prior": "prior", "oracle": "prior"}
        role |= dict.fromkeys(("prepare", "shard", "invert"), "attack")
        return str(self.parts[role[self.name]].name) if self.name in role else ""

    @property
    def shards(self) -> list[Stage]:
        """The stages that this one joins, in order; none unless it joins the parts of an attack."""
        return [stage for stage in self.inputs.values() if stage.name == "shard"]

    @property
    def attacks(self) -> list[Stage]:
        """The stages that run the attack which this stage gives the result of: its parts, or it alone."""
        return self.shards or [self]

    @property
    def settings_hash(self) -> str:
        """Hash of what else decides its cost: the options, an attack's prior, not which part of it it is."""
        prior = self.inputs.get("prior")
        own = {name: value for name, value in self.spec.items() if name != "shard"}
        return digest({"own": own, "prior": prior.spec if prior else None})[:12]

    def make(self, role: str) -> Any:
        """A fresh instance of one of its components."""
        return self.parts[role].make()

    def upstream(self) -> Iterator[Stage]:
        """Every stage this one needs, inputs first, then itself; a stage may come up again."""
        for stage in self.inputs.values():
            yield from stage.upstream()
        yield self


@dataclass(frozen=True)
class PlannedCell:
    """A cell, the stage whose artifact is its result, and why it is skipped, if it is.

    ``roots`` are the folders that its record must not name.
    """

    cell: Cell
    measure: Stage
    data_fingerprint: str
    protocol: str
    skip: str | None
    roots: Roots = field(default_factory=Roots)

    @property
    def key(self) -> str:
        """The cell's key, which is its last stage's."""
        return self.measure.key


class TrackPlan:
    """The stages that all cells of a track share, and those of its priors and cells, each as one object.

    Attributes:
        data, evaluator, judge, gallery: the shared stages; None where the track has no such thing.
        warnings: what the user should know.
        data_warnings: those of them that are about the data.
        fingerprint: of the data, with the options of data set and encoder that the command line changed:
            other options make another protocol, and no board may mix them.
        protocol: digest of everything that all rows of a board share.
        without_gallery: that of records which were made without the encoder's weights.

    Raises:
        UsageError: a name or an option is wrong, or no data root is given.
        MiaBenchError: a plugin fails; its methods raise it too.
    """

    def __init__(self, registry: Registry, track: Track, roots: Roots, options: OptionValues) -> None:
        self._registry, self._options = registry, options
        self._track, self._roots = track, roots
        self._stages: dict[tuple[str, str], Stage] = {}
        self._priors: dict[str, Stage] = {}
        self._hashes: dict[str, str | None] = {}
        dataset = self._choice("dataset", track.data.dataset)
        fingerprint = self._fingerprint(dataset)
        data = {
            "track": {"name": track.name, "version": track.version},
            "resolution": track.data.resolution,
            "fingerprint": fingerprint,
        }
        self.data = self._stage("data", f"images of {track.name}", {"dataset": dataset}, spec=data)
        self._architecture = self._choice("model", track.target.architecture)
        self.evaluator = self._classifier("evaluator", "evaluation model", track.evaluation)
        self.judge = self._classifier("judge", "independent judge", track.judge) if track.judge else None
        self._encoder = self._choice("encoder", track.encoder) if track.encoder else None
        self._missing: dict[str, str] = {}
        self.gallery = self._gallery()
        metrics = [resolve(registry, "metric", name, {}, {}) for name in track.metrics]
        self._target_metrics = [m for m in metrics if issubclass(m.component, TargetMetric)]
        # The instruments are made for the usual split, so a fold has nothing to measure attacks with.
        leaks = [m for m in metrics if issubclass(m.component, AttackMetric)]
        self._attack_metrics = [] if track.target.recipe.fold else leaks
        for metric in metrics:
            if not issubclass(metric.component, (TargetMetric, AttackMetric)):
                raise MiaBenchError(f"{metric.owner} is neither a TargetMetric nor an AttackMetric")
        changed = [*dataset.changed.items(), *(self._encoder.changed.items() if self._encoder else ())]
        self.fingerprint = fingerprint + "".join(f"+{key}={value}" for key, value in changed)
        shared_out = {"shards": track.shards} if track.shards > 1 else {}
        protocol = {
            "data": self.data.key,
            "evaluator": self.evaluator.key,
            **({"judge": self.judge.key} if self.judge else {}),
            "gallery": self.gallery.key if self.gallery else None,
            "architecture": self._architecture.spec(),
            # The folds of a track are compared: a record's variant tells which it is of.
            "recipe": track.target.recipe.model_copy(update={"fold": None}).spec(),
            "metrics": [metric.spec() for metric in metrics],
            **_attack_budget(track),
            **shared_out,
            # Those of the shared stages are in their keys.
            "stages": {
                name: STAGE_VERSIONS[name]
                for name in CELL_STAGES
                if name not in ("load", "metric") and (shared_out or name != "shard")
            },
        }
        self.protocol = digest(protocol)[:12]
        self.without_gallery = digest({**protocol, "gallery": None})[:12]
        reasons = self._missing.values() if self._encoder else ()
        missing = (f"{reason}: what needs it will be null" for reason in reasons)
        self.data_warnings = self._data_warnings()
        self.warnings = [*missing, *self.data_warnings]

    def _choice(self, kind: str, choice: Choice) -> ConfiguredComponent:
        return resolve_choice(self._registry, kind, choice, self._options)

    def _stage(
        self,
        name: str,
        label: str,
        parts: Mapping[str, Any],
        inputs: Mapping[str, Stage | None] | None = None,
        *,
        spec: Mapping[str, Any] | None = None,
        seed: int | None = None,
        unkeyed: Mapping[str, Any] | None = None,
    ) -> Stage:
        """A stage; inputs that are None are left out.

        Args:
            name, label, inputs: as of :class:`Stage`.
            parts: components and recipes that it needs; what they are is in its spec.
            spec: what else changes its result.
            seed: the track's unless given.
            unkeyed: components that do not change its result.
        """
        threads = {} if self._track.threads is None else {"threads": self._track.threads}
        made = Stage(
            name=name,
            spec={**{role: _spec(part) for role, part in parts.items()}, **(spec or {}), **threads},
            track=self._track,
            label=label,
            seed=self._track.data.split_seed if seed is None else seed,
            inputs={role: stage for role, stage in (inputs or {}).items() if stage is not None},
            parts={**parts, **(unkeyed or {})},
        )
        return self._stages.setdefault(made.id, made)

    def _fingerprint(self, chosen: ConfiguredComponent) -> str:
        dataset: Dataset = chosen.make()
        if dataset.needs_root and self._roots.data is None:
            raise UsageError(
                f"track {self._track.name!r} reads images from disk: give --data DIR or set MIA_BENCH_DATA"
            )
        with attribute_errors(chosen.owner):
            return dataset.fingerprint(self._roots.data)

    def _classifier(self, name: str, words: str, chosen: ClassifierSpec) -> Stage:
        architecture = self._choice("model", chosen.architecture)
        parts = {"architecture": architecture, "recipe": chosen.recipe}
        return self._stage(name, f"{words} ({architecture.name})", parts, {"data": self.data})

    def _gallery(self) -> Stage | None:
        chosen = self._encoder
        if chosen is None:
            self._missing["gallery"] = f"track {self._track.name!r} has no identity encoder"
            return None
        encoder: Encoder = chosen.make()
        try:
            with attribute_errors(chosen.owner):
                weights = encoder.fingerprint(self._roots.weights)
        except Unavailable as error:
            self._missing["gallery"] = str(error)
            return None
        label, spec = f"gallery of identities ({chosen.name})", {"weights": weights}
        return self._stage("gallery", label, {"encoder": chosen}, {"data": self.data}, spec=spec)

    def _data_warnings(self) -> list[str]:
        official = self._track.data.fingerprint
        if not official or self.fingerprint == official:
            return []
        return [
            f"these are not the data of the protocol (fingerprint {self.fingerprint}, not {official}): "
            "the rows can't be on its board"
        ]

    def prior(self, chosen: ConfiguredComponent) -> Stage:
        """The stage that makes a prior."""
        known = digest(chosen.spec())
        if known not in self._priors:  # once a prior, not once a cell: it may hash the weights it comes with
            prior: Prior = chosen.planned
            with attribute_errors(chosen.owner):
                weights = prior.weights(self.data.key, self._roots.weights)
            self._priors[known] = self._stage(
                "prior",
                f"prior {chosen.label}",
                {"prior": chosen},
                {"data": self.data},
                spec={"weights": weights} if weights else {},
                unkeyed={"encoder": self._encoder} if self.gallery else {},
            )
        return self._priors[known]

    def _oracle(self, prior: Stage, metrics: Iterable[ConfiguredComponent]) -> Stage | None:
        """What a prior can show of the private people; None where no metric asks or there is no gallery."""
        if self.gallery is None or not any(metric.component.needs_oracle for metric in metrics):
            return None
        track, chosen = self._track, prior.parts["prior"]
        return self._stage(
            "oracle",
            f"oracle of prior {chosen.label}",
            {},
            {"data": self.data, "prior": prior, "gallery": self.gallery},
            spec={"attacked_classes": track.attacked_classes, "batch_size": track.attack_batch_size},
            unkeyed={"prior": chosen},
        )

    def cells(self, cells: Iterable[Cell], left_out: list[str]) -> list[PlannedCell]:
        """Every cell with its stages, once; a line for each reason why others fail goes to ``left_out``."""
        planned: dict[str, PlannedCell] = {}
        failed: dict[str, list[str]] = {}
        for cell in cells:
            try:
                one = self.cell(cell)
            except UsageError:
                raise
            except MiaBenchError as error:
                failed.setdefault(str(error), []).append(cell.label)
            else:
                planned.setdefault(one.key, one)  # "0.1" and "0.10" are one value
        for reason, (first, *more) in failed.items():
            who = f"{first} and {len(more)} more are" if more else f"{first} is"
            left_out.append(f"{who} left out: {reason}")
        return list(planned.values())

    def cell(self, cell: Cell) -> PlannedCell:
        """A cell with its stages."""
        track, seed = self._track, cell.seed
        under = f"{cell.defense.label}, seed {seed}"
        train = self._target(cell)
        utility, inputs = {"metrics": self._target_metrics}, {"data": self.data, "train": train}
        assess = self._stage("assess", f"utility of {under}", utility, inputs)
        attack = {"attack": cell.attack}
        budget = {**_attack_budget(track), "batch_size": track.attack_batch_size}
        prior = self.prior(cell.prior)
        attacked = {**inputs, "prior": prior}
        if cell.attack.component.needs_undefended:
            attacked["undefended"] = self._target(replace(cell, defense=self._baseline))
        prepared: dict[str, Stage] = {}
        if cell.attack.component.prepare is not Attack.prepare:
            label = f"preparation of {cell.label}"
            holds = {"holds": ["state", "random"]}  # what is stored; the results are those of before
            prepare = self._stage("prepare", label, attack, attacked, spec={**budget, **holds}, seed=seed)
            prepared = {"prepare": prepare}
        attacked |= prepared
        count = track.shards if cell.attack.component.by_class else 1
        if count > 1:
            attacked = prepared | {
                f"shard {number}": self._stage(
                    "shard",
                    f"attack {cell.label}, part {number} of {count}",
                    attack,
                    attacked,
                    spec={**budget, "shard": number, "shards": count},
                    seed=seed,
                )
                for number in range(1, count + 1)
            }
        invert = self._stage("invert", f"attack {cell.label}", attack, attacked, spec=budget, seed=seed)
        instruments = {"evaluator": self.evaluator, "gallery": self.gallery, "judge": self.judge}
        oracle = self._oracle(prior, self._attack_metrics)
        # Another name is another row, whose target and attack are the same.
        row = {"row": cell.defense.name} if isinstance(cell.defense, OwnTarget) else {}
        measure = self._stage(
            "measure",
            f"measurement of {cell.label}",
            {"metrics": self._attack_metrics},
            {**inputs, "assess": assess, "invert": invert, **instruments, "oracle": oracle},
            spec={"missing": self._missing, **self._metric_weights(self._attack_metrics), **row},
        )
        return PlannedCell(cell, measure, self.fingerprint, self.protocol, skip_reason(cell), self._roots)

    def _target(self, cell: Cell) -> Stage:
        """The stage that trains the target, or restores a model of the user's own."""
        defense, seed, inputs = cell.defense, cell.seed, {"data": self.data}
        if not isinstance(defense, OwnTarget):
            target = {
                "defense": defense,
                "architecture": self._architecture,
                "recipe": self._track.target.recipe,
            }
            fold = self._track.target.recipe.fold
            label = f"target under {defense.label}, seed {seed}" + (f", fold {fold}" if fold else "")
            return self._stage("train", label, target, inputs, seed=seed)
        return self._stage(
            "load",
            f"own model {defense.label}, seed {seed}",
            {"architecture": defense.architecture, "deployment": defense.defense},
            inputs,
            spec={"weights": defense.sha256, **defense.reading()},
            seed=seed,
            unkeyed={"defense": defense},
        )

    @cached_property
    def _baseline(self) -> ConfiguredComponent:
        """The undefended target with the track's options."""
        name = baseline(self._registry)
        return resolve(self._registry, "defense", name, track_options(self._track, "defense", name), {})

    def metric(self, planned: PlannedCell, metric: ConfiguredComponent) -> Stage:
        """The stage that computes one metric, of the track or not, of a cell."""
        inputs = planned.measure.inputs
        label = f"{metric.name} of {planned.cell.label}"
        if issubclass(metric.component, TargetMetric):
            measured = {role: inputs[role] for role in ("data", "train")}
            return self._stage("metric", label, {"metrics": [metric]}, measured)
        measured = {role: stage for role, stage in inputs.items() if role not in ("assess", "oracle")}
        oracle = self._oracle(self.prior(planned.cell.prior), [metric])
        return self._stage(
            "metric",
            label,
            {"metrics": [metric]},
            {**measured, "oracle": oracle},
            spec={"missing": self._missing, **self._metric_weights([metric])},
        )

    def _metric_weights(self, metrics: Iterable[ConfiguredComponent]) -> dict[str, Any]:
        """Hashes of the weight files that metrics need, None where they are missing; nothing if none does."""
        names: list[str] = []
        for metric in metrics:
            with attribute_errors(metric.owner):
                names += [file.name for file in metric.planned.weight_files()]
        for name in names:
            if name not in self._hashes:  # once, not once a cell
                path = find(name, self._roots.weights)
                self._hashes[name] = file_hash(path) if path else None
        return {"metric_weights": {name: self._hashes[name] for name in sorted(names)}} if names else {}


def own_share(cells: Sequence[PlannedCell], number: int, count: int) -> list[PlannedCell]:
    """The cells that the ``number``-th (from 1) of ``count`` runs computes, so that each has about as many.

    The cells of a target stay together, unless there are fewer targets than runs.
    """
    targets: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        targets.setdefault(cell.measure.inputs["train"].key, []).append(cell)
    if len(targets) < count:
        return list(cells[number - 1 :: count])
    return [cell for several in list(targets.values())[number - 1 :: count] for cell in several]


def _spec(part: Any) -> Any:
    """What a key says of a component, a recipe or a list of them."""
    return [one.spec() for one in part] if isinstance(part, list) else part.spec()


def _attack_budget(track: Track) -> dict[str, Any]:
    """What a track grants every attack; the precision only where it is not what it always was."""
    budget: dict[str, Any] = {
        "images_per_class": track.images_per_class,
        "attacked_classes": track.attacked_classes,
    }
    if track.attack_precision != "float32":
        budget["precision"] = track.attack_precision
    return budget


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
