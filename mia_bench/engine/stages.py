"""The stages: what the engine stores of each step of the protocol, and what it rebuilds from that.

Each stage is a pair of functions: ``compute(stage, workspace)`` calls the protocol and returns tensors and
JSON info for the store, ``load(stage, workspace)`` rebuilds the objects that later stages use.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mia_bench import provenance
from mia_bench.allocator import kept_memory
from mia_bench.api.architecture import NetworkTask
from mia_bench.api.checkpoint import NO_CHECKPOINT
from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.encoder import Embed
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_uint8
from mia_bench.api.inventory import Inventory
from mia_bench.api.metric import AttackEvidence, Gallery, Imitations
from mia_bench.api.prior import PriorTask
from mia_bench.api.progress import Progress
from mia_bench.components import ConfiguredComponent
from mia_bench.device import capability, preserve_torch_settings, processor, threads
from mia_bench.engine.code import code_of
from mia_bench.engine.plan import Stage
from mia_bench.errors import UsageError
from mia_bench.fetch import file_hash
from mia_bench.memory import noting_halvings
from mia_bench.models.checkpoint_file import fit, read_checkpoint
from mia_bench.models.compiled import compiled
from mia_bench.origin import NOTED
from mia_bench.own_models import OwnTarget
from mia_bench.paths import Roots
from mia_bench.pictures import sheets_folder
from mia_bench.plugins import attribute_errors
from mia_bench.protocol.attack import (
    AttackRun,
    Budget,
    Preparation,
    Step,
    check_reconstructions,
    joined_notes,
    run_attack,
)
from mia_bench.protocol.context import Context
from mia_bench.protocol.data import PARTS, exchanged, make_splits, present_parts
from mia_bench.protocol.evaluation import judging_images, restore_evaluation_model, train_evaluation_model
from mia_bench.protocol.gallery import build_gallery
from mia_bench.protocol.measurement import (
    Instruments,
    Measured,
    add_report,
    attack_evidence,
    measure_reconstructions,
    measure_target,
    picture_tensors,
)
from mia_bench.protocol.oracle import first_of_each, imitate
from mia_bench.protocol.prior import TrainingMonitor, fit_prior, restore_prior
from mia_bench.protocol.target import Target, build_target, restore_target, train_target
from mia_bench.statistics import Estimate
from mia_bench.store import Store, StoredCheckpoint
from mia_bench.track import Track

log = logging.getLogger(__name__)

Artifact = tuple[dict[str, Tensor], dict[str, Any]]

_DIAGNOSTICS = "diagnostics."

_LOADED = 6
"""How many loaded inputs stay in memory."""


@dataclass
class Workspace:
    """What every stage shares: store, device, roots, progress; and a cache of loaded inputs.

    ``compiled``: the prior and the target are compiled while an attack uses them.
    """

    store: Store
    device: torch.device
    roots: Roots
    progress: Progress
    compiled: bool = False
    _loaded: OrderedDict[tuple[str, str], Any] = field(default_factory=OrderedDict)
    _checkpoints: dict[tuple[str, str], StoredCheckpoint] = field(default_factory=dict)

    def load(self, stage: Stage) -> Any:
        """The object behind a finished stage."""
        if stage.id not in self._loaded:
            self._loaded[stage.id] = LOAD[stage.name](stage, self)
            while len(self._loaded) > _LOADED:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(stage.id)
        return self._loaded[stage.id]

    def input(self, stage: Stage, role: str) -> Any:
        """The object behind an input of a stage; None if the stage has no such input."""
        return self.load(stage.inputs[role]) if role in stage.inputs else None

    def forget(self, *stages: Stage) -> None:
        """Drop the loaded objects of stages, so that they are loaded anew."""
        for stage in stages:
            self._loaded.pop(stage.id, None)

    def context(self, stage: Stage) -> Context:
        """What the protocol's functions need beside objects."""
        return Context(
            stage.track.data.resolution,
            stage.seed,
            self.device,
            self.progress,
            self.roots.weights,
            self._checkpoints.get(stage.id, NO_CHECKPOINT),
        )

    def checkpoint(self, stage: Stage) -> StoredCheckpoint:
        """What keeps the state of a stage from now on, the same object until the stage is left."""
        if stage.id not in self._checkpoints:
            self._checkpoints[stage.id] = self.store.checkpoint(*stage.id, self.device.type)
        return self._checkpoints[stage.id]

    def leave(self, stage: Stage) -> None:
        """The stage is done, or has failed."""
        self._checkpoints.pop(stage.id, None)

    def tensors(self, stage: Stage) -> dict[str, Tensor]:
        """The tensors of a finished stage."""
        return self.store.tensors(*stage.id)

    def info(self, stage: Stage) -> dict[str, Any]:
        """The JSON info of a finished stage."""
        return self.store.info(*stage.id)


def compute_data(stage: Stage, workspace: Workspace) -> Artifact:
    """Decode, crop and split once; uint8."""
    splits = read_data(stage, workspace, workspace.store.scratch(*stage.id))
    for line in splits.inventory.warnings() if splits.inventory else ():
        log.warning("%s", line)
    tensors = {}
    for name, part in present_parts(splits).items():
        tensors[f"{name}.images"], tensors[f"{name}.labels"] = part.images, part.labels
    info: dict[str, Any] = {"class_names": splits.class_names, "notes": splits.notes}
    if splits.inventory:
        info["inventory"] = splits.inventory.model_dump(mode="json")
    return tensors, info


def read_data(stage: Stage, workspace: Workspace, scratch: Path) -> Splits:
    """The splits of a data stage, read anew.

    Args:
        stage, workspace: what to read, and where from.
        scratch: folder for finished parts.

    Raises:
        DataError: the data are missing or can't be used.
    """
    return make_splits(stage.make("dataset"), workspace.roots.data, scratch, workspace.context(stage))


def load_data(stage: Stage, workspace: Workspace) -> Splits:
    """The splits."""
    tensors, info = workspace.tensors(stage), workspace.info(stage)
    names = dict.fromkeys([*PARTS, *(name.partition(".")[0] for name in tensors)])
    parts = {n: ImageSet(tensors[f"{n}.images"], tensors[f"{n}.labels"]) for n in names}
    notes = tuple(info.get("notes", ()))
    inventory = Inventory.stored(info)
    return Splits(**parts, class_names=tuple(info["class_names"]), notes=notes, inventory=inventory)


def compute_prior(stage: Stage, workspace: Workspace) -> Artifact:
    """Make the prior and note what it was trained on."""
    state, info = fit_prior_stage(stage, workspace, stage.make("prior").fit)
    return state, {**info, "prior": stage.parts["prior"].spec()}


def fit_prior_stage(
    stage: Stage, workspace: Workspace, fit: Callable[[PriorTask], dict[str, Tensor]]
) -> Artifact:
    """What ``fit`` makes of the public images of a prior stage, monitored."""
    public, context = workspace.input(stage, "data").public, workspace.context(stage)
    encoder: ConfiguredComponent | None = stage.parts.get("encoder")
    monitor = TrainingMonitor(
        public,
        sheets_folder(workspace.store.root, stage.key),
        context,
        (encoder.name, lambda: _load_encoder(stage, workspace)) if encoder else None,
        batch_size=stage.track.attack_batch_size,
    )
    fitted = fit_prior(fit, public, context, source=stage.inputs["data"].key, watch=monitor)
    return fitted.state, {"public_images": fitted.public_images, "watched": monitor.observations}


def load_prior(stage: Stage, workspace: Workspace) -> GenerativeModel:
    """The image model on the device, frozen."""
    prior, splits = stage.parts["prior"], workspace.input(stage, "data")
    state, context = workspace.tensors(stage), workspace.context(stage)
    return restore_prior(prior.make(), state, splits, context, name=prior.name)


def compute_evaluation_model(stage: Stage, workspace: Workspace) -> Artifact:
    """Train the evaluation model on the target's images, or the independent judge on images of its own."""
    splits: Splits = workspace.input(stage, "data")
    training = train_evaluation_model(
        stage.make("architecture"),
        splits,
        judging_images(splits) if stage.name == "judge" else splits.train,
        stage.parts["recipe"],
        workspace.context(stage),
        role=stage.name,
    )
    return dict(training.model.state_dict()), {"losses": training.losses}


def load_evaluation_model(stage: Stage, workspace: Workspace) -> Classifier:
    """The evaluation model or the independent judge on the device, frozen."""
    architecture, splits = stage.make("architecture"), workspace.input(stage, "data")
    state, context = workspace.tensors(stage), workspace.context(stage)
    return restore_evaluation_model(architecture, splits, state, context, role=stage.name)


def compute_train(stage: Stage, workspace: Workspace) -> Artifact:
    """Train the target under its defense."""
    trained = train_target(
        stage.make("defense"),
        stage.make("architecture"),
        _splits_of_target(stage, workspace),
        stage.parts["recipe"],
        workspace.context(stage),
    )
    return trained.state, {"losses": trained.training.losses, "report": trained.report}


def compute_load(stage: Stage, workspace: Workspace) -> Artifact:
    """Read a model of the user's own."""
    return read_own_model(stage, workspace), {"losses": [], "report": {}}


def read_file_of(own: OwnTarget) -> Any:
    """What the file of a model of the user's own holds.

    Raises:
        UsageError: it can't be read, or is not what it was when the run was planned.
    """
    found = read_checkpoint(own.path)
    if file_hash(own.path) != own.sha256:
        raise UsageError(f"{own.path} has changed since the run was planned: give the command again")
    return found


def read_own_model(stage: Stage, workspace: Workspace) -> dict[str, Tensor]:
    """The weights of a model of the user's own, fitted to the track's classes.

    Raises:
        UsageError: they can't be read or don't fit; the file is named.
    """
    own: OwnTarget = stage.parts["defense"]
    checkpoint = read_file_of(own)
    splits, context = workspace.input(stage, "data"), workspace.context(stage)
    architecture, defense = stage.make("architecture"), stage.make("defense")
    task = NetworkTask(splits.num_classes, context.resolution, restoring=True)
    parts = stage.parts["architecture"], stage.parts["deployment"]
    built = f"{' under '.join(part.label for part in parts)}, {splits.num_classes} classes"
    with attribute_errors(own.owner):
        network = build_target(defense, architecture, splits, context, restoring=True)
        try:
            return fit(checkpoint, network, key=own.key, translate=partial(architecture.translate, task=task))
        except UsageError as error:
            raise UsageError(f"{own.path} {error} (built as {built})") from error


def load_train(stage: Stage, workspace: Workspace) -> Target:
    """The target as deployed, on the device, frozen."""
    state, splits = workspace.tensors(stage), workspace.input(stage, "data")
    return restored(stage, splits, state, workspace)


def restored(stage: Stage, splits: Splits, state: Mapping[str, Tensor], workspace: Workspace) -> Target:
    """The target with its weights, as its stage has it built, normalised and deployed."""
    chosen = stage.parts["defense"]
    normalization = None
    if isinstance(chosen, OwnTarget) and chosen.mean and chosen.std:
        normalization = chosen.mean, chosen.std
    with attribute_errors(chosen.owner):
        defense, architecture = stage.make("defense"), stage.make("architecture")
        context = workspace.context(stage)
        return restore_target(defense, architecture, splits, state, context, normalization=normalization)


def compute_gallery(stage: Stage, workspace: Workspace) -> Artifact:
    """Embed the private identities and the decoys once."""
    splits, embed = workspace.input(stage, "data"), _load_encoder(stage, workspace)
    return dict(vars(build_gallery(splits, embed, workspace.context(stage)))), {}


def _load_encoder(stage: Stage, workspace: Workspace) -> Embed:
    embed: Embed = stage.make("encoder").load(workspace.roots.weights, device=workspace.device)
    return embed


def load_gallery(stage: Stage, workspace: Workspace) -> tuple[Gallery, Embed]:
    """The gallery on the CPU, and the encoder that made it on the device."""
    return Gallery(**workspace.tensors(stage)), _load_encoder(stage, workspace)


def compute_oracle(stage: Stage, workspace: Workspace) -> Artifact:
    """Imitate test images with the prior."""
    splits, prior = workspace.input(stage, "data"), workspace.input(stage, "prior")
    _, embed = workspace.input(stage, "gallery")
    chosen = first_of_each(splits.test, stage.track.attacked_classes)
    images, embeddings = imitate(
        prior, chosen.images, embed, workspace.context(stage), batch_size=stage.track.attack_batch_size
    )
    return dict(vars(Imitations(images, embeddings, chosen.labels))), {}


def load_oracle(stage: Stage, workspace: Workspace) -> Imitations:
    """The imitations on the CPU."""
    return Imitations(**workspace.tensors(stage))


def _run_attack(
    stage: Stage, workspace: Workspace, step: Step, classes: Tensor | None = None
) -> tuple[AttackRun, dict[str, Any]]:
    """The attack's step, on all classes or on some, and the info on it."""
    target, prior = workspace.input(stage, "train"), workspace.input(stage, "prior")
    splits, context = workspace.input(stage, "data"), workspace.context(stage)
    prepare = stage.inputs.get("prepare")
    prepared = Preparation.of(workspace.tensors(prepare)) if prepare else None
    networks = {"prior": prior, "target": target.deployed} if workspace.compiled else {}
    with compiled(networks) if networks else nullcontext() as compilation:
        run = run_attack(
            stage.make("attack"),
            target,
            prior,
            splits,
            Budget.of(stage.track),
            context,
            step=step,
            prepared=prepared,
            classes=classes,
            undefended=workspace.input(stage, "undefended"),
        )
    info: dict[str, Any] = {"queries": run.queries, "notes": run.notes}
    if compilation:
        eager = compilation.missing(networks if run.queries else {"prior"})
        info["compiled"] = ["partly compiled" if eager else "compiled"]
        if eager:
            info["notes"] = {**run.notes, step: "; ".join([*run.notes.values(), *eager])}
    return run, info


def compute_prepare(stage: Stage, workspace: Workspace) -> Artifact:
    """The attack's own preparation."""
    run, info = _run_attack(stage, workspace, "prepare")
    prepared: Preparation = run.result
    return prepared.tensors(), info


def compute_invert(stage: Stage, workspace: Workspace) -> Artifact:
    """Run the attack, or join its parts."""
    tensors, info = _joined(stage, workspace) if stage.shards else _inverted(stage, workspace)
    if prepare := stage.inputs.get("prepare"):
        prepared = workspace.info(prepare)
        info["queries"] += prepared["queries"]
        info["notes"] = {**prepared["notes"], **info["notes"]}
        info["prepare"] = {name: prepared["run"][name] for name in ("seconds", "peak_memory")}
    return tensors, info


def compute_shard(stage: Stage, workspace: Workspace) -> Artifact:
    """Run the attack on a part of the classes."""
    splits: Splits = workspace.input(stage, "data")
    parts = Budget.of(stage.track).parts(stage.make("attack"), splits.num_classes)
    classes = parts[stage.spec["shard"] - 1]
    if not len(classes):  # more parts than classes
        return {}, {"queries": 0, "notes": {}}
    return _inverted(stage, workspace, classes)


def _inverted(stage: Stage, workspace: Workspace, classes: Tensor | None = None) -> Artifact:
    """What the attack makes of all classes, or of some."""
    run, info = _run_attack(stage, workspace, "invert", classes)
    check_reconstructions(run.result, run.task, stage.track.data.resolution)
    tensors = {"images": to_uint8(run.result.images)}
    if run.result.latents is not None:
        tensors["latents"] = run.result.latents.float().cpu()
    for name, values in run.result.diagnostics.items():
        tensors[f"{_DIAGNOSTICS}{name}"] = values.float().cpu()
    return tensors, info


def _joined(stage: Stage, workspace: Workspace) -> Artifact:
    """The parts of an attack as one, with the time of all and the largest peak of memory."""
    parts = [found for shard in stage.shards if (found := workspace.tensors(shard))]
    infos = [workspace.info(shard) for shard in stage.shards]
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: torch.cat([part[name] for part in parts]) for name in names}, {
        "queries": sum(info["queries"] for info in infos),
        "notes": joined_notes(info["notes"] for info in infos),
        "shards": {
            "seconds": sum(info["run"]["seconds"] for info in infos),
            "peak_memory": max(info["run"]["peak_memory"] for info in infos),
        },
    }


def compute_assess(stage: Stage, workspace: Workspace) -> Artifact:
    """The target's utility, once for all attacks."""
    measured = measure_target(
        metrics_of(stage),
        workspace.input(stage, "train"),
        _splits_of_target(stage, workspace),
        workspace.context(stage),
    )
    return {}, {"metrics": _values(measured), "notes": measured.notes, **_by_class(measured)}


def _splits_of_target(stage: Stage, workspace: Workspace) -> Splits:
    """The splits of the track's fold: those that targets are trained and assessed on."""
    return exchanged(workspace.input(stage, "data"), stage.track.target.recipe.fold)


def compute_measure(stage: Stage, workspace: Workspace) -> Artifact:
    """All metrics of the reconstructions, and what pictures show beside them."""
    splits: Splits = workspace.input(stage, "data")
    target: Target = workspace.input(stage, "train")
    images, evidence = _evidence(stage, workspace, target, splits)
    measured = _assessed(stage.inputs["assess"], workspace)
    measure_reconstructions(metrics_of(stage), evidence, measured, seed=stage.seed)
    train, invert = (workspace.info(stage.inputs[role]) for role in ("train", "invert"))
    add_report(measured, train["report"], stage.inputs["train"].parts["defense"].owner)
    notes = {**measured.notes, **invert["notes"]}
    if splits.notes:
        notes["data"] = "; ".join(splits.notes)
    info = {
        "metrics": _values(measured),
        "notes": notes,
        **_by_class(measured),
        "class_names": list(splits.class_names),
        "costs": _costs(stage, workspace),
        "inverted": stage.inputs["invert"].key,
    }
    return picture_tensors(evidence, images.shape, seed=stage.seed), info


def compute_metric(stage: Stage, workspace: Workspace) -> Artifact:
    """A metric of the target or of the reconstructions, apart from the others."""
    target = workspace.input(stage, "train")
    if "invert" not in stage.inputs:
        splits = _splits_of_target(stage, workspace)
        measured = measure_target(metrics_of(stage), target, splits, workspace.context(stage))
    else:
        measured = Measured()
        _, evidence = _evidence(stage, workspace, target, workspace.input(stage, "data"))
        measure_reconstructions(metrics_of(stage), evidence, measured, seed=stage.seed)
    return {}, {"metrics": _values(measured), "notes": measured.notes, **_by_class(measured)}


def _evidence(
    stage: Stage, workspace: Workspace, target: Target, splits: Splits
) -> tuple[Tensor, AttackEvidence]:
    """The reconstructions ``(K, M, 3, H, W)``, and all that metrics see of them."""
    tensors, instruments = workspace.tensors(stage.inputs["invert"]), load_instruments(stage, workspace)
    said = {
        name.removeprefix(_DIAGNOSTICS): values
        for name, values in tensors.items()
        if name.startswith(_DIAGNOSTICS)
    }
    images = tensors["images"]
    return images, attack_evidence(images, target, splits, instruments, workspace.device, said)


def load_instruments(stage: Stage, workspace: Workspace) -> Instruments:
    """What a measure stage measures with."""
    gallery, embed = workspace.input(stage, "gallery") or (None, None)
    model, judge = workspace.input(stage, "evaluator"), workspace.input(stage, "judge")
    oracle = workspace.input(stage, "oracle")
    return Instruments(model, judge, gallery, embed, stage.spec["missing"], oracle, workspace.roots.weights)


def metrics_of(stage: Stage) -> dict[str, Any]:
    """The metrics of a stage by the words that name them in errors."""
    return {metric.owner: metric.make() for metric in stage.parts["metrics"]}


def _assessed(stage: Stage, workspace: Workspace) -> Measured:
    """What the assess stage measured of the target."""
    info, metrics = workspace.info(stage), stage.parts["metrics"]
    values = {name: value and Estimate(**value) for name, value in info["metrics"].items()}
    sources = {name: metric.owner for metric in metrics for name in metric.component.quantities}
    for name, quantity in (pair for metric in metrics for pair in metric.component.quantities.items()):
        if (value := values.get(name)) and not quantity.interval:  # an older artifact may hold one
            values[name] = value.without_interval()
    return Measured(values, dict(info["notes"]), sources=sources, **{name: info[name] for name in _BY_CLASS})


def _values(measured: Measured) -> dict[str, Any]:
    """The numbers as JSON."""
    return {name: value and dict(vars(value)) for name, value in measured.values.items()}


_BY_CLASS = ("per_class", "class_counts", "per_image")


def _by_class(measured: Measured) -> dict[str, Any]:
    """What records keep of single classes, as JSON."""
    return {name: getattr(measured, name) for name in _BY_CLASS}


def _costs(stage: Stage, workspace: Workspace) -> dict[str, Any]:
    invert = stage.inputs["invert"]
    info, train = workspace.info(invert), workspace.info(stage.inputs["train"])["run"]
    attack = [info.get("shards", info["run"]), *([info["prepare"]] if "prepare" in info else [])]
    return {
        "train_seconds": round(train["seconds"], 2) if stage.inputs["train"].name == "train" else None,
        "invert_seconds": round(sum(run["seconds"] for run in attack), 2),
        "peak_memory_bytes": max(run["peak_memory"] for run in (train, *attack)),
        "target_queries": info["queries"],
    }


COMPUTE: dict[str, Callable[[Stage, Workspace], Artifact]] = {
    "data": compute_data,
    "prior": compute_prior,
    "evaluator": compute_evaluation_model,
    "judge": compute_evaluation_model,
    "gallery": compute_gallery,
    "oracle": compute_oracle,
    "train": compute_train,
    "load": compute_load,
    "assess": compute_assess,
    "prepare": compute_prepare,
    "shard": compute_shard,
    "invert": compute_invert,
    "measure": compute_measure,
    "metric": compute_metric,
}

LOAD: dict[str, Callable[[Stage, Workspace], Any]] = {
    "data": load_data,
    "prior": load_prior,
    "evaluator": load_evaluation_model,
    "judge": load_evaluation_model,
    "gallery": load_gallery,
    "oracle": load_oracle,
    "train": load_train,
    "load": load_train,
}
"""Of the stages whose result is an object; the others are read through their tensors and info."""


@contextmanager
def computing(track: Track) -> Iterator[None]:
    """What every stage of a track is computed under: its number of threads, and memory that is kept."""
    with threads(track.threads), kept_memory():
        yield


def run_stage(stage: Stage, workspace: Workspace) -> None:
    """Compute one stage and store its artifact, with the time it took and the memory peak.

    Files that the stage kept while it was under way are removed once the artifact is stored. If it fails,
    its loaded inputs are dropped: it may have modified them.
    """
    with computing(stage.track):
        _run_stage(stage, workspace)


def _run_stage(stage: Stage, workspace: Workspace) -> None:
    provenance.reset_peak_memory(workspace.device)
    checkpoint = workspace.checkpoint(stage)
    started, clock = provenance.now(), time.perf_counter()
    try:
        with preserve_torch_settings(), noting_halvings() as halved:
            tensors, info = COMPUTE[stage.name](stage, workspace)
    except BaseException:
        workspace.forget(*stage.inputs.values())
        raise
    finally:
        workspace.leave(stage)
    if workspace.device.type == "cuda":
        torch.cuda.synchronize(workspace.device)
    info["run"] = {
        "seconds": checkpoint.earlier + time.perf_counter() - clock,
        "peak_memory": provenance.peak_memory(workspace.device),
        "track": stage.track.name,
        "subject": stage.subject,
        "settings": stage.settings_hash,
        "label": stage.label,
        "started": started,
        "finished": provenance.now(),
        "device": ", ".join([provenance.device_name(workspace.device), *info.pop("compiled", [])]),
        "threads": torch.get_num_threads() if workspace.device.type == "cpu" else None,
        "capability": capability(workspace.device),
        "processor": processor() if workspace.device.type == "cpu" else None,
        "halved": "; ".join(halved.values()),
        "torch": torch.__version__,
        "git": provenance.git_commit(),
        "code": code_of(stage),
    }
    info[NOTED] = stage.origin.to_json()
    workspace.store.save(stage.name, stage.key, tensors, info)
    workspace.store.clear(*stage.id)
