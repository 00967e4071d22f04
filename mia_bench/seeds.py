"""Seeds derived per axis by hashing, so that changing one axis never shifts the draws of another.

The target's seed doesn't depend on the attack and the attack's seed doesn't depend on the
defense: every defense starts from the same weights and batches and meets the same candidates.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *labels: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and every label, in order."""
    text = "\x1f".join([str(seed), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *labels: str | int) -> torch.Generator:
    """A CPU generator seeded with :func:`derive` (CPU, so every device sees the same draws)."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *labels))


@contextlib.contextmanager
def seeded(seed: int, *labels: str | int) -> Iterator[None]:
    """Seed torch's global generators inside the block (weight initialisation, dropout); restore after."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive(seed, *labels))
        yield
