"""Seeds derived by hashing for each purpose, so that one random stream never shifts another.

The target's seed does not depend on the attack, nor the attack's on the defense: all defenses start from the
same weights and batches and face the same candidates.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping

from etils.epy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor


def derive(seed: int, *labels: str | int) -> int:
    """A 63-bit seed from ``seed`` and the labels, in order."""
    text = "\x1f".join([str(seed), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *labels: str | int) -> torch.Generator:
    """A generator seeded with :func:`derive`; on the CPU, so that all devices get the same numbers."""
    return torch.Generator().manual_seed(derive(seed, *labels))


def random_states(own: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """The states of a generator, of torch's global one, and of the device's if that is a GPU."""
    states = {"own": own.get_state(), "global": torch.get_rng_state()}
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Tensor], own: torch.Generator, device: torch.device) -> None:
    """Set what :func:`random_states` returned; the device's if there is one of it."""
    own.set_state(states["own"])
    torch.set_rng_state(states["global"])
    if device.type == "cuda" and "device" in states:
        torch.cuda.set_rng_state(states["device"], device)


@contextlib.contextmanager
def seeded(seed: int, *labels: str | int) -> Iterator[None]:
    """Seed torch's global generators within the block, and restore them afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive(seed, *labels))
        yield
