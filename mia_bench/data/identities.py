"""Splits of an image tree by identity, for data sets of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.progress import Progress
from mia_bench.data.trees import Crop, Tree, decode, split_by_identity
from mia_bench.errors import DataError
from mia_bench.seeds import derive, generator

with lazy_imports():
    import torch


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
) -> Splits:
    """Decode the chosen images and split the private ones within each identity.

    At most ``max_images`` images of a private identity are used, drawn by ``seed``. :func:`decode` keeps
    finished blocks in ``scratch``.

    Raises:
        DataError: a private identity has fewer than two readable images.
    """
    identities = [*roles.private, *roles.public, *roles.decoys]
    paths, owners = [], []
    for number, identity in enumerate(identities):
        files = tree.paths(identity)
        if number < len(roles.private) and len(files) > max_images:
            rng = generator(derive(seed, "images"), identity)
            chosen = torch.randperm(len(files), generator=rng)[:max_images].sort().values
            files = [files[i] for i in chosen.tolist()]
        paths += files
        owners += [number] * len(files)
    decoded = decode(paths, crop, resolution, progress, scratch)
    owner = torch.tensor(owners)[torch.tensor(decoded.index, dtype=torch.long)]
    counts = owner.bincount(minlength=len(identities))
    for number, identity in enumerate(roles.private):
        if counts[number] < 2:
            raise DataError(f"identity {identity!r} has fewer than two readable images")
    private = owner < len(roles.private)
    decoy = owner >= len(roles.private) + len(roles.public)
    public = ~private & ~decoy
    train, validation, test = split_by_identity(
        decoded.images[private], owner[private], generator(seed, "parts")
    )
    return Splits(
        train=train,
        validation=validation,
        test=test,
        public=ImageSet(decoded.images[public], owner[public]),
        decoys=ImageSet(decoded.images[decoy], owner[decoy]),
        class_names=tuple(roles.private),
        notes=decoded.notes,
    )
