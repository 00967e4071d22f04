"""Checks of attacks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.api.attack import Attack, Reconstructions, Setting
from mia_bench.api.defense import Defense
from mia_bench.api.images import to_uint8
from mia_bench.errors import Modified
from mia_bench.testing.checks import CheckSkipped, Problem, check, check_run
from mia_bench.testing.isolation import reloaded
from mia_bench.testing.trial import Run, Trial, observe, reported_by

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from mia_bench.data import fingerprints
    from mia_bench.models import snapshot
    from mia_bench.protocol import attack as protocol
    from mia_bench.protocol import target
    from mia_bench.testing import world as toy

EACH = 2
"""Images of each class asked for."""


class RecordedTarget:
    """A toy target that records every pass through it, whoever calls it.

    Attributes:
        target: what is attacked.
        passed: number of images in all passes.
        differentiated: whether a pass kept what gradients need.
    """

    def __init__(self, run: Run) -> None:
        network = run.world.target(run.device)
        self.target = target.Target(network, network, run.random_target)
        self.passed = 0
        self.differentiated = False
        network.blocks[0].register_forward_pre_hook(self._record)
        if run.random_target:
            network.head.register_forward_pre_hook(_add_noise)

    def _record(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.passed += len(inputs[0])
        self.differentiated |= torch.is_grad_enabled() and inputs[0].requires_grad


def _add_noise(head: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Features with noise from torch's global generator, as the last layers of ``mid`` have it."""
    return inputs[0] + 0.1 * torch.randn_like(inputs[0])


@dataclass(frozen=True)
class Inverted:
    """The images that an attack returned, on the CPU, and the number of images counted as queries."""

    images: Tensor
    queries: int


class AttackTrial(Trial[Inverted]):
    """An attack on a recorded target."""

    draws_globally = False
    follows_seed = False
    tolerance_saved = 0.0
    advice: ClassVar = {
        "runs": "See mia_bench.Attack",
        "repeatable": "Draw everything from task.generator, and keep nothing from one run to the next",
        "saved": "Put everything that invert needs into the tensors that prepare returns",
        "by-class": "Go by task.classes; if the classes can't be shared out, declare by_class = False",
        "few-images": "Handle two classes, one image a class, and a batch_size of 1",
        "random-target": "No two answers are the same: ask for a mean (draws=…), and compare with tolerance",
        "bfloat16": "Losses need float32: call .float() on what networks return",
        "gpu": "Move latents and labels to task.device; task.generator is the CPU's",
    }
    errors: ClassVar = {
        **Trial.errors,
        PermissionError: (
            "threat-model",
            "Declare the access level that it needs (access = …), or do without",
        ),
    }
    recorded: RecordedTarget | None = None
    """The target of the first run."""

    def compute(self, run: Run) -> Inverted:
        attack: Attack = self.make()
        each, batch_size = (1, 1) if run.small else (EACH, 64)
        if reason := attack.skip(Setting(toy.ToyPrior(), Defense(), each)):
            raise CheckSkipped(f"its skip() rules out the toy world: {reason}")
        recorded, splits = RecordedTarget(run), copy.deepcopy(run.world.splits)
        self.recorded = self.recorded or recorded
        perform = partial(
            protocol.run_attack,
            target=recorded.target,
            prior=run.world.prior(run.device),
            splits=splits,
            budget=protocol.Budget(each, None, batch_size, run.precision),
            context=run.context,
            undefended=RecordedTarget(run).target if attack.needs_undefended else None,
        )
        observe(attack, "prepare", run)
        preparation = perform(attack, step="prepare")
        prepared: protocol.Preparation = preparation.result
        if run.stored:
            attack, prepared = self.make(), replace(prepared, state=reloaded(prepared.state))
        observe(attack, "invert", run)
        classes = torch.tensor(run.classes) if run.classes else None
        inverted = perform(attack, step="invert", prepared=prepared, classes=classes)
        if not snapshot.equal(splits.public.images, run.world.splits.public.images):
            raise Modified("the attack changed the public images; it may only use them")
        if not isinstance(inverted.result, Reconstructions):
            raise TypeError(f"invert returned {type(inverted.result).__name__}")
        advice = "Return images (K, M, 3, R, R) in [0, 1], and latents (K, M, D) or None"
        with reported_by("images", advice):
            protocol.check_reconstructions(inverted.result, inverted.task, toy.RESOLUTION)
        images = inverted.result.images.detach().cpu()
        return Inverted(images, preparation.queries + inverted.queries)

    def outcome(self, made: Inverted) -> Mapping[str, Any]:
        return {"its images": made.images}

    def restored(self, made: Inverted) -> Mapping[str, Any]:
        if self.component.prepare is Attack.prepare:
            return {}
        self.require_exact()
        return self.outcome(self.run(stored=True))

    @check("attack")
    def threat_model(self) -> Iterator[Problem]:
        """It uses nothing of the target that its access level hides."""
        self.report("threat-model")
        level = self.component.access
        if level != "white-box" and self.recorded and self.recorded.differentiated:
            advice = "Ask through task.access alone, or declare access = 'white-box'"
            yield f"a {level} attack takes gradients of the target", advice

    @check("attack")
    def queries(self) -> Iterator[Problem]:
        """Every image that passes through the target is counted."""
        counted = self.made.queries
        assert self.recorded is not None
        if (passed := self.recorded.passed) > counted:
            advice = "Ask through task.access (labels, probabilities, answers, activations) alone"
            yield f"{passed} images passed through the target, but {counted} were counted", advice

    @check("attack", name="by-class")
    def shared_out(self) -> Iterator[Problem]:
        """It inverts some of the classes, whichever they are, with no more queries than all of them take."""
        if not self.component.by_class:
            return
        every = range(toy.world().classes)
        first, last = (self.rerun(classes=tuple(some)) for some in (every[:-1], every[1:]))
        if last.queries > (joint := self.made.queries):
            advice = "Ask about images for task.classes alone"
            yield (
                f"{len(every) - 1} classes take {last.queries} queries, all {len(every)} take {joint}",
                advice,
            )
        if last.queries and torch.equal(first.images, last.images):
            advice = "Look at the numbers in task.classes, not only at how many there are"
            yield "it makes the same images of other classes", advice

    @check("attack", name="private-data")
    def private_images(self) -> Iterator[Problem]:
        """No private image comes out."""
        splits, made = toy.world().splits, to_uint8(self.made.images.flatten(0, 1))
        private = torch.cat([part.images for part in (splits.train, splits.validation, splits.test)])
        known = torch.isin(*map(fingerprints.image_fingerprints, (made, private)))
        if seen := int(known.sum()):
            advice = "An attack may know the target's answers and the public images, nothing else"
            yield f"{seen} of its images equal private ones, pixel by pixel", advice


check_run("images", "Images ``(K, M, 3, R, R)`` in [0, 1], and latents ``(K, M, D)`` or None.", "attack")


check_run(
    "random-target",
    "It runs against a target whose answers are random, as those of some defenses are.",
    "attack",
    random_target=True,
)
