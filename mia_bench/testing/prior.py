"""Checks of priors."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.api.dataset import ImageSet
from mia_bench.device import autocast
from mia_bench.errors import MiaBenchError
from mia_bench.seeds import generator
from mia_bench.testing.checks import Problem, check, check_run
from mia_bench.testing.isolation import isolated, reloaded
from mia_bench.testing.trial import (
    Run,
    Trial,
    differing,
    observe,
    reported_by,
    require_images,
    stopped_and_resumed,
)

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.api import generative
    from mia_bench.models import snapshot
    from mia_bench.protocol import prior as protocol
    from mia_bench.testing import world as toy

IMAGES = 6
"""How many images are drawn."""


@dataclass(frozen=True)
class Fitted:
    """A prior's state, the model that it describes, and images ``(IMAGES, 3, R, R)`` of the model."""

    state: dict[str, Tensor]
    model: generative.GenerativeModel
    images: Tensor


class PriorTrial(Trial[Fitted]):
    """A prior that is made from the toy world's public images."""

    follows_seed = False
    advice: ClassVar = {
        "runs": "See mia_bench.Prior",
        "repeatable": "Draw everything from task.generator",
        "saved": "Return everything the model needs from fit, and build from that alone",
        "resumed": "Restore all that save was given",
        "few-images": "Take images from task.training_images()",
        "bfloat16": "Do what needs precision in float32",
        "gpu": "Move images and draws to task.device; task.generator is the CPU's",
    }

    def compute(self, run: Run) -> Fitted:
        prior = self.make()
        state = self.fit(run, prior)
        model = self.build(state, run, prior)
        if not isinstance(model, generative.GenerativeModel):
            raise TypeError(f"build returned {type(model).__name__}, not a GenerativeModel")
        with torch.no_grad(), autocast(run.precision, run.device):
            images = model(draw(model).to(run.device)).float()
        with reported_by("images", "Return images (N, 3, R, R) in [0, 1] from forward"):
            require_images(images, (IMAGES, 3, toy.RESOLUTION, toy.RESOLUTION))
        return Fitted(state, model, images)

    def fit(
        self, run: Run, prior: Any = None, public: ImageSet | None = None, **context: Any
    ) -> dict[str, Tensor]:
        """The state that the host stores; ``context`` replaces parts of the run's."""
        prior = prior or self.make()
        observe(prior, "fit", run)
        public = copy.deepcopy(run.world.splits.public) if public is None else public
        return toy.fit(prior, public, replace(run.context, **context)).state

    def build(self, state: dict[str, Tensor], run: Run, prior: Any = None) -> generative.GenerativeModel:
        """The model of a state, as attacks get it."""
        # Whether it saw private images is a check of its own.
        state = {**state, protocol.TRAINED_ON: torch.empty(0, dtype=torch.int64)}
        return protocol.restore_prior(prior or self.make(), state, run.world.splits, run.context, name="it")

    def outcome(self, made: Fitted) -> Mapping[str, Any]:
        return {**made.state, "its images": made.images}

    def restored(self, made: Fitted) -> Mapping[str, Any]:
        with torch.no_grad(), isolated(3):
            model = self.build(reloaded(made.state), self.first)
            return {"its images": model(draw(model).to(self.device)).float()}

    @check("prior")
    def project(self) -> Iterator[Problem]:
        """``project`` gives finite latents, whose images are nearer to the given ones than samples are."""
        model, made = self.made.model, self.made.images
        with torch.no_grad(), isolated(0):
            latents = model.project(made)
            if latents is None:
                return
            advice = "Return finite latents (N, latent_dim), or None where there is no closed form"
            if latents.shape != (IMAGES, model.latent_dim) or not bool(torch.isfinite(latents).all()):
                yield (
                    f"project returns {tuple(latents.shape)} of {IMAGES} images, or what is not finite",
                    advice,
                )
                return
            near, others = model(latents.to(self.device)), made.roll(1, 0)
            if float((near - made).square().sum()) > float((others - made).square().sum()):
                yield "images of projected latents are no nearer than others", advice

    @check("prior")
    def model(self) -> Iterator[Problem]:
        """The model is in eval mode, knows its resolution, and has a discriminator if it says so."""
        made, prior = self.made, self.make()
        own = {name: tensor for name, tensor in made.state.items() if name != protocol.TRAINED_ON}
        if any(m.training for m in prior.build(own, resolution=toy.RESOLUTION).modules()):
            yield "build returns a model in training mode", "Call .eval() before you return it"
        if made.model.resolution != toy.RESOLUTION:
            yield f"the model's resolution is {made.model.resolution}", "Set it in build"
        try:
            scores = made.model.discriminate(made.images)
        except NotImplementedError:
            if prior.has_discriminator:
                yield "has_discriminator is True, but it has none", "Implement discriminate"
            return
        if not prior.has_discriminator:
            yield "it has a discriminator, but has_discriminator is False", "Let has_discriminator be True"
        elif tuple(scores.shape) != (IMAGES,):
            yield f"discriminate gives {tuple(scores.shape)}, not ({IMAGES},)", "Return one score an image"

    @check("prior")
    def latents(self) -> Iterator[Problem]:
        """``sample`` gives ``(N, D)`` in float32 on the CPU, from its generator; truncation 0 the mean."""
        built = self.made.model
        with isolated(0) as traces:
            first, again, other = draw(built), draw(built), draw(built, 1)
            narrow = draw(built, truncation=0.0)
        if tuple(first.shape) != (IMAGES, built.latent_dim):
            yield f"sample gives {tuple(first.shape)}, not (N, latent_dim)", "Return (N, latent_dim)"
            return
        if first.dtype != torch.float32 or first.device.type != "cpu":
            yield f"sample gives {first.dtype} on {first.device}", "Return float32 on the CPU"
        if not snapshot.equal(first, again) or snapshot.equal(first, other) or traces.drew:
            yield "samples do not follow from the generator", "Draw with generator=generator on the CPU"
        if not torch.allclose(narrow, narrow[:1].expand_as(narrow), atol=1e-5):
            yield "truncation 0 gives different latents", "Pull towards the mean latent: 0 gives it"

    @check("prior")
    def gradients(self) -> Iterator[Problem]:
        """Images are differentiable in the latents, with finite gradients."""
        built = self.made.model
        latent = draw(built).to(self.device).requires_grad_(True)
        made = built(latent)
        if not made.requires_grad:
            yield "images have no gradient in the latents", "Use neither no_grad nor detach in forward"
            return
        (gradient,) = torch.autograd.grad(made.sum(), latent)
        if not bool(torch.isfinite(gradient).all()):
            yield "gradients in the latents are not finite", "Look for roots and divisions at 0"
        elif not bool(gradient.any()):
            yield "gradients in the latents are all 0", "Change forward: attacks can't optimise there"

    @check("prior", name="private-data")
    def private_images(self) -> None:
        """No private image was trained on."""
        seen, name = self.made.state[protocol.TRAINED_ON], self.component.__name__
        with reported_by("private-data", "Use task.training_images() and nothing else"):
            protocol.check_prior_is_public(name, seen, toy.world().splits)

    @check("prior")
    def resumed(self) -> Iterator[Problem]:
        """Stopped and resumed it ends as if it had never been stopped."""
        self.require_exact()
        made = self.made
        if differing(made.state, stopped_and_resumed(partial(self.fit, Run(self.device)))):
            advice = "Save optimisers, averages, the step and task.generator.get_state() too"
            yield "stopped and resumed it ends with another state", advice

    @check("prior")
    def few_images(self) -> None:
        """Two public images are enough; without any it runs, or fails with one clear line."""
        _ = self.made
        public = toy.world().splits.public
        for part in (ImageSet(public.images[:2], public.labels[:2]), toy.without(public)):
            with isolated(0), contextlib.suppress(MiaBenchError):
                self.fit(Run(self.device), public=part)


def draw(model: generative.GenerativeModel, seed: int = 0, truncation: float = 1.0) -> Tensor:
    """Latents ``(IMAGES, D)``."""
    return model.sample(IMAGES, generator(seed, "sample"), truncation=truncation)


check_run("images", "Images ``(N, 3, R, R)`` in [0, 1].", "prior")
