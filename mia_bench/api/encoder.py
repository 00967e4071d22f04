"""Identity encoders: embedding networks that never saw the private data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.api.component import Component

with lazy_imports():
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
        """A hash of the weight file in the folder ``weights``. Must not import torch.

        Raises:
            Unavailable: the file or a package is missing; identification is null with this reason.
        """

    @abstractmethod
    def load(self, weights: Path | None, *, device: torch.device) -> Embed:
        """Return a function from images ``(N, 3, H, W)`` in [0, 1] to unit-norm embeddings ``(N, D)``."""
