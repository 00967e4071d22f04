"""The local executor: one stage after another in this process."""

from __future__ import annotations

from mia_bench.engine.executor import Outcome
from mia_bench.engine.plan import Stage
from mia_bench.engine.worker import StageFailed, Worker


class LocalExecutor:
    """Computes in this process, one stage at a time, when it is waited for."""

    slots = 1

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._given: tuple[Stage, bool, float] | None = None

    @property
    def running(self) -> list[Stage]:
        """The stage that was begun, if any."""
        return [self._given[0]] if self._given else []

    def begin(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Take a stage."""
        self._given = stage, renew, seconds

    def wait(self) -> Outcome:
        """Compute the stage that was begun."""
        assert self._given is not None
        stage, renew, seconds = self._given
        try:
            self._worker.compute(stage, renew=renew, seconds=seconds)
            outcome = Outcome(stage)
        except StageFailed as failed:
            outcome = Outcome(stage, failed.reason)
        self._given = None
        return outcome

    def close(self) -> None:
        """Nothing is running once nobody waits."""
