"""Artifacts as objects that travel to nodes, each kept as long as a stage is left that reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from mia_bench.engine.plan import Stage
from mia_bench.errors import CorruptArtifact
from mia_bench.origin import StageId
from mia_bench.store import Store


class Carried:
    """Objects with artifacts of a store."""

    def __init__(self, store: Store, put: Callable[[Any], Any], todo: Iterable[Stage]) -> None:
        """Count who reads what.

        Args:
            store: where the artifacts are.
            put: makes an object of what :meth:`Store.packed` gives.
            todo: what is to be computed.
        """
        self._store, self._put = store, put
        self._objects: dict[StageId, Any] = {}
        self._open: dict[StageId, Stage] = {}
        self._readers: Counter[StageId] = Counter()
        for stage in todo:
            self._expect(stage)

    def for_stage(self, stage: Stage) -> list[tuple[StageId, Any]]:
        """The objects with what is stored of a stage's upstream; a node makes again what is missing."""
        self._expect(stage)
        for needed in _read_by(stage):
            try:
                if needed not in self._objects and self._store.has(*needed):
                    self._objects[needed] = self._put(self._store.packed(*needed))
            except CorruptArtifact as error:
                self._store.set_aside(error)
        return [(needed, self._objects[needed]) for needed in _read_by(stage) if needed in self._objects]

    def settled(self, stage: Stage, *, failed: bool) -> None:
        """Let go what nobody reads any more: the stage is done, or failed with all that need it."""
        for one in [one for one in self._open.values() if stage.id in _read_by(one)] if failed else ():
            self._close(one)
        self._close(stage)

    def _expect(self, stage: Stage) -> None:
        if stage.id not in self._open:
            self._open[stage.id] = stage
            self._readers.update(_read_by(stage))

    def _close(self, stage: Stage) -> None:
        if self._open.pop(stage.id, None) is None:
            return
        for needed in _read_by(stage):
            self._readers[needed] -= 1
            if not self._readers[needed]:
                self._objects.pop(needed, None)


def _read_by(stage: Stage) -> list[StageId]:
    """What a stage reads, or what that was made from, each once."""
    return list(dict.fromkeys(one.id for one in stage.upstream() if one is not stage))
