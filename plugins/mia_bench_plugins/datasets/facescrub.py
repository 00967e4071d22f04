"""FaceScrub: faces of 530 actors and actresses.

Ng and Winkler, *A Data-Driven Approach to Cleaning Large Face Datasets*, ICIP 2014. Layout:
``<data>/facescrub/actors/faces/<Name>/<image>`` and ``…/actresses/faces/…``. The classes are the actors by
name, then the actresses; nine tenths of all images, drawn with seed 42, are for training, as in Struppek et
al., ICML 2022.
"""

from __future__ import annotations

from pathlib import Path

from mia_bench import Register, hookimpl
from mia_bench.data.classes import Labelled, LabelledDataset
from mia_bench.data.trees import Tree, scan_tree

GROUPS = ("actors", "actresses")
CLASSES = 530


class FaceScrub(LabelledDataset):
    """All identities are private; priors bring their own public images."""

    summary = "FaceScrub: 530 actors and actresses"
    paper = "Ng and Winkler, ICIP 2014"
    version = "1"
    terms = "photographs of public figures from the web, for research; personal data"
    layout = "<data>/facescrub/actors/faces/<Name>/<image> and <data>/facescrub/actresses/faces/…"
    origin = "https://vintage.winklerbros.net/facescrub.html (lists of links, on request)"

    def fingerprint(self, root: Path | None) -> str:
        return "-".join(tree.fingerprint() for tree in self._trees(root))

    def _trees(self, root: Path | None) -> list[Tree]:
        root = root or Path()
        folder = root / "facescrub"
        trees = [scan_tree(folder / group / "faces", "facescrub", root) for group in GROUPS]
        found = sum(len(tree.images) for tree in trees)
        self.check(f"{found} identities", f"{CLASSES} identities", folder)
        return trees

    def labelled(self, root: Path | None) -> Labelled:
        paths: list[Path] = []
        labels: list[int] = []
        names: list[str] = []
        trees = self._trees(root)
        for tree in trees:
            for identity in tree.images:
                files = tree.paths(identity)
                paths += files
                labels += [len(names)] * len(files)
                names.append(identity)
        left_out = tuple(file for tree in trees for file in tree.left_out)
        return Labelled(paths, labels, names, left_out=left_out)


@hookimpl
def mia_bench_register_datasets(register: Register) -> None:
    register("facescrub", FaceScrub)
