"""CelebA: the 1,000 celebrities with most images.

Liu, Luo, Wang, Tang, *Deep Learning Face Attributes in the Wild*, ICCV 2015. The classes are the identities
with most images, most first, ties in the order of ``identity_CelebA.txt``; nine tenths of their images,
drawn with seed 42, are for training, as in Struppek et al., ICML 2022. The paper's images were cut out of
the original photographs by HD-CelebA-Cropper with a face factor of 0.65. The first of these below
``<data>/celeba`` is used:

- ``img_align_celeba/`` with images made by HD-CelebA-Cropper (``.jpg`` or ``.png``): their central square.
- ``img_celeba/``, the original photographs, and ``list_landmarks_celeba.txt``: the faces are cut out here.
- ``img_align_celeba/`` with the published images of 178×218 pixels, and ``list_landmarks_align_celeba.txt``:
  the same cut, about 130 pixels wide and enlarged. This departs from the protocol.

HD-CelebA-Cropper fits 68 landmarks of its own to those of a standard face; we fit CelebA's five to the five
that its authors give for the same face. We share the size and place of that face, the similarity by least
squares, the cubic interpolation, the 572 pixels before the last resizing and the repeated borders. We differ
in the landmarks (on average the eyes are 2.5 % closer to each other and 1.2 of 224 pixels lower), in the
kernel's coefficient (-1; OpenCV's is -0.75), in averaging images that shrink to half or less, and in avoiding
an intermediate JPEG.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from mia_bench import Register, hookimpl, lazy_imports
from mia_bench.data.alignment import cut
from mia_bench.data.classes import Labelled, LabelledDataset
from mia_bench.data.contents import combined, content_hashes
from mia_bench.data.lists import text_lines
from mia_bench.data.reading import Unusable, read_header
from mia_bench.errors import DataError

with lazy_imports():
    import numpy as np
    from PIL import Image

CLASSES = 1000
IDENTITIES = 10_177
IMAGES = 202_599
ALIGNED = (178, 218)
"""Size of the images that are published aligned, in pixels."""
ALIGNED_LANDMARKS = "list_landmarks_align_celeba.txt"

FACE_FACTOR = 0.65
SIDE = 572
"""Side of the cut face in pixels, before it is resized to the track's resolution."""
STANDARD = (-0.231 - 0.264j, 0.231 - 0.262j, 0.004 + 0.049j, -0.180 + 0.222j, 0.184 + 0.223j)
"""Eyes, nose and corners of the mouth of the standard face, x + iy."""
MOVE = 0.25j
"""Added to them, so that the centre of the cut is between the eyes."""

Landmarks = tuple[complex, ...]


@dataclass(frozen=True)
class Cut:
    """A crop that aligns faces by the landmarks of each file, x + iy in pixels."""

    landmarks: dict[Path, Landmarks]

    def __call__(self, image: Image.Image, path: Path) -> Image.Image:
        middle = SIDE // 2 * (1 + 1j)
        standard = (np.array(STANDARD) + MOVE) * FACE_FACTOR * SIDE + middle
        return cut(image, np.array(self.landmarks[path]), standard, SIDE)


class CelebA(LabelledDataset):
    """The identities with most images, all private; priors bring their own public images."""

    summary = "CelebA: the 1,000 celebrities with most images"
    paper = "Liu et al., ICCV 2015"
    version = "1"
    terms = "photographs of public figures from the web, for research only; personal data"
    layout = (
        "<data>/celeba/identity_CelebA.txt, and <data>/celeba/img_celeba/000001.jpg with "
        "<data>/celeba/list_landmarks_celeba.txt or HD-CelebA-Cropper's images in "
        "<data>/celeba/img_align_celeba"
    )
    origin = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html; https://github.com/LynnHo/HD-CelebA-Cropper"

    def fingerprint(self, root: Path | None) -> str:
        """A hash of class, name and content of every image used, and of the landmarks it is cut by."""
        labelled = self.labelled(root)
        folder = labelled.paths[0].parent
        hashes = content_hashes(folder, [path.name for path in labelled.paths])
        images = zip(labelled.paths, labelled.labels, hashes, strict=True)
        parts = [(f"{label}/{path.name}", found) for path, label, found in images]
        if isinstance(labelled.crop, Cut):
            parts.append(("landmarks", repr([*labelled.crop.landmarks.values()])))
        return combined(parts)

    def labelled(self, root: Path | None) -> Labelled:
        folder = (root or Path()) / "celeba"
        listed = _identities(folder / "identity_CelebA.txt")
        counts = Counter(listed.values())
        found = f"{len(counts)} identities with {len(listed)} images"
        self.check(found, f"{IDENTITIES} identities with {IMAGES} images", folder)
        chosen = [identity for identity, _ in counts.most_common(CLASSES)]
        label_of = {identity: label for label, identity in enumerate(chosen)}
        files = [name for name, identity in listed.items() if identity in label_of]
        images, landmarks = _layout(folder, files[0])
        places = {name: _find(images, name) for name in files}
        if missing := [name for name, path in places.items() if path is None]:
            raise DataError(f"celeba: there is no {images / missing[0]}")
        paths = [path for path in places.values() if path]
        aligned = "the aligned images of 178×218 pixels"
        wanted = "the original photographs or images cut by HD-CelebA-Cropper"
        self.check(aligned if landmarks == folder / ALIGNED_LANDMARKS else wanted, wanted, folder)
        labels = [label_of[listed[name]] for name in files]
        labelled = Labelled(paths, labels, [f"celebrity {identity}" for identity in chosen])
        if landmarks is None:
            return labelled
        note = f"faces of {images.name} cut out by five landmarks, not by HD-CelebA-Cropper's 68"
        crop = Cut(dict(zip(paths, _landmarks(landmarks, files), strict=True)))
        return replace(labelled, crop=crop, notes=(note,))


def _layout(folder: Path, name: str) -> tuple[Path, Path | None]:
    """The folder of the images, and the list of landmarks to cut them by, if any."""
    aligned, originals = folder / "img_align_celeba", folder / "img_celeba"
    first = _find(aligned, name)
    try:
        if first and read_header(first) != ALIGNED:
            return aligned, None
    except (OSError, Unusable) as error:
        reason = error.detail or error.reason if isinstance(error, Unusable) else error.strerror
        raise DataError(f"celeba: {first} can't be read: {reason}") from error
    if originals.is_dir():
        return originals, folder / "list_landmarks_celeba.txt"
    return aligned, folder / ALIGNED_LANDMARKS


def _identities(path: Path) -> dict[str, str]:
    """Identity of each image, in the order of the file; raise DataError unless every line has two words."""
    words = [line.split() for line in text_lines(path, "celeba")]
    if not words or any(len(line) != 2 for line in words):
        raise DataError(f"celeba: {path} is no list of images and identities")
    return dict(words)


def _landmarks(path: Path, names: list[str]) -> list[Landmarks]:
    """The landmarks of the named images; raise DataError unless the file gives five for each of them."""
    wanted = set(names)
    parts = (line.split(maxsplit=1) for line in text_lines(path, "celeba"))
    given = {name: " ".join(rest) for name, *rest in parts if name in wanted}
    try:
        return [_points(given[name]) for name in names]
    except KeyError as error:
        raise DataError(f"celeba: {path} has no landmarks of {error}") from error
    except ValueError as error:
        raise DataError(f"celeba: {path} is no list of five landmarks an image: {error}") from error


def _points(text: str) -> Landmarks:
    """Parse "x y x y …" to x + iy; raise ValueError unless it holds five points."""
    numbers = [float(word) for word in text.split()]
    if len(numbers) != 2 * len(STANDARD) or not all(map(math.isfinite, numbers)):
        raise ValueError(repr(text.strip()))
    return tuple(map(complex, numbers[::2], numbers[1::2]))


def _find(folder: Path, name: str) -> Path | None:
    """The image of this name, which may end in ``.png``."""
    path = folder / name
    return next(filter(Path.is_file, (path, path.with_suffix(".png"))), None)


@hookimpl
def mia_bench_register_datasets(register: Register) -> None:
    register("celeba", CelebA)
