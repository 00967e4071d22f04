"""Stanford Dogs: 120 breeds.

Khosla, Jayadevaprakash, Yao, Fei-Fei, *Novel Dataset for Fine-Grained Image Categorization*, FGVC at
CVPR 2011. Layout: ``<data>/stanford_dogs/Images/<breed>/<image>.jpg`` with ``train_list.mat`` and
``test_list.mat`` beside ``Images``. Nine tenths of the images of both lists, drawn with seed 42, are for
training, as in Struppek et al., ICML 2022. Images are resized to a square without being cropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mia_bench import Register, hookimpl, lazy_imports
from mia_bench.data.classes import Labelled, LabelledDataset
from mia_bench.data.trees import Tree, scan_tree
from mia_bench.errors import DataError

with lazy_imports():
    from PIL import Image
    from scipy import io

LISTS = ("train_list.mat", "test_list.mat")
CLASSES = 120
IMAGES = 20_580


class StanfordDogs(LabelledDataset):
    """All breeds are private; priors bring their own public images."""

    summary = "Stanford Dogs: 120 breeds"
    paper = "Khosla et al., FGVC workshop at CVPR 2011"
    version = "1"
    terms = "images of ImageNet, for research"
    real_people = False
    layout = "<data>/stanford_dogs/Images/<breed>/<image>.jpg, and the lists *_list.mat beside Images"
    origin = "http://vision.stanford.edu/aditya86/ImageNetDogs/"

    def fingerprint(self, root: Path | None) -> str:
        return self._tree(root).fingerprint()

    def _tree(self, root: Path | None) -> Tree:
        root = root or Path()
        folder = root / "stanford_dogs"
        tree = scan_tree(folder / "Images", "stanford-dogs", root)
        for name in LISTS:
            if not (folder / name).is_file():
                raise DataError(f"stanford-dogs: there is no {folder / name}")
        images = sum(map(len, tree.images.values()))
        found = f"{len(tree.images)} breeds with {images} images"
        self.check(found, f"{CLASSES} breeds with {IMAGES} images", folder)
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
            left_out=tree.left_out,
        )


def whole(image: Image.Image, _path: Path | None = None) -> Image.Image:
    """The whole image, which resizing makes a square."""
    return image


def _entries(path: Path) -> list[tuple[str, int]]:
    """Names without suffix, and labels from 0, of a list of images; raise DataError if it can't be read."""
    try:
        content: dict[str, Any] = io.loadmat(path)
        names = [str(row[0][0]) for row in content["annotation_list"]]
        labels = [int(row[0]) - 1 for row in content["labels"]]
    except Exception as error:  # of a file that is damaged, anything may be raised
        raise DataError(f"stanford-dogs: {path} is no list of the data set: {error}") from error
    return list(zip(names, labels, strict=True))


@hookimpl
def mia_bench_register_datasets(register: Register) -> None:
    register("stanford-dogs", StanfordDogs)
