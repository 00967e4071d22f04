"""Architectures of classifiers: what targets and evaluation models are built from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.api.component import Component

with lazy_imports():
    from torch import Tensor

    from mia_bench.api.classifier import Classifier


@dataclass(frozen=True)
class NetworkTask:
    """What a network is built for.

    Attributes:
        num_classes: width of the head.
        resolution: height and width of the images.
        restoring: whether trained weights are loaded right after, so that pretrained ones would be lost.
        weights: folder of weight files, if one is configured.
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

        Draw random numbers from torch's global generator, which the host has seeded.
        """

    def translate(self, state: Mapping[str, Tensor], task: NetworkTask) -> dict[str, Tensor]:
        """Weights with the names of the method's usual code, by the names of the network of ``build``.

        For models that were trained elsewhere. Names that are not known stay as they are.
        """
        return dict(state)
