"""Data sets: private classes, public images for priors, decoys for identification."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from etils.epy import lazy_imports

from mia_bench.api.component import Component
from mia_bench.api.inventory import Inventory
from mia_bench.api.progress import Progress

with lazy_imports():
    from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with integer labels.

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
    """The parts of a data set that a track uses; private, public and decoy identities are disjoint.

    Attributes:
        train, validation, test: the private classes; ``labels`` run from 0 to ``len(class_names)-1``.
        public: images for priors and for attacks that train on public data; labels are identities.
        decoys: identities for the gallery, seen by no prior and no encoder.
        class_names: names of the private classes.
        judging: images of the private classes for training an independent judge, seen by no target and no
            evaluation model; None on tracks with an identity encoder.
        notes: messages for the user, such as choices made or files left out; records keep them.
        inventory: what became of the files and who has which role, where the data set says so.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    public: ImageSet
    decoys: ImageSet
    class_names: tuple[str, ...]
    judging: ImageSet | None = None
    notes: tuple[str, ...] = field(default=())
    inventory: Inventory | None = None

    @property
    def num_classes(self) -> int:
        """Number of private classes."""
        return len(self.class_names)


class Dataset(Component):
    """A source of :class:`Splits`."""

    terms: str = ""
    """Terms of use of the data; shown by ``describe``."""

    layout: str = ""
    """Expected files below the data root, in one line."""

    origin: str = ""
    """Where to get the files."""

    needs_root: bool = True
    """Whether files are read from the data root."""

    real_people: ClassVar[bool] = True
    """Whether private images show people who exist; pictures leave them out then, unless asked for."""

    @abstractmethod
    def fingerprint(self, root: Path | None) -> str:
        """A short hash of the relative names and contents of the files to read. Must not import torch.

        :func:`mia_bench.data.contents.content_fingerprint` makes one, and reads only what changed.

        Raises:
            DataError: the data are missing or not laid out as expected; one line.
        """

    @abstractmethod
    def load(
        self, root: Path | None, *, resolution: int, seed: int, progress: Progress, scratch: Path
    ) -> Splits:
        """Read, crop, resize to ``resolution`` and split by ``seed``.

        ``scratch`` is a folder, possibly still missing, for finished parts of long work, from which the next
        call resumes after an interruption. It is the same for the same data, options and ``resolution``, and
        is deleted once the result is stored. Resuming must not change the result.

        Raises:
            DataError: no usable data.
        """

    def outline(self, root: Path | None, *, resolution: int) -> Inventory | None:
        """What can be said of the splits before images are decoded, for ``run --dry-run``.

        None if nothing can. Must not import torch, and be quick.

        Raises:
            DataError: no usable data; :meth:`load` would refuse them too.
        """
        return None
