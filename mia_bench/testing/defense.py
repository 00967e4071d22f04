"""Checks of defenses."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mia_bench.api.classifier import Classifier, answers
from mia_bench.api.defense import BuildContext, Defense, TrainingStep
from mia_bench.api.images import to_float
from mia_bench.device import Precision
from mia_bench.errors import Diverged
from mia_bench.models.inference import move_model
from mia_bench.models.snapshot import Snapshot, equal
from mia_bench.plugins import describe_error
from mia_bench.seeds import generator, seeded
from mia_bench.testing.findings import Attempt, Check, Problem, raises
from mia_bench.testing.isolation import (
    TracedTrial,
    changes,
    gpu_device,
    image_problems,
    isolated,
    private_files,
    reloaded,
    same_tensors,
)
from mia_bench.testing.world import RECIPE, RESOLUTION, World, quiet, world
from mia_bench.training import TrainingResult, train_classifier


@dataclass
class Seen:
    """What was seen of a defense's methods while it trained."""

    loss: list[Problem] = field(default_factory=list)
    augment: list[Problem] = field(default_factory=list)
    drew: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Trained:
    """A target trained under the defense.

    Attributes:
        defense, result: what trained it, and the training.
        state: what the host stores.
        deployed: the restored target as it is deployed.
        logits: its answers ``(N, C)``.
        report: what the defense reports.
    """

    defense: Defense
    result: TrainingResult
    state: dict[str, Tensor]
    deployed: nn.Module
    logits: Tensor
    report: dict[str, Any]


class DefenseTrial(TracedTrial):
    """A defense that trains in the toy world."""

    @cached_property
    def seen(self) -> Seen:
        """Filled by :attr:`base`."""
        return Seen()

    @cached_property
    def base(self) -> Attempt[Trained]:
        """The first training."""
        defense: Defense = self.make()
        _watch(defense, self.seen)
        return Attempt.of(lambda: self.train(defense))

    def train(
        self,
        defense: Defense | None = None,
        *,
        seed: int = 0,
        where: World | None = None,
        device: torch.device | None = None,
        precision: Precision = "float32",
    ) -> Trained:
        """Train, deploy and ask, as the host does."""
        defense, where, device = defense or self.make(), where or world(), device or self.device
        with self.traced(seed):
            result = train_classifier(
                build(defense, where, seed),
                where.splits.train,
                RECIPE.model_copy(update={"precision": precision}),
                defense,
                seed=seed,
                device=device,
                progress=quiet,
            )
            report = defense.report(result.setup)
            state = {name: tensor.clone() for name, tensor in result.model.state_dict().items()}
            deployed = deploy(defense, where, state, device)
            logits = ask(deployed, where, device)
        return Trained(defense, result, state, deployed, logits, report)


def build(defense: Defense, where: World, seed: int, *, restoring: bool = False) -> Classifier:
    """The network that the defense builds, from the seed."""
    context = BuildContext(
        num_classes=where.classes,
        resolution=RESOLUTION,
        public=where.splits.public,
        generator=generator(seed, "build"),
        restoring=restoring,
    )
    with seeded(seed, "init"):
        return defense.build_model(where.network, context)


def deploy(
    defense: Defense, where: World, state: dict[str, Tensor], device: torch.device
) -> nn.Module:
    """The defended target with weights, in eval mode, as the host restores it."""
    network = build(defense, where, 0, restoring=True)
    network.load_state_dict(state)
    network = move_model(network, device).eval().requires_grad_(False)
    return move_model(defense.deploy(network), device).eval().requires_grad_(False)


def ask(deployed: nn.Module, where: World, device: torch.device) -> Tensor:
    """Logits ``(N, C)`` of the test images on the CPU; what is random comes from one seed."""
    images = to_float(where.splits.test.images).to(device)
    with seeded(1, "ask"), torch.no_grad():
        return answers(deployed, images, 1)[0].cpu()


def _watch(defense: Defense, seen: Seen) -> None:
    """Look at what ``augment`` and ``loss`` get and give; the instance's methods, nothing else."""
    augment, loss = defense.augment, defense.loss

    def watched_augment(images: Tensor, draws: torch.Generator) -> Tensor:
        before = torch.get_rng_state()
        given = images.detach().clone()
        made = augment(images, draws)
        _note_draws(before, "augment", seen)
        if not seen.augment:
            seen.augment += image_problems(made.detach(), tuple(given.shape), "augmented images")
        return made

    def watched_loss(step: TrainingStep) -> Tensor:
        before = torch.get_rng_state()
        value = loss(step)
        _note_draws(before, "loss", seen)
        if not seen.loss:
            seen.loss += _loss_problems(value)
        return value

    vars(defense).update(augment=watched_augment, loss=watched_loss)


def _note_draws(before: Tensor, method: str, seen: Seen) -> None:
    if not torch.equal(before, torch.get_rng_state()):
        seen.drew.add(method)


def _loss_problems(value: Tensor) -> Iterator[Problem]:
    if value.dim():
        yield (
            f"the loss has the shape {tuple(value.shape)}",
            "Return a scalar, the batch's mean say",
        )
    elif value.dtype != torch.float32:
        yield f"the loss is {value.dtype}", "Compute it in float32: logits.float() comes first"
    elif not value.requires_grad:
        yield "the loss has no gradient", "Compute it from step.outputs, without detach or no_grad"


def runs(trial: DefenseTrial) -> Iterator[Problem]:
    """It trains and answers with logits ``(N, C)``."""
    error = trial.base.error
    if error is not None:
        if not (trial.seen.loss or trial.seen.augment or isinstance(error, Diverged)):
            yield f"training raised {describe_error(error)}", "See the contract of Defense"
        return
    shape = (len(world().splits.test), world().classes)
    found = tuple(trial.base.made.logits.shape)
    if found != shape:
        yield f"the deployed model answers {found}, not {shape}", "Answer with logits (N, C)"


def loss(trial: DefenseTrial) -> Iterator[Problem]:
    """The loss is a scalar in float32 with a gradient."""
    _ = trial.base
    yield from trial.seen.loss


def augment(trial: DefenseTrial) -> Iterator[Problem]:
    """Augmented images keep shape, kind and range."""
    _ = trial.base
    yield from trial.seen.augment


def gradients(trial: DefenseTrial) -> Iterator[Problem]:
    """Loss, gradients and weights stay finite."""
    if isinstance(trial.base.error, Diverged):
        yield (
            describe_error(trial.base.error),
            "Bound what can overflow, and add epsilon to divisors",
        )
        return
    for name, tensor in trial.base.made.state.items():
        if not bool(torch.isfinite(tensor).all()):
            yield f"{name} is not finite after training", "Look for roots and divisions at 0"
            return


def served(trial: DefenseTrial) -> Iterator[Problem]:
    """The deployed model keeps eval mode and weights, and ``stochastic`` says if it is random."""
    trained = trial.base.made
    before = Snapshot.of(trained.deployed)
    images = to_float(world().splits.test.images).to(trial.device)
    with isolated(0), torch.no_grad():
        first, second = (answers(trained.deployed, images, 1)[0] for _ in range(2))
    yield from changes(before, trained.deployed, "the deployed model when it answers")
    if any(module.training for module in trained.deployed.modules()):
        yield "a part of the deployed model is in training mode", "Keep to eval mode"
    random, says = not torch.allclose(first, second), trained.defense.stochastic
    if random != says:
        yield (
            f"two answers {'differ' if random else 'are the same'}, stochastic says {says}",
            "Let stochastic tell the truth: metrics and attacks then average over draws",
        )


def saved(trial: DefenseTrial) -> Iterator[Problem]:
    """A target restored from its stored weights answers the same."""
    trained = trial.base.made
    where = world()
    state = reloaded(trained.state)
    with isolated(5):
        restored = ask(deploy(trial.make(), where, state, trial.device), where, trial.device)
    if not torch.allclose(restored, trained.logits, atol=1e-5):
        yield (
            "a restored target answers something else",
            "Keep what answers depend on in parameters or buffers, and make build_model the same "
            "with context.restoring",
        )


def repeatable(trial: DefenseTrial) -> Iterator[Problem]:
    """Training again with the same seed gives the same target."""
    trial.to_the_bit()
    trained = trial.base.made
    again = trial.train()
    if not (same_tensors(trained.state, again.state) and equal(trained.logits, again.logits)):
        yield (
            "two trainings with one seed differ",
            "Draw from step.generator and the generator that augment gets, and keep nothing "
            "from one training to the next",
        )


def seeds(trial: DefenseTrial) -> Iterator[Problem]:
    """Training with another seed gives another target."""
    trial.to_the_bit()
    if same_tensors(trial.base.made.state, trial.train(seed=1).state):
        yield "two trainings with different seeds are the same", "Use the generators you are given"
    first, second = (self_draws(trial, seed) for seed in (0, 1))
    if first is not None and second is not None and equal(first, second):
        yield "augment draws, but another seed changes nothing", "Use the numbers that were drawn"


def self_draws(trial: DefenseTrial, seed: int) -> Tensor | None:
    """Images that ``augment`` made from a seed, None if it drew nothing or needs a training."""
    draws = generator(seed, "augment")
    before = draws.get_state()
    with isolated(0):
        made = Attempt.of(lambda: trial.make().augment(world().splits.train.images / 255, draws))
    drew = not torch.equal(before, draws.get_state())
    return made.value.detach() if drew and made.value is not None else None


def global_state(trial: DefenseTrial) -> Iterator[Problem]:
    """No global generator is seeded or drawn from but by layers; no setting of torch is changed."""
    yield from trial.traces.problems(draws=False)
    if trial.base.error is None and not _layers_draw(trial.base.made.result.model):
        for method in sorted(trial.seen.drew):
            yield (
                f"{method} draws from torch's global generator",
                "Draw from the generator that augment gets, step.generator in the loss",
            )


def _layers_draw(model: nn.Module) -> bool:
    """Whether a forward pass in training mode draws, so that passes in a loss may."""
    network = copy.deepcopy(model).train()
    images = to_float(world().splits.train.images[:2]).to(next(network.parameters()).device)
    with isolated(0) as traces, torch.no_grad():
        network(images)
    return traces.drew


def private_data(trial: DefenseTrial) -> Iterator[Problem]:
    """Nothing is read below the data root: training images come from the host."""
    _ = trial.base
    yield from private_files(trial.traces)


def report(trial: DefenseTrial) -> Iterator[Problem]:
    """``report`` gives numbers, or the reasons why there are none."""
    for name, value in trial.base.made.report.items():
        if not isinstance(value, (int, float, str)):
            yield f"report gives {type(value).__name__} as {name!r}", "Give a float or a reason"
        elif not isinstance(value, str) and not math.isfinite(value):
            yield f"report gives {value} as {name!r}", "Give the reason as a string instead"


def few_images(trial: DefenseTrial) -> Iterator[Problem]:
    """Two classes with one image each can be trained on."""
    _ = trial.base.made
    yield from raises(
        lambda: trial.train(where=world(2, 1)),
        "with 2 classes of 1 image training",
        "Handle a batch of two images",
    )


def bfloat16(trial: DefenseTrial) -> Iterator[Problem]:
    """It trains under autocast to bfloat16."""
    _ = trial.base.made
    defense, seen = trial.make(), Seen()
    _watch(defense, seen)
    attempt = Attempt.of(lambda: trial.train(defense, precision="bfloat16"))
    for problem, advice in seen.loss if not trial.seen.loss else ():
        yield f"in bfloat16 {problem}", advice
    if attempt.error is not None and not seen.loss:
        yield (
            f"in bfloat16 training raised {describe_error(attempt.error)}",
            "Losses need float32: call .float() on outputs and features first",
        )


def gpu(trial: DefenseTrial) -> Iterator[Problem]:
    """It trains on a GPU."""
    _ = trial.base.made
    device = gpu_device()
    yield from raises(
        lambda: trial.train(device=device),
        "on a GPU training",
        "Make new tensors on the images' device; generators are the CPU's, so move draws",
    )


TRIAL = DefenseTrial

CHECKS: dict[str, Check] = {
    "runs": runs,
    "loss": loss,
    "augment": augment,
    "gradients": gradients,
    "served": served,
    "saved": saved,
    "repeatable": repeatable,
    "seeded": seeds,
    "global-state": global_state,
    "private-data": private_data,
    "report": report,
    "few-images": few_images,
    "bfloat16": bfloat16,
    "gpu": gpu,
}
