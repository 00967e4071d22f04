"""The architecture ``plugin_name``: what it is, its paper.

Networks are made in the functions that need them, or in a module of their own that is imported
there: importing this one imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mia_bench import Architecture, NetworkTask, hookimpl, lazy_imports
from mia_bench.hookspecs import Register
from pydantic import Field

with lazy_imports():
    from mia_bench.api.classifier import Classifier
    from torch import nn



class PluginClass(Architecture):
    """An example: two blocks of a strided convolution each."""

    summary = "an example: two strided convolutions"

    class Options(Architecture.Options):
        """Options, which a track sets."""

        width: int = Field(32, ge=1, description="channels of the first block, half the second's")

    options: Options

    def build(self, task: NetworkTask) -> Classifier:
        """Blocks and a head; the pooling in between is the base class's."""
        width = self.options.width
        network = Classifier()
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
