"""Labeled Faces in the Wild, deep-funneled.

Huang, Ramesh, Berg, Learned-Miller, *Labeled Faces in the Wild*, UMass Amherst technical report
07-49, 2007; aligned as in Huang, Mattar, Lee, Learned-Miller, *Learning to Align from Scratch*, NIPS
2012. Layout: ``<data>/lfw/<Name>/<Name>_0001.jpg``, 250×250 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from mia_bench import Dataset, Register, Splits, hookimpl, lazy_imports
from mia_bench.api.inventory import Inventory
from mia_bench.api.progress import Progress
from mia_bench.data.identities import Choice, load_splits
from mia_bench.data.trees import Tree, check_headers, scan_tree
from mia_bench.errors import DataError

with lazy_imports():
    from PIL import Image

SIZE = (250, 250)
CROP = (58, 48, 192, 182)
"""Left, upper, right and lower edge of the face, in pixels."""


class LFW(Dataset):
    """Private: identities with many images. Public: those with few, some of them decoys."""

    summary = "Labeled Faces in the Wild, deep-funneled photographs"
    paper = "Huang et al., UMass Amherst 07-49, 2007"
    version = "1"
    terms = "photographs of public figures from news sites, for research; personal data"
    layout = "<data>/lfw/<Name>/<Name>_0001.jpg, deep-funneled, 250×250 pixels"
    origin = "https://vis-www.cs.umass.edu/lfw/ (lfw-deepfunneled.tgz)"

    class Options(Dataset.Options):
        private_min: int = Field(20, ge=2, description="private: identities with at least this many")
        public_max: int = Field(9, ge=1, description="public: identities with at most this many")
        max_images: int = Field(60, ge=2, description="images used of a private identity")
        decoys: int = Field(1000, ge=1, description="public identities kept for the gallery")

        @model_validator(mode="after")
        def _roles_are_disjoint(self) -> Self:
            if self.public_max >= self.private_min:
                raise ValueError("public_max must be below private_min: no identity is both")
            return self

    options: Options

    def fingerprint(self, root: Path | None) -> str:
        return self._tree(root).fingerprint()

    def _tree(self, root: Path | None) -> Tree:
        root = root or Path()
        return scan_tree(root / "lfw", "lfw", root)

    def load(
        self, root: Path | None, *, resolution: int, seed: int, progress: Progress, scratch: Path
    ) -> Splits:
        tree = check_headers(self._tree(root))
        roles, most = self._choice(tree).draw(seed), self.options.max_images
        return load_splits(tree, roles, crop_face, resolution, progress, scratch, seed=seed, max_images=most)

    def outline(self, root: Path | None, *, resolution: int) -> Inventory:
        tree = check_headers(self._tree(root))
        return self._choice(tree).outline(tree, self.options.max_images)

    def _choice(self, tree: Tree) -> Choice:
        counts = {name: len(files) for name, files in tree.images.items()}
        private = [name for name, n in counts.items() if n >= self.options.private_min]
        public = [name for name, n in counts.items() if n <= self.options.public_max]
        if len(private) < 2:
            raise DataError(
                f"lfw: {len(private)} identities have {self.options.private_min} images or more; "
                "is the data set complete?"
            )
        if len(public) <= self.options.decoys:
            raise DataError(
                f"lfw: {len(public)} public identities are too few for "
                f"{self.options.decoys} decoys; is the data set complete?"
            )
        return Choice(private, public, self.options.decoys)


def crop_face(image: Image.Image, _path: Path | None = None) -> Image.Image:
    """The face of a deep-funneled photograph; raise ValueError unless its size is :data:`SIZE`."""
    if image.size != SIZE:
        raise ValueError(f"{image.width}×{image.height} pixels, not {SIZE[0]}×{SIZE[1]}")
    return image.crop(CROP)


@hookimpl
def mia_bench_register_datasets(register: Register) -> None:
    register("lfw", LFW)
