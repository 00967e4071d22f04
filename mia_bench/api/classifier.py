"""Classifiers that show their hidden features."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


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
