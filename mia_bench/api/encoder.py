"""Identity encoders: embedding networks made without the private data, the second, independent judge."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench.api.component import Component

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Embed = Callable[["Tensor"], "Tensor"]
"""From images ``(N, 3, H, W)`` in [0, 1] to unit-norm embeddings ``(N, D)``."""


def embedded(embed: Embed, images: Tensor, device: torch.device, batch_size: int = 256) -> Tensor:
    """Embeddings ``(N, D)`` of many images, uint8 or in [0, 1], in batches, on the CPU.

    Raises:
        Diverged: one is no number; ranks by it would mean nothing.
    """
    import torch

    from mia_bench.errors import Diverged
    from mia_bench.models.classifier import to_float

    with torch.no_grad():
        chunks = images.split(batch_size)
        embeddings = torch.cat([embed(to_float(chunk.to(device))).cpu() for chunk in chunks])
    if not bool(torch.isfinite(embeddings).all()):
        raise Diverged("the encoder answers with NaN or infinity")
    return embeddings


class Encoder(Component):
    """Loads a pretrained embedding network."""

    terms: str = ""
    """Licence and origin of the weights."""

    @abstractmethod
    def fingerprint(self, weights: Path | None) -> str:
        """A hash of the weight file, looked for in the folder ``weights``; no torch.

        Raises:
            Unavailable: the file or a package is missing; identification becomes null with this
                reason.
        """

    @abstractmethod
    def load(self, weights: Path | None, *, device: torch.device) -> Embed:
        """A function from images ``(N, 3, H, W)`` in [0, 1] to unit-norm embeddings ``(N, D)``."""
