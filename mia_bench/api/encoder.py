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
