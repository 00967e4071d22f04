"""A finished cell, as reporters and pictures see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_bench.record import Record
from mia_bench.store import PICTURES, Store


@dataclass(frozen=True)
class FinishedCell:
    """A stored record and the arrays behind it."""

    record: Record
    store: Store

    @property
    def key(self) -> str:
        """The cell's key."""
        return self.record.key

    @property
    def pictures(self) -> Path:
        """The store's folder for pictures."""
        return self.store.root / PICTURES

    def arrays(self) -> dict[str, Any]:
        """Reconstructions, private examples and what the models say of them, as NumPy arrays.

        ``reconstructions`` ``(K, M, 3, H, W)`` uint8, best first; ``examples`` ``(K, E, 3, H, W)``
        uint8 private training images; ``classes`` ``(K,)``; ``target_confidence`` and ``judged``
        ``(K, M)``: the target's probability of the class, and the evaluation model's prediction.

        Raises:
            CorruptArtifact: what is stored of the cell is missing or damaged.
        """
        arrays = self.store.arrays("measure", self.key)
        if "reconstructions" not in arrays:  # earlier versions stored them here a second time
            inverted = self.store.info("measure", self.key)["inverted"]
            arrays["reconstructions"] = self.store.arrays("invert", inverted)["images"]
        return arrays
