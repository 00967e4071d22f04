"""The data of a track: decoded, split and checked against the contract of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from mia_bench.api.dataset import Dataset, ImageSet, Splits
from mia_bench.api.inventory import Inventory, counted
from mia_bench.data.fingerprints import image_fingerprints
from mia_bench.errors import DataError
from mia_bench.protocol.context import Context
from mia_bench.seeds import derive

PARTS = ("train", "validation", "test", "public", "decoys")
"""Parts that every data set has, possibly without images."""

OPTIONAL_PARTS = ("judging",)
"""Parts that are None where a data set has none."""

PUBLIC_PARTS = ("public", "decoys")
"""Parts without private classes."""


def make_splits(dataset: Dataset, root: Path | None, scratch: Path, context: Context) -> Splits:
    """Decode, crop and split the images once; the inventory counts the images of each part.

    Args:
        root: folder of data sets; None where none is set.
        scratch: folder for finished parts, from which a stopped call goes on.
        context: resolution, seed, progress.

    Raises:
        DataError: the data are missing, or not as :class:`Splits` says.
    """
    splits = dataset.load(
        root,
        resolution=context.resolution,
        seed=derive(context.seed, "split"),
        progress=context.progress,
        scratch=scratch,
    )
    check_splits(splits, context.resolution)
    counts = {name: len(part) for name, part in present_parts(splits).items()}
    if splits.inventory is not None:  # the data set has looked for overlaps itself, and names the files
        return replace(splits, inventory=splits.inventory.model_copy(update={"parts": counts}))
    overlaps = tuple(describe_public_copies(splits))
    inventory = Inventory(parts=counts, overlaps=overlaps)
    return replace(splits, inventory=inventory, notes=(*splits.notes, *overlaps))


def present_parts(splits: Splits) -> dict[str, ImageSet]:
    """The parts of the splits by name, without optional ones that are None."""
    parts = {name: getattr(splits, name) for name in (*PARTS, *OPTIONAL_PARTS)}
    return {name: part for name, part in parts.items() if part is not None}


def exchanged(splits: Splits, fold: int | None) -> Splits:
    """The splits with other validation images, for cross-validation: no two folds share one.

    Of each class as many training images as it has for validation change places with these: the first ones
    in fold 1, those after them in fold 2. Everything else, the test images above all, stays.

    Args:
        splits: of the track.
        fold: from 1; None for the splits as they are.

    Raises:
        DataError: there are no validation images, or a class has too few training images for the fold.
    """
    if fold is None:
        return splits
    train, validation = splits.train, splits.validation
    if not len(validation):
        raise DataError("there are no validation images, so there are no further folds")
    chosen, returned = [], []
    for label in validation.labels.unique():
        place, own = ((part.labels == label).nonzero().flatten() for part in (train, validation))
        wanted = place[(fold - 1) * len(own) : fold * len(own)]
        if len(wanted) < len(own):
            name = splits.class_names[int(label)]
            enough = counted(len(place) // len(own), "further fold")
            raise DataError(f"there is no fold {fold}: training images of {name!r} are enough for {enough}")
        chosen.append(wanted)
        returned.append(own)
    left, back = torch.cat(chosen), torch.cat(returned)
    fitted, held_out = train.images.clone(), validation.images.clone()
    fitted[left], held_out[back] = validation.images[back], train.images[left]
    return replace(
        splits, train=ImageSet(fitted, train.labels), validation=ImageSet(held_out, validation.labels)
    )


def check_splits(splits: Splits, resolution: int) -> None:
    """Check shapes, types and labels of every part.

    Raises:
        DataError: names the part and what is wrong with it.
    """
    if splits.num_classes < 2:
        raise DataError(f"a track needs 2 private classes or more, found {splits.num_classes}")
    for name, part in present_parts(splits).items():
        _check_part(name, part, None if name in PUBLIC_PARTS else splits.num_classes, resolution)
    if len(splits.train.labels.unique()) != splits.num_classes:
        raise DataError("some private classes have no train images")
    if not len(splits.test):
        raise DataError("there are no test images")


def describe_public_copies(splits: Splits) -> Iterator[str]:
    """A line if private images are public or decoys too."""
    parts = present_parts(splits)
    public = torch.cat([image_fingerprints(parts[name].images) for name in PUBLIC_PARTS])
    copies = {
        name: int(torch.isin(image_fingerprints(part.images), public).sum())
        for name, part in parts.items()
        if name not in PUBLIC_PARTS
    }
    if any(copies.values()):
        counts = ", ".join(f"{count:,} {name}" for name, count in copies.items() if count)
        yield f"private images are public or decoys too, so that the attacker holds them: {counts}"


def _check_part(name: str, part: ImageSet, classes: int | None, resolution: int) -> None:
    images, labels = part.images, part.labels
    shape = (len(labels), 3, resolution, resolution)
    if images.dtype != torch.uint8 or tuple(images.shape) != shape:
        raise DataError(f"{name} images are {images.dtype} {tuple(images.shape)}, not uint8 {shape}")
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise DataError(f"{name} labels are {labels.dtype} {tuple(labels.shape)}, not int64 (N,)")
    if classes is None or not len(labels):
        return
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"{name} labels are not from 0 to {classes - 1}")
