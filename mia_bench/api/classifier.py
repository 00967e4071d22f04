"""Classifiers that show their hidden features."""

from __future__ import annotations

from collections.abc import Sequence
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
        extras: further tensors that a defense's network passes to its loss.
        auxiliary: logits ``(N, C)`` of further heads, in training mode; the training loop adds their
            cross-entropy to the defense's loss.
    """

    logits: Tensor
    features: Tensor
    hidden: tuple[Tensor, ...]
    extras: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: tuple[Tensor, ...] = ()


class Classifier(nn.Module):
    """Blocks, global average pooling and a linear head, for images in [0, 1].

    Subclasses set ``blocks`` and ``head``, and avoid in-place operations: per-sample gradient hooks break
    on them.

    Attributes:
        channels_last: whether the host may convert the weights to channels-last, which is faster. Hidden
            outputs are not contiguous then: use ``flatten`` or ``reshape`` rather than ``view``.
        own_normalization: whether :meth:`normalize_by` was called.
    """

    channels_last: bool = False
    own_normalization: bool = False
    blocks: nn.ModuleList
    head: nn.Module

    def normalize(self, images: Tensor) -> Tensor:
        """What the first block sees of images in [0, 1]: -1 to 1, unless :meth:`normalize_by` was called.

        An ``activations`` of your own calls it, so that a network trained elsewhere keeps its normalisation.
        """
        if self.own_normalization:
            return (images - self.input_mean) / self.input_std  # type: ignore[operator]
        return images * 2 - 1

    def normalize_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise images by the mean and standard deviation of each channel from now on."""
        self.register_buffer("input_mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("input_std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.own_normalization = True

    def pool(self, hidden: Tensor) -> Tensor:
        """``(N, C, H, W)`` to penultimate features ``(N, F)``."""
        return hidden.mean(dim=(2, 3))

    def activations(self, images: Tensor) -> Activations:
        """Logits, features and hidden outputs of ``(N, 3, H, W)`` images in [0, 1]."""
        hidden = []
        x = self.normalize(images)
        for block in self.blocks:
            x = block(x)
            hidden.append(x)
        features = self.pool(x)
        return Activations(self.head(features), features, tuple(hidden))

    def forward(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1] to logits ``(N, C)``."""
        return self.activations(images).logits

    def answers(self, images: Tensor, draws: int) -> Tensor:
        """Logits ``(draws, N, C)`` of ``draws`` answers to each image.

        Override it in a network whose last layers alone are random, to compute the layers below once. It is
        not used if ``forward`` is overridden as well.
        """
        return torch.stack([self(images) for _ in range(draws)])

    def features(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1] to penultimate features ``(N, F)``."""
        return self.activations(images).features


def answers(model: nn.Module, images: Tensor, draws: int) -> Tensor:
    """Logits ``(draws, N, C)`` in float32 of ``draws`` answers of a deployed model to each image.

    Raises:
        TypeError: the model returns something other than a tensor.
    """
    if isinstance(model, Classifier) and type(model).forward is Classifier.forward:
        return model.answers(images, draws).float()
    rows = [model(images) for _ in range(draws)]
    if not isinstance(rows[0], Tensor):
        raise TypeError(f"the deployed model answered {type(rows[0]).__name__}, not logits")
    return torch.stack(rows).float()
