"""A small residual network for images of 24 to 96 pixels.

Residual blocks after He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016; a stem of
stride 2 and out-of-place operations, which per-sample gradient hooks need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mia_bench import Architecture, NetworkTask, hookimpl
from mia_bench.hookspecs import Register

if TYPE_CHECKING:
    from mia_bench.api.classifier import Classifier


class ResNetSmall(Architecture):
    """Stem of stride 2, then residual stages, one block each."""

    summary: ClassVar[str] = "small residual network, stem of stride 2"
    paper: ClassVar[str] = "He et al., CVPR 2016"
    version: ClassVar[str] = "1"

    class Options(Architecture.Options):
        """Options of ``resnet-small``."""

        widths: tuple[int, ...] = Field((32, 64, 128), description="channels of each stage")

    options: Options

    def build(self, task: NetworkTask) -> Classifier:
        """A freshly initialised network."""
        from mia_bench_plugins.models.networks import residual_network

        return residual_network(self.options.widths, task.num_classes)


@hookimpl
def mia_bench_register_models(register: Register) -> None:
    """Register ``resnet-small``."""
    register("resnet-small", ResNetSmall)
