"""Trees of ``<identity>/<image>``: listing, fingerprints, decoding and splitting.

Listing imports no torch, so that a cached run stays light.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench.api.dataset import ImageSet, Progress
from mia_bench.errors import DataError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MAX_UNREADABLE = 0.05
"""A larger share of unreadable images is an error, a smaller one a note."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tree:
    """The images of each identity, sorted, with sizes in bytes."""

    root: Path
    images: dict[str, tuple[tuple[str, int], ...]]

    def fingerprint(self) -> str:
        """16 hexadecimal digits over every relative name and size."""
        digest = hashlib.sha256()
        for identity, files in self.images.items():
            for name, size in files:
                line = f"{identity}/{name}\0{size}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    def paths(self, identity: str) -> list[Path]:
        """The paths of one identity's images."""
        return [self.root / identity / name for name, _ in self.images[identity]]


def scan_tree(root: Path, what: str) -> Tree:
    """List ``<root>/<identity>/<image>``.

    Raises:
        DataError: the folder is missing, can't be listed or holds no such image; names ``what``
            was looked for.
    """
    if not root.is_dir():
        raise DataError(f"{what}: there is no folder {root}")
    found = {}
    try:
        for identity in _entries(root):
            if identity.is_dir() and not identity.name.startswith("."):
                files = [
                    (file.name, file.stat().st_size)
                    for file in _entries(Path(identity.path))
                    if file.is_file() and Path(file.name).suffix.lower() in SUFFIXES
                ]
                if files:
                    found[identity.name] = tuple(files)
    except OSError as error:
        raise DataError(f"{what}: {error.filename} can't be read: {error.strerror}") from error
    if not found:
        raise DataError(f"{what}: {root} holds no <identity>/<image> files")
    return Tree(root, found)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


@dataclass(frozen=True)
class Decoded:
    """Images that could be read, and notes on those that could not.

    Attributes:
        images: ``(N, 3, R, R)`` uint8.
        index: which of the given paths each image came from.
    """

    images: Tensor
    index: list[int]
    notes: tuple[str, ...]


def decode(
    paths: Sequence[Path],
    crop: Callable[[Image], Image],
    resolution: int,
    progress: Progress,
) -> Decoded:
    """Decode, crop and resize (antialiased) in threads; unreadable images are skipped and named.

    Raises:
        DataError: more than :data:`MAX_UNREADABLE` of the images are damaged, or one can't be opened.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    def read(path: Path) -> np.ndarray | str:
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                small = crop(upright.convert("RGB")).resize(
                    (resolution, resolution), Image.Resampling.BICUBIC, reducing_gap=None
                )
                return np.asarray(small)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                # The machine's fault, not the image's: another run would see other data.
                raise DataError(f"{path} can't be read: {error.strerror}") from error
            return f"{path.parent.name}/{path.name}: {error}"

    arrays, index, bad = [], [], []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for number, result in enumerate(pool.map(read, paths, chunksize=32)):
            if isinstance(result, str):
                bad.append(result)
                log.warning("unreadable image skipped, the run goes on: %s", result)
            else:
                arrays.append(result)
                index.append(number)
            if number % 256 == 0:
                progress(number, len(paths), "image")
    if len(bad) > MAX_UNREADABLE * len(paths):
        raise DataError(f"{len(bad)} of {len(paths)} images can't be read, the first is {bad[0]}")
    images = (
        torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
        if arrays
        else torch.zeros(0, 3, resolution, resolution, dtype=torch.uint8)
    )
    return Decoded(images, index, tuple(f"unreadable image skipped: {line}" for line in bad))


@dataclass(frozen=True)
class Shares:
    """Shares of each identity's images that are held out."""

    test: float = 0.15
    validation: float = 0.10


def split_by_identity(
    images: Tensor, labels: Tensor, shares: Shares, generator: torch.Generator
) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Train, validation and test parts, drawn within each identity (at least one test image each)."""
    import torch

    parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for label in labels.unique():
        index = (labels == label).nonzero().flatten()
        index = index[torch.randperm(len(index), generator=generator)]
        test = max(1, round(shares.test * len(index)))
        validation = min(round(shares.validation * len(index)), max(len(index) - test - 1, 0))
        sizes = [len(index) - test - validation, validation, test]
        for part, piece in zip(parts, index.split(sizes), strict=True):
            part.append(piece)
    train, validation_set, test_set = (
        ImageSet(images[torch.cat(part)], labels[torch.cat(part)]) for part in parts
    )
    return train, validation_set, test_set
