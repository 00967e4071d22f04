"""Priors: the attacker's image model, made from public data only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from mia_bench.api.component import Component
from mia_bench.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mia_bench.api.dataset import ImageSet
    from mia_bench.api.generative import GenerativeModel
    from mia_bench.api.progress import Progress


class Checkpoint(Protocol):
    """Where a long training keeps its state, so that it goes on after it was stopped."""

    def load(self) -> dict[str, Tensor] | None:
        """What was saved last, or None."""

    def save(self, state: dict[str, Tensor]) -> None:
        """Replace what was saved; whole or not at all."""


@dataclass(frozen=True)
class Published:
    """A file on the web.

    Attributes:
        name: of the file.
        url: where it is.
        sha256: how its hash begins, empty where none is published.
    """

    name: str
    url: str
    sha256: str = ""


@dataclass(frozen=True)
class PriorTask:
    """Everything a prior is made from.

    Attributes:
        public: the public images, and nothing else of the data.
        source: key of the data they are from: the same wherever the same data are used.
        resolution: height and width of the images.
        generator: seeded CPU generator; draw everything random from it.
        device: where to compute.
        progress: call with (done, total, unit) now and then.
        checkpoint: for training that takes long; must give the same result as without a stop.
        weights: folder of weight files, None where none is set.
        watch: call with the model so far, in eval mode, and the step, a few times in all: the host
            draws a sample sheet and computes a Fréchet distance to the public images.
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
        """The public images ``(P, 3, R, R)`` uint8, for a prior that is made from them.

        Raises:
            DataError: the data set has none.
        """
        if len(self.public) < 2:
            raise DataError("the data set has no public images to make a prior from")
        return self.public.images


class Prior(Component):
    """Makes an image model from public images, and rebuilds it from the saved tensors."""

    converts: ClassVar[frozenset[str]] = frozenset()
    """Endings of others' files that :meth:`convert` reads, ``.pkl`` say."""

    published: ClassVar[tuple[Published, ...]] = ()
    """Files that options can name and ``mia-bench prior fetch`` downloads."""

    @property
    def has_discriminator(self) -> bool:
        """True when the built model implements ``discriminate``."""
        return False

    @property
    def normal_latents(self) -> bool:
        """False where latents are not drawn standard normal, but mapped from such."""
        return True

    def weights(self, source: str, folder: Path | None) -> str | None:
        """What identifies the weights that :meth:`fit` takes instead of training, None if it trains.

        A hash, say: it becomes a part of the key. Asked while a run is planned: import no torch for it.

        Args:
            source: key of the data (``PriorTask.source``).
            folder: of weight files (``PriorTask.weights``).

        Raises:
            Unavailable: a file is missing.
        """
        return None

    @abstractmethod
    def fit(self, task: PriorTask) -> dict[str, Tensor]:
        """Make the model and return its state as named tensors.

        A model that was trained elsewhere adds ``trained_on``, the fingerprints of its training images
        (:func:`mia_bench.data.fingerprints.image_fingerprints`); else the host adds those of the
        public images. A prior that saw a private image is refused.
        """

    @abstractmethod
    def build(self, state: dict[str, Tensor], *, resolution: int) -> GenerativeModel:
        """The image model that ``state`` describes, in eval mode."""

    @classmethod
    def convert(cls, path: Path, output: Path) -> None:
        """Write what others published as ``path`` to ``output``, safetensors that an option takes.

        Raises:
            DataError: the file is not what it should be.
        """
        raise NotImplementedError(f"{cls.__name__} converts no files")
