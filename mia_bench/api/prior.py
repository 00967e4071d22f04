"""Priors: the attacker's image model, made from public data only."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from mia_bench.api.component import Component

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mia_bench.api.dataset import ImageSet, Progress
    from mia_bench.models.generative import GenerativeModel


class Prior(Component):
    """Fits an image model to public images, and rebuilds it from the saved tensors."""

    has_discriminator: ClassVar[bool] = False
    """True when the built model implements ``discriminate``."""

    @abstractmethod
    def fit(
        self,
        public: ImageSet,
        *,
        generator: torch.Generator,
        device: torch.device,
        progress: Progress,
    ) -> dict[str, Tensor]:
        """Train on ``public`` and return the state as named tensors."""

    @abstractmethod
    def build(self, state: dict[str, Tensor], *, resolution: int) -> GenerativeModel:
        """The image model that ``state`` describes, in eval mode."""
