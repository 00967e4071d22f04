"""Every built-in, and every example, passes the conformance kit.

Networks, searches and trainings are small, and data sets of photographs read made files of their layout; of
encoders, ``facenet`` reads random weights and ``mobilefacenet`` the real file, where it is.
"""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mia_bench.plugins import host
from mia_bench.registry import Entry
from mia_bench.seeds import seeded
from mia_bench.testing import CheckSkipped, Conformance, check_track, checks_of
from mia_bench_mi_face import PixelDescent
from mia_bench_midre import RandomErasing
from test_mnist import write_half
from test_paper_datasets import celeba, dogs, facescrub, picture
from test_paper_tracks import write_facenet

pytestmark = pytest.mark.slow

SMALL = {
    "ppa": {"search": 24, "candidates": 3, "steps": 2, "views": 3},
    "ppa-steps": {"search": 24, "candidates": 3, "steps": 2, "views": 3},
    "ppa-rescaled": {"search": 24, "candidates": 3, "steps": 2, "views": 3},
    "ppa-distilled": {
        "search": 24, "candidates": 3, "steps": 2, "views": 3, "samples": 16, "student_steps": 3,
        "student_widths": (4,),
    },
    "gmi": {"steps": 3, "restarts": 2},
    "brep-mi": {"search": 200, "points": 4, "steps": 3},
    "mirror": {"search": 24, "population": 4, "generations": 2},
    "wgan-gp": {"latent": 6, "width": 4, "steps": 4, "batch_size": 4},
    "stylegan2": {
        "latent": 8, "style": 8, "layers": 2, "channel_base": 128, "channel_max": 8, "steps": 4,
        "batch_size": 4,
    },
    "synth-faces": {
        "identities": 3, "train": 3, "validation": 1, "test": 2, "public_identities": 6,
        "public_images": 2, "decoys": 4, "decoy_images": 2,
    },
    "mnist": {"per_class": 10, "public_per_class": 8},
    "lfw": {"private_min": 4, "public_max": 2, "decoys": 1},
    "folder": {"path": "folder", "min_images": 4},
    "facescrub": {"allow_partial": True},
    "celeba": {"allow_partial": True, "classes": 3},
    "stanford-dogs": {"allow_partial": True},
    "torchvision": {"pretrained": False},
}  # fmt: skip
"""Options by name."""

NEED_NOT_BE_MADE = {"gpu", "resumed"}
"""Where there is no GPU, and for priors that save no checkpoint before they end."""

REAL_FILES = {"mobilefacenet"}
"""Components whose weights can't be made."""

KINDS = ("defense", "attack", "prior", "metric", "dataset", "model", "encoder")

BUILT_IN = [
    entry
    for kind in KINDS
    for entry in host().registry.entries(kind)
    if entry.plugin.distribution == "mia-bench"
]

TRACKS = [e.name for e in host().registry.entries("track") if e.plugin.distribution == "mia-bench"]

# --- files of the data sets ----------------------------------------------------------------------


def mnist(root: Path) -> None:
    """Noise of all ten digits."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, each in (("train", 12), ("t10k", 6)):
        labels = np.repeat(np.arange(10, dtype=np.uint8), each)
        images = np.random.default_rng(each).integers(0, 255, (len(labels), 28, 28), dtype=np.uint8)
        write_half(folder, name, images, labels)


def identities(root: Path, size: tuple[int, int]) -> None:
    """Three identities with five images, four with two; each image has a shade of its own."""
    shades = iter(range(5, 255, 10))
    for number, count in enumerate((5, 5, 5, 2, 2, 2, 2)):
        for image in range(1, count + 1):
            name = f"Person_{number}"
            picture(root / name / f"{name}_{image:04d}.jpg", next(shades), size)


def celebrities(root: Path) -> None:
    """As the tests of the data set make them, but each image with a shade of its own."""
    celeba(root)
    for number, path in enumerate(sorted((root / "celeba/img_align_celeba").iterdir())):
        picture(path, 20 * number, (30, 30))


FILES: tuple[Callable[[Path], None], ...] = (
    mnist,
    facescrub,
    celebrities,
    dogs,
    lambda root: identities(root / "lfw", (250, 250)),
    lambda root: identities(root / "folder", (20, 20)),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with small files of every data set."""
    root = tmp_path_factory.mktemp("files")
    for make in FILES:
        make(root)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weight files: made ones, and the real ones that are here."""
    folder = tmp_path_factory.mktemp("weights")
    with seeded(0, "facenet"):
        write_facenet(folder)
    if given := os.environ.get("MIA_BENCH_WEIGHTS"):
        for file in Path(given).iterdir():
            if not (folder / file.name).exists():
                (folder / file.name).symlink_to(file.resolve())
    return folder


# --- tests ---------------------------------------------------------------------------------------


@cache
def conformance(name: str, kind: str, root: Path, weights: Path) -> Conformance:
    component = host().registry.get(kind, name).load()
    return Conformance(component, SMALL.get(name, {}), data=root, weights=weights)


def cases() -> list[tuple[Entry, str]]:
    return [(entry, check) for entry in BUILT_IN for check in checks_of(entry.load())]


@pytest.mark.parametrize(
    ("entry", "check"), cases(), ids=lambda x: x if isinstance(x, str) else f"{x.kind}-{x.name}"
)
def test_a_built_in_conforms(entry: Entry, check: str, files: Path, weights: Path) -> None:
    try:
        findings = conformance(entry.name, entry.kind, files, weights).check(check)
    except CheckSkipped as reason:
        if check in NEED_NOT_BE_MADE or entry.name in REAL_FILES:
            pytest.skip(str(reason))
        raise
    assert [str(finding) for finding in findings] == []


@pytest.mark.parametrize("track", TRACKS)
def test_a_built_in_track_conforms(track: str) -> None:
    assert [str(finding) for finding in check_track(track)] == []


test_midre = Conformance(RandomErasing)
test_mi_face = Conformance(PixelDescent, {"steps": 4})
