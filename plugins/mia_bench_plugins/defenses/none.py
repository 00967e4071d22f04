"""No defense: the undefended target, first row of every board.

``norm=group`` replaces BatchNorm by GroupNorm as ``dp-sgd`` does, to separate the effect of private training
from the effect of its architecture. ``epochs`` and ``images`` below 1 make a worse classifier without any
defense: a defense that costs as much accuracy must leak less than that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field

from mia_bench import BuildContext, Defense, Register, TrainingSetup, hookimpl, lazy_imports
from mia_bench_plugins.models.norms import replace_batch_norm

with lazy_imports():
    from torch.optim import lr_scheduler

    from mia_bench import training
    from mia_bench.api.classifier import Classifier


class NoDefense(Defense):
    """Plain training with cross-entropy, by the track's recipe."""

    summary = "plain training with cross-entropy (baseline)"
    version = "1"
    baseline = True
    front_options = ("epochs", "images")
    strengths: ClassVar[dict[str, tuple[float, ...]]] = {
        "epochs": (0.7, 0.5, 0.3, 0.15),
        "images": (0.7, 0.4),
    }

    class Options(Defense.Options):
        norm: Literal["batch", "group"] = Field(
            "batch", description="batch: the track's network; group: GroupNorm for BatchNorm"
        )
        groups: int = Field(8, ge=1, description="most groups of a GroupNorm; norm=group only")
        epochs: float = Field(
            1.0, gt=0, le=1, description="share of the recipe's epochs, its schedule shortened alike"
        )
        images: float = Field(1.0, gt=0, le=1, description="share of each class's training images")

    options: Options

    def build_model(self, build: Callable[[], Classifier], context: BuildContext) -> Classifier:
        network = build()
        if self.options.norm == "group":
            replace_batch_norm(network, self.options.groups)
        return network

    def prepare_training(self, setup: TrainingSetup) -> TrainingSetup:
        if self.options.epochs < 1:
            setup = _shortened(setup, self.options.epochs)
        if self.options.images < 1:
            share = self.options.images
            kept = training.some_of_each_class(
                setup.labels, lambda there: max(1, round(share * there)), setup.seed
            )
            batches = training.shuffled_batches(kept, setup.batch_size, setup.seed)
            setup = dataclasses.replace(setup, batches=batches, train_size=len(kept))
        return setup


def _shortened(setup: TrainingSetup, share: float) -> TrainingSetup:
    """The setup with a share of its epochs, at least one; the learning rate drops at the same shares."""
    epochs = max(1, round(share * setup.epochs))
    before = setup.scheduler
    assert isinstance(before, lr_scheduler.MultiStepLR)  # the training loop's own
    milestones = [round(one * epochs / setup.epochs) for one in before.milestones.elements()]
    scheduler = lr_scheduler.MultiStepLR(setup.optimizer, milestones, before.gamma)
    return dataclasses.replace(setup, epochs=epochs, scheduler=scheduler)


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    register("none", NoDefense)
