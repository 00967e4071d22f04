"""Checkpoints: what keeps the state of a long computation, so that it goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Checkpoint(Protocol):
    """Storage for the state of a long computation.

    A state holds tensors, numbers, strings and None, in dictionaries, lists and tuples. A computation that
    was stopped and goes on from its state must end as if it had never been stopped.
    """

    def due(self) -> bool:
        """Whether it is time to save: a few minutes have passed."""

    def load(self) -> dict[str, Any] | None:
        """Return the state saved last, its tensors on the CPU, or None."""

    def reject(self) -> None:
        """What was loaded is of no use: the computation begins anew."""

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state atomically."""


class NoCheckpoint:
    """Keeps nothing."""

    def due(self) -> bool:
        """Never."""
        return False

    def load(self) -> None:
        """None."""

    def reject(self) -> None:
        """Nothing."""

    def save(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


NO_CHECKPOINT = NoCheckpoint()
