"""Networks of torchvision, by default with ImageNet's weights and a new head.

ResNet (He et al., CVPR 2016), ResNeXt (Xie et al., CVPR 2017), DenseNet (Huang et al., CVPR 2017) and
Inception-v3 (Szegedy et al., CVPR 2016), the last without its auxiliary head. Images in [0, 1] are
normalised by mean and standard deviation 0.5, as in the papers on model inversion.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mia_bench import Architecture, NetworkTask, Register, hookimpl, lazy_imports
from mia_bench.api.component import Published

IMAGENET = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "resnext50_32x4d": "resnext50_32x4d-7cdf4587.pth",
    "densenet161": "densenet161-8d451a50.pth",
    "densenet169": "densenet169-b2777c0a.pth",
    "inception_v3": "inception_v3_google-0cc3c7bd.pth",
}
"""Files of ImageNet's weights, as torchvision names them; plans look them up without importing it."""

with lazy_imports():
    from mia_bench.api.classifier import Classifier
    from mia_bench_plugins.models import torchvision_networks


class TorchvisionArchitecture(Architecture):
    """A network of torchvision."""

    summary = "ResNet, ResNeXt, DenseNet or Inception-v3 of torchvision"
    paper = "He et al., CVPR 2016; Huang et al., CVPR 2017; Szegedy et al., CVPR 2016"
    version = "1"
    trial_options: ClassVar = {"pretrained": False}

    class Options(Architecture.Options):
        network: Literal[
            "resnet18", "resnet152", "resnext50_32x4d", "densenet161", "densenet169", "inception_v3"
        ] = Field("resnet18", description="as torchvision names it")
        pretrained: bool = Field(True, description="begin with ImageNet's weights (version 1)")
        size: int | None = Field(None, ge=32, description="resize images to it; null leaves them")

    options: Options

    def weight_files(self) -> tuple[Published, ...]:
        if not self.options.pretrained:
            return ()
        file = IMAGENET[self.options.network]
        url = f"https://download.pytorch.org/models/{file}"
        # The names end with the beginning of the hash.
        sha256 = file.rpartition("-")[2].removesuffix(".pth")
        return (Published(file, url, sha256, how="it is downloaded when it is first needed"),)

    def build(self, task: NetworkTask) -> Classifier:
        """The network; ImageNet's weights are downloaded unless they are here or others get restored."""
        return torchvision_networks.network(
            self.options.network,
            task.num_classes,
            size=self.options.size,
            pretrained=self.options.pretrained and not task.restoring,
            folder=task.weights,
        )


@hookimpl
def mia_bench_register_models(register: Register) -> None:
    register("torchvision", TorchvisionArchitecture)
