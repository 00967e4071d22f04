"""CelebA: the 1,000 celebrities with most images.

Liu, Luo, Wang, Tang, *Deep Learning Face Attributes in the Wild*, ICCV 2015. Layout, as torchvision has it:
``<data>/celeba/identity_CelebA.txt`` and ``<data>/celeba/img_align_celeba/<image>``. The classes are the
identities with most images, most first, ties in the order of the file; nine tenths of their images, drawn
with seed 42, are for training, as in Struppek et al., ICML 2022. The paper's images were cut out of the
original photographs by HD-CelebA-Cropper with a face factor of 0.65: put those into ``img_align_celeba`` (as
``.jpg`` or ``.png``). The aligned images of 178×218 pixels are a smaller cut: with them rows are not of the
protocol.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import ClassVar

from mia_bench import hookimpl
from mia_bench.data.classes import Labelled, LabelledDataset
from mia_bench.errors import DataError
from mia_bench.hookspecs import Register

CLASSES = 1000
IDENTITIES = 10_177
IMAGES = 202_599
ALIGNED = (178, 218)
"""Pixels of the images that are published aligned."""


class CelebA(LabelledDataset):
    """The identities with most images are private; priors bring their own public images."""

    summary: ClassVar[str] = "CelebA: the 1,000 celebrities with most images"
    paper: ClassVar[str] = "Liu et al., ICCV 2015"
    version: ClassVar[str] = "1"
    terms: str = "photographs of public figures from the web, for research only; personal data"
    layout: str = "<data>/celeba/identity_CelebA.txt and <data>/celeba/img_align_celeba/000001.jpg"
    origin: str = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html; https://github.com/LynnHo/HD-CelebA-Cropper"

    def fingerprint(self, root: Path | None) -> str:
        """Over the class, name and size of every image used."""
        digest = hashlib.sha256()
        what = self.labelled(root)
        for path, label in zip(what.paths, what.labels, strict=True):
            digest.update(f"{label}/{path.name}\0{path.stat().st_size}\n".encode())
        return digest.hexdigest()[:16]

    def labelled(self, root: Path | None) -> Labelled:
        """The identities with most images, most first, ties in the order of the file."""
        folder = (root or Path()) / "celeba"
        listed = _identities(folder / "identity_CelebA.txt")
        counts = Counter(listed.values())
        self.check(
            f"{len(counts)} identities with {len(listed)} images",
            f"{IDENTITIES} identities with {IMAGES} images",
            folder,
        )
        chosen = [identity for identity, _ in counts.most_common(CLASSES)]
        label_of = {identity: label for label, identity in enumerate(chosen)}
        images = folder / "img_align_celeba"
        paths, labels = [], []
        for name, identity in listed.items():
            if identity in label_of:
                paths.append(_image(images, name))
                labels.append(label_of[identity])
        cut = "images cut by HD-CelebA-Cropper"
        aligned = "the aligned images of 178×218 pixels"
        self.check(aligned if _size(paths[0]) == ALIGNED else cut, cut, images)
        return Labelled(paths, labels, [f"celebrity {identity}" for identity in chosen])


def _size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise DataError(f"celeba: {path} can't be read: {error}") from error


def _identities(path: Path) -> dict[str, str]:
    """Identity of each image, in the order of the file.

    Raises:
        DataError: it is missing, or a line has not two words.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return dict(line.split() for line in lines if line)
    except OSError as error:
        raise DataError(f"celeba: {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"celeba: {path} is no list of images and identities") from error


def _image(folder: Path, name: str) -> Path:
    for path in (folder / name, (folder / name).with_suffix(".png")):
        if path.is_file():
            return path
    raise DataError(f"celeba: there is no {folder / name}")


@hookimpl
def mia_bench_register_datasets(register: Register) -> None:
    """Register ``celeba``."""
    register("celeba", CelebA)
