"""Trees of ``<identity>/<image>``: listing, fingerprints, decoding and splitting.

Listing imports no torch, so that a cached run stays light.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench.api.dataset import ImageSet
from mia_bench.api.progress import Progress
from mia_bench.errors import DataError
from mia_bench.store import explained, write_whole

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image
    from torch import Tensor

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MAX_UNREADABLE = 0.05
"""A larger share of unreadable images is an error, a smaller one a note."""
BLOCK = 512
"""Images that are decoded before they are kept in the scratch folder; fewer than two are not."""
EVERY = 256
"""Images between two reports of progress."""

Crop = Callable[["Image", Path], "Image"]
"""``crop(image, path)``: what is resized to the track's resolution, of the image of that file.

Raises ValueError where the image can't be used.
"""

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


@dataclass(frozen=True)
class _Block:
    """Some images of a longer list.

    Attributes:
        images: ``(N, 3, R, R)`` uint8 of those that could be read.
        index: which of the block's paths each came from.
        bad: a line on each of the others.
    """

    images: np.ndarray
    index: np.ndarray
    bad: np.ndarray


def decode(
    paths: Sequence[Path],
    crop: Crop,
    resolution: int,
    progress: Progress,
    scratch: Path | None = None,
) -> Decoded:
    """Decode, crop and resize (antialiased) in threads; unreadable images are skipped and named.

    Finished blocks of long lists are kept in the folder ``scratch`` and taken from there by the next
    call, which must have the same ``crop``.

    Raises:
        DataError: more than :data:`MAX_UNREADABLE` of the images are damaged, or one can't be opened.
        StoreError: ``scratch`` can't be written.
    """
    import numpy as np
    import torch

    images = np.empty((len(paths), 3, resolution, resolution), np.uint8)
    index: list[int] = []
    bad: list[str] = []
    kept = scratch if len(paths) >= 2 * BLOCK else None
    for start, block in _blocks(paths, crop, resolution, progress, kept):
        images[len(index) : len(index) + len(block.index)] = block.images
        index += (start + block.index).tolist()
        bad += block.bad.tolist()
    if len(bad) > MAX_UNREADABLE * len(paths):
        raise DataError(f"{len(bad)} of {len(paths)} images can't be read, the first is {bad[0]}")
    return Decoded(
        torch.from_numpy(images[: len(index)]),
        index,
        tuple(f"unreadable image skipped: {line}" for line in bad),
    )


def _blocks(
    paths: Sequence[Path],
    crop: Crop,
    resolution: int,
    progress: Progress,
    scratch: Path | None,
) -> Iterator[tuple[int, _Block]]:
    """Where each block begins, and the block, kept or decoded."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), BLOCK):
            part = paths[start : start + BLOCK]
            place = scratch and scratch / _block_name(part, resolution)
            block = _kept_block(place) if place else None
            if block is None:
                results = pool.map(lambda path: _read(path, crop, resolution), part)
                block = _collected(results, resolution, start, len(paths), progress)
                if place:
                    with explained(place.parent):
                        write_whole(place, _packed(block))
            yield start, block


def _read(path: Path, crop: Crop, resolution: int) -> np.ndarray | str:
    """``(R, R, 3)`` uint8, or what is wrong with the image."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            small = crop(upright.convert("RGB"), path).resize(
                (resolution, resolution), Image.Resampling.BICUBIC, reducing_gap=None
            )
            return np.asarray(small)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            # The machine's fault, not the image's: another run would see other data.
            raise DataError(f"{path} can't be read: {error.strerror}") from error
        return f"{path.parent.name}/{path.name}: {error}"


def _collected(
    results: Iterator[np.ndarray | str],
    resolution: int,
    start: int,
    total: int,
    progress: Progress,
) -> _Block:
    import numpy as np

    arrays, index, bad = [], [], []
    for number, result in enumerate(results):
        if isinstance(result, str):
            bad.append(result)
            log.warning("unreadable image skipped, the run goes on: %s", result)
        else:
            arrays.append(result.transpose(2, 0, 1))
            index.append(number)
        if (start + number) % EVERY == 0:
            progress(start + number, total, "image")
    blank = np.empty((0, 3, resolution, resolution), np.uint8)
    return _Block(
        np.stack(arrays) if arrays else blank, np.array(index, np.int64), np.array(bad, np.str_)
    )


def _block_name(paths: Sequence[Path], resolution: int) -> str:
    digest = hashlib.sha256(b"\0".join(map(os.fsencode, paths)))
    return f"{digest.hexdigest()[:16]}-{resolution}"


def _packed(block: _Block) -> bytes:
    """A hash of what follows, and the arrays."""
    import numpy as np

    file = io.BytesIO()
    np.savez(file, **vars(block))
    data = file.getvalue()
    return hashlib.sha256(data).digest() + data


def _kept_block(path: Path) -> _Block | None:
    """What :func:`_packed` made; None, with a warning if it is damaged, where there is nothing."""
    import numpy as np

    try:
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
    digest, data = content[:32], content[32:]
    if hashlib.sha256(data).digest() != digest:
        log.warning("the decoded images %s are damaged; they are decoded again", path)
        return None
    with np.load(io.BytesIO(data)) as arrays:
        return _Block(**arrays)


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
