"""The contract of a defense: override only what the method changes; the host never asks which it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mia_bench.api.component import Component
from mia_bench.api.metric import Quantity

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mia_bench.api.classifier import Activations, Classifier
    from mia_bench.api.dataset import ImageSet


@dataclass(frozen=True)
class BuildContext:
    """What a defense may know while it builds the target.

    Attributes:
        num_classes: number of private classes.
        resolution: height and width of the images.
        public: public images, for pretraining.
        generator: seeded CPU generator.
        restoring: True when trained weights are loaded right after: the architecture matters, pretraining
            would be lost.
    """

    num_classes: int
    resolution: int
    public: ImageSet
    generator: torch.Generator
    restoring: bool = False


@dataclass(frozen=True)
class TrainingStep:
    """One batch as the loss sees it.

    Attributes:
        images: augmented batch ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)`` int64.
        outputs: logits ``(B, C)``, penultimate features, outputs of the hidden blocks, extras.
        model: the network in training, for losses that need further passes: images to logits. A pass in
            training mode also moves the running statistics of its BatchNorm layers.
        epoch, epochs: position in the schedule, from 0.
        generator: seeded CPU generator of the defense's own, the one ``augment`` gets: drawing from it
            shifts nobody else's draws.
    """

    images: Tensor
    labels: Tensor
    outputs: Activations
    model: nn.Module
    epoch: int
    epochs: int
    generator: torch.Generator


@dataclass
class TrainingSetup:
    """What the training loop will use; ``prepare_training`` may replace any part.

    Attributes:
        model: network on its device, in training mode.
        optimizer: any torch optimiser.
        scheduler: its ``step()`` is called after each epoch.
        batches: ``batches(epoch)`` yields index tensors ``(B,)``; a sampler that splits virtual
            batches steers its optimiser between two yields.
        train_size: number of training images.
        epochs, batch_size: from the track's recipe.
        resolution: height and width of the images.
        seed: the training's; draws of the defense's own are derived from it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    batches: Callable[[int], Iterator[Tensor]]
    train_size: int
    epochs: int
    batch_size: int
    resolution: int
    seed: int


class Defense(Component):
    """How the target is built, trained or served. The base class is plain training.

    Attributes:
        baseline: whether boards compare the others with it.
        reports: the numbers that :meth:`report` returns, by name.
    """

    baseline: ClassVar[bool] = False

    reports: ClassVar[Mapping[str, Quantity]] = {}

    def build_model(self, build: Callable[[], Classifier], context: BuildContext) -> Classifier:
        """Architecture, initialisation, frozen parts. ``build()`` makes the track's network."""
        return build()

    def prepare_training(self, setup: TrainingSetup) -> TrainingSetup:
        """Optimiser, sampler, privacy engine."""
        return setup

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Further augmentation of a batch ``(B, 3, H, W)`` in [0, 1], after the track's own."""
        return images

    def loss(self, step: TrainingStep) -> Tensor:
        """Scalar training loss of one batch, in float32."""
        from torch.nn import functional as F

        return F.cross_entropy(step.outputs.logits.float(), step.labels)

    def deploy(self, model: Classifier) -> nn.Module:
        """What the deployed model answers: a module ``images -> logits``. Default: the network."""
        return model

    @property
    def stochastic(self) -> bool:
        """True when the deployed model's answers are random; metrics then average over draws."""
        return False

    def report(self, setup: TrainingSetup) -> dict[str, float | str]:
        """Metrics that only training knows (such as the ``epsilon`` spent), by name; after training.

        A string is the reason why there is no number.
        """
        return {}
