"""MNIST with the split of the GMI paper: digits 0 to 4 are private, 5 to 9 public.

LeCun, Bottou, Bengio, Haffner, *Gradient-Based Learning Applied to Document Recognition*, Proc. IEEE 86(11),
1998; split of Zhang et al., CVPR 2020 (arXiv 1911.07135). Layout: ``<data>/MNIST/raw/``, as in torchvision,
packed (``.gz``) or not; ``processed``, which older versions of torchvision wrote, is not read. Targets,
evaluation model and priors use the official training set, the independent judge the test set.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

from pydantic import Field

from mia_bench import Dataset, Register, Splits, hookimpl, lazy_imports
from mia_bench.api.dataset import ImageSet
from mia_bench.api.inventory import Inventory
from mia_bench.api.progress import Progress
from mia_bench.data.contents import combined, content_hashes
from mia_bench.data.trees import split_by_identity, split_sizes
from mia_bench.errors import DataError
from mia_bench.seeds import generator

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor
    from torch.nn import functional as F

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MOST_BYTES = 2**28
"""Bytes that are read of a file at most, so that a small packed one can't fill the memory."""
PRIVATE = 5
"""Digits below this are private."""


class MNIST(Dataset):
    """Handwritten digits, grey, in three equal channels."""

    summary = "handwritten digits: 0 to 4 private, 5 to 9 public"
    paper = "LeCun et al., Proc. IEEE 86(11), 1998"
    version = "1"
    terms = "CC BY-SA 3.0"
    real_people = False
    layout = "<data>/MNIST/raw/train-images-idx3-ubyte and the three other files, also as .gz"
    origin = "torchvision.datasets.MNIST(<data>, download=True)"

    class Options(Dataset.Options):
        per_class: int = Field(1000, ge=3, description="images used of each private digit")
        public_per_class: int = Field(2000, ge=1, description="images used of each public digit")

    options: Options

    def fingerprint(self, root: Path | None) -> str:
        """A hash of the four files, unpacked: packed ones are the same data."""
        folder = _folder(root)
        packed = {name for name in FILES if _find(folder, name).suffix}
        plain = [name for name in FILES if name not in packed]
        known = dict(zip(plain, content_hashes(folder, plain), strict=True))
        known |= {name: hashlib.sha256(_content(folder, name)).hexdigest() for name in packed}
        return combined((name, known[name]) for name in FILES)

    def outline(self, root: Path | None, *, resolution: int) -> Inventory:
        """The counts of the labels."""
        folder = _folder(root)
        counts = np.bincount(_read_idx(folder, FILES[1], 1), minlength=10).tolist()
        private = [min(count, self.options.per_class) for count in counts[:PRIVATE]]
        public = sum(min(count, self.options.public_per_class) for count in counts[PRIVATE:10])
        judging = int((_read_idx(folder, FILES[3], 1) < PRIVATE).sum())
        train, validation, test = (sum(part) for part in zip(*map(split_sizes, private), strict=True))
        parts = {"train": train, "validation": validation, "test": test, "public": public, "judging": judging}
        return Inventory(parts=parts, estimated=True)

    def load(
        self, root: Path | None, *, resolution: int, seed: int, progress: Progress, scratch: Path
    ) -> Splits:
        rng = generator(seed, "choice")
        training, testing = _read(root, train=True), _read(root, train=False)
        private = _choose(training, range(PRIVATE), self.options.per_class, resolution, rng)
        public = _choose(training, range(PRIVATE, 10), self.options.public_per_class, resolution, rng)
        judging = _choose(testing, range(PRIVATE), len(testing), resolution, rng)
        progress(1, 1, "part")
        train, validation, test = split_by_identity(private.images, private.labels, generator(seed, "parts"))
        no_decoys = ImageSet(public.images[:0], public.labels[:0])
        return Splits(train, validation, test, public, no_decoys, tuple(map(str, range(PRIVATE))), judging)


def _folder(root: Path | None) -> Path:
    return (root or Path()) / "MNIST" / "raw"


def _find(folder: Path, name: str) -> Path:
    """The file, or the same with the ending ``.gz``; raise DataError if neither is there."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"mnist: there is no file {folder / name}, nor {name}.gz")


def _read(root: Path | None, *, train: bool) -> ImageSet:
    """The official training or test set: ``(N, 28, 28)`` uint8 and the digits, from ``raw`` alone."""
    folder, (images_name, labels_name) = _folder(root), FILES[:2] if train else FILES[2:]
    images, labels = _read_idx(folder, images_name, 3), _read_idx(folder, labels_name, 1)
    if len(images) != len(labels):
        raise DataError(f"mnist: {images_name} has {len(images)} images, {labels_name} {len(labels)} labels")
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels).long())


def _read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """The bytes of a file in LeCun's IDX format, as an array of that many dimensions.

    Raises:
        DataError: the file is missing, or is not such a file.
    """
    content = _content(folder, name)
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < header:
        raise DataError(f"mnist: {name} can't be read: no IDX file of bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise DataError(
            f"mnist: {name} can't be read: {len(content) - header:,} bytes, not {math.prod(shape):,}"
        )
    return np.frombuffer(bytearray(content), np.uint8, offset=header).reshape(shape)


def _content(folder: Path, name: str) -> bytes:
    """The unpacked content of a file; raise DataError if it can't be read."""
    path = _find(folder, name)
    try:
        with gzip.open(path) if path.suffix else path.open("rb") as file:
            return file.read(MOST_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"mnist: {path.name} can't be read: {reason}") from error


def _choose(part: ImageSet, digits: range, limit: int, resolution: int, rng: torch.Generator) -> ImageSet:
    """Up to ``limit`` random images of each digit, in the order of the file, ``(N, 3, R, R)`` uint8."""
    rows = []
    for digit in digits:
        index = (part.labels == digit).nonzero().flatten()
        if not len(index):
            raise DataError(f"mnist: there is no {digit}")
        rows.append(index[torch.randperm(len(index), generator=rng)[:limit]].sort().values)
    chosen = torch.cat(rows)
    return ImageSet(_three_channels(part.images[chosen], resolution), part.labels[chosen])


def _three_channels(images: Tensor, resolution: int) -> Tensor:
    """``(N, 28, 28)`` uint8 to ``(N, 3, R, R)`` uint8; padded to 32 pixels as for LeNet, else resized."""
    grey = images[:, None].float()
    if resolution == 32:
        grey = F.pad(grey, (2, 2, 2, 2))
    else:
        size = (resolution, resolution)
        grey = F.interpolate(grey, size=size, mode="bicubic", antialias=True).clamp(0, 255)
    return grey.round().to(images.dtype).expand(-1, 3, -1, -1).contiguous()


@hookimpl
def mia_bench_register_datasets(register: Register) -> None:
    register("mnist", MNIST)
