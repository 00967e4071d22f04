"""A finished cell as reporters, pictures and the Python API see it; reads with NumPy, not torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mia_bench.store import Store


@dataclass(frozen=True)
class FinishedCell:
    """A stored record and the arrays behind it."""

    record: dict[str, Any]
    store: Store

    @property
    def key(self) -> str:
        """The cell's key."""
        return str(self.record["key"])

    @property
    def pictures(self) -> Path:
        """A folder of the store for what people look at."""
        return self.store.root / "pictures"

    def arrays(self) -> dict[str, Any]:
        """What the measurement kept, as NumPy arrays.

        ``reconstructions`` ``(K, M, 3, H, W)`` uint8, best first; ``examples`` ``(K, E, 3, H, W)``
        uint8 private training images; ``classes`` ``(K,)``; ``target_confidence`` and ``judged``
        ``(K, M)``: the target's probability of the class, and the class the evaluation model sees.
        """
        return self.store.arrays("measure", self.key)
