"""Images that several identities share: the same pixels, or the same picture encoded or coloured anew.

Two images are the same if the pixels that the track sees are equal. They are nearly the same if the
perceptual hashes of :mod:`imagehash` (``phash``, 256 bits) differ in at most :data:`NEAR` bits and their grey
values correlate. On LFW, 13,233 photographs of which 87 million pairs show different names, five pairs are
within 28 bits, each one photograph under two names; the next pair, of similar faces, is at 48. Saving as JPEG
of quality 20, halving the size, brightness and contrast of ±30 % and loss of colour change up to 28 bits.
Crops, shifts and mirror images are not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from etils.epy import lazy_imports

from mia_bench.api.inventory import Group, Role
from mia_bench.api.progress import Progress
from mia_bench.data.contents import content_hashes
from mia_bench.data.fingerprints import image_fingerprints
from mia_bench.data.trees import Tree
from mia_bench.errors import DataError

with lazy_imports():
    import imagehash
    import numpy as np
    from PIL import Image
    from torch import Tensor

NEAR = 36
"""Bits of 256 in which the hashes of one picture may differ."""
CORRELATION = 0.9
"""Least correlation of the grey values of one picture; images of one colour have none."""
SIDE = 32
"""Images are compared at this size."""
ROWS = 1024
"""Images that are compared with all others at once."""
PUBLIC_COPIES = (
    "the same image is both of a private and of a public person or decoy, so that the attacker's data hold "
    "private images; remove one of each two, "
)


@dataclass(frozen=True)
class Photographs:
    """Images with their owners.

    Attributes:
        images: ``(N, 3, R, R)`` uint8.
        names: of the files.
        owner: ``(N,)``, the identity of each image.
        role: of each image.
    """

    images: Tensor
    names: Sequence[str]
    owner: Tensor
    role: Sequence[Role]


@dataclass(frozen=True)
class Pair:
    """Two images, by position, that show the same."""

    first: int
    second: int
    exact: bool


def find_overlaps(photographs: Photographs, progress: Progress) -> list[Pair]:
    """Pairs of images of different identities that show the same, exact ones first.

    Equal images are paired with the first of them, so private identities should come first. Only this first
    one is compared with others.
    """
    firsts: dict[int, int] = {}
    exact: dict[tuple[int, int], Pair] = {}
    for i, (pixels, owner) in enumerate(_keys(photographs)):
        first = firsts.setdefault(pixels, i)
        if int(photographs.owner[first]) != owner:
            exact.setdefault((first, owner), Pair(first, i, exact=True))
    return [*exact.values(), *_near(photographs, [*firsts.values()], progress)]


def describe_overlaps(photographs: Photographs, pairs: Sequence[Pair]) -> Iterator[str]:
    """A line for each kind of overlap, the gravest first, with the first files by name."""
    for exact in (True, False):
        for words, between in _KINDS:
            found = [p for p in pairs if p.exact == exact and between(_roles(photographs, p))]
            if found:
                same = "the same image" if exact else "nearly the same image"
                yield f"{same} {words}, {_listed(photographs, found)}"
    if twice := list(_repeated(photographs)):
        yield (
            "the same image twice of one private person, so that a training image may be a test image, "
            + _listed(photographs, twice)
        )


def refuse_public_copies(photographs: Photographs, pairs: Sequence[Pair]) -> None:
    """Raise DataError if an image is both of a private and of another identity.

    The prior would be trained on it, or a decoy would look like a private person.
    """
    found = [pair for pair in pairs if pair.exact and _crosses(_roles(photographs, pair))]
    if found:
        raise DataError(PUBLIC_COPIES + _listed(photographs, found))


def refuse_public_files(tree: Tree, private: Sequence[str], others: Sequence[str]) -> None:
    """Raise DataError if a file of a private identity is also one of another identity; nothing is decoded."""
    paths = [path for identity in (*private, *others) for path in tree.paths(identity)]
    border = sum(len(tree.images[identity]) for identity in private)
    hashes = content_hashes(tree.root, [str(path.relative_to(tree.root)) for path in paths])
    firsts = dict(zip(reversed(hashes[:border]), reversed(range(border)), strict=True))
    found = [
        f"{tree.name(paths[firsts[content]])} = {tree.name(paths[i])}"
        for i, content in enumerate(hashes)
        if i >= border and content in firsts
    ]
    if found:
        raise DataError(PUBLIC_COPIES + _counted_pairs(found))


def _crosses(roles: set[Role]) -> bool:
    return "private" in roles and len(roles) > 1


_KINDS: Sequence[tuple[str, Callable[[set[Role]], bool]]] = (
    ("of a private and of a public person or decoy", _crosses),
    ("of two private people", lambda roles: roles == {"private"}),
    ("of two public people or decoys", lambda roles: "private" not in roles),
)


def _roles(photographs: Photographs, pair: Pair) -> set[Role]:
    return {photographs.role[pair.first], photographs.role[pair.second]}


def _listed(photographs: Photographs, pairs: Sequence[Pair]) -> str:
    names = photographs.names
    return _counted_pairs([f"{names[pair.first]} = {names[pair.second]}" for pair in pairs])


def _counted_pairs(pairs: Sequence[str]) -> str:
    return f"{len(pairs):,} {'pair' if len(pairs) == 1 else 'pairs'}: {Group.of(pairs, most=5)}"


def _repeated(photographs: Photographs) -> Iterator[Pair]:
    """Equal images of one private identity."""
    firsts: dict[tuple[int, int], int] = {}
    for i, key in enumerate(_keys(photographs)):
        if photographs.role[i] == "private" and firsts.setdefault(key, i) != i:
            yield Pair(firsts[key], i, exact=True)


def _keys(photographs: Photographs) -> list[tuple[int, int]]:
    """Hash of the pixels and owner of each image."""
    prints = image_fingerprints(photographs.images).tolist()
    return list(zip(prints, photographs.owner.tolist(), strict=True))


def _near(photographs: Photographs, compared: Sequence[int], progress: Progress) -> Iterator[Pair]:
    """Pairs whose hashes and grey values are close, by matrix products of the signs of their bits."""
    index = np.array(compared, np.int64)
    hashes, greys = _hashes(photographs.images, compared, progress)
    owner = photographs.owner.numpy()[index]
    for start in range(0, len(index), ROWS):
        # Signs agree in all but d of 256 bits: their product is 256 - 2 d.
        products = hashes[start : start + ROWS] @ hashes[start:].T
        rows, columns = np.nonzero(products >= hashes.shape[1] - 2 * NEAR)
        kept = (rows < columns) & (owner[start + rows] != owner[start + columns])
        for first, second in zip(start + rows[kept], start + columns[kept], strict=True):
            if float(greys[first] @ greys[second]) >= CORRELATION:
                yield Pair(int(index[first]), int(index[second]), exact=False)


def _hashes(images: Tensor, index: Sequence[int], progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Signs ``(N, 256)`` of the hashes and normalised grey values ``(N, 1024)`` of the indexed images."""
    signs = np.empty((len(index), 256), np.float32)
    greys = np.empty((len(index), SIDE * SIDE), np.float32)
    for row, i in enumerate(index):
        small = Image.fromarray(images[i].permute(1, 2, 0).numpy()).convert("L").resize((SIDE, SIDE))
        bits = imagehash.phash(small, hash_size=16, highfreq_factor=2).hash
        signs[row] = np.where(bits.ravel(), 1, -1)
        grey = np.asarray(small, np.float32).ravel()
        grey = grey - grey.mean()
        greys[row] = grey / max(float(np.linalg.norm(grey)), 1e-6)
        if row % ROWS == 0:
            progress(row, len(index), "comparison")
    return signs, greys
