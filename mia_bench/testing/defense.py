"""Checks of defenses."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.api.defense import Defense, TrainingSetup, TrainingStep
from mia_bench.api.images import to_float
from mia_bench.errors import Diverged
from mia_bench.seeds import generator, seeded
from mia_bench.testing.checks import CheckSkipped, Problem, Unsound, check, check_run
from mia_bench.testing.isolation import isolated, reloaded
from mia_bench.testing.trial import (
    Run,
    Trial,
    attempt,
    differing,
    observe,
    reported_by,
    require_images,
    stopped_and_resumed,
)

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from mia_bench.api import classifier
    from mia_bench.models import snapshot
    from mia_bench.protocol import measurement, target
    from mia_bench.testing import world as toy


@dataclass(frozen=True)
class Trained:
    """A target trained under the defense: network, stored state, report, and the target restored from it.

    Attributes:
        logits: answers ``(N, C)`` of the restored target.
    """

    network: nn.Module
    state: dict[str, Tensor]
    report: dict[str, float | str]
    target: target.Target
    logits: Tensor


class DefenseTrial(Trial[Trained]):
    """A defense that trains a target."""

    advice: ClassVar = {
        "runs": "See mia_bench.Defense",
        "repeatable": "Draw from step.generator and the generator that augment gets, and keep "
        "nothing from one training to the next",
        "saved": "Keep what answers depend on in parameters or buffers, and make build_model the "
        "same with context.restoring",
        "resumed": "Return from state_dict what training changes in the defense; load_state_dict gets it",
        "served": "Answer in eval mode and change nothing",
        "few-images": "Handle a batch of two images",
        "bfloat16": "Losses need float32: call .float() on outputs and features first",
        "gpu": "Make new tensors on the images' device; generators are the CPU's, so move draws",
    }
    errors: ClassVar = {Diverged: ("gradients", "Bound what can overflow, add epsilon to divisors")}

    def compute(self, run: Run) -> Trained:
        defense: Defense = self.make()
        observe(defense, "augment", run)
        observe(defense, "loss", run)
        _require_soundness(defense)
        trained = self.train(run, defense)
        state = {name: tensor.clone() for name, tensor in trained.state.items()}
        return Trained(trained.training.model, state, trained.report, *_restore(defense, state, run))

    def train(self, run: Run, defense: Any = None, **context: Any) -> target.TrainedTarget:
        """The trained target; ``context`` replaces parts of the run's."""
        recipe = toy.RECIPE.model_copy(update={"precision": run.precision})
        defense, architecture = defense or self.make(), toy.ToyArchitecture()
        splits, context_of_run = run.world.splits, replace(run.context, **context)
        return target.train_target(defense, architecture, splits, recipe, context_of_run)

    def outcome(self, made: Trained) -> Mapping[str, Any]:
        return {**made.state, "its answers": made.logits}

    def restored(self, made: Trained) -> Mapping[str, Any]:
        with isolated(5):
            return {"its answers": _restore(self.make(), reloaded(made.state), self.first)[1]}

    @check("defense", name="runs")
    def answers(self) -> Iterator[Problem]:
        """The deployed model answers with logits ``(N, C)``."""
        shape = (len(toy.world().splits.test), toy.world().classes)
        if (found := tuple(self.made.logits.shape)) != shape:
            yield f"the deployed model answers {found}, not {shape}", "Answer with logits (N, C)"

    @check("defense")
    def resumed(self) -> Iterator[Problem]:
        """Stopped after an epoch and resumed it ends as if it had never been stopped."""
        self.require_exact()
        made = self.made
        again = stopped_and_resumed(partial(self.train, Run(self.device)))
        with isolated(1):  # other global generators, which another check is for
            undisturbed = self.train(Run(self.device))
        if differing(made.state, undisturbed.state):
            raise CheckSkipped("two runs differ that nobody stopped")
        if differing(made.state, again.state) or made.report != again.report:
            yield "stopped and resumed it ends with another state or report", self.advice["resumed"]

    @check("defense")
    def gradients(self) -> Iterator[Problem]:
        """Loss, gradients and weights stay finite."""
        self.report("gradients")
        state = self.made.state.items()
        if broken := [name for name, tensor in state if not bool(torch.isfinite(tensor).all())]:
            yield f"{broken[0]} is not finite after training", "Look for roots and divisions at 0"

    @check("defense")
    def served(self) -> Iterator[Problem]:
        """The deployed model changes nothing when it answers, and ``stochastic`` says if it is random."""
        deployed, says = self.made.target.deployed, self.made.target.stochastic
        splits = toy.world().splits
        images = to_float(splits.test.images).to(self.device)
        unmodified = measurement.assert_evidence_unmodified({"deployed model": deployed}, splits)
        with isolated(0), torch.no_grad(), unmodified:
            first, second = (classifier.answers(deployed, images, 1)[0] for _ in range(2))
        if torch.allclose(first, second) == says:
            problem = f"two answers {'are the same' if says else 'differ'}, but stochastic is {says}"
            yield problem, f"Set stochastic to {not says}: answers of a random target are averaged over draws"

    @check("defense", name="seeded")
    def augment_seeded(self) -> Iterator[Problem]:
        """Images that ``augment`` draws for follow from its generator."""
        first, second = self._augmented(0), self._augmented(1)
        if first is not None and second is not None and snapshot.equal(first, second):
            yield "augment draws, but another seed changes nothing", "Use the numbers that were drawn"

    def _augmented(self, seed: int) -> Tensor | None:
        """Images that ``augment`` made from a seed, None if it drew nothing or needs a training."""
        rng, images = generator(seed, "augment"), to_float(toy.world().splits.train.images)
        with isolated(0) as traces, traces.drawing("augment", rng):
            made, _ = attempt(lambda: self.make().augment(images, rng))
        return made.detach() if traces.used_generator and made is not None else None

    @check("defense", name="global-state")
    def methods_draw(self) -> Iterator[Problem]:
        """``augment`` and ``loss`` draw from the generators they get, unless layers draw in a pass."""
        drew = self.first.traces.drew & {"augment", "loss"}
        if not drew or self.error is not None:
            return
        network = copy.deepcopy(self.made.network).train()
        images = to_float(toy.world().splits.train.images[:2]).to(self.device)
        with isolated(0) as traces, torch.no_grad():
            network(images)
        for method in sorted(drew) if not traces.drew else ():
            advice = "Draw from the generator that augment gets, step.generator in the loss"
            yield f"{method} draws from torch's global generator", advice


def _restore(defense: Defense, state: dict[str, Tensor], run: Run) -> tuple[target.Target, Tensor]:
    """The target, and its logits ``(N, C)`` of the test images on the CPU."""
    splits, context = run.world.splits, replace(run.context, seed=0)
    restored = target.restore_target(defense, toy.ToyArchitecture(), splits, state, context)
    images = to_float(splits.test.images).to(run.device)
    with seeded(1, "ask"), torch.no_grad():
        return restored, classifier.answers(restored.deployed, images, 1)[0].cpu()


def _require_soundness(defense: Defense) -> None:
    """Let methods of the instance raise :class:`Unsound` where they return something wrong."""
    augment, loss, report = defense.augment, defense.loss, defense.report

    def sound_augment(images: Tensor, rng: torch.Generator) -> Tensor:
        shape, made = tuple(images.shape), augment(images, rng)
        with reported_by("augment", "Keep the shape, and values in [0, 1]"):
            require_images(made, shape)
        return made

    def sound_loss(step: TrainingStep) -> Tensor:
        value = loss(step)
        advice = "Return a scalar, such as the batch's mean, computed from step.outputs in float32"
        if not isinstance(value, torch.Tensor):
            raise Unsound("loss", f"the loss is a {type(value).__name__}, not a tensor", advice)
        if value.dim() or value.dtype != torch.float32 or not value.requires_grad:
            gradient = "" if value.requires_grad else " without a gradient"
            problem = f"the loss is {value.dtype} of shape {tuple(value.shape)}{gradient}"
            raise Unsound("loss", problem, advice)
        return value

    def sound_report(setup: TrainingSetup) -> dict[str, float | str]:
        made = report(setup)
        for name, value in made.items():
            number = isinstance(value, (int, float)) and math.isfinite(value)
            if not (number or isinstance(value, str)):
                advice = "Give a finite number, or the reason as a string"
                raise Unsound("report", f"report gives {value!r} as {name!r}", advice)
        return made

    vars(defense).update(augment=sound_augment, loss=sound_loss, report=sound_report)


check_run("loss", "The loss is a scalar in float32 with a gradient.", "defense")
check_run("augment", "Augmented images keep shape and range.", "defense")
check_run("report", "``report`` gives finite numbers, or the reasons why there are none.", "defense")
