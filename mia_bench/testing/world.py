"""A toy world: data, networks and a prior on which a target trains and is attacked in seconds.

Nothing is downloaded, everything follows from seeds, and images are 16×16.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mia_bench.api.architecture import Architecture, NetworkTask
from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.defense import Defense
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_float
from mia_bench.api.metric import AttackEvidence, Imitations, TargetEvidence
from mia_bench.api.prior import Prior, PriorTask
from mia_bench.protocol.context import Context
from mia_bench.protocol.gallery import build_gallery
from mia_bench.protocol.measurement import Instruments, attack_evidence
from mia_bench.protocol.prior import FittedPrior, fit_prior, restore_prior
from mia_bench.protocol.target import Target, freeze, train_target
from mia_bench.seeds import generator
from mia_bench.track import Recipe

RESOLUTION = 16
RECIPE = Recipe(epochs=2, batch_size=8, shift=1)
"""How defenses on trial are trained."""

LATENTS = 8
"""Dimensions of the toy prior."""

EMBEDDING = 12
"""Dimensions of the toy encoder."""


def context(device: torch.device | None = None, seed: int = 0) -> Context:
    """What a step of the protocol needs; on the CPU by default."""
    return Context(RESOLUTION, seed, device or torch.device("cpu"))


class ToyNetwork(Classifier):
    """Two convolutions with batch normalisation and a linear head."""

    channels_last = True

    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, 2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
            )
            for inputs, outputs in ((3, width), (width, 2 * width))
        )
        self.head = nn.Linear(2 * width, num_classes)


class ToyArchitecture(Architecture):
    """Makes a :class:`ToyNetwork` of a width."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width

    def build(self, task: NetworkTask) -> Classifier:
        return ToyNetwork(task.num_classes, self.width)


class ToyImageModel(GenerativeModel):
    """A linear model of images, with a discriminator that scores nearness to their mean."""

    mean: Tensor
    basis: Tensor

    def __init__(self, mean: Tensor, basis: Tensor, resolution: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.latent_dim, self.resolution = len(basis), resolution

    def sample(self, count: int, generator: torch.Generator, *, truncation: float = 1.0) -> Tensor:
        return truncation * torch.randn(count, self.latent_dim, generator=generator)

    def forward(self, latents: Tensor) -> Tensor:
        flat = torch.sigmoid(self.mean + latents @ self.basis)
        return flat.view(-1, 3, self.resolution, self.resolution)

    def discriminate(self, images: Tensor) -> Tensor:
        return -(images.flatten(1) - torch.sigmoid(self.mean)).square().mean(1)


class ToyPrior(Prior):
    """Principal components of the public images' logits."""

    summary: ClassVar[str] = "toy prior of the conformance kit"
    paper: ClassVar[str] = "none"
    version: ClassVar[str] = "1"

    @property
    def has_discriminator(self) -> bool:
        return True

    def fit(self, task: PriorTask) -> dict[str, Tensor]:
        rows = to_float(task.training_images()).clamp(0.01, 0.99).logit().flatten(1)
        _, sizes, axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        scale = sizes[:LATENTS, None] / (len(rows) - 1) ** 0.5
        return {"mean": rows.mean(0), "basis": scale * axes[:LATENTS]}

    def build(self, state: dict[str, Tensor], *, resolution: int) -> GenerativeModel:
        return ToyImageModel(state["mean"], state["basis"], resolution).eval()


@dataclass
class MemoryCheckpoint:
    """A checkpoint in memory, due at any time."""

    state: dict[str, Any] | None = None

    def due(self) -> bool:
        return True

    def load(self) -> dict[str, Any] | None:
        return copy.deepcopy(self.state)

    def reject(self) -> None:
        pass

    def save(self, state: Mapping[str, Any]) -> None:
        self.state = copy.deepcopy(dict(state))


def fit(prior: Prior, public: ImageSet, context: Context) -> FittedPrior:
    """The prior fitted to public images, with nothing that watches it."""
    return fit_prior(
        prior.fit,
        public,
        context,
        source="toy",
        watch=lambda model, step: None,
    )


@dataclass(frozen=True)
class World:
    """Data, and networks that were trained on them; every call gives a copy of its own.

    Attributes:
        splits: the data; public images and decoys share no identity with the private ones.
    """

    splits: Splits

    @property
    def classes(self) -> int:
        """Number of private classes."""
        return self.splits.num_classes

    def target(self, device: torch.device) -> Classifier:
        """A target without a defense, frozen."""
        return freeze(copy.deepcopy(self._networks[0]), device)

    def evaluation_model(self, device: torch.device) -> Classifier:
        """Another classifier of the same data, frozen."""
        return freeze(copy.deepcopy(self._networks[1]), device)

    def prior(self, device: torch.device) -> GenerativeModel:
        """The toy prior of the public images, frozen."""
        return restore_prior(ToyPrior(), self._prior.state, self.splits, context(device), name="toy-prior")

    @cached_property
    def _networks(self) -> list[Classifier]:
        recipe = RECIPE.model_copy(update={"epochs": 12, "learning_rate": 0.01})
        trained = [
            train_target(Defense(), ToyArchitecture(width), self.splits, recipe, context(seed=width))
            for width in (8, 6)
        ]
        return [target.training.model for target in trained]

    @cached_property
    def _prior(self) -> FittedPrior:
        return fit(ToyPrior(), self.splits.public, context())

    def enlarged(self, size: int) -> Tensor:
        """The test images ``(N, 3, size, size)`` in [0, 1], for networks that need larger ones."""
        return F.interpolate(to_float(self.splits.test.images), (size, size), mode="bilinear")

    def target_evidence(self, device: torch.device) -> TargetEvidence:
        """What a metric of the target sees."""
        return TargetEvidence(self.target(device), copy.deepcopy(self.splits), 1, device)

    def attack_evidence(self, device: torch.device, each: int = 2) -> AttackEvidence:
        """What a metric of an attack sees: ``each`` samples of the prior for every class.

        The prior's imitations of the test images are these themselves.
        """
        model, target, splits = self.prior(device), self.target(device), copy.deepcopy(self.splits)
        latents = model.sample(self.classes * each, generator(0, "toy", "attack"))
        images = model.pictures(latents, device=device).unflatten(0, (self.classes, each))
        judges = self.evaluation_model(device), self.evaluation_model(device)
        gallery, test = build_gallery(splits, embed, context(device)), splits.test
        imitations = Imitations(test.images, gallery.test, test.labels)
        instruments = Instruments(*judges, gallery, embed, oracle=imitations)
        steps = torch.arange(6.0).repeat(self.classes, 1) + 1
        said = {"loss": 1 / steps, "gradient_norm": 1 / steps**2, "gradient_cosine": -1 / steps}
        return attack_evidence(images, Target(target, target, False), splits, instruments, device, said)


def embed(images: Tensor) -> Tensor:
    """The toy encoder: a fixed projection ``(N, 3, R, R)`` to unit-norm ``(N, EMBEDDING)``."""
    matrix = torch.randn(3 * RESOLUTION**2, EMBEDDING, generator=generator(0, "toy", "embed"))
    return F.normalize((images.flatten(1) - 0.5) @ matrix.to(images.device), dim=1)


@cache
def world(classes: int = 4, images: int = 6) -> World:
    """The world of so many private classes with so many training images each."""
    sizes = {"train": images, "validation": 2, "test": 3}
    private = {part: _images(classes, each, "private", part) for part, each in sizes.items()}
    return World(
        Splits(
            train=private["train"],
            validation=private["validation"],
            test=private["test"],
            public=_images(24, 2, "public", "public"),
            decoys=_images(24, 2, "decoys", "decoys"),
            class_names=tuple(f"toy-{number}" for number in range(classes)),
            judging=_images(classes, 4, "private", "judging"),
        )
    )


def _images(identities: int, each: int, role: str, part: str) -> ImageSet:
    """``each`` noisy images of every identity, a smooth pattern."""
    patterns = torch.rand(identities, 3, 4, 4, generator=generator(0, "toy", role))
    smooth = F.interpolate(patterns, (RESOLUTION, RESOLUTION), mode="bilinear")
    labels = torch.arange(identities).repeat_interleave(each)
    shape = (len(labels), 3, RESOLUTION, RESOLUTION)
    noise = 0.05 * torch.randn(shape, generator=generator(0, "toy", part))
    return ImageSet(((smooth[labels] + noise).clamp(0, 1) * 255).to(torch.uint8), labels)


def without(part: ImageSet) -> ImageSet:
    """The part without its images."""
    return ImageSet(part.images[:0], part.labels[:0])


def emptied(splits: Splits, *names: str) -> Splits:
    """The splits with empty parts."""
    parts: dict[str, Any] = {name: without(getattr(splits, name)) for name in names}
    return replace(splits, **parts)
