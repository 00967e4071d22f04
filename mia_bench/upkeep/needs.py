"""For which records an artifact is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mia_bench.engine.plan import PlannedCell, Stage
from mia_bench.errors import MiaBenchError
from mia_bench.origin import StageId
from mia_bench.record import Record
from mia_bench.upkeep.contents import Artifact, Contents, RecordFile
from mia_bench.upkeep.planning import Planner


@dataclass(frozen=True)
class Unknown:
    """A record of which it is not known what it was made from.

    Attributes:
        file: the record's.
        reason: why not.
        names: of its components; None where it can't be read.
    """

    file: RecordFile
    reason: str
    names: frozenset[str] | None

    def may_need(self, artifact: Artifact) -> bool:
        """Whether the artifact may be one of its own, as far as the run that made it says."""
        if artifact.track not in ("", self.file.track):
            return False
        return self.names is None or artifact.subject in ("", *self.names)


@dataclass
class Needs:
    """What the records of a store need: everything that their numbers were made from.

    An artifact notes what it was made from. Older ones do not: there the record's cell is planned again.

    Attributes:
        contents: of the store.
        planner: plans cells of records.
        unknown: the records of which it is not known.
        planned: the cells that were planned.
    """

    contents: Contents
    planner: Planner = field(default_factory=Planner)
    unknown: list[Unknown] = field(default_factory=list)
    planned: dict[RecordFile, PlannedCell] = field(default_factory=dict)

    @cached_property
    def by_record(self) -> Mapping[RecordFile, tuple[StageId, ...]]:
        """The stages behind each record, stored or not; those that are known.

        Raises:
            StoreError: a record can't be read.
        """
        return {file: self.of(file) for file in self.contents.records}

    def of(self, file: RecordFile) -> tuple[StageId, ...]:
        """The stages behind a record; where not all are known, ``unknown`` says why."""
        measured = self.contents.by_id.get(file.measure)
        if measured and measured.upstream is not None and not measured.problem:
            return (*measured.upstream, measured.id)
        record = self._read(file)
        if record and record.status == "skipped":
            return ()
        reason, names = "the record is damaged", None
        if record:
            names = frozenset(part.name for part in record.components.values())
            try:
                planned = self.planned[file] = self.planner.cell(record)
                return tuple(dict.fromkeys(stage.id for stage in planned.measure.upstream()))
            except MiaBenchError as error:
                reason = str(error)
        self.unknown.append(Unknown(file, reason, names))
        return (file.measure,)

    def _read(self, file: RecordFile) -> Record | None:
        """The record; None if it is damaged."""
        return self.contents.store.record(file.track, file.key)

    @cached_property
    def counts(self) -> Counter[StageId]:
        """For how many records each stage is needed. Metrics are needed as long as what they measured is."""
        found = Counter(stage for stages in self.by_record.values() for stage in stages)
        for one in self.contents.artifacts:
            if one.stage == "metric" and (measured := self._measured(one)):
                found[one.id] = found[measured]
        return found

    def _measured(self, metric: Artifact) -> StageId | None:
        """The attack, or the target, that a metric was computed of; None in older ones."""
        found = dict(metric.upstream or ())
        return next(((name, found[name]) for name in ("invert", "train", "load") if name in found), None)

    @cached_property
    def stages(self) -> Mapping[StageId, Stage]:
        """The stages of the cells that were planned."""
        _ = self.by_record
        return {stage.id: stage for cell in self.planned.values() for stage in cell.measure.upstream()}

    def may_be_needed(self, artifact: Artifact) -> Unknown | None:
        """A record that may need an artifact which is not known to be needed, if there is one."""
        _ = self.by_record
        return next((one for one in self.unknown if one.may_need(artifact)), None)


def reasons(unknown: Iterable[Unknown]) -> list[str]:
    """A line for each track and reason, with the number of records."""
    found = Counter((one.file.track, one.reason) for one in unknown)
    return [
        f"what {count} {'record' if count == 1 else 'records'} of track {track} "
        f"{'was' if count == 1 else 'were'} made from is not known: {reason}"
        for (track, reason), count in found.items()
    ]
