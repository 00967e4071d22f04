"""Stanford Dogs: 120 breeds.

Khosla, Jayadevaprakash, Yao, Fei-Fei, *Novel Dataset for Fine-Grained Image Categorization*, FGVC at
CVPR 2011. Layout: ``<data>/stanford_dogs/Images/<breed>/<image>.jpg`` with ``train_list.mat`` and
``test_list.mat`` beside ``Images``. The images of both lists are pooled; nine tenths, drawn with seed 42,
are for training, as in Struppek et al., ICML 2022. They are resized to a square without being cut.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mia_bench import hookimpl
from mia_bench.data.classes import Labelled, LabelledDataset
from mia_bench.data.trees import Tree, scan_tree
from mia_bench.errors import DataError
from mia_bench.hookspecs import Register

if TYPE_CHECKING:
    from PIL.Image import Image

LISTS = ("train_list.mat", "test_list.mat")
CLASSES = 120
IMAGES = 20_580


class StanfordDogs(LabelledDataset):
    """All breeds are private; priors bring their own public images."""

    summary: ClassVar[str] = "Stanford Dogs: 120 breeds"
    paper: ClassVar[str] = "Khosla et al., FGVC workshop at CVPR 2011"
    version: ClassVar[str] = "1"
    terms: str = "images of ImageNet, for research"
    layout: str = (
        "<data>/stanford_dogs/Images/<breed>/<image>.jpg, and the lists *_list.mat beside Images"
    )
    origin: str = "http://vision.stanford.edu/aditya86/ImageNetDogs/"

    def fingerprint(self, root: Path | None) -> str:
        """Over every image's relative name and size."""
        return self._tree(root).fingerprint()

    def _tree(self, root: Path | None) -> Tree:
        folder = (root or Path()) / "stanford_dogs"
        tree = scan_tree(folder / "Images", "stanford-dogs")
        for name in LISTS:
            if not (folder / name).is_file():
                raise DataError(f"stanford-dogs: there is no {folder / name}")
        images = sum(map(len, tree.images.values()))
        self.check(
            f"{len(tree.images)} breeds with {images} images",
            f"{CLASSES} breeds with {IMAGES} images",
            folder,
        )
        return tree

    def labelled(self, root: Path | None) -> Labelled:
        """The images of both lists, in their order."""
        tree = self._tree(root)
        folder = tree.root.parent
        listed = [entry for name in LISTS for entry in _entries(folder / name)]
        breeds = [name.partition("-")[2] or name for name in tree.images]
        if max(label for _, label in listed) >= len(breeds):
            raise DataError(f"stanford-dogs: the lists in {folder} know more breeds than it holds")
        return Labelled(
            [tree.root / f"{name}.jpg" for name, _ in listed],
            [label for _, label in listed],
            breeds,
            whole,
        )


def whole(image: Image, _path: Path | None = None) -> Image:
    """The image as it is: resizing makes it a square."""
    return image


def _entries(path: Path) -> list[tuple[str, int]]:
    """Names without ending and labels from 0 of a list.

    Raises:
        DataError: it can't be read.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content: dict[str, Any] = loadmat(path)
        names = [str(row[0][0]) for row in content["annotation_list"]]
        labels = [int(row[0]) - 1 for row in content["labels"]]
    except (MatReadError, OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"stanford-dogs: {path} is no list of the data set: {error}") from error
    return list(zip(names, labels, strict=True))


@hookimpl
def mia_bench_register_datasets(register: Register) -> None:
    """Register ``stanford-dogs``."""
    register("stanford-dogs", StanfordDogs)
