"""The parallel executor: several processes compute the stages of a plan, each on a device of its own."""

from __future__ import annotations

import atexit
import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from types import FrameType

from mia_bench.engine.executor import Outcome
from mia_bench.engine.guard import KILL, POSIX, Guard, lead_group, signal_group
from mia_bench.engine.jobs import cuda_count, usable_cores
from mia_bench.engine.plan import Stage
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.relay import Sender, sending_warnings, show
from mia_bench.engine.worker import StageFailed, Worker, WorkerSetup, failure
from mia_bench.errors import MiaBenchError, StoreError, UsageError
from mia_bench.interruption import held_back, interrupted

PATIENCE_SECONDS = 3.0
"""How long a process has to end, after it was told to, before it is killed."""

ATTEMPTS = 2
"""How often a stage is begun whose process dies, killed from outside perhaps, before it has failed."""

STARTS = 3
"""How many processes may die one after another while they start before the run is given up."""

_LOOK = 1.0
"""Seconds between two looks for dead processes: what they started may hold their connections open."""

_context = multiprocessing.get_context("spawn")  # a forked process can't use CUDA


def assign_devices(device: str, jobs: int) -> list[str]:
    """The device of each of ``jobs`` processes: all GPUs in turn, unless one is named."""
    if count := cuda_count(device):
        return [f"cuda:{number % count}" for number in range(jobs)]
    return [device] * jobs


class ParallelExecutor:
    """Computes stages in ``jobs`` processes at once; on a CPU they share its cores.

    As many as are needed at once are started with the first stage, so that each is ready for its own.
    Another process takes the place of one that dies. The stage that it was at is begun again, and fails when
    that process dies too. A stage that takes longer than ``time_limit`` seconds fails.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        display: ProgressDisplay,
        *,
        jobs: int,
        needed: int = 1,
        time_limit: float | None = None,
    ) -> None:
        self.slots = jobs
        self._ahead = min(jobs, needed)
        self._display = display
        self._setups = [replace(setup, device=device) for device in assign_devices(setup.device, jobs)]
        self._threads = max(1, usable_cores() // jobs)
        self._limit = math.inf if time_limit is None else time_limit
        self._processes: dict[int, _Process] = {}
        self._guard = Guard()
        self._died_starting = 0
        self._suspends = False

    def close(self) -> None:
        """End all processes."""
        if self._suspends:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            for process in self._processes.values():
                process.tell_to_end()
            end = time.monotonic() + PATIENCE_SECONDS
            for process in self._processes.values():
                process.join(end - time.monotonic())
        finally:
            for process in self._processes.values():
                process.kill()
            self._processes.clear()
            self._guard.close()

    @property
    def running(self) -> list[Stage]:
        """The stages that processes are at."""
        return [process.task.stage for process in self._processes.values() if process.task is not None]

    def begin(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Give a stage to an idle process, started if need be."""
        busy = {slot for slot, process in self._processes.items() if process.task is not None}
        slot = next(slot for slot in range(self.slots) if slot not in busy)
        self._give(slot, _Task(stage, renew, seconds))
        for other in range(self._ahead):
            if other not in self._processes:
                self._start(other)
        self._ahead = 0

    def wait(self) -> Outcome:
        """Handle messages of the processes until one is done with its stage."""
        while True:
            if interrupted():  # the KeyboardInterrupt was lost, in a __del__ say
                raise KeyboardInterrupt
            end = min(process.since for process in self._processes.values()) + self._limit
            left = max(0.0, min(_LOOK, end - time.monotonic()))
            ready = wait([process.connection for process in self._processes.values()], left)
            for slot, process in list(self._processes.items()):
                outcome = None
                if process.connection in ready:
                    outcome = self._receive(slot, process)
                elif process.is_dead():
                    outcome = self._replace(slot, process)
                elif time.monotonic() - process.since > self._limit:
                    self._end(slot, process)
                    outcome = self._fail(
                        process.at, f"it took longer than the time limit of {self._limit:g} s"
                    )
                if outcome is not None:
                    return outcome

    def _give(self, slot: int, task: _Task) -> None:
        """Have the slot's process compute a stage; start it, or another if it died while it was idle."""
        while True:
            process = self._processes.get(slot) or self._start(slot)
            try:
                process.begin(task)
                return
            except OSError:
                self._replace(slot, process)

    def _start(self, slot: int) -> _Process:
        process = self._processes[slot] = _Process(self._setups[slot], self._threads)
        try:
            self._suspend_on_ctrl_z()
            with held_back():
                process.start()
                self._guard.watch(process.pid)
        except OSError as error:
            raise MiaBenchError(f"no process can be started: {error.strerror or error}") from error
        return process

    def _suspend_on_ctrl_z(self) -> None:
        if (
            POSIX
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL
        ):
            signal.signal(signal.SIGTSTP, self._suspend)
            self._suspends = True

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        """Stop the processes, which are in groups of their own, with this one, and let them go on with it."""
        processes, began = list(self._processes.values()), time.monotonic()
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        for process in processes:
            process.send_signal(signal.SIGCONT)
            process.since += time.monotonic() - began

    def _receive(self, slot: int, process: _Process) -> Outcome | None:
        try:
            message = process.connection.recv()
        except (EOFError, OSError):
            return self._replace(slot, process)
        kind, *values = message
        if kind == "begins":
            process.since = time.monotonic()
        if kind == "ready":
            process.ready = True
            self._died_starting = 0
        elif kind == "stopped":
            raise values[0]
        elif kind == "done":
            return Outcome(process.done())
        elif kind == "failed":
            self._display.stage_fails(process.at)
            return Outcome(process.done(), *values)
        else:
            show(self._display, process.task.stage if process.task else None, message)
        return None

    def _replace(self, slot: int, process: _Process) -> Outcome | None:
        """Bury a process that died; begin its stage in another, or give the stage up.

        Raises:
            MiaBenchError: processes die while they start.
        """
        task = process.task
        process.join(PATIENCE_SECONDS)  # its connection may be closed before it is gone
        cause = self._end(slot, process)
        where = f"at: {task.stage.label}" if task else "while it was idle"
        if not process.ready:
            where = "while it started"
            self._died_starting += 1
            if self._died_starting == STARTS:
                raise MiaBenchError(
                    f"processes die while they start ({cause}); a script that calls mia_bench.run with "
                    'several jobs does so under if __name__ == "__main__"'
                )
        elif task:
            task.deaths += 1
            if task.deaths == ATTEMPTS:
                return self._fail(task.stage, f"its process died ({cause}), as at the first attempt")
            self._display.stage_fails(task.stage)
        self._display.say(f"a process died {where} ({cause}); another takes its place")
        if task:
            self._give(slot, task)
        return None

    def _end(self, slot: int, process: _Process) -> str:
        """End a process and what it started; return how it ended."""
        process.tell_to_end()
        process.join(PATIENCE_SECONDS)
        process.kill()
        self._guard.forget(process.pid)
        del self._processes[slot]  # only now: close() ends those that are there
        return process.cause

    def _fail(self, stage: Stage, reason: str) -> Outcome:
        self._display.stage_fails(stage)
        return Outcome(stage, failure(stage, MiaBenchError(reason)))


@dataclass
class _Task:
    """A stage that was given to a process.

    Attributes:
        deaths: how many processes have died at it.
    """

    stage: Stage
    renew: bool
    seconds: float
    deaths: int = 0


class _Process:
    """A process that computes stages, and the connection to it.

    Attributes:
        task: what it is at.
        ready: it has started.
        since: when it began to compute that; it may have waited for another run first.
    """

    def __init__(self, setup: WorkerSetup, threads: int) -> None:
        self.task: _Task | None = None
        self.ready = False
        self.since = math.inf
        self.connection, self._theirs = _context.Pipe()
        self._process = _context.Process(target=_work, args=(self._theirs, setup, threads))

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: there are too many processes, or there is too little memory.
        """
        self._process.start()
        self._theirs.close()

    @property
    def pid(self) -> int:
        """Its number, and its group's; 0 if it was not started."""
        return self._process.pid or 0

    @property
    def at(self) -> Stage:
        assert self.task is not None
        return self.task.stage

    def begin(self, task: _Task) -> None:
        """Have it compute a stage.

        Raises:
            UsageError: a plugin's component can't be sent to it.
            OSError: it is dead.
        """
        try:
            self.connection.send((task.stage, task.renew, task.seconds))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UsageError(f"--jobs: {task.stage.label} can't be sent to a process: {error}") from error
        self.task = task

    def done(self) -> Stage:
        """Note that it is done with its stage, and return that."""
        stage = self.at
        self.task, self.since = None, math.inf
        return stage

    def is_dead(self) -> bool:
        """Whether it ended and everything that it sent was received."""
        return self._process.exitcode is not None and not self.connection.poll()

    def tell_to_end(self) -> None:
        """Have it end; an idle one ends when its connection is closed."""
        self.connection.close()
        if self.pid and (self.task is not None or not self.ready):
            self._process.terminate()

    def join(self, seconds: float) -> None:
        """Wait until it has ended, but not for long."""
        if self.pid:
            self._process.join(max(0.0, seconds))

    def send_signal(self, number: int) -> None:
        """Send a signal to it and what it started."""
        if self.pid:
            signal_group(self.pid, number)

    def kill(self) -> None:
        """Kill it if it still runs, and what it started."""
        if self.pid:
            signal_group(self.pid, KILL)
            self._process.kill()
            self._process.join(PATIENCE_SECONDS)

    @property
    def cause(self) -> str:
        """How it ended, in words."""
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        if code == -KILL:
            return "SIGKILL: killed, perhaps out of memory"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


def _work(connection: Connection, setup: WorkerSetup, threads: int) -> None:
    """Compute one stage after another until the connection is closed or the driver is gone."""
    lead_group()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends this process
    threading.Thread(target=_end_with_driver, daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    sender = Sender(connection.send)
    worker = Worker(setup, sender)
    with contextlib.suppress(EOFError, OSError), sending_warnings(sender):
        sender.send("ready")
        worker.warm_up()
        while True:
            sender.stage, renew, seconds = connection.recv()
            try:
                worker.compute(sender.stage, renew=renew, seconds=seconds)
                sender.send("done")
            except StageFailed as failed:
                sender.send("failed", failed.reason)
            except (StoreError, UsageError) as error:
                sender.send("stopped", error)
    atexit._run_exitfuncs()
    os._exit(0)  # at once: to take a process with torch down in order takes a second of computing


def _end_with_driver() -> None:
    """End this process, and what it started, when the driver is gone.

    The guard does so too, if it is told of this process before the driver dies.
    """
    driver = multiprocessing.parent_process()
    assert driver is not None
    # Not its methods join and is_alive: they import, and get a lazy module if this process's other thread
    # is in a block of lazy imports.
    while not POSIX or os.getppid() == driver.pid:
        if wait([driver.sentinel], _LOOK):
            break
    signal_group(os.getpid(), KILL)
    os._exit(1)
