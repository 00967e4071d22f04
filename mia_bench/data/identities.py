"""Splits of an image tree by identity, for data sets of photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils.epy import lazy_imports

from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.inventory import Group, Inventory, Role, by_reason, counted, printable
from mia_bench.api.progress import Progress
from mia_bench.data.overlaps import (
    Photographs,
    describe_overlaps,
    find_overlaps,
    refuse_public_copies,
    refuse_public_files,
)
from mia_bench.data.reading import Crop
from mia_bench.data.trees import Decoded, Tree, decode, split_by_identity, split_sizes
from mia_bench.errors import DataError
from mia_bench.seeds import derive, generator

with lazy_imports():
    import torch


@dataclass(frozen=True)
class Choice:
    """Which identities are private, and how many of the others are decoys; known without torch."""

    private: Sequence[str]
    others: Sequence[str]
    decoys: int

    def draw(self, seed: int) -> Roles:
        """Draw the decoys of the identities that are not private; the rest are public."""
        return Roles.draw(self.private, self.others, self.decoys, seed)

    def outline(self, tree: Tree, max_images: int) -> Inventory:
        """What the listing says of the splits.

        Raises:
            DataError: a file is both of a private and of another identity.
        """
        refuse_public_files(tree, self.private, self.others)
        counts = {name: len(tree.images[name]) for name in (*self.private, *self.others)}
        private = {printable(name): min(counts[name], max_images) for name in self.private}
        sizes = [split_sizes(count) for count in private.values()]
        train, validation, test = (sum(part) for part in zip(*sizes, strict=True))
        others = sum(counts[name] for name in self.others)
        used = sum(private.values()) + others
        parts = {"train": train, "validation": validation, "test": test, "public and decoys": others}
        remark = (
            f"public: {counted(len(self.others) - self.decoys, 'identity', 'identities')} for the prior and "
            f"{counted(self.decoys, 'decoy')}, drawn when the images are read"
        )
        return Inventory(
            **_files(tree, used),
            people={"private": private},
            parts=parts,
            remarks=(remark,),
            estimated=True,
        )


@dataclass(frozen=True)
class Roles:
    """The private, public and decoy identities; they are disjoint."""

    private: Sequence[str]
    public: Sequence[str]
    decoys: Sequence[str]

    @classmethod
    def draw(cls, private: Sequence[str], others: Sequence[str], decoys: int, seed: int) -> Roles:
        """Draw ``decoys`` of the identities that are not private; the rest are public."""
        order = torch.randperm(len(others), generator=generator(seed, "decoys")).tolist()
        drawn = [others[i] for i in order]
        return cls(private, sorted(drawn[decoys:]), sorted(drawn[:decoys]))

    def by_identity(self) -> dict[str, Role]:
        """The role of each identity, private ones first."""
        parts: Mapping[Role, Sequence[str]]
        parts = {"private": self.private, "public": self.public, "decoys": self.decoys}
        return {identity: role for role, identities in parts.items() for identity in identities}


def load_splits(
    tree: Tree,
    roles: Roles,
    crop: Crop,
    resolution: int,
    progress: Progress,
    scratch: Path,
    *,
    seed: int,
    max_images: int,
    smallest: int = 1,
) -> Splits:
    """Decode the chosen images and split the private ones within each identity.

    At most ``max_images`` images of a private identity are used, drawn by ``seed``. :func:`decode` keeps
    finished blocks in ``scratch``.

    Args:
        tree, roles, crop, resolution, progress, scratch, seed, max_images: what to read, and how.
        smallest: what width and height of images and crops must be at least, in pixels.

    Raises:
        DataError: a private identity has fewer than two readable images, no public image can be read, or an
            image is both of a private and of another identity.
    """
    refuse_public_files(tree, roles.private, [*roles.public, *roles.decoys])
    role_of = roles.by_identity()
    identities = list(role_of)
    paths, owners = [], []
    for number, identity in enumerate(identities):
        files = tree.paths(identity)
        if role_of[identity] == "private" and len(files) > max_images:
            rng = generator(derive(seed, "images"), identity)
            chosen = torch.randperm(len(files), generator=rng)[:max_images].sort().values
            files = [files[i] for i in chosen.tolist()]
        paths += files
        owners += [number] * len(files)
    decoded = decode(paths, crop, resolution, progress, scratch, base=tree.base, smallest=smallest)
    owner = torch.tensor(owners)[torch.tensor(decoded.index, dtype=torch.long)]
    counts = dict(zip(identities, owner.bincount(minlength=len(identities)).tolist(), strict=True))
    for identity in roles.private:
        if counts[identity] < 2:
            raise DataError(f"identity {printable(identity)!r} has fewer than two readable images")
    if not any(counts[identity] for identity in roles.public):
        raise DataError("no public image can be read: there is nothing to make a prior of")
    role = [role_of[identities[number]] for number in owner.tolist()]
    photographs = Photographs(decoded.images, [tree.name(paths[i]) for i in decoded.index], owner, role)
    pairs = find_overlaps(photographs, progress)
    refuse_public_copies(photographs, pairs)
    people: dict[Role, dict[str, int]] = {"private": {}, "public": {}, "decoys": {}}
    for identity, count in counts.items():
        if count:
            people[role_of[identity]][printable(identity)] = count
    inventory = Inventory(
        **_files(tree, len(paths), decoded, [identity for identity in identities if not counts[identity]]),
        first_frames=Group.of(decoded.several) if decoded.several else None,
        overlaps=tuple(describe_overlaps(photographs, pairs)),
        people=people,
    )
    private, public, decoys = (
        torch.tensor([one == wanted for one in role], dtype=torch.bool)
        for wanted in ("private", "public", "decoys")
    )
    train, validation, test = split_by_identity(
        decoded.images[private], owner[private], generator(seed, "parts")
    )
    return Splits(
        train=train,
        validation=validation,
        test=test,
        public=ImageSet(decoded.images[public], owner[public]),
        decoys=ImageSet(decoded.images[decoys], owner[decoys]),
        class_names=tuple(roles.private),
        notes=inventory.warnings(),
        inventory=inventory,
    )


def _files(
    tree: Tree, wanted: int, decoded: Decoded | None = None, lost: Sequence[str] = ()
) -> dict[str, Any]:
    """What an inventory says of a tree's files, of which ``wanted`` belong to the splits."""
    images = sum(map(len, tree.images.values()))
    left_out = decoded.left_out if decoded else ()
    vanished = sorted([*tree.empty, *map(printable, lost)])
    return {
        "found": images + len(tree.left_out),
        "used": wanted - len(left_out),
        "unused": images - wanted,
        "left_out": by_reason([*tree.left_out, *left_out]),
        "vanished": Group.of(vanished, most=10) if vanished else None,
    }
