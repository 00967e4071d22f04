"""Trees of ``<identity>/<image>``: listing, fingerprints, decoding and splitting."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.api.dataset import ImageSet
from mia_bench.api.progress import Progress
from mia_bench.data.contents import content_fingerprint
from mia_bench.errors import DataError
from mia_bench.store import explained, write_whole

with lazy_imports():
    import numpy as np
    import torch
    from PIL import Image, ImageOps
    from torch import Tensor

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MAX_UNREADABLE = 0.05
"""Largest share of unreadable images that is a note rather than an error."""
BLOCK = 512
"""Images per block that is kept in the scratch folder."""
EVERY = 256
"""Images between two progress reports."""
TEST_SHARE = 0.15
VALIDATION_SHARE = 0.10
"""Shares of each identity's images, used by :func:`split_by_identity`."""

Crop = Callable[["Image.Image", Path], "Image.Image"]
"""``crop(image, path)`` gives the part of an image that is resized to the track's resolution.

Raises ValueError if the image can't be used.
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tree:
    """Name and size in bytes of the images of each identity, sorted."""

    root: Path
    images: dict[str, tuple[tuple[str, int], ...]]

    def fingerprint(self) -> str:
        """A hash of all relative names and contents, 16 hexadecimal digits.

        Raises:
            DataError: a file can't be read.
        """
        names = [f"{identity}/{name}" for identity, files in self.images.items() for name, _ in files]
        return content_fingerprint(self.root, names)

    def paths(self, identity: str) -> list[Path]:
        """The paths of one identity's images."""
        return [self.root / identity / name for name, _ in self.images[identity]]


def scan_tree(root: Path, name: str) -> Tree:
    """List ``<root>/<identity>/<image>``.

    Raises:
        DataError: the folder is missing, can't be listed or holds no such image; the message starts with
            ``name``, the data set's.
    """
    if not root.is_dir():
        raise DataError(f"{name}: there is no folder {root}")
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
        raise DataError(f"{name}: {error.filename} can't be read: {error.strerror}") from error
    if not found:
        raise DataError(f"{name}: {root} holds no <identity>/<image> files")
    return Tree(root, found)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


@dataclass(frozen=True)
class Decoded:
    """The readable images, and notes on the others.

    Attributes:
        images: ``(N, 3, R, R)`` uint8.
        index: position of each image in the given paths.
        notes: a line for each unreadable image.
    """

    images: Tensor
    index: list[int]
    notes: tuple[str, ...]


Block = dict[str, "np.ndarray"]
"""Readable ``images`` ``(N, 3, R, R)`` uint8, their ``index`` in the block, a line for each ``bad`` image."""


def decode(
    paths: Sequence[Path], crop: Crop, resolution: int, progress: Progress, scratch: Path | None = None
) -> Decoded:
    """Decode, crop and resize (antialiased) in threads; unreadable images are skipped and noted.

    From two blocks on, finished blocks are kept in the folder ``scratch``. The next call, which must have
    the same ``crop``, reuses them.

    Raises:
        DataError: more than :data:`MAX_UNREADABLE` of the images are damaged, or one can't be opened.
        StoreError: ``scratch`` can't be written.
    """
    images = np.empty((len(paths), 3, resolution, resolution), np.uint8)
    index: list[int] = []
    bad: list[str] = []
    kept = scratch if len(paths) >= 2 * BLOCK else None
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), BLOCK):
            part = paths[start : start + BLOCK]
            place = kept and kept / _block_name(part, resolution)
            block = _load_block(place) if place else None
            if block is None:
                results = pool.map(lambda path: _read(path, crop, resolution), part)
                block = _collect(results, resolution, start, len(paths), progress)
                if place:
                    with explained(place.parent):
                        write_whole(place, _serialise(block))
            images[len(index) : len(index) + len(block["index"])] = block["images"]
            index += (start + block["index"]).tolist()
            bad += block["bad"].tolist()
    if len(bad) > MAX_UNREADABLE * len(paths):
        raise DataError(f"{len(bad)} of {len(paths)} images can't be read, the first is {bad[0]}")
    notes = tuple(f"unreadable image skipped: {line}" for line in bad)
    return Decoded(torch.from_numpy(images[: len(index)]), index, notes)


def _read(path: Path, crop: Crop, resolution: int) -> np.ndarray | str:
    """The image ``(R, R, 3)`` uint8, or a line that says why it is unreadable."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            small = crop(upright.convert("RGB"), path).resize(
                (resolution, resolution), Image.Resampling.BICUBIC, reducing_gap=None
            )
            return np.asarray(small)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            # A fault of the machine, not of the image: another run would see other data.
            raise DataError(f"{path} can't be read: {error.strerror}") from error
        return f"{path.parent.name}/{path.name}: {error}"


def _collect(
    results: Iterator[np.ndarray | str], resolution: int, start: int, total: int, progress: Progress
) -> Block:
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
    images = np.stack(arrays) if arrays else blank
    return {"images": images, "index": np.array(index, np.int64), "bad": np.array(bad, np.str_)}


def _block_name(paths: Sequence[Path], resolution: int) -> str:
    digest = hashlib.sha256(b"\0".join(map(os.fsencode, paths)))
    return f"{digest.hexdigest()[:16]}-{resolution}"


def _serialise(block: Block) -> bytes:
    """The SHA-256 of the rest, then the arrays in NumPy's format."""
    file = io.BytesIO()
    np.savez(file, **block)  # type: ignore[arg-type]
    data = file.getvalue()
    return hashlib.sha256(data).digest() + data


def _load_block(path: Path) -> Block | None:
    """Read what :func:`_serialise` made; None if it is missing, with a warning if it is damaged."""
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
        return dict(arrays)


def split_by_identity(
    images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training, validation and test parts, drawn within each identity; at least one test image each."""
    parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for label in labels.unique():
        index = (labels == label).nonzero().flatten()
        index = index[torch.randperm(len(index), generator=generator)]
        test = max(1, round(TEST_SHARE * len(index)))
        validation = min(round(VALIDATION_SHARE * len(index)), max(len(index) - test - 1, 0))
        sizes = [len(index) - test - validation, validation, test]
        for part, piece in zip(parts, index.split(sizes), strict=True):
            part.append(piece)
    train, validation_set, test_set = (ImageSet(images[i], labels[i]) for i in map(torch.cat, parts))
    return train, validation_set, test_set
