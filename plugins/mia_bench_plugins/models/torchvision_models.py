"""Networks of torchvision, by default with ImageNet's weights and a new head.

ResNet (He et al., CVPR 2016), ResNeXt (Xie et al., CVPR 2017), DenseNet (Huang et al., CVPR 2017) and
Inception-v3 (Szegedy et al., CVPR 2016). Images in [0, 1] are normalised by mean and standard deviation 0.5,
as in the papers on model inversion. With ImageNet's weights Inception normalises them again, from ImageNet's
mean and standard deviation to 0.5 (torchvision's ``transform_input``). The papers' code does so too, although
its images are already normalised by 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mia_bench import Architecture, NetworkTask, Register, hookimpl, lazy_imports
from mia_bench.api.component import Published
from mia_bench.fetch import obtain

IMAGENET = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "resnext50_32x4d": "resnext50_32x4d-7cdf4587.pth",
    "densenet161": "densenet161-8d451a50.pth",
    "densenet169": "densenet169-b2777c0a.pth",
    "inception_v3": "inception_v3_google-0cc3c7bd.pth",
}
"""Files of ImageNet's weights, as torchvision names them; plans look them up without importing it."""

IMAGENET_V2 = {
    "resnet152": "resnet152-f82ba261.pth",
    "resnext50_32x4d": "resnext50_32x4d-1a0047aa.pth",
}
"""The second version of the weights, of the networks that have one."""

with lazy_imports():
    from torch import Tensor

    from mia_bench.api.classifier import Classifier
    from mia_bench_plugins.models import torchvision_networks


class TorchvisionArchitecture(Architecture):
    """A network of torchvision."""

    summary = "ResNet, ResNeXt, DenseNet or Inception-v3 of torchvision"
    paper = "He et al., CVPR 2016; Huang et al., CVPR 2017; Szegedy et al., CVPR 2016"
    version = "2"
    trial_options: ClassVar = {"pretrained": False}

    class Options(Architecture.Options):
        network: Literal[
            "resnet18", "resnet152", "resnext50_32x4d", "densenet161", "densenet169", "inception_v3"
        ] = Field("resnet18", description="as torchvision names it")
        pretrained: bool = Field(True, description="begin with ImageNet's weights")
        weights: Literal["v1", "v2"] = Field(
            "v1",
            description="which of these: torchvision's first, or its second (ResNet-152 and ResNeXt; others "
            "have one version)",
        )
        size: int | None = Field(None, ge=32, description="resize images to it; null leaves them")
        auxiliary: bool = Field(
            False, description="while training, add the loss of Inception's auxiliary head; needs 299 pixels"
        )

        @model_validator(mode="after")
        def _check_auxiliary(self) -> TorchvisionArchitecture.Options:
            if self.auxiliary and self.network != "inception_v3":
                raise ValueError(f"auxiliary=true: {self.network} has no auxiliary head")
            if self.auxiliary and (self.size or 0) < 299:
                raise ValueError(f"auxiliary=true needs size=299, not {self.size}")
            return self

    options: Options

    @property
    def _file(self) -> str:
        """The file of ImageNet's weights."""
        name = self.options.network
        return (IMAGENET_V2 if self.options.weights == "v2" else IMAGENET).get(name, IMAGENET[name])

    @property
    def _transform_input(self) -> bool:
        """Whether Inception normalises its images again, as ImageNet's weights expect."""
        return self.options.pretrained and self.options.network == "inception_v3"

    def weight_files(self) -> tuple[Published, ...]:
        if not self.options.pretrained:
            return ()
        url = f"https://download.pytorch.org/models/{self._file}"
        # The names end with the beginning of the hash.
        sha256 = self._file.rpartition("-")[2].removesuffix(".pth")
        return (Published(self._file, url, sha256, how="it is downloaded when it is first needed"),)

    def build(self, task: NetworkTask) -> Classifier:
        """The network; ImageNet's weights are downloaded unless they are here or others get restored."""
        options = self.options
        files = () if task.restoring else self.weight_files()
        return torchvision_networks.network(
            options.network,
            task.num_classes,
            size=options.size,
            weights=obtain(files[0], task.weights, lambda done, total, unit: None) if files else None,
            auxiliary=options.auxiliary,
            transform_input=self._transform_input,
        )

    def translate(self, state: Mapping[str, Tensor], task: NetworkTask) -> dict[str, Tensor]:
        """Weights of torchvision's own network, ``conv1.weight`` say, by the names of ours.

        Those of an auxiliary head, which only trains, are left out unless this network has it.
        """
        names = torchvision_networks.names_in_torchvision(
            self.options.network,
            task.num_classes,
            auxiliary=self.options.auxiliary,
            transform_input=self._transform_input,
        )
        return {
            names.get(name, name): tensor
            for name, tensor in state.items()
            if self.options.auxiliary or not name.startswith("AuxLogits.")
        }


@hookimpl
def mia_bench_register_models(register: Register) -> None:
    register("torchvision", TorchvisionArchitecture)
