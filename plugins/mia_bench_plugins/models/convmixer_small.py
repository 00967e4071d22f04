"""A small ConvMixer: patches, then depthwise and 1×1 convolutions of one width and resolution.

Trockman and Kolter, *Patches Are All You Need?*, TMLR 2023 (arXiv 2201.09792).
"""

from __future__ import annotations

from pydantic import Field

from mia_bench import Architecture, NetworkTask, Register, hookimpl, lazy_imports

with lazy_imports():
    from mia_bench.api.classifier import Classifier
    from mia_bench_plugins.models import networks


class ConvMixerSmall(Architecture):
    """A ConvMixer for small images."""

    summary = "small ConvMixer: patches, depthwise and 1×1 convolutions"
    paper = "Trockman and Kolter, TMLR 2023, arXiv 2201.09792"
    version = "1"

    class Options(Architecture.Options):
        """Options of ``convmixer-small``."""

        width: int = Field(96, ge=1, description="channels")
        depth: int = Field(4, ge=1, description="blocks")
        patch: int = Field(2, ge=1, description="side of a patch in pixels")
        kernel: int = Field(5, ge=1, description="side of the depthwise convolutions; odd")

    options: Options

    def build(self, task: NetworkTask) -> Classifier:
        options = self.options
        return networks.mixer_network(
            options.width, options.depth, options.patch, options.kernel, task.num_classes
        )


@hookimpl
def mia_bench_register_models(register: Register) -> None:
    register("convmixer-small", ConvMixerSmall)
