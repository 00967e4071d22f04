"""The contract of a defense: override only what the method changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.api.component import Component
from mia_bench.api.dataset import ImageSet
from mia_bench.api.metric import Quantity

with lazy_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from mia_bench.api.classifier import Activations, Classifier


@dataclass(frozen=True)
class BuildContext:
    """What a defense knows while it builds the target.

    Attributes:
        num_classes: number of private classes.
        resolution: height and width of the images.
        public: public images, for pretraining.
        generator: seeded CPU generator.
        restoring: whether trained weights are loaded right after, so that only the architecture matters.
    """

    num_classes: int
    resolution: int
    public: ImageSet
    generator: torch.Generator
    restoring: bool = False


@dataclass(frozen=True)
class TrainingStep:
    """One training batch, the input of the loss.

    Attributes:
        images: augmented batch ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)`` int64.
        outputs: logits ``(B, C)``, penultimate features, outputs of the hidden blocks, extras.
        model: the network in training, images to logits, for losses that need further passes. Each pass in
            training mode updates the running statistics of BatchNorm layers.
        epoch, epochs: the current epoch, from 0, and their number.
        generator: seeded CPU generator of the defense's own, the one that ``augment`` is called with.
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
    """What the training loop uses; ``prepare_training`` may replace any part.

    Attributes:
        model: network on its device, in training mode.
        optimizer: any torch optimiser.
        scheduler: its ``step()`` is called after each epoch.
        batches: ``batches(epoch)`` yields index tensors ``(B,)``; a sampler that splits virtual
            batches controls its optimiser between two yields.
        train_size: number of training images.
        labels: their classes ``(train_size,)`` int64, on the CPU.
        epochs: passes over the training images, at first the recipe's; ``scheduler`` must fit them.
        batch_size: from the track's recipe.
        resolution: height and width of the images.
        seed: of the training; derive seeds for random numbers of the defense from it.
        memory_advice: what a user whose memory does not suffice for a step should do.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    batches: Callable[[int], Iterator[Tensor]]
    train_size: int
    labels: Tensor
    epochs: int
    batch_size: int
    resolution: int
    seed: int
    memory_advice: str = (
        "batches are part of the protocol and are not halved: use a device with more memory, or a track of "
        'your own with a smaller batch_size or with precision = "bfloat16" in its recipe'
    )


class Defense(Component):
    """How the target is built, trained or served. The base class is plain training.

    Attributes:
        baseline: whether boards compare other defenses with this one.
        front_options: of a baseline, the options that only make its target less accurate. Its rows that
            change nothing else are the undefended front, which a defense must beat.
        matched: name and changed options of the undefended classifier with this defense's architecture, which
            it is compared with too: of a baseline, or of this defense itself where these options leave
            nothing of it but the architecture.
        strengths: options to the values that ``mia-bench sweep`` tries, from weak to strong: all combinations
            of several options, of a baseline's front options one at a time.
        reports: what each name that :meth:`report` returns is.
    """

    baseline: ClassVar[bool] = False

    front_options: ClassVar[tuple[str, ...]] = ()

    matched: ClassVar[tuple[str, Mapping[str, Any]] | None] = None

    strengths: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    reports: ClassVar[Mapping[str, Quantity]] = {}

    def __init_subclass__(cls) -> None:
        """Raise TypeError where ``front_options``, ``matched`` or ``strengths`` have another form."""
        super().__init_subclass__()
        several = cls.strengths
        if not (isinstance(several, Mapping) and all(isinstance(one, tuple) for one in several.values())):
            wanted = 'options with tuples of values, as in {"alpha": (0.1, 0.2)}'
            raise TypeError(f"{cls.__name__}: strengths is {several!r}, not {wanted}")
        front, matched = cls.front_options, cls.matched
        if isinstance(front, str) or not all(isinstance(name, str) for name in front):
            raise TypeError(f"{cls.__name__}: front_options is {front!r}, not a tuple of names")
        if matched is not None:
            right = isinstance(matched, tuple) and [type(part) for part in matched[:1]] == [str]
            if not (right and len(matched) == 2 and isinstance(matched[1], Mapping)):
                raise TypeError(f"{cls.__name__}: matched is {matched!r}, not a name with a table of options")

    def build_model(self, build: Callable[[], Classifier], context: BuildContext) -> Classifier:
        """Build the target: architecture, initialisation, frozen parts. ``build()`` gives the track's."""
        return build()

    def prepare_training(self, setup: TrainingSetup) -> TrainingSetup:
        """Replace the optimiser, the scheduler or the sampler."""
        return setup

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Further augmentation of a batch ``(B, 3, H, W)`` in [0, 1], after the track's own."""
        return images

    def loss(self, step: TrainingStep) -> Tensor:
        """Scalar training loss of one batch, in float32."""
        return F.cross_entropy(step.outputs.logits.float(), step.labels)

    def deploy(self, model: Classifier) -> nn.Module:
        """The deployed model, a module from images to logits. Default: the network itself."""
        return model

    @property
    def stochastic(self) -> bool:
        """Whether the deployed model's answers are random; metrics then average over draws."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """What the training changes in the defense itself, for a checkpoint.

        The host saves model, optimiser, schedule and generators after an epoch; what else the next epochs
        or the report depend on is returned here: tensors, numbers and strings, in dictionaries, lists and
        tuples.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`; called after :meth:`prepare_training`, tensors are on the CPU."""

    def report(self, setup: TrainingSetup) -> dict[str, float | str]:
        """After training, values that only training knows (such as the ``epsilon`` spent), by name.

        A string is the reason why a value could not be computed.
        """
        return {}
