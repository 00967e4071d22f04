"""The scheduler: gives stages to an executor, and makes the record of each cell that is settled."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing

from mia_bench import provenance
from mia_bench.engine.estimate import CostModel, dependents, makespan
from mia_bench.engine.executor import Executor
from mia_bench.engine.plan import CELL_STAGES, PlannedCell, Stage, pending_stages
from mia_bench.engine.progress import ProgressDisplay, reporting
from mia_bench.engine.recording import make_record
from mia_bench.errors import CorruptArtifact, MiaBenchError
from mia_bench.interruption import interrupted
from mia_bench.record import Record, Status
from mia_bench.store import Store

StageId = tuple[str, str]

LONG = 600.0
"""Estimated seconds from which on a run says beforehand that its records can't be published."""

CHANGED = (
    "note: this checkout has uncommitted changes; 'mia-bench leaderboard check' fails on records made from it"
)


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
        self._renew: set[StageId] = set()
        self._failed: dict[StageId, str] = {}
        self._cut_short: set[StageId] = set()
        self._work = _Work((), store)

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
        started = provenance.now()
        with self._started(runnable), closing(self._executor):
            # Nothing is left to compute of a cell that is skipped, done or can't be done.
            left = {
                cell.measure.id: cell
                for cell in cells
                if cell.skip is None and self._work.is_open(cell.measure.id)
            }
            settled = [cell for cell in cells if cell.measure.id not in left]
            try:
                while True:
                    records += [self._settle(cell, started) for cell in settled]
                    if not left:
                        return records
                    self._begin_stages()
                    settled = [left.pop(key) for key in self._wait() if key in left]
            except KeyboardInterrupt:
                records += self._interrupt(left.values(), started)
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

    @contextlib.contextmanager
    def _started(self, wanted: Sequence[Stage]) -> Iterator[None]:
        """Find what is to be computed, inputs first, estimate it, and show the run on the display."""
        todo, _ = pending_stages(wanted, self._has)
        self._work = _Work(todo, self._store)
        seconds = self._work.seconds_left(self._executor.slots)
        with reporting(self._display, len(todo), seconds):
            if seconds >= LONG and (provenance.git_commit() or "").endswith("-dirty"):
                self._display.say(CHANGED)
            yield

    def _has(self, name: str, key: str) -> bool:
        return (name, key) not in self._renew and self._store.has(name, key)

    def _begin_stages(self) -> None:
        """Begin the first stages whose inputs are stored."""
        while len(self._executor.running) < self._executor.slots and (stage := self._work.next()):
            self._executor.begin(stage, renew=stage.id in self._renew, seconds=self._work.seconds(stage))

    def _wait(self) -> list[StageId]:
        """Wait until a stage is done; it, and those that can't be computed as it failed."""
        outcome = self._executor.wait()
        if interrupted():  # a library swallowed the KeyboardInterrupt, or took it for a failure
            self._cut_short.add(outcome.stage.id)
            raise KeyboardInterrupt
        self._renew.discard(outcome.stage.id)
        if outcome.reason is None:
            self._work.done(outcome.stage)
            closed = [outcome.stage.id]
        else:
            closed = self._work.drop(outcome.stage)
            self._failed.update(dict.fromkeys(closed, outcome.reason))
        self._display.remaining(self._work.seconds_left(self._executor.slots))
        return closed

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

    def _interrupt(self, left: Iterable[PlannedCell], started: str) -> list[Record]:
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


class _Work:
    """What is left to compute of a plan: which stages can begin, which need them, how long it takes.

    Args:
        stages: to compute, inputs before what needs them.
        store: knows what such stages took before.
    """

    def __init__(self, stages: Sequence[Stage], store: Store) -> None:
        self._open = {stage.id: stage for stage in stages}
        self._order = {key: place for place, key in enumerate(self._open)}
        self._by_place = list(stages)
        self._needed_by = dependents(stages)
        self._missing = {
            stage.id: len({needed.id for needed in stage.inputs.values()} & self._open.keys())
            for stage in stages
        }
        self._ready = [self._order[key] for key, count in self._missing.items() if not count]
        heapq.heapify(self._ready)
        self._store = store
        self._costs = CostModel(store, stages)
        self._planned = {stage.id: self._costs.of(stage).seconds for stage in stages}
        self._work_left = self._work = sum(self._planned.values())
        self._taken = self._expected = 0.0
        self._span: tuple[int, float] = (0, 0.0)

    def is_open(self, key: StageId) -> bool:
        """Whether the stage is still to be computed, or is being computed."""
        return key in self._open

    def next(self) -> Stage | None:
        """The first stage whose inputs are stored, to be begun now; None if there is none."""
        while self._ready:
            stage = self._by_place[heapq.heappop(self._ready)]
            if stage.id in self._open:
                return stage
        return None

    def seconds(self, stage: Stage) -> float:
        """The estimate of a stage."""
        return self._costs.of(stage).seconds

    def done(self, stage: Stage) -> None:
        """The stage is stored."""
        with contextlib.suppress(CorruptArtifact, TypeError):  # who needs it will say so
            seconds = float(self._store.info(*stage.id)["run"]["seconds"])
            self._costs.learn(stage, seconds)
            self._taken, self._expected = self._taken + seconds, self._expected + self._planned[stage.id]
        self._close(stage)
        for other in self._needed_by.get(stage.id, ()):
            self._missing[other.id] -= 1
            if not self._missing[other.id]:
                heapq.heappush(self._ready, self._order[other.id])

    def drop(self, stage: Stage) -> list[StageId]:
        """The stage failed: it, and what needs it, won't be computed."""
        dropped, found = [], [stage]
        while found:
            one = found.pop(0)
            if one.id in self._open:
                self._close(one)
                dropped.append(one.id)
                found += self._needed_by.get(one.id, ())
        return dropped

    def seconds_left(self, slots: int) -> float:
        """How long the rest takes, with so many stages at once.

        It is the plan's time by the work that is left, and by how much longer than planned the stages took
        so far.
        """
        if self._span[0] != slots:
            self._span = slots, makespan(self._by_place, self._planned, slots)
        share = self._work_left / self._work if self._work else 0.0
        pace = self._taken / self._expected if self._expected else 1.0
        return self._span[1] * share * pace

    def _close(self, stage: Stage) -> None:
        del self._open[stage.id]
        self._work_left -= self._planned[stage.id]
