"""Priors: the attacker's image model, fitted to public data only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from etils.epy import lazy_imports

from mia_bench.api.checkpoint import Checkpoint
from mia_bench.api.component import Component, Published
from mia_bench.api.dataset import ImageSet
from mia_bench.api.progress import Progress
from mia_bench.errors import DataError

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.api.generative import GenerativeModel


@dataclass(frozen=True)
class PriorTask:
    """The input of :meth:`Prior.fit`.

    Attributes:
        public: the public images, and nothing else of the data.
        source: key of the data set; equal keys mean equal data.
        resolution: height and width of the images.
        generator: seeded CPU generator; draw everything random from it.
        device: where to compute.
        progress: call with (done, total, unit) now and then.
        checkpoint: long training saves its state there when it is due, and goes on from it; the result must
            not change.
        weights: folder of weight files, if one is configured.
        watch: call a few times with the current model, in eval mode, and the step: the host draws a
            sample sheet and computes a Fréchet distance to the public images.
    """

    public: ImageSet
    source: str
    resolution: int
    generator: torch.Generator
    device: torch.device
    progress: Progress
    checkpoint: Checkpoint
    weights: Path | None
    watch: Callable[[GenerativeModel, int], None]

    def training_images(self) -> Tensor:
        """The public images ``(P, 3, R, R)`` uint8.

        Raises:
            DataError: the data set has fewer than two.
        """
        if len(self.public) < 2:
            raise DataError("the data set has no public images to make a prior from")
        return self.public.images


class Prior(Component):
    """Fits an image model to public images, and rebuilds it from the saved tensors."""

    converts: ClassVar[frozenset[str]] = frozenset()
    """Suffixes of the files that :meth:`convert` reads, such as ``.pkl``."""

    published: ClassVar[tuple[Published, ...]] = ()
    """Files that options can name and ``mia-bench prior fetch`` downloads."""

    @property
    def has_discriminator(self) -> bool:
        """Whether the built model implements ``discriminate``."""
        return False

    @property
    def normal_latents(self) -> bool:
        """Whether latents are standard normal, rather than the output of a mapping network."""
        return True

    def weights(self, source: str, folder: Path | None) -> str | None:
        """A hash of the weights that :meth:`fit` loads instead of training; None if it trains.

        The hash is part of the cache key. Called while a run is planned: must not import torch.

        Args:
            source: key of the data (``PriorTask.source``).
            folder: of weight files (``PriorTask.weights``).

        Raises:
            Unavailable: a file is missing.
        """
        return None

    @abstractmethod
    def fit(self, task: PriorTask) -> dict[str, Tensor]:
        """Fit the model and return its state as named tensors.

        A model that was trained elsewhere adds ``trained_on``, the fingerprints of its training images
        (:func:`mia_bench.data.fingerprints.image_fingerprints`); otherwise the host adds those of the
        public images. The host refuses a prior that saw a private image.
        """

    @abstractmethod
    def build(self, state: dict[str, Tensor], *, resolution: int) -> GenerativeModel:
        """Return the image model with this state, in eval mode."""

    @classmethod
    def convert(cls, path: Path, output: Path) -> None:
        """Convert the published file ``path`` to the safetensors file ``output``, which an option accepts.

        Raises:
            DataError: the file is not in the expected format.
        """
        raise NotImplementedError(f"{cls.__name__} converts no files")
