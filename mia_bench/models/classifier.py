"""Classifiers that show their hidden features, and batched inference with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from mia_bench.errors import Diverged

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Activations:
    """One forward pass.

    Attributes:
        logits: ``(N, C)``.
        features: ``(N, F)`` penultimate features.
        hidden: outputs of the blocks, first to last.
        extras: further tensors a defense's own network wants to hand to its loss.
    """

    logits: Tensor
    features: Tensor
    hidden: tuple[Tensor, ...]
    extras: dict[str, Tensor] = field(default_factory=dict)


class Classifier(nn.Module):
    """Blocks, global average pooling, a linear head; images in [0, 1] come in.

    Subclasses set ``blocks`` and ``head``. Networks of ours avoid in-place operations: per-sample
    gradient hooks break on them.

    Attributes:
        channels_last: the host may lay the weights out channels-last, which is faster; hidden outputs
            then are not contiguous, so ``flatten`` and ``reshape`` them rather than ``view``.
    """

    channels_last: bool = False
    blocks: nn.ModuleList
    head: nn.Module

    def pool(self, hidden: Tensor) -> Tensor:
        """``(N, C, H, W)`` to penultimate features ``(N, F)``."""
        return hidden.mean(dim=(2, 3))

    def activations(self, images: Tensor) -> Activations:
        """All that a loss or a metric may look at. ``images``: ``(N, 3, H, W)`` in [0, 1]."""
        hidden = []
        x = images * 2 - 1
        for block in self.blocks:
            x = block(x)
            hidden.append(x)
        features = self.pool(x)
        return Activations(self.head(features), features, tuple(hidden))

    def forward(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1] to logits ``(N, C)``."""
        return self.activations(images).logits

    def answers(self, images: Tensor, draws: int) -> Tensor:
        """Logits ``(draws, N, C)`` of as many answers to each image.

        A network that draws at random in its last layers only overrides it, so that what lies below is
        computed once. Where ``forward`` is overridden too, that is asked instead.
        """
        return torch.stack([self(images) for _ in range(draws)])

    def features(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1] to penultimate features ``(N, F)``."""
        return self.activations(images).features


def answers(model: nn.Module, images: Tensor, draws: int) -> Tensor:
    """Logits ``(draws, N, C)`` in float32 of as many answers of a deployed model to each image.

    Raises:
        TypeError: the model answers with something else than a tensor.
    """
    if isinstance(model, Classifier) and type(model).forward is Classifier.forward:
        return model.answers(images, draws).float()
    rows = [model(images) for _ in range(draws)]
    if not isinstance(rows[0], Tensor):
        raise TypeError(f"the deployed model answered {type(rows[0]).__name__}, not logits")
    return torch.stack(rows).float()


def placed(model: ModuleT, device: torch.device) -> ModuleT:
    """The model on the device, its weights channels-last if it allows that and it is faster there."""
    model.to(device)
    fast = device.type == "cuda" or (
        device.type == "cpu" and not any(map(_narrow, model.modules()))
    )
    if getattr(model, "channels_last", False) and fast:
        model.to(memory_format=torch.channels_last)
    return model


def _narrow(layer: nn.Module) -> bool:
    """Whether the layer's gradient, channels-last on a CPU with AVX2, writes past its memory.

    A fault of oneDNN (uxlfoundation/oneDNN#6035) in 1×1 convolutions with a stride and few channels.
    """
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels < 8
    )


def to_float(images: Tensor) -> Tensor:
    """uint8 images to float32 in [0, 1]; float images pass."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


@torch.no_grad()
def predict_probabilities(
    model: nn.Module,
    images: Tensor,
    *,
    device: torch.device,
    batch_size: int = 512,
    draws: int = 1,
) -> Tensor:
    """Softmax probabilities ``(N, C)`` on the CPU in float32, averaged over ``draws`` passes.

    Raises:
        Diverged: one is no number; the class that seems likeliest would mean nothing.
    """
    rows = []
    for chunk in images.split(batch_size):
        batch = to_float(chunk.to(device))
        rows.append(answers(model, batch, draws).softmax(2).mean(0))
    probabilities = torch.cat(rows).cpu()
    if not bool(torch.isfinite(probabilities).all()):
        raise Diverged("a classifier answers with NaN or infinity")
    return probabilities


@torch.no_grad()
def extract_features(
    model: Classifier, images: Tensor, *, device: torch.device, batch_size: int = 512
) -> Tensor:
    """Penultimate features ``(N, F)`` on the CPU in float32."""
    return torch.cat(
        [model.features(to_float(chunk.to(device))).float() for chunk in images.split(batch_size)]
    ).cpu()
