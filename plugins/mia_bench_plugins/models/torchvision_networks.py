"""Networks of torchvision as classifiers with hidden outputs."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.fx
import torchvision
from torch import Tensor, nn

from mia_bench.api.classifier import Activations, Classifier
from mia_bench.augment import resized
from mia_bench.errors import MiaBenchError

AUXILIARY_AFTER = 2
"""The block of Inception whose output its auxiliary head takes."""


class TorchvisionNetwork(Classifier):
    """Blocks of a network of torchvision.

    Args:
        blocks: one after the other.
        head: from pooled features to logits.
        size: images are resized to it unless it is None.
        auxiliary: a further head, which training adds the loss of.
    """

    channels_last = True

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        head: nn.Module,
        size: int | None,
        auxiliary: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.size = size
        self.auxiliary = auxiliary

    def activations(self, images: Tensor) -> Activations:
        shown = super().activations(images if self.size is None else resized(images, self.size))
        if self.auxiliary is None or not self.training:
            return shown
        return replace(shown, auxiliary=(self.auxiliary(shown.hidden[AUXILIARY_AFTER]),))


class TransformInput(nn.Module):
    """Torchvision's ``transform_input``: from ImageNet's mean and standard deviation to 0.5 and 0.5."""

    def forward(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)`` to the same shape."""
        statistics = zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
        return torch.cat(
            [
                images[:, channel : channel + 1] * (std / 0.5) + (mean - 0.5) / 0.5
                for channel, (mean, std) in enumerate(statistics)
            ],
            dim=1,
        )


def network(
    name: str,
    num_classes: int,
    *,
    size: int | None = None,
    weights: Path | None = None,
    auxiliary: bool = False,
    transform_input: bool = False,
) -> TorchvisionNetwork:
    """The network ``name`` of torchvision with a new head.

    Args:
        num_classes: outputs of the head.
        size: images are resized to it unless it is None.
        weights: file of ImageNet's weights to start from.
        auxiliary: with Inception's auxiliary head. As in the papers' code it keeps ImageNet's weights and its
            1,000 outputs, of which the first are the classes; it is new where there are more classes.
        transform_input: begin Inception with :class:`TransformInput`.

    Raises:
        MiaBenchError: the weight file is damaged or belongs to another network.
    """
    model = _untrained(name, auxiliary=auxiliary, init_weights=weights is None)
    if weights is not None:
        _load(model, weights, name, auxiliary=auxiliary)
    return _rebuilt(model, num_classes, size=size, auxiliary=auxiliary, transform_input=transform_input)


def _untrained(name: str, *, auxiliary: bool, init_weights: bool) -> Any:
    inception = {"aux_logits": auxiliary, "init_weights": init_weights} if name == "inception_v3" else {}
    return torchvision.models.get_model(name, weights=None, **inception)


def _rebuilt(
    model: Any, num_classes: int, *, size: int | None, auxiliary: bool, transform_input: bool
) -> TorchvisionNetwork:
    """Blocks of a network of torchvision, with a new head."""
    extra: nn.Module | None = None
    if isinstance(model, torchvision.models.ResNet):
        stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
        blocks = [stem, model.layer1, model.layer2, model.layer3, model.layer4]
        head: nn.Module = nn.Linear(model.fc.in_features, num_classes)
    elif isinstance(model, torchvision.models.DenseNet):
        blocks = _densenet_blocks(model)
        head = nn.Linear(model.classifier.in_features, num_classes)
    else:
        blocks = _inception_blocks(model)
        if transform_input:
            blocks[0] = nn.Sequential(TransformInput(), *blocks[0].children())
        head = nn.Sequential(model.dropout, nn.Linear(model.fc.in_features, num_classes))
        if auxiliary:
            if num_classes > model.AuxLogits.fc.out_features:
                model.AuxLogits.fc = nn.Linear(model.AuxLogits.fc.in_features, num_classes)
            extra = out_of_place(model.AuxLogits)
    return TorchvisionNetwork([out_of_place(block) for block in blocks], head, size, extra)


def names_in_torchvision(
    name: str, num_classes: int, *, auxiliary: bool = False, transform_input: bool = False
) -> dict[str, str]:
    """The names of weights in torchvision's own network ``name``, each with its name in :func:`network`."""
    with torch.device("meta"):
        model = _untrained(name, auxiliary=auxiliary, init_weights=False)
        heads = [key for key in model.state_dict() if key.startswith(("fc.", "classifier."))]
        known = {id(tensor): key for key, tensor in model.state_dict(keep_vars=True).items()}
        rebuilt = _rebuilt(
            model, num_classes, size=None, auxiliary=auxiliary, transform_input=transform_input
        )
    found = rebuilt.state_dict(keep_vars=True)
    names = {known[id(tensor)]: key for key, tensor in found.items() if id(tensor) in known}
    last = "head.1" if isinstance(rebuilt.head, nn.Sequential) else "head"
    return names | {key: f"{last}.{key.rpartition('.')[2]}" for key in heads}


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
    names = [name for name, _ in model.named_children() if name != "AuxLogits"]
    starts = [names.index(name) for name in ("Conv2d_1a_3x3", "Mixed_5b", "Mixed_6a", "Mixed_7a")]
    ends = [*starts[1:], names.index("avgpool")]
    children = [model.get_submodule(name) for name in names]
    return [nn.Sequential(*children[a:b]) for a, b in zip(starts, ends, strict=True)]


def _load(model: nn.Module, path: Path, name: str, *, auxiliary: bool) -> None:
    """Load all weights except those of the head, and of the auxiliary one unless it is wanted."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise MiaBenchError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    # DenseNets were published with module names that PyTorch no longer allows.
    state = {re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", key): t for key, t in state.items()}
    heads = ("fc.", "classifier.") if auxiliary else ("fc.", "classifier.", "AuxLogits.")
    missing, unknown = model.load_state_dict(
        {key: tensor for key, tensor in state.items() if not key.startswith(heads)}, strict=False
    )
    lacking = [k for k in missing if not k.startswith(heads) and "num_batches" not in k]
    if lacking or unknown:
        raise MiaBenchError(f"{path} holds other weights than those of {name}")
