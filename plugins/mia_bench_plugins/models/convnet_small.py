"""A small plain convolutional network, the evaluation model of the small tracks.

Convolution pairs and max pooling after Simonyan and Zisserman, *Very Deep Convolutional Networks for
Large-Scale Image Recognition*, ICLR 2015: no skip connections, so another family than the target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mia_bench import Architecture, NetworkTask, hookimpl
from mia_bench.hookspecs import Register

if TYPE_CHECKING:
    from mia_bench.api.classifier import Classifier


class ConvNetSmall(Architecture):
    """Stages of two convolutions and a max pooling, no skip connections."""

    summary: ClassVar[str] = "small plain convolutional network, no skip connections"
    paper: ClassVar[str] = "Simonyan and Zisserman, ICLR 2015"
    version: ClassVar[str] = "1"

    class Options(Architecture.Options):
        """Options of ``convnet-small``."""

        widths: tuple[int, ...] = Field((32, 64, 128), description="channels of each stage")

    options: Options

    def build(self, task: NetworkTask) -> Classifier:
        """A freshly initialised network."""
        from mia_bench_plugins.models.networks import plain_network

        return plain_network(self.options.widths, task.num_classes)


@hookimpl
def mia_bench_register_models(register: Register) -> None:
    """Register ``convnet-small``."""
    register("convnet-small", ConvNetSmall)
