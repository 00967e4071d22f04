"""The defense ``plugin_name``: what it does, its formula, its paper."""

from __future__ import annotations

from mia_bench import Defense, Register, TrainingStep, hookimpl, lazy_imports
from pydantic import Field

with lazy_imports():
    import torch


class PluginClass(Defense):
    """An example: cross-entropy plus a penalty on large logits."""

    summary = "an example: large logits are penalised"
    paper = "unpublished"

    class Options(Defense.Options):
        """Options: ``-o plugin_name.weight=0.1``."""

        weight: float = Field(0.01, ge=0, description="weight of the penalty")

    options: Options

    def loss(self, step: TrainingStep) -> torch.Tensor:
        """Cross-entropy plus ``weight`` times the mean square of the logits."""
        penalty = step.outputs.logits.float().square().mean()
        return super().loss(step) + self.options.weight * penalty


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    """Register ``plugin_name``."""
    register("plugin_name", PluginClass)
