"""The scheduler: gives stages to an executor, and makes the record of each cell that is settled."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, closing

from mia_bench import provenance
from mia_bench.engine.estimate import stage_seconds
from mia_bench.engine.executor import Executor
from mia_bench.engine.plan import CELL_STAGES, PlannedCell, Stage, pending_stages
from mia_bench.engine.progress import ProgressDisplay, reporting
from mia_bench.engine.recording import make_record
from mia_bench.errors import CorruptArtifact, MiaBenchError
from mia_bench.interruption import interrupted
from mia_bench.record import Record, Status
from mia_bench.store import Store

REESTIMATE_SECONDS = 5.0
"""A stage that took longer makes the scheduler estimate the remaining ones anew."""

StageId = tuple[str, str]


class Interrupted(MiaBenchError):
    """The user stopped the run; what is finished is kept."""

    def __init__(self, records: list[Record]) -> None:
        super().__init__("interrupted; what is finished is kept, run the same command to go on")
        self.records = records


class Scheduler:
    """Carries out a plan with an executor, each stage once, failures kept apart.

    Args:
        store: where artifacts and records go.
        executor: computes the stages.
        display: shows the progress.
        finished: called with each new record once it is stored.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        display: ProgressDisplay,
        finished: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._display = display
        self._finished = finished
        self._waiting: dict[StageId, Stage] = {}
        self._renew: set[StageId] = set()
        self._failed: dict[StageId, str] = {}
        self._cut_short: set[StageId] = set()
        self._seconds: dict[StageId, float] = {}

    def run(
        self, cells: list[PlannedCell], *, rerun: bool = False, renewed: Collection[StageId] = ()
    ) -> list[Record]:
        """Compute the record of every cell, as the cells settle.

        Args:
            cells: what to compute.
            rerun: compute cached stages anew.
            renewed: stages that have been computed anew already.

        Raises:
            Interrupted: Ctrl-C or a termination signal; carries the records so far.
            StoreError: the store is full, not writable or gone.
            MiaBenchError: processes can't be started.
        """
        runnable = [planned.measure for planned in cells if planned.skip is None]
        if rerun:
            upstream = (stage for measure in runnable for stage in measure.upstream())
            self._renew = {stage.id for stage in upstream if stage.name in CELL_STAGES} - set(renewed)
        records: list[Record] = []
        left, started = list(cells), provenance.now()
        with self._started(runnable), closing(self._executor):
            try:
                while True:
                    self._begin_stages()
                    # Nothing is left to compute of a cell that is skipped, done or can't be done.
                    settled = [c for c in left if c.skip is not None or not self._is_open(c.measure)]
                    records += [self._settle(cell, started) for cell in settled]
                    left = [cell for cell in left if cell not in settled]
                    if not left:
                        return records
                    self._wait()
            except KeyboardInterrupt:
                records += self._interrupt(left, started)
                raise Interrupted(records) from None

    def make(self, wanted: Sequence[Stage]) -> None:
        """Compute stages and what they need, unless they are stored already.

        Raises:
            MiaBenchError: one failed.
            Interrupted: Ctrl-C or a termination signal.
        """
        for reason in self.attempt(wanted).values():
            raise MiaBenchError(reason)

    def attempt(self, wanted: Sequence[Stage]) -> dict[StageId, str]:
        """As :meth:`make`, but return of each that failed the reason, in one line."""
        with self._started(wanted), closing(self._executor):
            try:
                self._begin_stages()
                while self._executor.running:
                    self._wait()
                    self._begin_stages()
            except KeyboardInterrupt:
                raise Interrupted([]) from None
        return {stage.id: self._failed[stage.id] for stage in wanted if stage.id in self._failed}

    def _started(self, wanted: Sequence[Stage]) -> AbstractContextManager[None]:
        """Find what is to be computed, inputs first, estimate it, and show the run on the display."""
        todo, _ = pending_stages(wanted, self._has)
        self._waiting = {stage.id: stage for stage in todo}
        self._seconds = stage_seconds(self._store, todo)
        return reporting(self._display, len(todo), sum(self._seconds.values()) / self._executor.slots)

    def _has(self, name: str, key: str) -> bool:
        return (name, key) not in self._renew and self._store.has(name, key)

    def _begin_stages(self) -> None:
        """Begin the first stages whose inputs are stored; drop what can't be computed."""
        for stage in list(self._waiting.values()):
            failed = [self._failed[i.id] for i in stage.inputs.values() if i.id in self._failed]
            if failed:
                self._failed[stage.id] = failed[0]
                del self._waiting[stage.id]
        for stage in list(self._waiting.values()):
            if len(self._executor.running) >= self._executor.slots:
                return
            if not any(self._is_open(needed) for needed in stage.inputs.values()):
                del self._waiting[stage.id]
                self._executor.begin(stage, renew=stage.id in self._renew, seconds=self._seconds[stage.id])

    def _is_open(self, stage: Stage) -> bool:
        """Whether the stage is waiting or running."""
        return stage.id in self._waiting or any(s.id == stage.id for s in self._executor.running)

    def _wait(self) -> None:
        began = time.monotonic()
        outcome = self._executor.wait()
        if interrupted():  # a library swallowed the KeyboardInterrupt, or took it for a failure
            self._cut_short.add(outcome.stage.id)
            raise KeyboardInterrupt
        self._renew.discard(outcome.stage.id)
        if outcome.reason is not None:
            self._failed[outcome.stage.id] = outcome.reason
        elif time.monotonic() - began > REESTIMATE_SECONDS:
            self._seconds.update(stage_seconds(self._store, self._waiting.values()))

    def _settle(self, planned: PlannedCell, started: str) -> Record:
        """The record of a cell that is settled, stored and announced."""
        status: Status = "done"
        reason = planned.skip
        if reason is not None:
            status = "skipped"
        elif (reason := self._failed.get(planned.measure.id)) is not None:
            status = "failed"
            self._display.say(f"FAILED {planned.cell.label}: {reason}")
        try:
            record = make_record(self._store, planned, started, status, reason)
        except CorruptArtifact as error:
            self._store.check_present()
            self._store.set_aside(error)
            again = f"{error}; run the cell again"
            record = make_record(self._store, planned, started, "failed", again)
        self._keep(record)
        self._finished(record)
        return record

    def _interrupt(self, left: list[PlannedCell], started: str) -> list[Record]:
        """Records of the cells that a running stage is for."""
        running = {stage.id for stage in self._executor.running} | self._cut_short
        records = [
            make_record(self._store, cell, started, "interrupted", "interrupted")
            for cell in left
            if running & {stage.id for stage in cell.measure.upstream()}
        ]
        for record in records:
            self._keep(record)
        return records

    def _keep(self, record: Record) -> None:
        """Store a record; a finished one is never replaced by one without numbers."""
        if record.status != "done":
            before = self._store.record(record.track.name, record.key)
            if before is not None and before.status == "done":
                return
        self._store.write_record(record)
