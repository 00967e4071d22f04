"""Hashes of everything in a store, checked; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mia_bench.errors import CorruptArtifact, MiaBenchError, StoreError
from mia_bench.origin import Origin, StageId
from mia_bench.store import META, Store
from mia_bench.upkeep.contents import Artifact, Contents, RecordFile


@dataclass(frozen=True)
class Damage:
    """Something in a store that is not as it was written, or can't be read.

    Attributes:
        line: what, and what is wrong with it.
        stage: of a damaged artifact.
    """

    line: str
    stage: StageId | None = None


def find_damage(
    contents: Contents, advance: Callable[[Artifact | RecordFile], None], *, quick: bool = False
) -> Iterator[Damage]:
    """What is damaged.

    Args:
        contents: of the store.
        advance: called with each thing that has been checked.
        quick: do not read tensors, check only their sizes.

    Raises:
        StoreError: a folder can't be read.
    """
    for artifact in contents.artifacts:
        try:
            check_artifact(contents.store, artifact.id, quick=quick)
        except StoreError as error:
            yield Damage(str(error), artifact.id)
        advance(artifact)
    for record in contents.records:
        try:
            contents.store.read_record(record.track, record.key)
        except MiaBenchError as error:
            yield Damage(str(error))
        advance(record)


def check_artifact(store: Store, stage: StageId, *, quick: bool = False) -> None:
    """Check an artifact: its hashes, and that its key is that of what it was made from.

    Raises:
        StoreError: it is damaged, or can't be read.
    """
    info = store.info(*stage)
    if not quick:
        store.verify(*stage)
    check_origin(stage, info)


def check_origin(stage: StageId, info: dict[str, object]) -> None:
    """Check that the key of an artifact is that of what it was made from, as far as that is noted.

    Raises:
        CorruptArtifact: it is not.
    """
    try:
        origin = Origin.noted(stage[0], info)
        wrong = origin is not None and origin.key != stage[1]
    except (TypeError, ValueError) as error:
        raise CorruptArtifact(*stage, str(error)) from error
    if wrong:
        raise CorruptArtifact(*stage, f"its key is not that of the origin in {META}")
