"""The attack ``plugin_name``: what it does, its formula, its paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mia_bench import Attack, AttackTask, Reconstructions, hookimpl, lazy_imports
from mia_bench.api.access import AccessLevel
from mia_bench.hookspecs import Register
from pydantic import Field

with lazy_imports():
    from torch import Tensor
    import torch



class PluginClass(Attack):
    """An example: of many samples of the prior, those that the target is surest of."""

    summary = "an example: the samples of the prior that the target is surest of"
    paper = "unpublished"
    access: ClassVar[AccessLevel] = "black-box"

    class Options(Attack.Options):
        """Options: ``-o plugin_name.search=1000``."""

        search: int = Field(200, ge=1, description="samples of the prior to choose from")

    options: Options

    def invert(self, task: AttackTask) -> Reconstructions:
        """Draw samples, score them, and keep the best of each class."""
        each = task.images_per_class
        latents = task.prior.sample(max(self.options.search, each), task.generator)
        scores = torch.cat([self._scores(task, part) for part in latents.split(task.batch_size)])
        best = scores[:, task.classes].topk(each, dim=0).indices.T
        images = task.prior.pictures(
            latents[best].flatten(0, 1), device=task.device, batch_size=task.batch_size
        )
        return Reconstructions(images.unflatten(0, best.shape), latents[best])

    def _scores(self, task: AttackTask, latents: Tensor) -> Tensor:
        """The target's probabilities ``(N, C)`` for latents ``(N, D)``, on the CPU."""
        with torch.no_grad():
            images = task.prior(latents.to(task.device))
        return task.access.probabilities(images).cpu()


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    """Register ``plugin_name``."""
    register("plugin_name", PluginClass)
