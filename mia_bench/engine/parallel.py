"""The parallel executor: several processes compute the stages of a plan, each on a device of its own."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from mia_bench import provenance
from mia_bench.engine.estimate import stage_seconds
from mia_bench.engine.local import Interrupted, LocalExecutor, Record, StageFailed
from mia_bench.engine.plan import PlannedCell, Stage
from mia_bench.engine.progress import SilentProgress, reporting
from mia_bench.errors import MiaBenchError, StoreError, UsageError
from mia_bench.paths import Roots
from mia_bench.store import Store

Given = tuple[Store, str, Roots]
StageId = tuple[str, str]

PATIENCE_SECONDS = 5.0
"""What a process has to end after it was told to."""

_SPEAKS_EVERY = 0.2
"""Seconds between two messages about the progress of a stage."""

_context = multiprocessing.get_context("spawn")  # a forked process can't use CUDA


def spread(device: str, jobs: int) -> list[str]:
    """The device of each of ``jobs`` processes: all GPUs in turn, unless one is named."""
    if device in ("auto", "cuda"):
        import torch

        if count := torch.cuda.device_count():
            return [f"cuda:{number % count}" for number in range(jobs)]
    return [device] * jobs


class ParallelExecutor(LocalExecutor):
    """Computes stages whose inputs are there in ``jobs`` processes at once; keeps records in this one.

    As :class:`LocalExecutor` otherwise. On a CPU the processes share its cores. A process that dies, or
    takes longer than ``time_limit`` seconds, fails the stage it was at, and another takes its place.
    """

    def __init__(
        self, *given: Any, jobs: int, time_limit: float | None = None, **options: Any
    ) -> None:
        super().__init__(*given, **options)
        self._jobs = jobs
        self._limit = math.inf if time_limit is None else time_limit
        self._waiting: dict[StageId, Stage] = {}
        self._workers: list[_Worker] = []

    def run(self, cells: list[PlannedCell], *, rerun: bool = False) -> list[Record]:
        """Compute the record of every cell; ``rerun`` computes cached stages anew.

        Raises:
            Interrupted: Ctrl-C or a termination signal; carries the records so far.
            StoreError: the store is full or not writable.
        """
        todo = self._pending(cells, rerun=rerun)
        self._waiting = {stage.id: stage for stage in todo}
        seconds = stage_seconds(self._store, todo)
        records: list[Record] = []
        left, started = list(cells), provenance.now()
        with reporting(self._reporter, len(todo), sum(seconds.values()) / self._jobs):
            try:
                with self._working(len(todo)):
                    while True:
                        self._give_out(seconds)
                        settled = [cell for cell in left if self._settled(cell)]
                        records += [self._cell(cell, seconds, started) for cell in settled]
                        left = [cell for cell in left if cell not in settled]
                        if not left:
                            return records
                        self._hear()
            except KeyboardInterrupt:
                begun = {worker.stage.id for worker in self._workers if worker.stage}
                for cell in left:
                    if begun & {stage.id for stage in cell.measure.upstream()}:
                        records.append(self._interrupted(cell, started))
                raise Interrupted(records) from None

    @contextlib.contextmanager
    def _working(self, stages: int) -> Iterator[None]:
        devices = spread(self._device, min(self._jobs, stages))
        try:
            for device in devices:
                self._workers.append(self._hire(device))
            yield
        finally:
            for worker in self._workers:
                worker.dismiss()

    def _hire(self, device: str) -> _Worker:
        return _Worker(
            device, (self._store, device, self._roots), self._compiled, threads=self._threads()
        )

    def _threads(self) -> int:
        return max(1, (os.cpu_count() or 1) // self._jobs)

    def _settled(self, planned: PlannedCell) -> bool:
        """Nothing of the cell is left to compute: it is skipped, done or can't be done."""
        return planned.skip is not None or not self._open_stage(planned.measure)

    def _open_stage(self, stage: Stage) -> bool:
        """It is waiting, or a process is at it."""
        return stage.id in self._waiting or any(
            worker.stage is not None and worker.stage.id == stage.id for worker in self._workers
        )

    def _give_out(self, seconds: dict[StageId, float]) -> None:
        """Give idle processes the first stages whose inputs are there; drop what can't be computed."""
        for stage in list(self._waiting.values()):
            failed = [self._failed[i.id] for i in stage.inputs.values() if i.id in self._failed]
            if failed:
                self._failed[stage.id] = failed[0]
                del self._waiting[stage.id]
        idle = [worker for worker in self._workers if worker.stage is None]
        for stage in list(self._waiting.values()):
            if not idle:
                return
            if not any(self._open_stage(needed) for needed in stage.inputs.values()):
                del self._waiting[stage.id]
                idle.pop(0).begin(stage, renew=stage.id in self._renew, seconds=seconds[stage.id])

    def _hear(self) -> None:
        """Wait for word of a process, and act on it."""
        end = min(worker.since for worker in self._workers) + self._limit
        left = None if math.isinf(end) else max(0.0, end - time.monotonic())
        ready = wait([worker.line for worker in self._workers], left)
        for worker in list(self._workers):
            if worker.line in ready:
                try:
                    what, *said = worker.line.recv()
                except (EOFError, OSError):
                    code = worker.dismiss()
                    why = f"its process died (exit code {code}); too little memory, perhaps"
                    self._replace(worker, why)
                    continue
                getattr(self, f"_on_{what}")(worker, *said)
            elif time.monotonic() - worker.since > self._limit:
                worker.dismiss()
                self._replace(worker, f"it took longer than the time limit of {self._limit:g} s")

    def _replace(self, worker: _Worker, why: str) -> None:
        """Another process takes the place of one that was dismissed; the stage it was at has failed."""
        self._workers[self._workers.index(worker)] = self._hire(worker.device)
        if worker.stage is not None:
            self._on_failed(worker, self._fail(worker.stage, MiaBenchError(why)))

    def _on_begins(self, worker: _Worker, seconds: float) -> None:
        worker.since = time.monotonic()
        self._reporter.stage_begins(worker.at, seconds)

    def _on_progress(self, worker: _Worker, done: int, total: int, unit: str) -> None:
        self._reporter.progress(worker.at, done, total, unit)

    def _on_ends(self, worker: _Worker, seconds: float) -> None:
        self._reporter.stage_ends(worker.at, seconds)

    def _on_say(self, worker: _Worker, line: str) -> None:
        self._reporter.say(line)

    def _on_done(self, worker: _Worker) -> None:
        self._renew.discard(worker.at.id)
        worker.end()

    def _on_failed(self, worker: _Worker, reason: str) -> None:
        self._failed[worker.at.id] = reason
        self._reporter.stage_fails(worker.at)
        worker.end()

    def _on_stopped(self, worker: _Worker, error: MiaBenchError) -> NoReturn:
        raise error


class _Worker:
    """A process and the line to it.

    Attributes:
        stage: what it is at.
        since: when it began to compute that; it may have waited for another run first.
    """

    def __init__(self, device: str, given: Given, compiled: bool, threads: int) -> None:
        self.device = device
        self.stage: Stage | None = None
        self.since = math.inf
        self.line, theirs = _context.Pipe()
        self._process = _context.Process(target=_work, args=(theirs, given, compiled, threads))
        self._process.start()
        theirs.close()

    @property
    def at(self) -> Stage:
        """The stage it is at."""
        assert self.stage is not None
        return self.stage

    def begin(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Have it compute a stage.

        Raises:
            UsageError: a plugin's component can't be sent to it.
        """
        try:
            self.line.send((stage, renew, seconds))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UsageError(
                f"--jobs: {stage.label} can't be sent to a process: {error}"
            ) from error
        self.stage = stage

    def end(self) -> None:
        """It is done with its stage, well or not."""
        self.stage, self.since = None, math.inf

    def dismiss(self) -> int | None:
        """End the process; its exit code."""
        self.line.close()
        if self.stage is not None:
            self._process.terminate()
            self._process.join(PATIENCE_SECONDS)
            if self._process.is_alive():  # it ignores the signal
                self._process.kill()
        self._process.join()
        return self._process.exitcode


@dataclass
class _Teller(SilentProgress):
    """Tells the first process what happens in this one, about the stage that it gave out."""

    line: Connection
    stage: Stage | None = None
    _spoke: float = 0.0

    def stage_begins(self, stage: Stage, seconds: float) -> None:
        """Pass it on."""
        if stage is self.stage:
            self.line.send(("begins", seconds))

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        """Pass it on, now and then."""
        now = time.monotonic()
        if stage is self.stage and (now - self._spoke >= _SPEAKS_EVERY or done == total):
            self._spoke = now
            self.line.send(("progress", done, total, unit))

    def stage_ends(self, stage: Stage, seconds: float) -> None:
        """Pass it on."""
        if stage is self.stage:
            self.line.send(("ends", seconds))

    def say(self, line: str) -> None:
        """Pass it on."""
        self.line.send(("say", line))


class _Warnings(logging.Handler):
    """Passes warnings on."""

    def __init__(self, teller: _Teller) -> None:
        super().__init__(logging.WARNING)
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        self._teller.say(f"warning: {record.getMessage()}")


def _work(line: Connection, given: Given, compiled: bool, threads: int) -> None:
    """What a process does: compute one stage after another until the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    teller = _Teller(line)
    logging.getLogger("mia_bench").addHandler(_Warnings(teller))
    executor = LocalExecutor(*given, teller, lambda record: None, compiled=compiled)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            teller.stage, renew, seconds = line.recv()
            try:
                executor.compute(teller.stage, renew=renew, seconds=seconds)
                line.send(("done",))
            except StageFailed as failure:
                line.send(("failed", failure.reason))
            except (StoreError, UsageError) as error:
                line.send(("stopped", error))
