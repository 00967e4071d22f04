"""The attack ``plugin_name``: what it does, its formula, its paper."""

from __future__ import annotations

from mia_bench import Attack, AttackTask, Reconstructions, Register, hookimpl, lazy_imports
from pydantic import Field

with lazy_imports():
    import torch


class PluginClass(Attack):
    """An example: the samples of the prior with the highest target confidence."""

    summary = "an example: the samples of the prior with the highest target confidence"
    paper = "unpublished"
    access = "black-box"

    class Options(Attack.Options):
        """Options: ``-o plugin_name.search=1000``."""

        search: int = Field(200, ge=1, description="samples of the prior to choose from")

    options: Options

    def invert(self, task: AttackTask) -> Reconstructions:
        """Sample the prior and return the best samples of each class."""
        each = task.images_per_class
        latents = task.prior.sample(max(self.options.search, each), task.generator)
        scores = torch.cat([self._scores(task, part) for part in latents.split(task.batch_size)])
        best = scores[:, task.classes].topk(each, dim=0).indices.T
        return task.reconstructions(latents[best])

    def _scores(self, task: AttackTask, latents: torch.Tensor) -> torch.Tensor:
        """The target's probabilities ``(N, C)`` for latents ``(N, D)``, on the CPU."""
        with torch.no_grad():
            images = task.prior(latents.to(task.device))
        return task.access.probabilities(images).cpu()


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    """Register ``plugin_name``."""
    register("plugin_name", PluginClass)
