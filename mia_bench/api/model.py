"""Architectures of classifiers: what targets and evaluation models are built from."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from mia_bench.api.component import Component

if TYPE_CHECKING:
    from mia_bench.models.classifier import Classifier


class Architecture(Component):
    """Builds freshly initialised :class:`~mia_bench.models.classifier.Classifier` networks."""

    @abstractmethod
    def build(self, *, num_classes: int, resolution: int) -> Classifier:
        """A new network for ``(N, 3, resolution, resolution)`` images in [0, 1].

        Weights come from torch's global generator, which the host has seeded.
        """
