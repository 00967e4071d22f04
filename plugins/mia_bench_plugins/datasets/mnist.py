"""MNIST with the split of the GMI paper: digits 0 to 4 are private, 5 to 9 public.

LeCun, Bottou, Bengio, Haffner, *Gradient-Based Learning Applied to Document Recognition*, Proc. IEEE 86(11),
1998; split of Zhang et al., CVPR 2020 (arXiv 1911.07135). Layout: ``<data>/MNIST/raw/``, as in torchvision.
Targets, evaluation model and priors use the official training set, the independent judge the test set.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from mia_bench import Dataset, Register, Splits, hookimpl, lazy_imports
from mia_bench.api.dataset import ImageSet
from mia_bench.api.progress import Progress
from mia_bench.data.contents import content_fingerprint
from mia_bench.data.trees import split_by_identity
from mia_bench.errors import DataError
from mia_bench.seeds import generator

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F
    from torchvision import datasets

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
PRIVATE = 5
"""Digits below this are private."""


class MNIST(Dataset):
    """Handwritten digits, grey, in three equal channels."""

    summary = "handwritten digits: 0 to 4 private, 5 to 9 public"
    paper = "LeCun et al., Proc. IEEE 86(11), 1998"
    version = "1"
    terms = "CC BY-SA 3.0"
    layout = "<data>/MNIST/raw/train-images-idx3-ubyte and the three other files, also as .gz"
    origin = "torchvision.datasets.MNIST(<data>, download=True)"

    class Options(Dataset.Options):
        per_class: int = Field(1000, ge=3, description="images used of each private digit")
        public_per_class: int = Field(2000, ge=1, description="images used of each public digit")

    options: Options

    def fingerprint(self, root: Path | None) -> str:
        folder = _folder(root)
        for name in FILES:
            if not (folder / name).is_file():
                raise DataError(
                    f"mnist: there is no file {folder / name} (unpacked, as torchvision keeps it)"
                )
        return content_fingerprint(folder, FILES)

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


def _read(root: Path | None, *, train: bool) -> ImageSet:
    """The official training or test set: ``(N, 28, 28)`` uint8 and the digits."""
    try:
        found = datasets.MNIST(str(root or Path()), train=train, download=False)
    except (OSError, ValueError, AssertionError, RuntimeError) as error:
        raise DataError(f"mnist: {_folder(root)} can't be read: {error}") from error
    return ImageSet(found.data, found.targets)


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
