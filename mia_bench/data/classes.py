"""Data sets of labelled images that papers split at random, without public images."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from etils.epy import lazy_imports
from pydantic import Field

from mia_bench.api.dataset import Dataset, ImageSet, Splits
from mia_bench.api.inventory import Group, Inventory, LeftOut, by_reason, printable, relative_name
from mia_bench.api.progress import Progress
from mia_bench.data.overlaps import Photographs, describe_overlaps, find_overlaps
from mia_bench.data.reading import Crop
from mia_bench.data.trees import decode
from mia_bench.errors import DataError

with lazy_imports():
    import numpy as np
    import torch
    from PIL import Image


def central_square(image: Image.Image, _path: Path | None = None) -> Image.Image:
    """The largest central square."""
    side = min(image.size)
    left, upper = ((length - side) // 2 for length in image.size)
    return image.crop((left, upper, left + side, upper + side))


@dataclass(frozen=True)
class Labelled:
    """Images of private classes, in the order that is shuffled for the split.

    Attributes:
        paths: of the images.
        labels: class of each image.
        class_names: by label.
        crop: applied to each image before it is resized to the track's resolution.
        notes: messages for the user.
        left_out: files of the classes that are no images.
    """

    paths: Sequence[Path]
    labels: Sequence[int]
    class_names: Sequence[str]
    crop: Crop = central_square
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def first(self, classes: int) -> Labelled:
        """The part with labels below ``classes``."""
        kept = [i for i, label in enumerate(self.labels) if label < classes]
        return replace(
            self,
            paths=[self.paths[i] for i in kept],
            labels=[self.labels[i] for i in kept],
            class_names=self.class_names[:classes],
        )


class LabelledDataset(Dataset):
    """A data set whose classes are all private; priors bring their own public images."""

    version = "1"

    class Options(Dataset.Options):
        classes: int | None = Field(None, ge=2, description="the first so many only; null: all")
        split_seed: int = Field(42, ge=0, lt=2**32, description="of NumPy's shuffle; 42 is the papers'")
        held_out: float = Field(0.0, ge=0, lt=1, description="share of the training images kept for tuning")
        allow_partial: bool = Field(
            False, description="go on with data that are not the protocol's; no row of it then"
        )

    options: Options

    @abstractmethod
    def labelled(self, root: Path | None) -> Labelled:
        """All images and their classes. Must not import torch.

        Raises:
            DataError: the data are missing or, unless ``allow_partial``, not the protocol's.
        """

    def check(self, found: str, expected: str, folder: Path) -> None:
        """Raise DataError if ``found`` is not ``expected``, unless ``allow_partial``."""
        if found != expected and not self.options.allow_partial:
            raise DataError(
                f"{folder} holds {found}, not {expected}; complete it, or give --allow-partial for "
                "rows that are not of the protocol"
            )

    def load(
        self, root: Path | None, *, resolution: int, seed: int, progress: Progress, scratch: Path
    ) -> Splits:
        """Nine tenths for training and one tenth for testing, as the authors of PPA split.

        NumPy's legacy generator gives the same split as theirs, by ``split_seed`` instead of the track's
        seed. Of the training images, the last ``held_out`` become validation images.

        Raises:
            DataError: a class has no training image.
        """
        labelled = self._chosen(root)
        order = list(range(len(labelled.paths)))
        np.random.RandomState(self.options.split_seed).shuffle(order)
        fitted, training = self._sizes(len(order))
        decoded = decode(labelled.paths, labelled.crop, resolution, progress, scratch, base=root)
        place = {original: position for position, original in enumerate(decoded.index)}
        labels = torch.tensor([labelled.labels[i] for i in decoded.index], dtype=torch.long)

        def part(indices: list[int]) -> ImageSet:
            chosen = torch.tensor([place[i] for i in indices if i in place], dtype=torch.long)
            return ImageSet(decoded.images[chosen], labels[chosen])

        train = part(order[:fitted])
        absent = torch.bincount(train.labels, minlength=len(labelled.class_names)) == 0
        if bool(absent.any()):
            name = labelled.class_names[int(absent.nonzero()[0])]
            raise DataError(f"class {name!r} has no training image")
        validation, test = part(order[fitted:training]), part(order[training:])
        names = [relative_name(labelled.paths[i], root) for i in decoded.index]
        photographs = Photographs(decoded.images, names, labels, ["private"] * len(labels))
        left_out = [*labelled.left_out, *decoded.left_out]
        inventory = Inventory(
            found=len(labelled.paths) + len(labelled.left_out),
            used=len(decoded.index),
            left_out=by_reason(left_out),
            first_frames=Group.of(decoded.several) if decoded.several else None,
            overlaps=tuple(describe_overlaps(photographs, find_overlaps(photographs, progress))),
            people={"private": _counts(labelled, labels.tolist())},
        )
        return Splits(
            train,
            validation,
            test,
            public=part([]),
            decoys=part([]),
            class_names=tuple(labelled.class_names),
            notes=(*labelled.notes, *inventory.warnings()),
            inventory=inventory,
        )

    def outline(self, root: Path | None, *, resolution: int) -> Inventory:
        """The counts of the lists; no image is opened."""
        labelled = self._chosen(root)
        found = len(labelled.paths)
        fitted, training = self._sizes(found)
        return Inventory(
            found=found + len(labelled.left_out),
            used=found,
            left_out=by_reason(labelled.left_out),
            people={"private": _counts(labelled, labelled.labels)},
            parts={"train": fitted, "validation": training - fitted, "test": found - training},
            estimated=True,
        )

    def _chosen(self, root: Path | None) -> Labelled:
        labelled = self.labelled(root)
        return labelled if self.options.classes is None else labelled.first(self.options.classes)

    def _sizes(self, count: int) -> tuple[int, int]:
        """Of that many images: how many are for training, and how many of them with the validation images."""
        training = int(0.9 * count)
        return training - round(self.options.held_out * training), training


def _counts(labelled: Labelled, labels: Sequence[int]) -> dict[str, int]:
    """Number of images of each class by name."""
    counts = Counter(labels)
    return {printable(name): counts[label] for label, name in enumerate(labelled.class_names)}
