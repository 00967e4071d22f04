"""Data sets of labelled images that papers split at random, without public images of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mia_bench.api.dataset import Dataset, ImageSet, Splits
from mia_bench.api.progress import Progress
from mia_bench.data.trees import Crop, decode
from mia_bench.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


def central_square(image: Image, _path: Path | None = None) -> Image:
    """The largest square in the middle."""
    side = min(image.size)
    left, upper = ((length - side) // 2 for length in image.size)
    return image.crop((left, upper, left + side, upper + side))


@dataclass(frozen=True)
class Labelled:
    """Images of private classes, in the order that the split is drawn over.

    Attributes:
        paths: of the images.
        labels: class of each.
        class_names: by label.
        crop: what of each image is resized to the track's resolution.
        notes: what the user should know.
    """

    paths: Sequence[Path]
    labels: Sequence[int]
    class_names: Sequence[str]
    crop: Crop = central_square
    notes: tuple[str, ...] = ()

    def first(self, classes: int) -> Labelled:
        """The first so many classes only."""
        kept = [i for i, label in enumerate(self.labels) if label < classes]
        return replace(
            self,
            paths=[self.paths[i] for i in kept],
            labels=[self.labels[i] for i in kept],
            class_names=self.class_names[:classes],
        )


class LabelledDataset(Dataset):
    """All classes are private; priors bring their own public images."""

    version: ClassVar[str] = "1"

    class Options(Dataset.Options):
        """Options of every such data set."""

        classes: int | None = Field(None, ge=2, description="the first so many only; null: all")
        split_seed: int = Field(
            42, ge=0, lt=2**32, description="of NumPy's shuffle; 42 is the papers'"
        )
        held_out: float = Field(
            0.0, ge=0, lt=1, description="share of the training images kept for tuning"
        )
        allow_partial: bool = Field(
            False, description="go on with data that are not the protocol's; no row of it then"
        )

    options: Options

    @abstractmethod
    def labelled(self, root: Path | None) -> Labelled:
        """All images and their classes; no torch.

        Raises:
            DataError: the data are missing or, unless ``allow_partial``, not the protocol's.
        """

    def check(self, found: str, expected: str, folder: Path) -> None:
        """Refuse what is not the protocol's, unless ``allow_partial``.

        Raises:
            DataError: ``found`` is not ``expected``.
        """
        if found != expected and not self.options.allow_partial:
            raise DataError(
                f"{folder} holds {found}, not {expected}; complete it, or give --allow-partial for "
                "rows that are not of the protocol"
            )

    def load(
        self, root: Path | None, *, resolution: int, seed: int, progress: Progress, scratch: Path
    ) -> Splits:
        """Decode and split; by the papers' seed, not the track's."""
        what = self.labelled(root)
        return random_splits(
            what if self.options.classes is None else what.first(self.options.classes),
            resolution=resolution,
            seed=self.options.split_seed,
            held_out=self.options.held_out,
            progress=progress,
            scratch=scratch,
        )


def random_splits(
    what: Labelled,
    *,
    resolution: int,
    seed: int,
    held_out: float,
    progress: Progress,
    scratch: Path,
) -> Splits:
    """Nine tenths for training, one tenth for testing, drawn over all images as the authors of PPA do.

    They shuffle with NumPy's older generator, so theirs and ours are the same images.

    Args:
        what: the images.
        resolution: of the result.
        seed: of the shuffle.
        held_out: share of the training images, the last of them, that become validation images.
        progress: called while images are decoded.
        scratch: where :func:`decode` keeps what is finished.

    Raises:
        DataError: a class has no training image left.
    """
    import numpy as np
    import torch

    order = list(range(len(what.paths)))
    np.random.RandomState(seed).shuffle(order)
    training = int(0.9 * len(order))
    validation = round(held_out * training)
    decoded = decode(what.paths, what.crop, resolution, progress, scratch)
    place = {original: position for position, original in enumerate(decoded.index)}
    labels = torch.tensor([what.labels[i] for i in decoded.index], dtype=torch.long)

    def part(which: list[int]) -> ImageSet:
        chosen = torch.tensor([place[i] for i in which if i in place], dtype=torch.long)
        return ImageSet(decoded.images[chosen], labels[chosen])

    train = part(order[: training - validation])
    seen = torch.bincount(train.labels, minlength=len(what.class_names))
    if bool((seen == 0).any()):
        name = what.class_names[int((seen == 0).nonzero()[0])]
        raise DataError(f"class {name!r} has no training image")
    return Splits(
        train=train,
        validation=part(order[training - validation : training]),
        test=part(order[training:]),
        public=part([]),
        decoys=part([]),
        class_names=tuple(what.class_names),
        notes=(*what.notes, *decoded.notes),
    )
