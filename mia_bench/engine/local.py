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
        """Take a stage."""
        self.running = [stage]
        self._compute = partial(self._worker.compute, stage, renew=renew, seconds=seconds)

    def wait(self) -> Outcome:
        """Compute the stage that was begun."""
        (stage,) = self.running
        try:
            self._compute()
            outcome = Outcome(stage)
        except StageFailed as failed:
            outcome = Outcome(stage, failed.reason)
        self.running = []
        return outcome

    def close(self) -> None:
        """Nothing is running once nobody waits."""
