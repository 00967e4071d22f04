"""The stages: from a spec and its inputs to an artifact, and from an artifact back to objects.

Each stage is a pair of functions: ``compute(stage, workspace)`` returns tensors and JSON info for the
store, ``load(stage, workspace)`` rebuilds what later stages use.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mia_bench.api.access import open_access
from mia_bench.api.architecture import NetworkTask
from mia_bench.api.attack import Attack, AttackTask, Reconstructions
from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.defense import BuildContext, Defense
from mia_bench.api.encoder import Embed
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_float, to_uint8
from mia_bench.api.metric import AttackEvidence, Gallery, Measurement, TargetEvidence
from mia_bench.api.prior import PriorTask
from mia_bench.api.progress import Progress
from mia_bench.components import ConfiguredComponent, attribute_errors
from mia_bench.data.fingerprints import image_fingerprints
from mia_bench.device import autocast, preserve_torch_settings
from mia_bench.engine.code import code_of
from mia_bench.engine.plan import Stage
from mia_bench.errors import DataError, MiaBenchError
from mia_bench.frechet import frechet_distance
from mia_bench.models.inference import ModuleT, embed_images, move_model, predict_probabilities
from mia_bench.models.snapshot import Snapshot
from mia_bench.paths import Roots
from mia_bench.record import PER_CLASS
from mia_bench.seeds import derive, generator, seeded
from mia_bench.statistics import class_means, estimate
from mia_bench.store import Store
from mia_bench.training import train_classifier

Artifact = tuple[dict[str, Tensor], dict[str, Any]]
T = TypeVar("T")

log = logging.getLogger(__name__)

DRAWS = 16
"""How often a random target is asked for one averaged answer."""

TRAINED_ON = "trained_on"
"""Name of the tensor in a prior's state that holds the fingerprints of its training images."""

WATCHED = 1000
"""Images on each side of the Fréchet distance that is computed while a prior trains."""

EXAMPLES = 4
"""Private training images a class kept beside the reconstructions, for pictures."""

_LOOKS = "looks.json"
"""The Fréchet distances of a prior's training so far, beside its sample sheets."""

_KEEP = 6
"""How many loaded inputs stay in memory."""


@dataclass
class Workspace:
    """What every stage shares: store, device, data roots, progress; and a cache of loaded inputs.

    ``compiled``: what attacks pass through, priors and targets, goes through ``torch.compile``.
    """

    store: Store
    device: torch.device
    roots: Roots
    progress: Progress
    compiled: bool = False
    _loaded: OrderedDict[tuple[str, str], Any] = field(default_factory=OrderedDict)

    def load(self, stage: Stage) -> Any:
        """The object behind a finished stage."""
        if stage.id not in self._loaded:
            self._loaded[stage.id] = LOAD[stage.name](stage, self)
            while len(self._loaded) > _KEEP:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(stage.id)
        return self._loaded[stage.id]

    def forget(self, *stages: Stage) -> None:
        """Drop what was loaded of stages, so that it is loaded anew."""
        for stage in stages:
            self._loaded.pop(stage.id, None)

    def quick(self, model: ModuleT) -> ModuleT:
        """The model, which compiles itself when it is called if the run asked for that."""
        if self.compiled:
            model.compile()
        return model

    def tensors(self, stage: Stage) -> dict[str, Tensor]:
        """The tensors of a finished stage."""
        return self.store.tensors(*stage.id)

    def info(self, stage: Stage) -> dict[str, Any]:
        """The JSON info of a finished stage."""
        return self.store.info(*stage.id)


@dataclass(frozen=True)
class Target:
    """A trained target: its network, what is deployed, and whether that answers at random."""

    network: Classifier
    deployed: nn.Module
    stochastic: bool

    @property
    def draws(self) -> int:
        """How often to ask for one answer."""
        return DRAWS if self.stochastic else 1


# --- data ------------------------------------------------------------------------------------

_PARTS = ("train", "validation", "test", "public", "decoys")
_OPTIONAL_PARTS = ("judging",)


def compute_data(stage: Stage, workspace: Workspace) -> Artifact:
    """Decode, crop and split once; uint8."""
    splits: Splits = (
        stage.parts["dataset"]
        .make()
        .load(
            workspace.roots.data,
            resolution=stage.spec["resolution"],
            seed=derive(stage.seed, "split"),
            progress=workspace.progress,
            scratch=workspace.store.scratch(*stage.id),
        )
    )
    _check_splits(splits, stage.spec["resolution"])
    tensors = {}
    for name in (*_PARTS, *_OPTIONAL_PARTS):
        part: ImageSet | None = getattr(splits, name)
        if part is not None:
            tensors[f"{name}.images"], tensors[f"{name}.labels"] = part.images, part.labels
    return tensors, {"class_names": splits.class_names, "notes": splits.notes}


def _check_splits(splits: Splits, resolution: int) -> None:
    if splits.num_classes < 2:
        raise DataError(f"a track needs 2 private classes or more, found {splits.num_classes}")
    for name in (*_PARTS, *_OPTIONAL_PARTS):
        if (part := getattr(splits, name)) is not None:
            _check_part(
                name, part, None if name in ("public", "decoys") else splits.num_classes, resolution
            )
    if len(splits.train.labels.unique()) != splits.num_classes:
        raise DataError("some private classes have no train images")
    if not len(splits.test):
        raise DataError("there are no test images")


def _check_part(name: str, part: ImageSet, classes: int | None, resolution: int) -> None:
    """Whether a part is as the contract of a data set has it."""
    images, labels = part.images, part.labels
    shape = (len(labels), 3, resolution, resolution)
    if images.dtype != torch.uint8 or tuple(images.shape) != shape:
        raise DataError(
            f"{name} images are {images.dtype} {tuple(images.shape)}, not uint8 {shape}"
        )
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise DataError(f"{name} labels are {labels.dtype} {tuple(labels.shape)}, not int64 (N,)")
    if (
        classes is not None
        and len(labels)
        and not 0 <= int(labels.min()) <= int(labels.max()) < classes
    ):
        raise DataError(f"{name} labels are not from 0 to {classes - 1}")


def load_data(stage: Stage, workspace: Workspace) -> Splits:
    """The splits."""
    tensors, info = workspace.tensors(stage), workspace.info(stage)
    parts = {
        name: ImageSet(tensors[f"{name}.images"], tensors[f"{name}.labels"])
        for name in (*_PARTS, *_OPTIONAL_PARTS)
        if f"{name}.images" in tensors or name in _PARTS
    }
    return Splits(
        **parts, class_names=tuple(info["class_names"]), notes=tuple(info.get("notes", ()))
    )


# --- prior -----------------------------------------------------------------------------------


def compute_prior(stage: Stage, workspace: Workspace) -> Artifact:
    """Make the attacker's image model from the public images, and from nothing else."""
    prior: ConfiguredComponent = stage.parts["prior"]
    state, info = fit_prior(stage, workspace, prior.make().fit)
    return state, {**info, "prior": prior.spec()}


def fit_prior(
    stage: Stage, workspace: Workspace, fit: Callable[[PriorTask], dict[str, Tensor]]
) -> Artifact:
    """What ``fit`` makes of the public images of a prior stage, and what it was trained on."""
    data = stage.inputs["data"]
    splits: Splits = workspace.load(data)
    watch = PriorWatch(stage, workspace, splits.public)
    task = PriorTask(
        public=splits.public,
        source=data.key,
        resolution=stage.track.data.resolution,
        generator=generator(stage.seed, "prior"),
        device=workspace.device,
        progress=workspace.progress,
        checkpoint=workspace.store.checkpoint(*stage.id),
        weights=workspace.roots.weights,
        watch=watch,
    )
    with seeded(stage.seed, "prior"):
        state = fit(task)
    here = TRAINED_ON not in state
    if here:
        state[TRAINED_ON] = image_fingerprints(splits.public.images)
    return state, {"public_images": len(splits.public) if here else None, "watched": watch.seen}


class PriorWatch:
    """Looks at a prior while it trains: sample sheets, and Fréchet distances to the public images.

    Attributes:
        seen: for each look the step, the distance, and the features it was computed in.
    """

    def __init__(self, stage: Stage, workspace: Workspace, public: ImageSet) -> None:
        from mia_bench.pictures import sheets_folder

        self._folder = sheets_folder(workspace.store.root, stage.key)
        self.seen: list[dict[str, Any]] = self._seen_before()
        self._stage = stage
        self._workspace = workspace
        self._public = public
        self._embed: Embed | None = None
        self._reference: Tensor | None = None

    def __call__(self, model: GenerativeModel, step: int) -> None:
        """Look at the model after ``step`` steps."""
        from mia_bench.pictures import save_sheet

        device = self._workspace.device
        draws = generator(self._stage.seed, "watch")
        images = model.render(model.sample(WATCHED, draws), device=device)
        save_sheet(to_uint8(images[:64]).numpy(), self._folder / f"{step:07d}.png")
        distance = self._distance(images, draws) if len(self._public) > 1 else None
        look = {"step": step, "frechet_distance": distance, "features": self._name}
        self.seen = [*(before for before in self.seen if before["step"] < step), look]
        (self._folder / _LOOKS).write_text(json.dumps(self.seen), encoding="utf-8")

    def _distance(self, images: Tensor, draws: torch.Generator) -> float:
        if self._reference is None:
            chosen = torch.randperm(len(self._public), generator=draws)[:WATCHED]
            self._reference = self._features(to_float(self._public.images[chosen]))
        return frechet_distance(self._reference, self._features(images))

    def _seen_before(self) -> list[dict[str, Any]]:
        """The looks of a training that was stopped and now goes on."""
        try:
            found: list[dict[str, Any]] = json.loads((self._folder / _LOOKS).read_text("utf-8"))
        except (OSError, ValueError):
            return []
        return found

    @property
    def _name(self) -> str:
        encoder: ConfiguredComponent | None = self._stage.parts.get("encoder")
        return encoder.name if encoder else "pixels"

    def _features(self, images: Tensor) -> Tensor:
        if self._stage.parts.get("encoder") is None:
            return nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)
        if self._embed is None:
            self._embed = _load_encoder(self._stage, self._workspace)
        return embed_images(self._embed, images, self._workspace.device)


def load_prior(stage: Stage, workspace: Workspace) -> GenerativeModel:
    """The image model on the device, frozen.

    Raises:
        DataError: it was trained on an image that is private here.
    """
    state = workspace.tensors(stage)
    prior: ConfiguredComponent = stage.parts["prior"]
    splits: Splits = workspace.load(stage.inputs["data"])
    check_prior_is_public(prior.name, state.pop(TRAINED_ON), splits)
    model: GenerativeModel = prior.make().build(state, resolution=stage.track.data.resolution)
    return workspace.quick(model.to(workspace.device).eval().requires_grad_(False))


def check_prior_is_public(name: str, trained_on: Tensor, splits: Splits) -> None:
    """Refuse a prior that saw a private image.

    Raises:
        DataError: it did; says how many.
    """
    parts = (splits.train, splits.validation, splits.test, splits.judging)
    private = torch.cat([image_fingerprints(part.images) for part in parts if part is not None])
    if seen := int(torch.isin(private, trained_on).sum()):
        raise DataError(
            f"prior {name!r} was trained on {seen} of the {len(private)} private images: an attack "
            "with it would say nothing"
        )


# --- classifiers -----------------------------------------------------------------------------


def compute_evaluator(stage: Stage, workspace: Workspace) -> Artifact:
    """Train the evaluation model on the private training images; never a defense."""
    splits: Splits = workspace.load(stage.inputs["data"])
    return _compute_classifier(stage, workspace, splits, splits.train)


def compute_judge(stage: Stage, workspace: Workspace) -> Artifact:
    """Train the independent judge on images that nothing else is trained on."""
    splits: Splits = workspace.load(stage.inputs["data"])
    if splits.judging is None:
        raise DataError("the data set keeps no images for an independent judge")
    return _compute_classifier(stage, workspace, splits, splits.judging)


def _compute_classifier(
    stage: Stage, workspace: Workspace, splits: Splits, images: ImageSet
) -> Artifact:
    model = _build_classifier(stage, splits, workspace, restoring=False)
    result = train_classifier(
        model,
        images,
        stage.parts["recipe"],
        Defense(),
        seed=derive(stage.seed, stage.name),
        device=workspace.device,
        progress=workspace.progress,
    )
    return dict(result.model.state_dict()), {"losses": result.losses}


def _build_classifier(
    stage: Stage, splits: Splits, workspace: Workspace, *, restoring: bool
) -> Classifier:
    with seeded(stage.seed, stage.name):
        return _build_network(stage, splits, workspace, restoring=restoring)


def _build_network(
    stage: Stage, splits: Splits, workspace: Workspace, *, restoring: bool
) -> Classifier:
    task = NetworkTask(
        splits.num_classes, stage.track.data.resolution, restoring, workspace.roots.weights
    )
    built: Classifier = stage.parts["architecture"].make().build(task)
    return built


def load_classifier(stage: Stage, workspace: Workspace) -> Classifier:
    """The evaluation model or the judge on the device, frozen."""
    splits: Splits = workspace.load(stage.inputs["data"])
    model = _build_classifier(stage, splits, workspace, restoring=True)
    model.load_state_dict(workspace.tensors(stage))
    return move_model(model, workspace.device).eval().requires_grad_(False)


def compute_train(stage: Stage, workspace: Workspace) -> Artifact:
    """Train the target under its defense."""
    splits: Splits = workspace.load(stage.inputs["data"])
    defense: Defense = stage.parts["defense"].make()
    model = _build_target(stage, defense, splits, workspace, restoring=False)
    result = train_classifier(
        model,
        splits.train,
        stage.track.target.recipe,
        defense,
        seed=derive(stage.seed, "train"),
        device=workspace.device,
        progress=workspace.progress,
    )
    info = {
        "losses": result.losses,
        "report": _checked_report(defense.report(result.setup)),
    }
    return dict(result.model.state_dict()), info


def _build_target(
    stage: Stage, defense: Defense, splits: Splits, workspace: Workspace, *, restoring: bool
) -> Classifier:
    resolution = stage.track.data.resolution
    context = BuildContext(
        num_classes=splits.num_classes,
        resolution=resolution,
        public=splits.public,
        generator=generator(stage.seed, "build"),
        restoring=restoring,
    )

    def build() -> Classifier:
        return _build_network(stage, splits, workspace, restoring=restoring)

    with seeded(stage.seed, "init"):
        return defense.build_model(build, context)


def load_train(stage: Stage, workspace: Workspace) -> Target:
    """The target as deployed, on the device, frozen."""
    splits: Splits = workspace.load(stage.inputs["data"])
    defense: Defense = stage.parts["defense"].make()
    with attribute_errors(stage.parts["defense"]):
        network = _build_target(stage, defense, splits, workspace, restoring=True)
    network.load_state_dict(workspace.tensors(stage))
    network = move_model(network, workspace.device).eval().requires_grad_(False)
    with attribute_errors(stage.parts["defense"]):
        deployed, stochastic = defense.deploy(network), defense.stochastic
        if not isinstance(deployed, nn.Module):
            raise TypeError(f"deploy returned {type(deployed).__name__}, not a module")
    deployed = move_model(deployed, workspace.device).eval().requires_grad_(False)
    return Target(network, workspace.quick(deployed), stochastic)


# --- gallery ---------------------------------------------------------------------------------


def compute_gallery(stage: Stage, workspace: Workspace) -> Artifact:
    """Embed the private identities and the decoys once; measure the encoder and its ceiling."""
    splits: Splits = workspace.load(stage.inputs["data"])
    embed = _load_encoder(stage, workspace)
    parts = (splits.train, splits.test, splits.decoys)
    total, done = sum(map(len, parts)), 0
    embedded: list[Tensor] = []
    for part in parts:
        rows = [embedded[0][:0]] if embedded else []
        for chunk in part.images.split(256) if len(part) else ():
            rows.append(embed(to_float(chunk.to(workspace.device))).cpu())
            done += len(chunk)
            workspace.progress(done, total, "image")
        embedded.append(torch.cat(rows))
    train, test, decoys = embedded
    tensors = {
        "private": _centroids(train, splits.train.labels),
        "decoys": _centroids(decoys, splits.decoys.labels),
        "test": test,
    }
    tensors["verification"] = verify_pairs(
        decoys, splits.decoys.labels, generator(stage.seed, "verification")
    )
    return tensors, {}


def _load_encoder(stage: Stage, workspace: Workspace) -> Embed:
    embed: Embed = (
        stage.parts["encoder"].make().load(workspace.roots.weights, device=workspace.device)
    )
    return embed


def _centroids(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Unit-norm mean embedding of each label, in the labels' order."""
    _, index = labels.unique(return_inverse=True)
    sums = torch.zeros(int(index.max()) + 1 if len(index) else 0, embeddings.shape[1])
    return nn.functional.normalize(sums.index_add(0, index, embeddings), dim=1)


def verify_pairs(
    embeddings: Tensor, labels: Tensor, draws: torch.Generator, pairs: int = 3000
) -> Tensor:
    """Whether the encoder tells same from different, on pairs of people it never saw.

    As many pairs of one identity as of two, up to ``pairs`` in all; the threshold is chosen on one
    half of them and judged on the other. Returns ``(P,)`` 0 or 1 for the pairs judged, empty when
    fewer than 20 pairs of one identity exist.
    """
    order = torch.randperm(len(labels), generator=draws)
    order = order[labels[order].argsort(stable=True)]
    same = (labels[order][1:] == labels[order][:-1]).nonzero().flatten()
    same = same[torch.randperm(len(same), generator=draws)][: pairs // 2]
    if len(same) < 20:
        return torch.zeros(0)
    left, right = order[same], order[same + 1]
    other = right[torch.randperm(len(right), generator=draws)]
    different = labels[left] != labels[other]
    likeness = (embeddings[left] * embeddings[right]).sum(1)
    unlikeness = (embeddings[left] * embeddings[other]).sum(1)[different]
    scores = torch.cat([likeness, unlikeness])
    truth = torch.cat([torch.ones_like(likeness), torch.zeros_like(unlikeness)]).bool()
    half = torch.randperm(len(scores), generator=draws)
    tuning, judging = half[: len(half) // 2], half[len(half) // 2 :]
    right_at = (scores[tuning] >= scores[tuning][:, None]) == truth[tuning]
    threshold = scores[tuning][right_at.float().mean(1).argmax()]
    return ((scores[judging] >= threshold) == truth[judging]).float()


@dataclass(frozen=True)
class LoadedGallery:
    """The gallery and the encoder that made it."""

    gallery: Gallery
    embed: Embed


def load_gallery(stage: Stage, workspace: Workspace) -> LoadedGallery:
    """The gallery on the CPU, and the encoder on the device."""
    tensors = workspace.tensors(stage)
    gallery = Gallery(**tensors)
    return LoadedGallery(gallery, _load_encoder(stage, workspace))


# --- attack ----------------------------------------------------------------------------------


def _attack_task(stage: Stage, workspace: Workspace, attack: Attack, batch_size: int) -> AttackTask:
    splits: Splits = workspace.load(stage.inputs["data"])
    target: Target = workspace.load(stage.inputs["train"])
    attacked = stage.spec["attacked_classes"] or splits.num_classes
    state = workspace.tensors(stage.inputs["prepare"]) if "prepare" in stage.inputs else {}
    return AttackTask(
        access=open_access(
            attack.access,
            target.deployed,
            splits.num_classes,
            network=target.network,
            stochastic=target.stochastic,
        ),
        prior=workspace.load(stage.inputs["prior"]),
        public=splits.public,
        classes=torch.arange(min(attacked, splits.num_classes)),
        images_per_class=stage.spec["images_per_class"],
        # Nothing of the defense: every defense meets the same candidates.
        generator=generator(stage.seed, stage.name, "attack"),
        device=workspace.device,
        batch_size=batch_size,
        progress=workspace.progress,
        state=state,
    )


def compute_prepare(stage: Stage, workspace: Workspace) -> Artifact:
    """The attack's own preparation."""
    attack: Attack = stage.parts["attack"].make()
    state, task, notes = _within_memory(stage, workspace, attack, attack.prepare)
    return state, {"queries": task.access.queries, "notes": notes}


def _within_memory(
    stage: Stage, workspace: Workspace, attack: Attack, work: Callable[[AttackTask], T]
) -> tuple[T, AttackTask, dict[str, str]]:
    """What ``work`` makes of the stage's task, that task, and notes.

    Out of memory, the batch halves and the run says so.
    """
    batch_size: int = stage.spec["batch_size"]
    notes: dict[str, str] = {}
    while True:
        task = _attack_task(stage, workspace, attack, batch_size)
        try:
            with (
                seeded(stage.seed, stage.name),
                autocast(stage.track.attack_precision, workspace.device),
                _left_alone(stage, workspace),
            ):
                return work(task), task, notes
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or batch_size == 1:
                raise
        # After the handler: its traceback would keep the tensors alive.
        batch_size //= 2
        notes[stage.name] = f"out of memory; the batch was halved to {batch_size}"
        log.warning("%s: %s", stage.label, notes[stage.name])
        if workspace.device.type == "cuda":
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _left_alone(stage: Stage, workspace: Workspace) -> Iterator[None]:
    """Within it an attack may use the target and the prior, and change nothing of them.

    Raises:
        MiaBenchError: it changed a weight or a buffer, or left training mode on.
    """
    prior: GenerativeModel = workspace.load(stage.inputs["prior"])
    target: Target = workspace.load(stage.inputs["train"])
    models: dict[str, nn.Module] = {"prior": prior, "target": target.deployed}
    if target.network is not target.deployed:
        models["target's network"] = target.network
    before = {name: Snapshot.of(model) for name, model in models.items()}
    changed: list[str] = []
    try:
        yield
    finally:
        for name, model in models.items():
            changed += [f"{key} of the {name}" for key in before[name].changed(model)]
            changed += [f"the mode of the {name}"] if before[name].mode_changed(model) else []
        if changed:
            workspace.forget(stage.inputs["prior"], stage.inputs["train"])
    if changed:
        raise MiaBenchError(f"the attack changed {changed[0]}; it may only use it")


def out_of_memory(error: Exception) -> bool:
    """Whether torch or Python ran out of memory; on a CPU torch has no error of its own for it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        "DefaultCPUAllocator" in str(error)
    )


def compute_invert(stage: Stage, workspace: Workspace) -> Artifact:
    """Run the attack."""
    attack: Attack = stage.parts["attack"].make()
    result, task, notes = _within_memory(stage, workspace, attack, attack.invert)
    _check_reconstructions(stage, result, task)
    queries = task.access.queries
    if "prepare" in stage.inputs:
        prepared = workspace.info(stage.inputs["prepare"])
        queries += prepared["queries"]
        notes = {**prepared["notes"], **notes}
    tensors = {"images": to_uint8(result.images)}
    if result.latents is not None:
        tensors["latents"] = result.latents.float().cpu()
    return tensors, {"queries": queries, "notes": notes}


def _check_reconstructions(stage: Stage, result: Reconstructions, task: AttackTask) -> None:
    name = stage.parts["attack"].name
    if not isinstance(result, Reconstructions):
        raise MiaBenchError(
            f"attack {name!r} returned {type(result).__name__}, not Reconstructions"
        )
    resolution = stage.track.data.resolution
    expected = (len(task.classes), task.images_per_class, 3, resolution, resolution)
    images = result.images
    if tuple(images.shape) != expected:
        raise MiaBenchError(
            f"attack {name!r} returned images {tuple(images.shape)}, expected {expected}"
        )
    if (latents := result.latents) is not None:
        if latents.shape[:2] != images.shape[:2]:
            raise MiaBenchError(
                f"attack {name!r} returned latents {tuple(latents.shape)}, expected {expected[:2]} first"
            )
        if not bool(torch.isfinite(latents).all()):
            raise MiaBenchError(f"attack {name!r} returned latents with NaN or infinity")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise MiaBenchError(f"attack {name!r} returned images of {images.dtype}")
    if not bool(torch.isfinite(images).all()):
        raise MiaBenchError(f"attack {name!r} returned images with NaN or infinity")
    if float(images.min()) < 0 or float(images.max()) > 1:
        raise MiaBenchError(f"attack {name!r} returned images outside [0, 1]")


# --- measurement -----------------------------------------------------------------------------


def compute_assess(stage: Stage, workspace: Workspace) -> Artifact:
    """The target's utility, once for all attacks."""
    splits: Splits = workspace.load(stage.inputs["data"])
    target: Target = workspace.load(stage.inputs["train"])
    evidence = TargetEvidence(target.deployed, splits, target.draws, workspace.device)
    metrics: dict[str, Any] = {}
    notes: dict[str, str] = {}
    with _seen(stage, workspace, {"target": target.deployed}, splits) as unchanged:
        for resolved in stage.parts["metrics"]:
            with seeded(stage.seed, "assess"), attribute_errors(resolved, all_errors=True):
                computed = resolved.make().compute(evidence)
                unchanged()
                _collect(resolved, computed, metrics, notes)
    return {}, {"metrics": metrics, "notes": notes}


def compute_measure(stage: Stage, workspace: Workspace) -> Artifact:
    """All metrics of the reconstructions, and what pictures need."""
    splits: Splits = workspace.load(stage.inputs["data"])
    target: Target = workspace.load(stage.inputs["train"])
    judge: Classifier = workspace.load(stage.inputs["evaluator"])
    images = workspace.tensors(stage.inputs["invert"])["images"]
    loaded = workspace.load(stage.inputs["gallery"]) if "gallery" in stage.inputs else None
    count, each = images.shape[:2]
    labels = torch.arange(count).repeat_interleave(each)
    flat = images.flatten(0, 1)
    evidence = AttackEvidence(
        images=flat,
        labels=labels,
        target=target.deployed,
        draws=target.draws,
        splits=splits,
        evaluation_model=judge,
        judge=workspace.load(stage.inputs["judge"]) if "judge" in stage.inputs else None,
        gallery=loaded.gallery if loaded else None,
        embed=loaded.embed if loaded else None,
        missing=stage.spec["missing"],
        device=workspace.device,
    )
    assessed = workspace.info(stage.inputs["assess"])
    metrics, notes = dict(assessed["metrics"]), dict(assessed["notes"])
    per_class: dict[str, list[float]] = {}
    seen = {"target": target.deployed, "evaluation model": judge}
    with _seen(stage, workspace, seen, splits, flat) as unchanged:
        for resolved in stage.parts["metrics"]:
            with seeded(stage.seed, "measure"), attribute_errors(resolved, all_errors=True):
                computed = resolved.make().compute(evidence)
                unchanged()
                _collect(resolved, computed, metrics, notes)
            for name in PER_CLASS:
                if isinstance(measurement := computed.get(name), Measurement):
                    per_class[name] = [round(value, 6) for value in class_means(measurement)]
    for name, value in workspace.info(stage.inputs["train"])["report"].items():
        if isinstance(value, str):
            metrics[name], notes[name] = None, value
        else:
            metrics[name] = {"value": value, "low": value, "high": value, "n": 1}
    with seeded(stage.seed, "answers"):
        probabilities = predict_probabilities(
            target.deployed, flat, device=workspace.device, draws=target.draws
        )
    judged = predict_probabilities(judge, flat, device=workspace.device).argmax(1)
    tensors = {
        "reconstructions": images,
        "classes": torch.arange(count),
        "examples": _examples(splits.train, count),
        "target_confidence": probabilities[torch.arange(len(labels)), labels].view(count, each),
        "judged": judged.view(count, each),
    }
    info = {
        "metrics": metrics,
        "per_class": per_class,
        "notes": {
            **notes,
            **workspace.info(stage.inputs["invert"])["notes"],
            **({"data": "; ".join(splits.notes)} if splits.notes else {}),
        },
        "class_names": list(splits.class_names),
        "costs": _costs(stage, workspace),
    }
    return tensors, info


def _checked_report(report: dict[str, float | str]) -> dict[str, float | str]:
    """What a defense reports, with a reason in place of a number that is not finite.

    Raises:
        MiaBenchError: a name is no name.
    """
    if wrong := [name for name in report if not isinstance(name, str) or not name]:
        raise MiaBenchError(f"its report has the name {wrong[0]!r}, which is none")
    return {
        name: value
        if isinstance(value, str)
        else float(value)
        if math.isfinite(value)
        else f"the value is {value}"
        for name, value in report.items()
    }


@contextlib.contextmanager
def _seen(
    stage: Stage,
    workspace: Workspace,
    models: dict[str, nn.Module],
    splits: Splits,
    images: Tensor | None = None,
) -> Iterator[Callable[[], None]]:
    """What metrics see; gives a function that raises where they have changed it.

    What was loaded of the stage is forgotten then.
    """
    before = {name: Snapshot.of(model) for name, model in models.items()}
    parts = [getattr(splits, name) for name in (*_PARTS, *_OPTIONAL_PARTS)]
    tensors = [part.images for part in parts if part is not None]
    tensors += [images] if images is not None else []
    versions = [tensor._version for tensor in tensors]  # torch counts changes in place

    def unchanged() -> None:
        changed = [
            f"{key} of the {n}" for n, model in models.items() for key in before[n].changed(model)
        ]
        if [tensor._version for tensor in tensors] != versions:
            changed.append("images")
        if changed:
            raise MiaBenchError(f"it changes {changed[0]}")

    try:
        yield unchanged
    except BaseException:
        workspace.forget(*stage.inputs.values())
        raise


def _collect(
    resolved: ConfiguredComponent,
    computed: dict[str, Measurement | str],
    metrics: dict[str, Any],
    notes: dict[str, str],
) -> None:
    """Add what a family gave.

    Raises:
        MiaBenchError: it gave what it does not declare, or what another family gave.
    """
    for name in computed:
        if name not in resolved.component.names:
            raise MiaBenchError(f"it gives {name!r}, which is not among its names")
        if name in metrics:
            raise MiaBenchError(f"it gives {name!r}, which another metric of the track gave")
    computed = {n: computed.get(n, "the metric did not give it") for n in resolved.component.names}
    for name, measurement in computed.items():
        try:
            found = estimate(measurement) if isinstance(measurement, Measurement) else measurement
        except ValueError as error:  # no samples, NaN: never a number
            found = str(error)
        if isinstance(found, str):
            metrics[name], notes[name] = None, found
        else:
            metrics[name] = {
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "n": found.n,
            }


def _examples(train: ImageSet, classes: int) -> Tensor:
    """The first :data:`EXAMPLES` training images of each class, repeating where there are fewer."""
    rows = []
    for label in range(classes):
        index = (train.labels == label).nonzero().flatten()
        rows.append(train.images[index[torch.arange(EXAMPLES) % len(index)]])
    return torch.stack(rows)


def _costs(stage: Stage, workspace: Workspace) -> dict[str, Any]:
    train = workspace.info(stage.inputs["train"])["run"]
    invert_info = workspace.info(stage.inputs["invert"])
    invert_seconds = invert_info["run"]["seconds"]
    if "prepare" in stage.inputs["invert"].inputs:
        prepare = workspace.info(stage.inputs["invert"].inputs["prepare"])
        invert_seconds += prepare["run"]["seconds"]
    return {
        "train_seconds": round(train["seconds"], 2),
        "invert_seconds": round(invert_seconds, 2),
        "peak_memory_bytes": max(train["peak_memory"], invert_info["run"]["peak_memory"]),
        "target_queries": invert_info["queries"],
    }


def _load_nothing(stage: Stage, workspace: Workspace) -> None:
    raise TypeError(f"the {stage.name} stage is read through its tensors and info")


COMPUTE: dict[str, Callable[[Stage, Workspace], Artifact]] = {
    "data": compute_data,
    "prior": compute_prior,
    "evaluator": compute_evaluator,
    "judge": compute_judge,
    "gallery": compute_gallery,
    "train": compute_train,
    "assess": compute_assess,
    "prepare": compute_prepare,
    "invert": compute_invert,
    "measure": compute_measure,
}

LOAD: dict[str, Callable[[Stage, Workspace], Any]] = {
    "data": load_data,
    "prior": load_prior,
    "evaluator": load_classifier,
    "judge": load_classifier,
    "gallery": load_gallery,
    "train": load_train,
}


def run_stage(stage: Stage, workspace: Workspace) -> None:
    """Compute one stage and store its artifact, with the time it took and the memory peak.

    What the stage kept on the way goes once the artifact is stored.
    """
    from mia_bench import provenance

    provenance.reset_peak_memory(workspace.device)
    started, clock = provenance.now(), time.perf_counter()
    with preserve_torch_settings():
        tensors, info = COMPUTE[stage.name](stage, workspace)
    if workspace.device.type == "cuda":
        torch.cuda.synchronize(workspace.device)
    info["run"] = {
        "seconds": time.perf_counter() - clock,
        "peak_memory": provenance.peak_memory(workspace.device),
        "track": stage.track.name,
        "subject": stage.subject,
        "settings": stage.settings,
        "started": started,
        "finished": provenance.now(),
        "device": provenance.device_name(workspace.device)
        + (", compiled" if workspace.compiled else ""),
        "torch": torch.__version__,
        "git": provenance.git_commit(),
        "code": code_of(stage),
    }
    workspace.store.save(stage.name, stage.key, tensors, info)
    workspace.store.clear(*stage.id)
