"""A toy world: data, networks and a prior on which a target trains and is attacked in seconds.

Nothing is downloaded, everything follows from seeds, and images are 16×16.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.defense import Defense
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_float
from mia_bench.api.metric import AttackEvidence, Gallery, TargetEvidence
from mia_bench.api.prior import Prior, PriorTask
from mia_bench.models.inference import embed_images
from mia_bench.seeds import generator, seeded
from mia_bench.track import Recipe
from mia_bench.training import train_classifier

RESOLUTION = 16
RECIPE = Recipe(epochs=2, batch_size=8, shift=1)
"""How defenses on trial are trained."""

LATENTS = 8
"""Dimensions of the toy prior."""

EMBEDDING = 12
"""Dimensions of the toy encoder."""


def quiet(done: int, total: int, unit: str) -> None:
    """Progress that nobody watches."""


class ToyNetwork(Classifier):
    """Two convolutions with batch normalisation and a linear head."""

    channels_last = True

    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_block(3, width), _block(width, 2 * width)])
        self.head = nn.Linear(2 * width, num_classes)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, 2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


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
        """``(count, K)`` normal latents times ``truncation``."""
        return truncation * torch.randn(count, self.latent_dim, generator=generator)

    def forward(self, latents: Tensor) -> Tensor:
        """``(N, K)`` to ``(N, 3, R, R)`` in [0, 1]."""
        flat = torch.sigmoid(self.mean + latents @ self.basis)
        return flat.view(-1, 3, self.resolution, self.resolution)

    def discriminate(self, images: Tensor) -> Tensor:
        """``(N,)``, 0 for the mean image."""
        return -(images.flatten(1) - torch.sigmoid(self.mean)).square().mean(1)


class ToyPrior(Prior):
    """Principal components of the public images' logits."""

    summary: ClassVar[str] = "toy prior of the conformance kit"
    paper: ClassVar[str] = "none"
    version: ClassVar[str] = "1"

    @property
    def has_discriminator(self) -> bool:
        """Nearness to the mean."""
        return True

    def fit(self, task: PriorTask) -> dict[str, Tensor]:
        """Mean ``(P,)`` and components ``(K, P)``."""
        rows = to_float(task.training_images()).clamp(0.01, 0.99).logit().flatten(1)
        _, sizes, axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        scale = sizes[:LATENTS, None] / (len(rows) - 1) ** 0.5
        return {"mean": rows.mean(0), "basis": scale * axes[:LATENTS]}

    def build(self, state: dict[str, Tensor], *, resolution: int) -> GenerativeModel:
        """The linear model."""
        return ToyImageModel(state["mean"], state["basis"], resolution).eval()


@dataclass(frozen=True)
class NoCheckpoint:
    """A checkpoint that keeps nothing."""

    def load(self) -> dict[str, Tensor] | None:
        """Nothing."""
        return None

    def save(self, state: dict[str, Tensor]) -> None:
        """Forget it."""


def prior_task(public: ImageSet, seed: int = 0, device: torch.device | None = None) -> PriorTask:
    """What a prior is made from."""
    return PriorTask(
        public=public,
        source="toy",
        resolution=RESOLUTION,
        generator=generator(seed, "toy", "prior"),
        device=device or torch.device("cpu"),
        progress=quiet,
        checkpoint=NoCheckpoint(),
        weights=None,
        watch=lambda model, step: None,
    )


@dataclass(frozen=True)
class World:
    """Data, and networks that know them; every call gives a copy that nobody else has.

    Attributes:
        splits: the data; public images and decoys share no identity with the private ones.
    """

    splits: Splits

    @property
    def classes(self) -> int:
        """Number of private classes."""
        return self.splits.num_classes

    def network(self) -> Classifier:
        """A new network, from torch's global generator."""
        return ToyNetwork(self.classes)

    def target(self, device: torch.device) -> Classifier:
        """A plainly trained target, frozen."""
        return _frozen(_trained(self.classes, len(self.splits.train), 8), device)

    def evaluator(self, device: torch.device) -> Classifier:
        """Another classifier of the same data, frozen."""
        return _frozen(_trained(self.classes, len(self.splits.train), 6), device)

    def prior(self, device: torch.device) -> GenerativeModel:
        """The toy prior of the public images, frozen."""
        model = _prior(self.classes, len(self.splits.train))
        return copy.deepcopy(model).to(device).requires_grad_(False)

    def enlarged(self, size: int) -> Tensor:
        """The test images ``(N, 3, size, size)`` in [0, 1], for networks that take no tiny ones."""
        return F.interpolate(to_float(self.splits.test.images), (size, size), mode="bilinear")

    def target_evidence(self, device: torch.device) -> TargetEvidence:
        """What a metric of the target sees."""
        return TargetEvidence(self.target(device), copy.deepcopy(self.splits), 1, device)

    def attack_evidence(self, device: torch.device, each: int = 2) -> AttackEvidence:
        """What a metric of an attack sees: ``each`` samples of the prior for every class."""
        latents = self.prior(device).sample(self.classes * each, generator(0, "toy", "attack"))
        splits = copy.deepcopy(self.splits)
        return AttackEvidence(
            images=self.prior(device).pictures(latents, device=device),
            labels=torch.arange(self.classes).repeat_interleave(each),
            target=self.target(device),
            draws=1,
            splits=splits,
            evaluation_model=self.evaluator(device),
            judge=self.evaluator(device),
            gallery=gallery(splits),
            embed=embed,
            missing={},
            device=device,
        )


def _frozen(network: Classifier, device: torch.device) -> Classifier:
    return copy.deepcopy(network).to(device).eval().requires_grad_(False)


def embed(images: Tensor) -> Tensor:
    """The toy encoder: a fixed projection ``(N, 3, R, R)`` to unit-norm ``(N, EMBEDDING)``."""
    matrix = torch.randn(3 * RESOLUTION**2, EMBEDDING, generator=generator(0, "toy", "embed"))
    return F.normalize((images.flatten(1) - 0.5) @ matrix.to(images.device), dim=1)


def gallery(splits: Splits) -> Gallery:
    """What the toy encoder makes of the data."""
    cpu = torch.device("cpu")
    train, decoys, test = (
        embed_images(embed, part.images, cpu) for part in (splits.train, splits.decoys, splits.test)
    )
    return Gallery(
        private=_means(train, splits.train.labels),
        decoys=_means(decoys, splits.decoys.labels),
        test=test,
        verification=torch.tensor([0.0, 1.0, 1.0]),
    )


def _means(rows: Tensor, labels: Tensor) -> Tensor:
    return F.normalize(torch.stack([rows[labels == i].mean(0) for i in labels.unique()]), dim=1)


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
            decoys=_images(8, 2, "decoys", "decoys"),
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


@cache
def _trained(classes: int, size: int, width: int) -> Classifier:
    with seeded(width, "toy", "init"):
        network: Classifier = ToyNetwork(classes, width)
    return train_classifier(
        network,
        world(classes, size // classes).splits.train,
        RECIPE.model_copy(update={"epochs": 12, "learning_rate": 0.01}),
        Defense(),
        seed=0,
        device=torch.device("cpu"),
        progress=quiet,
    ).model.eval()


@cache
def _prior(classes: int, size: int) -> GenerativeModel:
    public = world(classes, size // classes).splits.public
    prior = ToyPrior()
    return prior.build(prior.fit(prior_task(public)), resolution=RESOLUTION)


def without(part: ImageSet) -> ImageSet:
    """The part without its images."""
    return ImageSet(part.images[:0], part.labels[:0])


def emptied(splits: Splits, *names: str) -> Splits:
    """The splits with empty parts."""
    parts: dict[str, Any] = {name: without(getattr(splits, name)) for name in names}
    return replace(splits, **parts)
