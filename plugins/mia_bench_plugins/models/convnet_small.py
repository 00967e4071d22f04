"""A small plain convolutional network, the evaluation model of the small tracks.

Pairs of convolutions and max pooling after Simonyan and Zisserman, *Very Deep Convolutional Networks for
Large-Scale Image Recognition*, ICLR 2015: no skip connections, unlike in the target.
"""

from __future__ import annotations

from pydantic import Field

from mia_bench import Architecture, NetworkTask, Register, hookimpl, lazy_imports

with lazy_imports():
    from mia_bench.api.classifier import Classifier
    from mia_bench_plugins.models import networks


class ConvNetSmall(Architecture):
    """Stages of two convolutions and a max pooling, no skip connections."""

    summary = "small plain convolutional network, no skip connections"
    paper = "Simonyan and Zisserman, ICLR 2015"
    version = "1"

    class Options(Architecture.Options):
        widths: tuple[int, ...] = Field((32, 64, 128), description="channels of each stage")

    options: Options

    def build(self, task: NetworkTask) -> Classifier:
        return networks.plain_network(self.options.widths, task.num_classes)


@hookimpl
def mia_bench_register_models(register: Register) -> None:
    register("convnet-small", ConvNetSmall)
