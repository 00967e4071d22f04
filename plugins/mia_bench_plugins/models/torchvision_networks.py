"""Networks of torchvision as classifiers with hidden outputs."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.fx
import torchvision
from torch import Tensor, nn

from mia_bench.api.classifier import Activations, Classifier
from mia_bench.api.component import Published
from mia_bench.augment import resized
from mia_bench.errors import MiaBenchError
from mia_bench.fetch import obtain

WEIGHTS = "IMAGENET1K_V1"
"""The weights of ``pretrained=True`` at the time of the papers."""


class TorchvisionNetwork(Classifier):
    """Blocks of a network of torchvision; images are resized to ``size`` unless it is None."""

    channels_last = True

    def __init__(self, blocks: Sequence[nn.Module], head: nn.Module, size: int | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.size = size

    def activations(self, images: Tensor) -> Activations:
        return super().activations(images if self.size is None else resized(images, self.size))


def network(
    name: str, num_classes: int, *, size: int | None, pretrained: bool, folder: Path | None
) -> TorchvisionNetwork:
    """The network ``name`` of torchvision with a new head; ``size`` as in :class:`TorchvisionNetwork`.

    ``pretrained`` starts from ImageNet's weights, which are found in ``folder`` or downloaded once.

    Raises:
        Unavailable: the weights can't be downloaded.
        MiaBenchError: the weight file is damaged or belongs to another network.
    """
    more = {"aux_logits": False, "init_weights": not pretrained} if "inception" in name else {}
    model = torchvision.models.get_model(name, weights=None, **more)
    if pretrained:
        url = torchvision.models.get_model_weights(name)[WEIGHTS].url
        file = url.rpartition("/")[2]
        # torchvision's file names end with a prefix of the hash.
        published = Published(file, url, sha256=file.rpartition("-")[2].removesuffix(".pth"))
        _load(model, obtain(published, folder, lambda done, total, unit: None), name)
    if isinstance(model, torchvision.models.ResNet):
        stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
        blocks = [stem, model.layer1, model.layer2, model.layer3, model.layer4]
        head: nn.Module = nn.Linear(model.fc.in_features, num_classes)
    elif isinstance(model, torchvision.models.DenseNet):
        blocks = _densenet_blocks(model)
        head = nn.Linear(model.classifier.in_features, num_classes)
    else:
        blocks = _inception_blocks(model)
        head = nn.Sequential(model.dropout, nn.Linear(model.fc.in_features, num_classes))
    return TorchvisionNetwork([out_of_place(block) for block in blocks], head, size)


def out_of_place(block: nn.Module) -> nn.Module:
    """The block without in-place operations, which per-sample gradient hooks break on.

    Names, weights and results do not change.
    """
    traced = torch.fx.symbolic_trace(block)
    for node in traced.graph.nodes:
        if node.target is operator.iadd:
            node.target = operator.add
        if "inplace" in node.kwargs:
            node.kwargs = {**node.kwargs, "inplace": False}
    for module in traced.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    traced.recompile()
    return traced


def _densenet_blocks(model: torchvision.models.DenseNet) -> list[nn.Module]:
    """The stem, then each dense block with its transition or the final norm."""
    layers = dict(model.features.named_children())
    stem = nn.Sequential(*(layers.pop(name) for name in ("conv0", "norm0", "relu0", "pool0")))
    blocks: list[nn.Module] = [stem]
    for number in range(1, 5):
        after = [layers[f"transition{number}"]] if number < 4 else [layers["norm5"], nn.ReLU()]
        blocks.append(nn.Sequential(layers[f"denseblock{number}"], *after))
    return blocks


def _inception_blocks(model: nn.Module) -> list[nn.Module]:
    """The stem, then the groups of modules between reductions."""
    names = [name for name, _ in model.named_children()]
    starts = [names.index(name) for name in ("Conv2d_1a_3x3", "Mixed_5b", "Mixed_6a", "Mixed_7a")]
    ends = [*starts[1:], names.index("avgpool")]
    children = list(model.children())
    return [nn.Sequential(*children[a:b]) for a, b in zip(starts, ends, strict=True)]


def _load(model: nn.Module, path: Path, name: str) -> None:
    """Load all weights except those of the heads."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise MiaBenchError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    # DenseNets were published with module names that PyTorch no longer allows.
    state = {re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", key): t for key, t in state.items()}
    heads = ("fc.", "classifier.", "AuxLogits.")
    missing, unknown = model.load_state_dict(
        {key: tensor for key, tensor in state.items() if not key.startswith(heads)}, strict=False
    )
    lacking = [k for k in missing if not k.startswith(heads) and "num_batches" not in k]
    if lacking or unknown:
        raise MiaBenchError(f"{path} holds other weights than those of {name}")
