"""Trees of ``<identity>/…/<image>``: listing, fingerprints, decoding and splitting."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.api.dataset import ImageSet
from mia_bench.api.inventory import LeftOut, Reason, by_reason, printable, relative_name
from mia_bench.api.progress import Progress
from mia_bench.data.contents import content_fingerprint, sealed, threads, unsealed
from mia_bench.data.reading import Crop, Unusable, read_header, read_image, silent_pillow
from mia_bench.errors import DataError

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor

    from mia_bench import store

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
"""Endings of files that are listed without a look at their content; others are opened first."""
SYSTEM_FILES = frozenset(
    {"__macosx", "@eadir", "$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db",
     "desktop.ini", "icon\r"}
)  # fmt: skip
"""Names, in lower case, of what operating systems leave behind; so are all names that begin with a dot."""
MAX_UNREADABLE = 0.05
"""Largest share of unreadable images that is a note rather than an error."""
BLOCK = 512
"""Images per block that is kept in the scratch folder."""
EVERY = 256
"""Images between two progress reports."""
TEST_SHARE = 0.15
VALIDATION_SHARE = 0.10
"""Shares of each identity's images, used by :func:`split_by_identity`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tree:
    """The images of each identity: path below the identity's folder and size in bytes, sorted.

    Attributes:
        root: the folder of the identities.
        images: of each identity that has some.
        base: the folder to which names in messages are relative: the data root, if the tree lies in it.
        left_out: files that are no images.
        empty: identities without an image.
    """

    root: Path
    images: dict[str, tuple[tuple[str, int], ...]]
    base: Path
    left_out: tuple[LeftOut, ...] = ()
    empty: tuple[str, ...] = ()

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

    def name(self, path: Path) -> str:
        """A file's name for messages, relative to the base."""
        return relative_name(path, self.base)


def scan_tree(root: Path, name: str, base: Path | None = None) -> Tree:
    """List ``<root>/<identity>/…/<image>``; an image may lie in folders below that of its identity.

    Links to files and folders are followed. Files with an unusual ending are images if Pillow recognises
    them. Files of the system are no images.

    Raises:
        DataError: the folder is missing, can't be listed or holds no such image; the message starts with
            ``name``, the data set's.
    """
    if not root.is_dir():
        raise DataError(f"{name}: there is no folder {root}")
    real = Path(os.path.realpath(root))
    around = frozenset(map(str, (real, *real.parents)))
    tree = Tree(root, {}, base if base is not None and root.is_relative_to(base) else root)
    left_out: list[LeftOut] = []
    empty: list[str] = []
    try:
        for identity in _entries(root):
            path = Path(identity.path)
            if not _is_folder(identity):
                if path.suffix.lower() in SUFFIXES:
                    reason: Reason = "outside the folders of identities"
                    left_out.append(LeftOut(name=tree.name(path), reason=reason))
                continue
            files: list[tuple[str, int]] = []
            for file in _files(path, around):
                try:
                    files.append((file.relative_to(path).as_posix(), _size(file)))
                except Unusable as error:
                    left_out.append(error.named(tree.name(file)))
            if files:
                tree.images[identity.name] = tuple(sorted(files))
            else:
                empty.append(printable(identity.name))
    except OSError as error:
        raise DataError(f"{name}: {error.filename} can't be read: {error.strerror}") from error
    if not tree.images:
        others = "; ".join(f"{group.count:,} {reason}" for reason, group in by_reason(left_out).items())
        raise DataError(
            f"{name}: {root} holds no <identity>/<image> files" + (f" ({others})" if others else "")
        )
    return replace(tree, left_out=tuple(left_out), empty=tuple(empty))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted, without files and folders of the system."""
    with os.scandir(folder) as entries:
        own = (e for e in entries if not e.name.startswith(".") and e.name.lower() not in SYSTEM_FILES)
        return sorted(own, key=lambda entry: entry.name)


def _files(folder: Path, around: frozenset[str]) -> Iterator[Path]:
    """Everything below a folder that is no folder; links to it, to folders above and ``around`` end there."""
    waiting = [(folder, around | {os.path.realpath(folder)})]
    while waiting:
        current, above = waiting.pop()
        for entry in _entries(current):
            path = Path(entry.path)
            if not _is_folder(entry):
                yield path
            elif (real := os.path.realpath(path)) not in above:
                waiting.append((path, above | {real}))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def _size(path: Path) -> int:
    """Size of an image in bytes; raise Unusable if the file is none."""
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP) and path.is_symlink():
            raise Unusable("dangling links") from error
        raise
    if not stat.S_ISREG(status.st_mode):
        raise Unusable("no regular file")
    if path.suffix.lower() not in SUFFIXES:
        with silent_pillow():
            read_header(path)
    return status.st_size


def check_headers(tree: Tree, smallest: int = 1) -> Tree:
    """Leave out images whose header says that they can't be used, without decoding any.

    Args:
        tree: the listing.
        smallest: what width and height must be at least, in pixels.

    Raises:
        DataError: more than :data:`MAX_UNREADABLE` of the images are damaged, or the machine can't read one.
    """
    paths = [(identity, path) for identity in tree.images for path in tree.paths(identity)]

    def look(path: Path) -> LeftOut | None:
        try:
            read_header(path, smallest)
        except Unusable as error:
            return error.named(tree.name(path))
        except OSError as error:
            raise DataError(f"{tree.name(path)} can't be read: {error.strerror}") from error
        return None

    with silent_pillow(), threads() as pool:
        found = list(pool.map(look, [path for _, path in paths]))
    left_out = [file for file in found if file]
    refuse_unreadable([*tree.left_out, *left_out], len(paths))
    if not left_out:
        return tree
    verdicts = iter(found)
    images = {
        identity: tuple(file for file in files if next(verdicts) is None)
        for identity, files in tree.images.items()
    }
    lost = [printable(identity) for identity, files in images.items() if not files]
    return replace(
        tree,
        images={identity: files for identity, files in images.items() if files},
        left_out=(*tree.left_out, *left_out),
        empty=tuple(sorted([*tree.empty, *lost])),
    )


def refuse_unreadable(left_out: Iterable[LeftOut], total: int) -> None:
    """Raise DataError if more than :data:`MAX_UNREADABLE` of ``total`` images are unreadable."""
    bad = [file for file in left_out if file.reason == "unreadable"]
    if len(bad) > MAX_UNREADABLE * total:
        raise DataError(f"{len(bad)} of {total} images can't be read, the first is {bad[0]}")


@dataclass(frozen=True)
class Decoded:
    """The readable images, and what is to be said of the others.

    Attributes:
        images: ``(N, 3, R, R)`` uint8.
        index: position of each image in the given paths.
        left_out: the files that are not read.
        several: names of the files of which only the first image is read.
    """

    images: Tensor
    index: list[int]
    left_out: tuple[LeftOut, ...] = ()
    several: tuple[str, ...] = ()


Block = dict[str, "np.ndarray"]
"""Readable ``images`` ``(N, 3, R, R)`` uint8, their ``index`` in the block, whether they are one of
``several`` in their file, and JSON for each file that is ``left_out``."""
_BLOCK = {"images", "index", "several", "left_out"}


def decode(
    paths: Sequence[Path],
    crop: Crop,
    resolution: int,
    progress: Progress,
    scratch: Path | None = None,
    *,
    base: Path | None = None,
    smallest: int = 1,
) -> Decoded:
    """Decode, crop and resize (antialiased) in threads; images that can't be used are left out.

    From two blocks on, finished blocks are kept in the folder ``scratch``. The next call, which must have
    the same ``crop``, ``base`` and ``smallest``, reuses them.

    Args:
        paths, crop, resolution, progress, scratch: what to read, and how.
        base: the folder to which names in messages are relative.
        smallest: what width and height of image and crop must be at least, in pixels.

    Raises:
        DataError: more than :data:`MAX_UNREADABLE` of the images are damaged, or the machine can't read one.
        StoreError: ``scratch`` can't be written.
    """
    images = np.empty((len(paths), 3, resolution, resolution), np.uint8)
    index: list[int] = []
    left_out: list[LeftOut] = []
    several: list[str] = []
    kept = scratch if len(paths) >= 2 * BLOCK else None

    with silent_pillow(), threads() as pool, ThreadPoolExecutor(max_workers=1) as large:

        def read(path: Path) -> Read:
            return _read(path, crop, resolution, smallest, base, large)

        for start in range(0, len(paths), BLOCK):
            part = paths[start : start + BLOCK]
            place = kept and kept / _block_name(part, resolution)
            block = _load_block(place) if place else None
            if block is None:
                block = _collect(pool.map(read, part), resolution, start, len(paths), progress)
                if place:
                    with store.explained(place.parent):
                        store.write_whole(place, _serialise(block))
            images[len(index) : len(index) + len(block["index"])] = block["images"]
            found = (start + block["index"]).tolist()
            index += found
            several += [relative_name(part[i], base) for i in block["index"][block["several"]]]
            left_out += map(LeftOut.model_validate_json, block["left_out"].tolist())
    refuse_unreadable(left_out, len(paths))
    return Decoded(torch.from_numpy(images[: len(index)]), index, tuple(left_out), tuple(several))


Read = tuple["np.ndarray", bool] | LeftOut
"""An image ``(R, R, 3)`` uint8 and whether its file holds several; or why it is left out."""


def _read(path: Path, crop: Crop, resolution: int, smallest: int, base: Path | None, large: Executor) -> Read:
    name = relative_name(path, base)
    try:
        return read_image(path, crop, resolution, smallest, large)
    except Unusable as error:
        return error.named(name)
    except OSError as error:
        # A fault of the machine, not of the image: another run would see other data.
        raise DataError(f"{name} can't be read: {error.strerror}") from error


def _collect(results: Iterator[Read], resolution: int, start: int, total: int, progress: Progress) -> Block:
    arrays, index, several, left_out = [], [], [], []
    for number, result in enumerate(results):
        if isinstance(result, LeftOut):
            left_out.append(result.model_dump_json())
        else:
            arrays.append(result[0].transpose(2, 0, 1))
            several.append(result[1])
            index.append(number)
        if (start + number) % EVERY == 0:
            progress(start + number, total, "image")
    blank = np.empty((0, 3, resolution, resolution), np.uint8)
    return {
        "images": np.stack(arrays) if arrays else blank,
        "index": np.array(index, np.int64),
        "several": np.array(several, np.bool_),
        "left_out": np.array(left_out, np.str_),
    }


def _block_name(paths: Sequence[Path], resolution: int) -> str:
    digest = hashlib.sha256(b"\0".join(map(os.fsencode, paths)))
    return f"{digest.hexdigest()[:16]}-{resolution}"


def _serialise(block: Block) -> bytes:
    """The arrays in NumPy's format, sealed."""
    file = io.BytesIO()
    np.savez(file, **block)  # type: ignore[arg-type]
    return sealed(file.getvalue())


def _load_block(path: Path) -> Block | None:
    """Read what :func:`_serialise` made; None if it is missing, with a warning if it is damaged."""
    try:
        data = unsealed(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
    if data is None:
        log.warning("the decoded images %s are damaged; they are decoded again", path)
        return None
    with np.load(io.BytesIO(data)) as arrays:
        block = dict(arrays)
    return block if block.keys() == _BLOCK else None  # another version of this module wrote it


def split_sizes(count: int) -> tuple[int, int, int]:
    """How many of an identity's images are for training, validation and testing."""
    test = max(1, round(TEST_SHARE * count))
    validation = min(round(VALIDATION_SHARE * count), max(count - test - 1, 0))
    return count - test - validation, validation, test


def split_by_identity(
    images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training, validation and test parts, drawn within each identity; at least one test image each."""
    parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for label in labels.unique():
        index = (labels == label).nonzero().flatten()
        index = index[torch.randperm(len(index), generator=generator)]
        for part, piece in zip(parts, index.split(list(split_sizes(len(index)))), strict=True):
            part.append(piece)
    train, validation_set, test_set = (ImageSet(images[i], labels[i]) for i in map(torch.cat, parts))
    return train, validation_set, test_set
