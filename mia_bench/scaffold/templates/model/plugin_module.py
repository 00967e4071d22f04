"""The architecture ``plugin_name``: what it is, its paper.

Subclasses of ``torch.nn.Module`` belong in a module of their own, which is imported lazily.
"""

from __future__ import annotations

from mia_bench import Architecture, NetworkTask, Register, hookimpl, lazy_imports
from pydantic import Field

with lazy_imports():
    from mia_bench.api import classifier
    from torch import nn


class PluginClass(Architecture):
    """An example: two blocks of a strided convolution each."""

    summary = "an example: two strided convolutions"

    class Options(Architecture.Options):
        """Options, which a track sets."""

        width: int = Field(32, ge=1, description="channels of the first block, half the second's")

    options: Options

    def build(self, task: NetworkTask) -> classifier.Classifier:
        """Blocks and a head; the base class pools between them."""
        width = self.options.width
        network = classifier.Classifier()
        network.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )
            for inputs, outputs in ((3, width), (width, 2 * width))
        )
        network.head = nn.Linear(2 * width, task.num_classes)
        return network


@hookimpl
def mia_bench_register_models(register: Register) -> None:
    """Register ``plugin_name``."""
    register("plugin_name", PluginClass)
