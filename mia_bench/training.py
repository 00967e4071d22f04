"""The one training loop, the same for every defense and for evaluation models."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mia_bench import augment
from mia_bench.api.checkpoint import NO_CHECKPOINT, Checkpoint
from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense, TrainingSetup, TrainingStep
from mia_bench.api.images import to_float
from mia_bench.api.progress import Progress
from mia_bench.device import autocast
from mia_bench.errors import Diverged
from mia_bench.memory import explaining, upload
from mia_bench.models.inference import move_model
from mia_bench.seeds import derive, generator, seeded
from mia_bench.text import one_line
from mia_bench.track import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """The trained network, the mean loss of each epoch, and the setup that made it."""

    model: Classifier
    losses: list[float]
    setup: TrainingSetup


def train_classifier(
    model: Classifier,
    train: ImageSet,
    recipe: Recipe,
    defense: Defense,
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> TrainingResult:
    """Train ``model`` on ``train`` by the track's recipe; the last epoch is kept.

    On a CPU a training that goes on from its checkpoint ends as if it had never been stopped, to the bit.

    Args:
        model: freshly built network.
        train: training images; they are moved to the device once, as uint8.
        recipe: the protocol's training recipe.
        defense: what it overrides changes the loop; plain training with the base class.
        seed: the batches and augmentations follow from it.
        progress: called once an epoch.
        checkpoint: keeps the state after an epoch when it is due.

    Raises:
        Diverged: the loss is no longer finite; names the epoch and the last finite value.
        OutOfMemory: a step does not fit into the device's memory.
    """
    if recipe.images_per_class is not None:
        wanted = recipe.images_per_class
        kept = some_of_each_class(train.labels, lambda there: min(wanted, there), seed)
        train = ImageSet(train.images[kept], train.labels[kept])
    images, labels = train.images.to(device), train.labels.to(device)
    move_model(model, device).train()
    draws, own = generator(seed, "augment"), generator(seed, "defense")
    with seeded(seed, "layers"):  # for layers that draw at random, dropout say
        setup = defense.prepare_training(_setup(model, train, recipe, seed))
        training = _Training(model, setup, defense, (draws, own), device)
        training.go_on(checkpoint)
        losses = training.losses
        for epoch in range(len(losses), setup.epochs):
            total, batches = torch.zeros((), device=device), 0
            with explaining(f"a training step of {setup.batch_size} images", setup.memory_advice):
                for index in setup.batches(epoch):
                    index = upload(index, device)
                    batch = _augment(to_float(images[index]), recipe, draws)
                    batch = defense.augment(batch, own)
                    setup.optimizer.zero_grad(set_to_none=True)
                    with autocast(recipe.precision, device):
                        step = TrainingStep(
                            images=batch,
                            labels=labels[index],
                            outputs=model.activations(batch),
                            model=setup.model,
                            epoch=epoch,
                            epochs=setup.epochs,
                            generator=own,
                        )
                        loss = _scalar(defense.loss(step))
                        for logits in step.outputs.auxiliary:
                            loss = loss + F.cross_entropy(logits.float(), step.labels)
                    loss.backward()
                    setup.optimizer.step()
                    total += loss.detach()
                    batches += 1
            setup.scheduler.step()
            mean = (total / max(batches, 1)).item()  # the epoch's only wait for the device
            if not math.isfinite(mean):
                last = f"{losses[-1]:.4g}" if losses else "none"
                raise Diverged(
                    f"the training loss is {mean} in epoch {epoch + 1} of {setup.epochs} "
                    f"(last finite epoch mean: {last})"
                )
            losses.append(mean)
            if checkpoint.due() and epoch + 1 < setup.epochs:
                checkpoint.save(training.state())
            progress(epoch + 1, setup.epochs, "epoch")
    return TrainingResult(model.eval(), losses, setup)


@dataclass
class _Training:
    """A training between two epochs: everything that the next one depends on.

    Attributes:
        generators: those that augmentations and the defense draw from.
        losses: the mean of each epoch so far.
    """

    model: Classifier
    setup: TrainingSetup
    defense: Defense
    generators: tuple[torch.Generator, ...]
    device: torch.device
    losses: list[float] = field(default_factory=list)

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Take the state from the checkpoint, if there is one that fits."""
        saved = checkpoint.load()
        if saved is None:
            return
        fresh = copy.deepcopy(self.state())
        try:
            self._restore(saved)
        except Exception as error:  # whatever torch and plugins raise where a state is of other code
            self._restore(fresh)
            checkpoint.reject()
            log.warning("a checkpoint does not fit (%s); the training begins anew", one_line(str(error)))
        else:
            log.info("the training goes on after epoch %d of %d", len(self.losses), self.setup.epochs)

    def state(self) -> dict[str, Any]:
        """What :meth:`go_on` needs; it shares memory with the training."""
        cuda = self.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "optimizer": self.setup.optimizer.state_dict(),
            "scheduler": self.setup.scheduler.state_dict(),
            "defense": self.defense.state_dict(),
            "generators": [generator.get_state() for generator in self.generators],
            "layers": torch.get_rng_state(),
            "layers on device": torch.cuda.get_rng_state(self.device) if cuda else None,
            "losses": list(self.losses),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.setup.optimizer.load_state_dict(state["optimizer"])
        self.setup.scheduler.load_state_dict(state["scheduler"])
        self.defense.load_state_dict(state["defense"])
        for source, drawn in zip(self.generators, state["generators"], strict=True):
            source.set_state(drawn)
        torch.set_rng_state(state["layers"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["layers on device"], self.device)
        self.losses[:] = state["losses"]


def _setup(model: Classifier, train: ImageSet, recipe: Recipe, seed: int) -> TrainingSetup:
    size = len(train)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, [round(m * recipe.epochs) for m in recipe.milestones], recipe.gamma
    )
    return TrainingSetup(
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        batches=shuffled_batches(torch.arange(size), recipe.batch_size, seed),
        train_size=size,
        labels=train.labels,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        resolution=train.images.shape[-1],
        seed=seed,
    )


def some_of_each_class(labels: Tensor, count: Callable[[int], int], seed: int) -> Tensor:
    """Indices ``(M,)``, in order, of images drawn of each class; of fewer, some of the same.

    Args:
        labels: ``(N,)``.
        count: from the number of images of a class to how many of them are wanted.
        seed: the draw follows from it.
    """
    rng = generator(seed, "images")
    kept = []
    for label in labels.unique():
        index = (labels == label).nonzero().flatten()
        kept.append(index[torch.randperm(len(index), generator=rng)[: count(len(index))]])
    return torch.cat(kept).sort().values


def shuffled_batches(index: Tensor, batch_size: int, seed: int) -> Callable[[int], Iterator[Tensor]]:
    """``batches(epoch)``, which yields the images ``index`` ``(N,)`` in a new order each epoch."""
    shuffle = derive(seed, "batches")

    def batches(epoch: int) -> Iterator[Tensor]:
        order = index[torch.randperm(len(index), generator=generator(shuffle, epoch))]
        # A last batch of one image has no batch statistics: it joins its neighbour.
        splits = list(order.split(batch_size))
        if len(splits) > 1 and len(splits[-1]) == 1:
            splits[-2:] = [torch.cat(splits[-2:])]
        return iter(splits)

    return batches


def _scalar(loss: Tensor) -> Tensor:
    """The loss, if it is one number; a defense may return anything."""
    if not isinstance(loss, Tensor):
        raise TypeError(f"loss returned {type(loss).__name__}, not a tensor")
    if loss.ndim:
        raise TypeError(f"loss returned a tensor of shape {tuple(loss.shape)}, not a single number")
    return loss


def _augment(images: Tensor, recipe: Recipe, draws: torch.Generator) -> Tensor:
    if recipe.flip:
        images = augment.flip(images, draws)
    if recipe.shift:
        images = augment.shift(images, recipe.shift, draws)
    if recipe.jitter:
        images = augment.jitter(images, recipe.jitter, draws)
    if recipe.crop is not None:
        images = augment.random_resized_crop(images, draws, scale=recipe.crop)
    if recipe.colour is not None:
        images = augment.colour(images, draws, **recipe.colour.model_dump())
    return images
