"""Data sets: private classes to protect, public images to attack with, decoys to hide among."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench.api.component import Component
from mia_bench.api.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Images with integer labels, decoded once.

    Attributes:
        images: ``(N, 3, H, W)`` uint8.
        labels: ``(N,)`` int64, the class or identity of each image.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])


@dataclass(frozen=True)
class Splits:
    """Everything a track needs from a data set; the identities of the parts are disjoint.

    Attributes:
        train, validation, test: the private classes; ``labels`` run from 0 to ``len(class_names)-1``.
        public: images for priors (and attacks that train on public data); labels are identities.
        decoys: identities for the gallery, seen by no prior and no encoder.
        class_names: names of the private classes.
        judging: images of the private classes that no target and no evaluation model sees, for an
            independent judge; None where the track has an identity encoder instead.
        notes: what the user should know (choices made, images skipped).
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    public: ImageSet
    decoys: ImageSet
    class_names: tuple[str, ...]
    judging: ImageSet | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def num_classes(self) -> int:
        """Number of private classes."""
        return len(self.class_names)


class Dataset(Component):
    """A source of :class:`Splits`."""

    terms: str = ""
    """Under which terms the data may be used; shown by ``describe``."""

    layout: str = ""
    """Where the files must lie below the data root, in one line."""

    origin: str = ""
    """Where people get them."""

    needs_root: bool = True
    """False when nothing is read from disk."""

    @abstractmethod
    def fingerprint(self, root: Path | None) -> str:
        """A short hash of the files the data set would read (relative names and sizes); no torch.

        Raises:
            DataError: the data are missing or not laid out as expected, in one line.
        """

    @abstractmethod
    def load(
        self, root: Path | None, *, resolution: int, seed: int, progress: Progress, scratch: Path
    ) -> Splits:
        """Read, crop, resize to ``resolution`` and split by ``seed``.

        ``scratch`` is the place of a folder for finished parts of long work, from which the next call
        goes on if this one is stopped; it is the same for the same data, options and ``resolution``,
        and goes once the result is stored. The result must be that of a call without a stop.

        Raises:
            DataError: nothing usable is left.
        """
