"""The metric ``plugin_name``: what it measures, its formula, its paper."""

from __future__ import annotations

from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.metric import AttackEvidence

with lazy_imports():
    import torch

NAME = "plugin_metric"


class PluginClass(AttackMetric):
    """An example: how far reconstructions are from the mean training image of their class."""

    summary = "an example: distance to the mean training image of the class"
    quantities: ClassVar[dict[str, Quantity]] = {
        NAME: Quantity(
            "mean squared pixel distance to the class's mean training image",
            better="higher",
            kind="distance",
        ),
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """One distance for each reconstruction; the host computes the mean and its interval."""
        if not len(evidence.images):
            return {NAME: "there are no reconstructions"}
        train = evidence.splits.train
        means = torch.stack(
            [train.images[train.labels == label].double().mean(0) for label in evidence.labels]
        )
        distances = ((evidence.images.double() - means) / 255).square().flatten(1).mean(1)
        return {NAME: Measurement(distances.numpy(), evidence.labels.numpy())}


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``plugin_name``."""
    register("plugin_name", PluginClass)
