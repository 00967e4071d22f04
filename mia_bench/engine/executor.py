"""What computes stages: a small interface, the same for every executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mia_bench.engine.plan import Stage


@dataclass(frozen=True)
class Outcome:
    """A stage that an executor is done with.

    Attributes:
        stage: it is stored, or failed.
        reason: why it failed, in one line; None if it is stored.
    """

    stage: Stage
    reason: str | None = None


class Executor(Protocol):
    """Computes stages whose inputs are stored; used for one run.

    The scheduler begins a stage while fewer than :attr:`slots` are running, then waits for an outcome. Each
    process computes one stage at a time, because stages seed torch's global generators; its
    :class:`~mia_bench.engine.worker.Worker` tells the progress display of begin, progress and end.
    """

    @property
    def slots(self) -> int:
        """How many stages it computes at once."""

    @property
    def running(self) -> list[Stage]:
        """The stages that were begun and are not done."""

    def begin(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Begin a stage.

        Args:
            stage: its inputs are stored.
            renew: compute it even if it is stored already.
            seconds: estimate, for the display.

        Raises:
            UsageError: the stage can't be given to a process.
            MiaBenchError: processes can't be started.
        """

    def wait(self) -> Outcome:
        """Wait until a running stage is done.

        Raises:
            StoreError: the store is full, not writable or gone.
            MiaBenchError: processes can't be started.
            UsageError: what the user asked for is not possible, a device say.
            KeyboardInterrupt: Ctrl-C, a termination signal, or a terminal that is closed.
        """

    def close(self) -> None:
        """Stop what is running and release its resources."""
