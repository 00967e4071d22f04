"""Checks of defenses."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.api.defense import Defense, TrainingSetup, TrainingStep
from mia_bench.api.images import to_float
from mia_bench.errors import Diverged
from mia_bench.plugins import describe_error
from mia_bench.seeds import generator, seeded
from mia_bench.testing.checks import Problem, check
from mia_bench.testing.isolation import Traces, isolated, reloaded
from mia_bench.testing.shared import changes, check_images, reported
from mia_bench.testing.trial import Attempt, Run, Trial, Unsound

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from mia_bench.api import classifier
    from mia_bench.models import snapshot
    from mia_bench.protocol import target
    from mia_bench.testing import world as toy


@dataclass(frozen=True)
class Trained:
    """A target trained under the defense.

    Attributes:
        defense: what trained it.
        network: the trained network.
        state: what the host stores.
        target: restored from it and deployed.
        logits: its answers ``(N, C)``.
    """

    defense: Defense
    network: nn.Module
    state: dict[str, Tensor]
    target: target.Target
    logits: Tensor


class DefenseTrial(Trial[Trained]):
    """A defense that trains a target."""

    action = "training"
    contract = "mia_bench.Defense"
    advice: ClassVar = {
        "repeatable": "Draw from step.generator and the generator that augment gets, and keep "
        "nothing from one training to the next",
        "saved": "Keep what answers depend on in parameters or buffers, and make build_model the "
        "same with context.restoring",
        "few-images": "Handle a batch of two images",
        "bfloat16": "Losses need float32: call .float() on outputs and features first",
        "gpu": "Make new tensors on the images' device; generators are the CPU's, so move draws",
    }

    def compute(self, run: Run) -> Trained:
        """Train, restore and ask."""
        defense: Defense = self.make()
        _observe(defense, run.traces)
        trained = target.train_target(
            defense,
            toy.ToyArchitecture(),
            run.world.splits,
            toy.RECIPE.model_copy(update={"precision": run.precision}),
            run.context,
        )
        state = {name: tensor.clone() for name, tensor in trained.state.items()}
        restored = _restore(defense, state, run)
        answers = _answers(restored.deployed, run)
        return Trained(defense, trained.training.model, state, restored, answers)

    def outcome(self, made: Trained) -> Mapping[str, Any]:
        """Weights, and answers of the deployed model."""
        return {**made.state, "its answers": made.logits}

    def restored(self, made: Trained) -> Mapping[str, Any]:
        """Answers of the restored model."""
        with isolated(5):
            restored = _restore(self.make(), reloaded(made.state), self.first)
            return {"its answers": _answers(restored.deployed, self.first)}

    def explains(self, error: BaseException) -> bool:
        """Also that the training diverged."""
        return isinstance(error, Diverged) or super().explains(error)


def _restore(defense: Defense, state: dict[str, Tensor], run: Run) -> target.Target:
    context = replace(run.context, seed=0)
    return target.restore_target(defense, toy.ToyArchitecture(), run.world.splits, state, context)


def _answers(deployed: nn.Module, run: Run) -> Tensor:
    """Logits ``(N, C)`` of the test images on the CPU; what is random comes from one seed."""
    images = to_float(run.world.splits.test.images).to(run.device)
    with seeded(1, "ask"), torch.no_grad():
        return classifier.answers(deployed, images, 1)[0].cpu()


def _observe(defense: Defense, traces: Traces) -> None:
    """Look at what methods of the instance draw and return.

    What they return wrongly ends the training (:class:`Unsound`).
    """
    augment, loss, report = defense.augment, defense.loss, defense.report

    def observed_augment(images: Tensor, rng: torch.Generator) -> Tensor:
        shape = tuple(images.shape)
        with traces.drawing("augment"):
            made = augment(images, rng)
        check_images(made.detach(), shape, "augmented images", "augment")
        return made

    def observed_loss(step: TrainingStep) -> Tensor:
        with traces.drawing("loss"):
            value = loss(step)
        _check_loss(value)
        return value

    def observed_report(setup: TrainingSetup) -> dict[str, float | str]:
        made = report(setup)
        _check_report(made)
        return made

    vars(defense).update(augment=observed_augment, loss=observed_loss, report=observed_report)


def _check_loss(value: Tensor) -> None:
    if value.dim():
        problem = f"the loss has the shape {tuple(value.shape)}"
        raise Unsound("loss", problem, "Return a scalar, the batch's mean say")
    if value.dtype != torch.float32:
        advice = "Compute it in float32: logits.float() comes first"
        raise Unsound("loss", f"the loss is {value.dtype}", advice)
    if not value.requires_grad:
        advice = "Compute it from step.outputs, without detach or no_grad"
        raise Unsound("loss", "the loss has no gradient", advice)


def _check_report(made: dict[str, Any]) -> None:
    for name, value in made.items():
        if not isinstance(value, (int, float, str)):
            problem = f"report gives {type(value).__name__} as {name!r}"
            raise Unsound("report", problem, "Give a float or a reason")
        if not isinstance(value, str) and not math.isfinite(value):
            problem = f"report gives {value} as {name!r}"
            raise Unsound("report", problem, "Give the reason as a string instead")


@check("defense", name="runs")
def runs(trial: DefenseTrial) -> Iterator[Problem]:
    """The deployed model answers with logits ``(N, C)``."""
    world, made = toy.world(), trial.base.made
    shape, found = (len(world.splits.test), world.classes), tuple(made.logits.shape)
    if found != shape:
        yield f"the deployed model answers {found}, not {shape}", "Answer with logits (N, C)"


@check("defense")
def loss(trial: DefenseTrial) -> Iterator[Problem]:
    """The loss is a scalar in float32 with a gradient."""
    yield from reported(trial, "loss")


@check("defense")
def augment(trial: DefenseTrial) -> Iterator[Problem]:
    """Augmented images keep shape, type and range."""
    yield from reported(trial, "augment")


@check("defense")
def report(trial: DefenseTrial) -> Iterator[Problem]:
    """``report`` gives numbers, or the reasons why there are none."""
    yield from reported(trial, "report")


@check("defense")
def gradients(trial: DefenseTrial) -> Iterator[Problem]:
    """Loss, gradients and weights stay finite."""
    if isinstance(error := trial.base.error, Diverged):
        yield describe_error(error), "Bound what can overflow, and add epsilon to divisors"
        return
    for name, tensor in trial.base.made.state.items():
        if not bool(torch.isfinite(tensor).all()):
            yield f"{name} is not finite after training", "Look for roots and divisions at 0"
            return


@check("defense")
def served(trial: DefenseTrial) -> Iterator[Problem]:
    """The deployed model keeps eval mode and weights, and ``stochastic`` says whether it is random."""
    made = trial.base.made
    deployed, says = made.target.deployed, made.target.stochastic
    before = snapshot.Snapshot.of(deployed)
    images = to_float(toy.world().splits.test.images).to(trial.device)
    with isolated(0), torch.no_grad():
        first, second = (classifier.answers(deployed, images, 1)[0] for _ in range(2))
    yield from changes(before, deployed, "the deployed model when it answers")
    random = not torch.allclose(first, second)
    if random != says:
        yield (
            f"two answers {'differ' if random else 'are the same'}, stochastic says {says}",
            "Let stochastic tell the truth: metrics and attacks then average over draws",
        )


@check("defense", name="seeded")
def augment_seeded(trial: DefenseTrial) -> Iterator[Problem]:
    """Images that ``augment`` draws for follow from its generator."""
    first, second = _augmented(trial, 0), _augmented(trial, 1)
    if first is not None and second is not None and snapshot.equal(first, second):
        yield "augment draws, but another seed changes nothing", "Use the numbers that were drawn"


def _augmented(trial: DefenseTrial, seed: int) -> Tensor | None:
    """Images that ``augment`` made from a seed, None if it drew nothing or needs a training."""
    rng, images = generator(seed, "augment"), to_float(toy.world().splits.train.images)
    with isolated(0) as traces, traces.drawing("augment", rng):
        made = Attempt.of(lambda: trial.make().augment(images, rng)).value
    return made.detach() if traces.used_generator and made is not None else None


@check("defense", name="global-state")
def method_draws(trial: DefenseTrial) -> Iterator[Problem]:
    """``augment`` and ``loss`` draw from the generators they get; layers they pass may draw from torch's."""
    drew = trial.first.traces.drew & {"augment", "loss"}
    if not drew or trial.base.error is not None or _layers_draw(trial.base.made.network):
        return
    for method in sorted(drew):
        yield (
            f"{method} draws from torch's global generator",
            "Draw from the generator that augment gets, step.generator in the loss",
        )


def _layers_draw(model: nn.Module) -> bool:
    """Whether a forward pass in training mode draws, so that passes in a loss may."""
    network = copy.deepcopy(model).train()
    images = to_float(toy.world().splits.train.images[:2])
    with isolated(0) as traces, torch.no_grad():
        network(images.to(next(network.parameters()).device))
    return bool(traces.drew)
