"""Architectures of classifiers: what targets and evaluation models are built from."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench.api.component import Component

if TYPE_CHECKING:
    from mia_bench.api.classifier import Classifier


@dataclass(frozen=True)
class NetworkTask:
    """What a network is built for.

    Attributes:
        num_classes: width of the head.
        resolution: height and width of the images.
        restoring: True when trained weights are loaded right after: pretrained ones would be lost.
        weights: folder of weight files, None where none is set.
    """

    num_classes: int
    resolution: int
    restoring: bool = False
    weights: Path | None = None


class Architecture(Component):
    """Builds freshly initialised :class:`~mia_bench.api.classifier.Classifier` networks."""

    @abstractmethod
    def build(self, task: NetworkTask) -> Classifier:
        """A new network for ``(N, 3, resolution, resolution)`` images in [0, 1].

        What is random comes from torch's global generator, which the host has seeded.
        """
