"""Checks of priors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from mia_bench.api.dataset import ImageSet
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.prior import Prior, PriorTask
from mia_bench.data.fingerprints import image_fingerprints
from mia_bench.device import autocast
from mia_bench.errors import MiaBenchError
from mia_bench.models.snapshot import equal
from mia_bench.plugins import describe_error
from mia_bench.seeds import generator
from mia_bench.testing.findings import Attempt, Check, NotMade, Problem, Trial, raises
from mia_bench.testing.isolation import (
    Traces,
    gpu_device,
    image_problems,
    isolated,
    private_files,
    reloaded,
    same_tensors,
)
from mia_bench.testing.world import RESOLUTION, prior_task, without, world

IMAGES = 6
"""How many images are drawn to look at."""


class Stopped(Exception):
    """What a training that is stopped ends with."""


@dataclass
class KeptCheckpoint:
    """A checkpoint in memory."""

    kept: dict[str, Tensor] | None = None

    def load(self) -> dict[str, Tensor] | None:
        """A copy of what was saved last."""
        return copy.deepcopy(self.kept)

    def save(self, state: dict[str, Tensor]) -> None:
        """Keep a copy."""
        self.kept = copy.deepcopy(state)


@dataclass
class StopAfter:
    """Progress that stops the work at the first report after something was saved."""

    checkpoint: KeptCheckpoint
    stopped: bool = field(default=False)

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Stop, but not at the end."""
        if self.checkpoint.kept is not None and done < total:
            self.stopped = True
            raise Stopped


@dataclass(frozen=True)
class Fitted:
    """A prior that was made, and the model that its state describes."""

    state: dict[str, Tensor]
    model: GenerativeModel
    drew: bool
    traces: Traces


class PriorTrial(Trial):
    """A prior that is made from the toy world's public images."""

    @cached_property
    def base(self) -> Attempt[Fitted]:
        """The first one."""
        return Attempt.of(self.fit)

    def fit(
        self,
        seed: int = 0,
        public: ImageSet | None = None,
        device: torch.device | None = None,
        **more: Any,
    ) -> Fitted:
        """Make and build it, as the host does."""
        prior: Prior = self.make()
        device = device or self.device
        public = copy.deepcopy(world().splits.public) if public is None else public
        task: PriorTask = replace(prior_task(public, seed, device), **more)
        before = task.generator.get_state()
        with isolated(seed) as traces:
            state = prior.fit(task)
            moved = not torch.equal(before, task.generator.get_state())
            stored = {name: tensor for name, tensor in state.items() if name != "trained_on"}
            model = prior.build(stored, resolution=RESOLUTION)
        if not isinstance(model, GenerativeModel):
            raise TypeError(f"build returned {type(model).__name__}, not a GenerativeModel")
        return Fitted(state, model.to(device), moved or traces.drew, traces)


def draw(model: GenerativeModel, seed: int = 0, truncation: float = 1.0) -> Tensor:
    """Latents ``(IMAGES, D)``."""
    return model.sample(IMAGES, generator(seed, "sample"), truncation=truncation)


def runs(trial: PriorTrial) -> Iterator[Problem]:
    """It makes tensors by name, and an image model of them."""
    if trial.base.error is not None:
        yield f"fit or build raised {describe_error(trial.base.error)}", "See the contract of Prior"


def model(trial: PriorTrial) -> Iterator[Problem]:
    """The model is in eval mode, knows its resolution, and has a discriminator as it says."""
    built = trial.base.made.model
    if any(module.training for module in built.modules()):
        yield "build returns a model in training mode", "Call .eval() before you return it"
    if built.resolution != RESOLUTION:
        yield f"the model's resolution is {built.resolution}, not {RESOLUTION}", "Set it in build"
    images = built(draw(built).to(trial.device))
    says = trial.make().has_discriminator
    try:
        scores = built.discriminate(images)
    except NotImplementedError:
        if says:
            yield "it says that it has a discriminator, and has none", "Implement discriminate"
        return
    if not says:
        yield "it has a discriminator, and says that it has none", "Let has_discriminator be True"
    elif tuple(scores.shape) != (IMAGES,):
        yield f"discriminate gives {tuple(scores.shape)}, not ({IMAGES},)", "One score an image"


def latents(trial: PriorTrial) -> Iterator[Problem]:
    """``sample`` gives ``(N, D)`` in float32 on the CPU, from its generator; truncation 0 the mean."""
    built = trial.base.made.model
    with isolated(0) as traces:
        first, again, other = draw(built), draw(built), draw(built, 1)
        narrow = draw(built, truncation=0.0)
    if tuple(first.shape) != (IMAGES, built.latent_dim):
        yield f"sample gives {tuple(first.shape)}, not (N, latent_dim)", "Return (N, latent_dim)"
        return
    if first.dtype != torch.float32 or first.device.type != "cpu":
        yield f"sample gives {first.dtype} on {first.device}", "Return float32 on the CPU"
    if not equal(first, again) or equal(first, other) or traces.drew:
        yield "samples do not follow from the generator", "Draw with generator=generator on the CPU"
    if not torch.allclose(narrow, narrow[:1].expand_as(narrow), atol=1e-5):
        yield "truncation 0 gives different latents", "Pull towards the mean latent: 0 gives it"


def images(trial: PriorTrial) -> Iterator[Problem]:
    """Images ``(N, 3, R, R)`` as floats in [0, 1]."""
    built = trial.base.made.model
    with torch.no_grad():
        made = built(draw(built).to(trial.device))
    yield from image_problems(made, (IMAGES, 3, RESOLUTION, RESOLUTION), "the model's images")
    if not made.is_floating_point():
        yield f"the model's images are {made.dtype}", "Return floats in [0, 1]"


def gradients(trial: PriorTrial) -> Iterator[Problem]:
    """Images are differentiable in the latents, with finite gradients."""
    built = trial.base.made.model
    latent = draw(built).to(trial.device).requires_grad_(True)
    made = built(latent)
    if not made.requires_grad:
        yield "images have no gradient in the latents", "Leave out no_grad and detach in forward"
        return
    (gradient,) = torch.autograd.grad(made.sum(), latent)
    if not bool(torch.isfinite(gradient).all()):
        yield "gradients in the latents are not finite", "Look for roots and divisions at 0"
    elif not bool(gradient.any()):
        yield "gradients in the latents are all 0", "Attacks can't optimise there: see forward"


def private_data(trial: PriorTrial) -> Iterator[Problem]:
    """Nothing is read below the data root, and no private image was trained on."""
    fitted = trial.base.made
    yield from private_files(fitted.traces)
    splits = world().splits
    private = torch.cat([part.images for part in (splits.train, splits.validation, splits.test)])
    seen = fitted.state.get("trained_on", torch.empty(0, dtype=torch.int64))
    if bool(torch.isin(image_fingerprints(private), seen).any()):
        yield "it was trained on private images", "Use task.training_images() and nothing else"


def repeatable(trial: PriorTrial) -> Iterator[Problem]:
    """Made again with the same seed it is the same."""
    trial.to_the_bit()
    if not same_tensors(trial.base.made.state, trial.fit().state):
        yield "made twice with one seed it differs", "Draw everything from task.generator"


def seeds(trial: PriorTrial) -> Iterator[Problem]:
    """Another seed gives another prior, if it draws at all."""
    trial.to_the_bit()
    fitted = trial.base.made
    if fitted.drew and same_tensors(fitted.state, trial.fit(seed=1).state):
        yield "it draws, but another seed changes nothing", "Use the numbers that were drawn"


def global_state(trial: PriorTrial) -> Iterator[Problem]:
    """No global generator is seeded, and no setting of torch changed.

    Initial weights may come from torch's, which the host has seeded.
    """
    yield from trial.base.made.traces.problems(draws=False)


def resumed(trial: PriorTrial) -> Iterator[Problem]:
    """Stopped and gone on with, it ends as if it had not been stopped."""
    trial.to_the_bit()
    fitted = trial.base.made
    checkpoint = KeptCheckpoint()
    progress = StopAfter(checkpoint)
    attempt = Attempt.of(lambda: trial.fit(checkpoint=checkpoint, progress=progress))
    if not progress.stopped:
        raise NotMade("it saves no checkpoint before it ends")
    if not isinstance(attempt.error, Stopped):
        yield "an exception in progress does not end it", "Let what progress raises pass"
        return
    again = Attempt.of(lambda: trial.fit(checkpoint=checkpoint))
    if again.error is not None:
        yield f"going on raised {describe_error(again.error)}", "Restore all that save was given"
    elif not same_tensors(fitted.state, again.made.state):
        yield (
            "stopped and gone on with it ends elsewhere",
            "Save optimisers, averages, the step and task.generator.get_state() too",
        )


def saved(trial: PriorTrial) -> Iterator[Problem]:
    """Restored from its stored tensors it makes the same images."""
    fitted = trial.base.made
    state = reloaded(fitted.state)
    state.pop("trained_on", None)
    prior: Prior = trial.make()
    with torch.no_grad(), isolated(3):
        restored = prior.build(state, resolution=RESOLUTION).to(trial.device)
        first, second = (m(draw(m).to(trial.device)) for m in (fitted.model, restored))
    if not torch.allclose(first, second, atol=1e-5):
        yield (
            "a restored model makes other images",
            "Return everything the model needs from fit, and build from that alone",
        )


def few_images(trial: PriorTrial) -> Iterator[Problem]:
    """Two public images do; without any it runs, or fails with one clear line."""
    _ = trial.base.made
    public = world().splits.public
    two = ImageSet(public.images[:2], public.labels[:2])
    for what, part in (("2 public images", two), ("no public images", without(public))):
        error = Attempt.of(partial(trial.fit, public=part)).error
        if error is not None and not isinstance(error, MiaBenchError):
            yield (
                f"with {what} it raised {describe_error(error)}",
                "Take them from task.training_images(), and raise a DataError that says what is "
                "missing",
            )


def bfloat16(trial: PriorTrial) -> Iterator[Problem]:
    """Its model works under autocast to bfloat16."""
    built = trial.base.made.model
    with torch.no_grad(), autocast("bfloat16", trial.device):
        made = built(draw(built).to(trial.device)).float()
    shape = (IMAGES, 3, RESOLUTION, RESOLUTION)
    for problem, _ in image_problems(made, shape, "the model's images"):
        if any(images(trial)):
            return  # the same again
        yield f"in bfloat16 {problem}", "Do what needs precision in float32"


def gpu(trial: PriorTrial) -> Iterator[Problem]:
    """It is made on a GPU."""
    _ = trial.base.made
    device = gpu_device()
    yield from raises(
        lambda: trial.fit(device=device),
        "on a GPU it",
        "Move images and draws to task.device; task.generator is the CPU's",
    )


TRIAL = PriorTrial

CHECKS: dict[str, Check] = {
    "runs": runs,
    "model": model,
    "latents": latents,
    "images": images,
    "gradients": gradients,
    "private-data": private_data,
    "repeatable": repeatable,
    "seeded": seeds,
    "global-state": global_state,
    "resumed": resumed,
    "saved": saved,
    "few-images": few_images,
    "bfloat16": bfloat16,
    "gpu": gpu,
}
