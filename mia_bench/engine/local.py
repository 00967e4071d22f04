"""The local executor: one stage after another in this process."""

from __future__ import annotations

from functools import partial

from mia_bench.engine.executor import Outcome
from mia_bench.engine.plan import Stage
from mia_bench.engine.worker import StageFailed, Worker


class LocalExecutor:
    """Computes in this process, one stage at a time, when it is waited for."""

    slots = 1

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.running: list[Stage] = []

    def begin(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Keep the stage for :meth:`wait`."""
        self.running = [stage]
        self._compute = partial(self._worker.compute, stage, renew=renew, seconds=seconds)

    def wait(self) -> Outcome:
        """Compute the stage that was begun."""
        (stage,) = self.running
        reason = None
        try:
            self._compute()
        except StageFailed as failed:
            reason = failed.reason
        self.running = []
        return Outcome(stage, reason)

    def close(self) -> None:
        """Do nothing: stages run within :meth:`wait` only."""
