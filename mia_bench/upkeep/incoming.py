"""Artifacts and records on their way from elsewhere into a store, and what is checked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mia_bench import jsonfile
from mia_bench.errors import CorruptArtifact, StoreError
from mia_bench.origin import StageId
from mia_bench.record import Record
from mia_bench.store import META, TENSORS
from mia_bench.upkeep.check import check_origin

PIECE = 1 << 20
"""Bytes that are read at once."""


@dataclass(frozen=True)
class Incoming:
    """An artifact from elsewhere.

    Attributes:
        stage: name and key.
        meta: its ``meta.json``.
        size: bytes of its tensors.
        sha256: their hash, as the notes say.
        tensors: reads the file of its tensors, in pieces.
    """

    stage: StageId
    meta: bytes
    size: int
    sha256: str
    tensors: Callable[[], Iterator[bytes]]


class Source(Protocol):
    """Where artifacts and records come from.

    Attributes:
        damaged: lines on what can't be taken; filled while it is read.
    """

    damaged: list[str]

    @property
    def size(self) -> int:
        """The size of all that it has."""

    def check(self, advance: Callable[[int], Any]) -> None:
        """Check it before anything is written.

        Raises:
            MiaBenchError: nothing of it can be taken.
        """

    def artifacts(self) -> Iterator[Incoming]:
        """Its artifacts."""

    def records(self) -> Iterator[Record]:
        """Its records."""


def incoming(stage: StageId, meta: bytes, tensors: Callable[[], Iterator[bytes]]) -> Incoming:
    """An artifact whose notes are checked.

    Raises:
        CorruptArtifact: they are damaged, or those of another artifact.
    """
    try:
        content = jsonfile.parse_object(meta)
        if jsonfile.SEAL in content and not jsonfile.seal_holds(content):
            raise ValueError(f"the hash of {META} differs")
        if (content.get("stage"), content.get("key")) != stage:
            raise ValueError(f"{META} is of another artifact")
        file, info = content["files"][TENSORS], content["info"]
        size, sha256 = file["bytes"], file["sha256"]
        if not (isinstance(size, int) and size >= 0 and isinstance(sha256, str) and isinstance(info, dict)):
            raise ValueError(f"{META} lacks what it must have")
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(*stage, str(error)) from error
    check_origin(stage, info)
    return Incoming(stage, meta, size, sha256, tensors)


def pieces(path: Path, start: int = 0, size: int | None = None) -> Iterator[bytes]:
    """A file, or ``size`` bytes of it, in pieces.

    Raises:
        StoreError: it can't be read, or ends too early.
    """
    try:
        left = jsonfile.file_size(path) - start if size is None else size
        with path.open("rb") as file:
            file.seek(start)
            while left > 0:
                piece = file.read(min(PIECE, left))
                if not piece:
                    raise StoreError(f"{path} ends too early")
                left -= len(piece)
                yield piece
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise StoreError(f"{path} can't be read: {error}") from error
