"""Checks of attacks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from mia_bench.api.access import Access, open_access
from mia_bench.api.attack import Attack, AttackTask, Reconstructions, Setting
from mia_bench.api.defense import Defense
from mia_bench.api.images import to_uint8
from mia_bench.data.fingerprints import image_fingerprints
from mia_bench.device import Precision, autocast
from mia_bench.models.snapshot import Snapshot, equal
from mia_bench.plugins import describe_error
from mia_bench.seeds import generator
from mia_bench.testing.findings import Attempt, Check, NotMade, Problem, Trial
from mia_bench.testing.isolation import (
    Traces,
    changes,
    gpu_device,
    image_problems,
    isolated,
    private_files,
    reloaded,
)
from mia_bench.testing.world import RESOLUTION, ToyPrior, World, quiet, world

EACH = 2
"""Images a class asked for."""


class RecordedTarget:
    """A toy target that notes every pass through it, on whatever way it was reached.

    Attributes:
        access: what the attack gets of it.
        passed: images of all passes.
        differentiated: whether a pass kept what gradients need.
    """

    def __init__(
        self, attack: Attack, where: World, device: torch.device, *, random: bool = False
    ) -> None:
        self.network = where.target(device)
        self.passed = 0
        self.differentiated = False
        self.network.blocks[0].register_forward_pre_hook(self._note)
        if random:
            self.network.head.register_forward_pre_hook(_noisy)
        self.access: Access = open_access(
            attack.access,
            self.network,
            where.classes,
            network=self.network,
            stochastic=random,
        )
        self.before = Snapshot.of(self.network)

    def _note(self, block: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.passed += len(inputs[0])
        self.differentiated |= torch.is_grad_enabled() and inputs[0].requires_grad


def _noisy(head: torch.nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Features with noise from torch's global generator, as the last layers of ``mid`` have it."""
    return inputs[0] + 0.1 * torch.randn_like(inputs[0])


@dataclass(frozen=True)
class Inverted:
    """One run of an attack.

    Attributes:
        result: what it returned.
        state: what ``prepare`` returned.
        drew: whether it drew from the task's generator.
    """

    result: Reconstructions
    state: dict[str, Tensor]
    drew: bool

    @property
    def images(self) -> Tensor:
        """The images on the CPU."""
        return self.result.images.detach().cpu()


@dataclass
class Scene:
    """What an attack ran against, and what it left behind."""

    target: RecordedTarget
    task: AttackTask
    before: Callable[[], Iterator[Problem]]
    traces: Traces


class AttackTrial(Trial):
    """An attack that runs in the toy world."""

    @cached_property
    def scene(self) -> Scene:
        """Of :attr:`base`."""
        return self.set(world(), self.device)

    @cached_property
    def base(self) -> Attempt[Inverted]:
        """The first run."""
        reason = self.make().skip(Setting(ToyPrior(), Defense(), EACH))
        if reason is not None:
            raise NotMade(f"skip refuses the toy world: {reason}")
        return Attempt.of(lambda: self.run(self.scene))

    def set(
        self,
        where: World,
        device: torch.device,
        *,
        seed: int = 0,
        each: int = EACH,
        batch: int = 64,
        random: bool = False,
    ) -> Scene:
        """A fresh target, whose answers may be random, and a task."""
        target = RecordedTarget(self.make(), where, device, random=random)
        prior, public = where.prior(device), copy.deepcopy(where.splits.public)
        task = AttackTask(
            access=target.access,
            prior=prior,
            public=public,
            classes=torch.arange(where.classes),
            images_per_class=each,
            generator=generator(seed, "attack"),
            device=device,
            batch_size=batch,
            progress=quiet,
        )
        kept, images = Snapshot.of(prior), public.images.clone()

        def problems() -> Iterator[Problem]:
            yield from changes(target.before, target.network, "the target")
            yield from changes(kept, prior, "the prior")
            if not equal(images, public.images):
                yield "it changes the public images", "Work on a copy"

        return Scene(target, task, problems, Traces())

    def run(
        self,
        scene: Scene,
        *,
        seed: int = 0,
        precision: Precision = "float32",
        through: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
    ) -> Inverted:
        """Prepare and invert as the host does; the state passes ``through`` something between."""
        task, device = scene.task, scene.task.device
        before = task.generator.get_state()
        with isolated(seed) as scene.traces, autocast(precision, device):
            state = through(self.make().prepare(task))
            drawn = task.generator.get_state()
            task = AttackTask(
                **{**vars(task), "state": state, "generator": generator(seed, "invert")}
            )
            start = task.generator.get_state()
            result = self.make().invert(task)
        if not isinstance(result, Reconstructions):
            raise TypeError(f"invert returned {type(result).__name__}, not Reconstructions")
        still = torch.equal(before, drawn) and torch.equal(start, task.generator.get_state())
        return Inverted(result, state, not still)


def _refused(trial: AttackTrial) -> bool:
    return isinstance(trial.base.error, PermissionError)


def runs(trial: AttackTrial) -> Iterator[Problem]:
    """It returns :class:`Reconstructions`."""
    error = trial.base.error
    if error is not None and not _refused(trial):
        yield f"the attack raised {describe_error(error)}", "See the contract of Attack"


def images(trial: AttackTrial) -> Iterator[Problem]:
    """Images ``(K, M, 3, R, R)`` in [0, 1], and latents ``(K, M, D)`` or None."""
    result = trial.base.made.result
    shape = (world().classes, EACH, 3, RESOLUTION, RESOLUTION)
    yield from image_problems(result.images.detach(), shape, "the images")
    latents = result.latents
    if latents is None:
        return
    if latents.dim() != 3 or tuple(latents.shape[:2]) != shape[:2]:
        yield f"the latents are {tuple(latents.shape)}, not {(*shape[:2], 'D')}", "Return (K, M, D)"
    elif not bool(torch.isfinite(latents).all()):
        yield "the latents hold NaN or infinity", "Keep losses and steps finite"


def threat_model(trial: AttackTrial) -> Iterator[Problem]:
    """It uses nothing of the target that its access level hides."""
    level = trial.scene.target.access.level
    if _refused(trial):
        yield (
            f"as a {level} attack it was refused: {trial.base.error}",
            "Declare the access level that it needs (access = …), or do without",
        )
    elif level != "white-box" and trial.scene.target.differentiated:
        yield (
            f"a {level} attack takes gradients of the target",
            "Ask through task.access alone, or declare access = 'white-box'",
        )


def queries(trial: AttackTrial) -> Iterator[Problem]:
    """Every image that passes through the target is counted."""
    _ = trial.base.made
    target = trial.scene.target
    if target.passed > target.access.queries:
        yield (
            f"{target.passed} images passed through the target, {target.access.queries} are counted",
            "Ask through task.access (labels, probabilities, answers, activations), never "
            "through the network itself",
        )


def untouched(trial: AttackTrial) -> Iterator[Problem]:
    """Weights, buffers and mode of the target and the prior stay, and so do the public images."""
    _ = trial.base
    yield from trial.scene.before()


def private_data(trial: AttackTrial) -> Iterator[Problem]:
    """Nothing is read below the data root, and no private image comes out."""
    made = trial.base
    yield from private_files(trial.scene.traces)
    if made.error is not None:
        return
    splits = world().splits
    private = torch.cat([part.images for part in (splits.train, splits.validation, splits.test)])
    flat = made.made.images.flatten(0, -4)
    pictures = Attempt.of(lambda: to_uint8(flat)).value
    if pictures is None or flat.shape[1:] != private.shape[1:]:
        return  # the check of images says what they are
    known = torch.isin(image_fingerprints(pictures), image_fingerprints(private))
    if seen := int(known.sum()):
        yield (
            f"{seen} of its images are private ones, pixel by pixel",
            "An attack may know the target's answers and the public images, nothing else",
        )


def repeatable(trial: AttackTrial) -> Iterator[Problem]:
    """The same task twice gives the same images."""
    trial.to_the_bit()
    first, again = trial.base.made, trial.run(trial.set(world(), trial.device))
    if not equal(first.images, again.images):
        yield (
            "two runs of one task differ",
            "Draw everything from task.generator, and keep nothing from one run to the next",
        )


def seeds(trial: AttackTrial) -> Iterator[Problem]:
    """Another seed gives other images, if the attack draws at all."""
    trial.to_the_bit()
    first, other = trial.base.made, trial.run(trial.set(world(), trial.device, seed=1), seed=1)
    if other.drew and equal(first.images, other.images):
        yield "it draws, but another seed changes nothing", "Use the numbers that were drawn"


def global_state(trial: AttackTrial) -> Iterator[Problem]:
    """No global generator is drawn from or seeded, and no setting of torch is changed."""
    _ = trial.base
    yield from trial.scene.traces.problems(draws=True)


def saved(trial: AttackTrial) -> Iterator[Problem]:
    """What ``prepare`` returned can be stored, and ``invert`` goes on from it as it was stored."""
    if not trial.base.made.state:
        return
    trial.to_the_bit()
    again = trial.run(trial.set(world(), trial.device), through=reloaded)
    if not equal(trial.base.made.images, again.images):
        yield (
            "with its prepared state restored the attack gives other images",
            "Put everything that invert needs into the tensors that prepare returns",
        )


def _attempted(
    trial: AttackTrial, scene: Scene, shape: tuple[int, ...], what: str, advice: str, **more: Any
) -> Iterator[Problem]:
    """Whether another run ends with images of a shape."""
    _ = trial.base.made
    attempt = Attempt.of(partial(trial.run, scene, **more))
    if attempt.error is not None:
        yield f"{what} the attack raised {describe_error(attempt.error)}", advice
        return
    if any(images(trial)):
        return  # the same again
    made = attempt.made.images
    for problem, _ in image_problems(made, (*shape, 3, RESOLUTION, RESOLUTION), "the images"):
        yield f"{what} {problem}", advice


def few_images(trial: AttackTrial) -> Iterator[Problem]:
    """Two classes trained on one image each, one image asked for, batches of one."""
    scene = trial.set(world(2, 1), trial.device, each=1, batch=1)
    advice = "Handle two classes, one image a class, and a batch_size of 1"
    yield from _attempted(trial, scene, (2, 1), "with 2 classes and 1 image", advice)


def random_target(trial: AttackTrial) -> Iterator[Problem]:
    """It runs against a target whose answers are random, as those of some defenses are."""
    scene = trial.set(world(), trial.device, random=True)
    advice = (
        "No two answers are the same then: ask for a mean (draws=…), and compare with tolerance"
    )
    shape = (world().classes, EACH)
    yield from _attempted(trial, scene, shape, "against a random target", advice)


def bfloat16(trial: AttackTrial) -> Iterator[Problem]:
    """It runs under autocast to bfloat16."""
    scene = trial.set(world(), trial.device)
    advice = "Losses need float32: call .float() on what networks return"
    shape = (world().classes, EACH)
    yield from _attempted(trial, scene, shape, "in bfloat16", advice, precision="bfloat16")


def gpu(trial: AttackTrial) -> Iterator[Problem]:
    """It runs on a GPU."""
    scene = trial.set(world(), gpu_device())
    advice = "Move latents and labels to task.device; task.generator is the CPU's"
    yield from _attempted(trial, scene, (world().classes, EACH), "on a GPU", advice)


TRIAL = AttackTrial

CHECKS: dict[str, Check] = {
    "runs": runs,
    "images": images,
    "threat-model": threat_model,
    "queries": queries,
    "untouched": untouched,
    "private-data": private_data,
    "repeatable": repeatable,
    "seeded": seeds,
    "global-state": global_state,
    "saved": saved,
    "few-images": few_images,
    "random-target": random_target,
    "bfloat16": bfloat16,
    "gpu": gpu,
}
