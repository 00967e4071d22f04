"""Any ``<identity>/…/<image>`` tree of the user's.

Whatever Pillow recognises by its content is an image, also in folders below an identity's. Images narrower or
lower than half the track's resolution are left out: they would be enlarged more than twofold.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import Field

from mia_bench import Dataset, Register, Splits, hookimpl
from mia_bench.api.inventory import Inventory
from mia_bench.api.progress import Progress
from mia_bench.data.classes import central_square
from mia_bench.data.identities import Choice, Roles, load_splits
from mia_bench.data.trees import Tree, check_headers, scan_tree
from mia_bench.errors import DataError


class Folder(Dataset):
    """Private: the identities with most images. The rest are public, some of them decoys."""

    summary = "any <identity>/<image> tree: most images private, the rest public"
    version = "1"
    terms = "yours; reconstructions of real people are personal data"
    layout = "<data>/<path>/<identity>/<image>"
    origin = "your own"

    class Options(Dataset.Options):
        places = frozenset({"path"})

        path: str = Field(".", description="the tree, relative to the data root")
        max_identities: int = Field(60, ge=2, description="private identities at most")
        min_images: int = Field(6, ge=2, description="images a private identity must have")
        max_images: int = Field(60, ge=2, description="images used of a private identity")
        max_decoys: int = Field(1000, ge=1, description="decoys at most (a third of the public)")

    options: Options

    def fingerprint(self, root: Path | None) -> str:
        return self._tree(root).fingerprint()

    def _tree(self, root: Path | None) -> Tree:
        root = root or Path()
        return scan_tree(root / self.options.path, "folder", root)

    def load(
        self, root: Path | None, *, resolution: int, seed: int, progress: Progress, scratch: Path
    ) -> Splits:
        smallest = _smallest(resolution)
        tree = check_headers(self._tree(root), smallest)
        roles = self.choose(tree, seed)
        counts = [len(tree.images[name]) for name in roles.private]
        most = self.options.max_images
        note = (
            f"private: the {len(roles.private)} identities with most images ({min(counts)} to {max(counts)}, "
            f"{most} used at most); public: {len(roles.public)} identities for the prior and "
            f"{len(roles.decoys)} decoys"
        )
        splits = load_splits(
            tree,
            roles,
            central_square,
            resolution,
            progress,
            scratch,
            seed=seed,
            max_images=most,
            smallest=smallest,
        )
        return replace(splits, notes=(note, *splits.notes))

    def outline(self, root: Path | None, *, resolution: int) -> Inventory:
        tree = check_headers(self._tree(root), _smallest(resolution))
        return self._choice(tree).outline(tree, self.options.max_images)

    def choose(self, tree: Tree, seed: int) -> Roles:
        """Private: most images first, at most half of all identities; decoys: a third of the rest.

        Raises:
            DataError: too few identities or images.
        """
        return self._choice(tree).draw(seed)

    def _choice(self, tree: Tree) -> Choice:
        ranked = sorted(tree.images, key=lambda name: (-len(tree.images[name]), name))
        eligible = [n for n in ranked if len(tree.images[n]) >= self.options.min_images]
        count = min(len(eligible), self.options.max_identities, (len(ranked) + 1) // 2)
        if count < 2:
            raise DataError(
                f"folder: {len(eligible)} of {len(ranked)} identities have "
                f"{self.options.min_images} images or more; at least 2 private ones and as many "
                "public ones are needed (lower folder.min_images, or add images)"
            )
        private, rest = sorted(ranked[:count]), sorted(ranked[count:])
        return Choice(private, rest, min(self.options.max_decoys, max(1, len(rest) // 3)))


def _smallest(resolution: int) -> int:
    """Width and height that an image must have."""
    return (resolution + 1) // 2


@hookimpl
def mia_bench_register_datasets(register: Register) -> None:
    register("folder", Folder)
