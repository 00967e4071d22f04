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
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

from etils.epy import lazy_imports

from mia_bench.engine.executor import Outcome
from mia_bench.engine.plan import Stage
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.worker import StageFailed, Worker, WorkerSetup, failure
from mia_bench.errors import MiaBenchError, StoreError, UsageError

with lazy_imports():
    import torch

PATIENCE_SECONDS = 5.0
"""How long a process has to end after the termination signal before it is killed."""

_INTERVAL = 0.2
"""Seconds between two messages about the progress of a stage."""

_context = multiprocessing.get_context("spawn")  # a forked process can't use CUDA


def assign_devices(device: str, jobs: int) -> list[str]:
    """The device of each of ``jobs`` processes: all GPUs in turn, unless one is named."""
    if device in ("auto", "cuda") and (count := torch.cuda.device_count()):
        return [f"cuda:{number % count}" for number in range(jobs)]
    return [device] * jobs


class ParallelExecutor:
    """Computes stages in ``jobs`` processes at once; on a CPU they share its cores.

    A process that dies, or takes longer than ``time_limit`` seconds, fails the stage it was at, and another
    takes its place.
    """

    def __init__(
        self, setup: WorkerSetup, display: ProgressDisplay, *, jobs: int, time_limit: float | None = None
    ) -> None:
        self.slots = jobs
        self._display = display
        self._setups = [replace(setup, device=device) for device in assign_devices(setup.device, jobs)]
        self._threads = max(1, (os.cpu_count() or 1) // jobs)
        self._limit = math.inf if time_limit is None else time_limit
        self._processes: list[_Process] = []

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.dismiss()
        self._processes.clear()

    @property
    def running(self) -> list[Stage]:
        """The stages that processes are at."""
        return [process.stage for process in self._processes if process.stage is not None]

    def begin(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Give a stage to an idle process, started if need be."""
        idle = next((process for process in self._processes if process.stage is None), None)
        if idle is None:
            idle = _Process(self._setups[len(self._processes)], self._threads)
            self._processes.append(idle)
        idle.begin(stage, renew=renew, seconds=seconds)

    def wait(self) -> Outcome:
        """Handle messages of the processes until one is done with its stage."""
        while True:
            end = min(process.since for process in self._processes) + self._limit
            left = None if math.isinf(end) else max(0.0, end - time.monotonic())
            ready = wait([process.connection for process in self._processes], left)
            for process in list(self._processes):
                outcome = None
                if process.connection in ready:
                    outcome = self._receive(process)
                elif time.monotonic() - process.since > self._limit:
                    process.dismiss()
                    reason = f"it took longer than the time limit of {self._limit:g} s"
                    outcome = self._replace(process, reason)
                if outcome is not None:
                    return outcome

    def _receive(self, process: _Process) -> Outcome | None:
        try:
            kind, *values = process.connection.recv()
        except (EOFError, OSError):
            code = process.dismiss()
            reason = f"its process died (exit code {code}); too little memory, perhaps"
            return self._replace(process, reason)
        if kind == "begins":
            process.since = time.monotonic()
            self._display.stage_begins(process.at, *values)
        elif kind == "progress":
            self._display.progress(process.at, *values)
        elif kind == "ends":
            self._display.stage_ends(process.at, *values)
        elif kind == "say":
            self._display.say(*values)
        elif kind == "stopped":
            raise values[0]
        elif kind == "done":
            return Outcome(process.end())
        elif kind == "failed":
            self._display.stage_fails(process.at)
            return Outcome(process.end(), *values)
        return None

    def _replace(self, process: _Process, reason: str) -> Outcome | None:
        """Start another process in place of one that was dismissed; its stage has failed."""
        self._processes[self._processes.index(process)] = _Process(process.setup, self._threads)
        if process.stage is None:
            return None
        self._display.stage_fails(process.stage)
        return Outcome(process.stage, failure(process.stage, MiaBenchError(reason)))


class _Process:
    """A process that computes stages, and the connection to it.

    Attributes:
        stage: what it is at.
        since: when it began to compute that; it may have waited for another run first.
    """

    def __init__(self, setup: WorkerSetup, threads: int) -> None:
        self.setup = setup
        self.stage: Stage | None = None
        self.since = math.inf
        self.connection, theirs = _context.Pipe()
        self._process = _context.Process(target=_work, args=(theirs, setup, threads))
        self._process.start()
        theirs.close()

    @property
    def at(self) -> Stage:
        assert self.stage is not None
        return self.stage

    def begin(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Have it compute a stage.

        Raises:
            UsageError: a plugin's component can't be sent to it.
        """
        try:
            self.connection.send((stage, renew, seconds))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UsageError(f"--jobs: {stage.label} can't be sent to a process: {error}") from error
        self.stage = stage

    def end(self) -> Stage:
        """Note that it is done with its stage, and return that."""
        stage = self.at
        self.stage, self.since = None, math.inf
        return stage

    def dismiss(self) -> int | None:
        """End the process; its exit code."""
        self.connection.close()
        if self.stage is not None:
            self._process.terminate()
            self._process.join(PATIENCE_SECONDS)
            if self._process.is_alive():  # it ignores the signal
                self._process.kill()
        self._process.join()
        return self._process.exitcode


@dataclass
class _Sender(ProgressDisplay):
    """Sends the progress of the stage that was given out to the first process."""

    connection: Connection
    stage: Stage | None = None
    _sent: float = 0.0

    def stage_begins(self, stage: Stage, seconds: float) -> None:
        if stage is self.stage:
            self.connection.send(("begins", seconds))

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        """Send it, at most every :data:`_INTERVAL` seconds."""
        now = time.monotonic()
        if stage is self.stage and (now - self._sent >= _INTERVAL or done == total):
            self._sent = now
            self.connection.send(("progress", done, total, unit))

    def stage_ends(self, stage: Stage, seconds: float) -> None:
        if stage is self.stage:
            self.connection.send(("ends", seconds))

    def say(self, line: str) -> None:
        self.connection.send(("say", line))


class _WarningSender(logging.Handler):
    """Sends warnings to the first process."""

    def __init__(self, sender: _Sender) -> None:
        super().__init__(logging.WARNING)
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        self._sender.say(f"warning: {record.getMessage()}")


def _work(connection: Connection, setup: WorkerSetup, threads: int) -> None:
    """Compute one stage after another until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    sender = _Sender(connection)
    logging.getLogger("mia_bench").addHandler(_WarningSender(sender))
    worker = Worker(setup, sender)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            sender.stage, renew, seconds = connection.recv()
            try:
                worker.compute(sender.stage, renew=renew, seconds=seconds)
                connection.send(("done",))
            except StageFailed as failed:
                connection.send(("failed", failed.reason))
            except (StoreError, UsageError) as error:
                connection.send(("stopped", error))
