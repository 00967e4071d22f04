"""A small residual network for images of 24 to 96 pixels.

Residual blocks after He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016, with a stem of
stride 2.
"""

from __future__ import annotations

from pydantic import Field

from mia_bench import Architecture, NetworkTask, Register, hookimpl, lazy_imports

with lazy_imports():
    from mia_bench.api.classifier import Classifier
    from mia_bench_plugins.models import networks


class ResNetSmall(Architecture):
    """A stem of stride 2, then residual stages of one block each."""

    summary = "small residual network, stem of stride 2"
    paper = "He et al., CVPR 2016"
    version = "1"

    class Options(Architecture.Options):
        widths: tuple[int, ...] = Field((32, 64, 128), description="channels of each stage")

    options: Options

    def build(self, task: NetworkTask) -> Classifier:
        return networks.residual_network(self.options.widths, task.num_classes)


@hookimpl
def mia_bench_register_models(register: Register) -> None:
    register("resnet-small", ResNetSmall)
