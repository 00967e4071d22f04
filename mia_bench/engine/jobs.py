"""How many processes compute a run where ``--jobs auto`` leaves it open. Imports torch only for a GPU."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.engine.plan import Stage
from mia_bench.track import Track

with lazy_imports():
    import torch

PROCESS_MEMORY = 2 * 2**30
"""Bytes that a process may take on a track that is computed on a CPU."""

_CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container or a job of a batch system may use (control groups, version 2)."""

_OWN_GROUP = Path("/proc/self/cgroup")
"""Which group this process belongs to."""


def automatic_jobs(device: str, track: Track, stages: Collection[Stage]) -> int:
    """As many processes as compute at once to advantage: one a GPU; on a CPU one for each ``track.threads``.

    Args:
        device: as of :func:`mia_bench.device.choose_device`.
        track: without ``threads``, one process uses all cores.
        stages: what is to be computed.
    """
    at_once = most_at_once(stages)
    if at_once <= 1:
        return 1
    if gpus := cuda_count(device):
        return min(gpus, at_once)
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    if track.threads is None or (device != "cpu" and (device != "auto" or apple)):
        return 1
    memory = available_memory()
    fitting = at_once if memory is None else memory // PROCESS_MEMORY
    return max(1, min(usable_cores() // track.threads, fitting, at_once))


def most_at_once(stages: Collection[Stage]) -> int:
    """How many stages can be computed side by side, if each is begun as early as possible."""
    wanted = {stage.id: stage for stage in stages}
    levels: dict[tuple[str, str], int] = {}

    def level(stage: Stage) -> int:
        if stage.id not in levels:
            levels[stage.id] = 1 + max(
                (level(needed) for needed in stage.inputs.values() if needed.id in wanted), default=0
            )
        return levels[stage.id]

    return max(Counter(level(stage) for stage in wanted.values()).values(), default=0)


def cuda_count(device: str) -> int:
    """How many of CUDA's GPUs processes can share out, as none is named."""
    return torch.cuda.device_count() if device == "cuda" or (device == "auto" and shows_gpu()) else 0


def shows_gpu() -> bool:
    """Whether the system may have a GPU of CUDA; importing torch to find out takes seconds."""
    if sys.platform != "linux":
        return sys.platform != "darwin"
    # NVIDIA, AMD, and Windows' subsystem for Linux
    return any(any(Path("/dev").glob(name)) for name in ("nvidia[0-9]*", "kfd", "dxg"))


def usable_cores() -> int:
    """The cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups():
        with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
            quota, period = (group / "cpu.max").read_text().split()
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def available_memory() -> int | None:
    """Bytes of memory that new processes can take, as far as the system says."""
    found: list[int] = []
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024)
    for group in _groups():
        with contextlib.suppress(OSError, ValueError):
            used = int((group / "memory.current").read_text())
            found.append(int((group / "memory.max").read_text()) - used)
    return max(0, min(found)) if found else None


def _groups() -> list[Path]:
    """The folders of the control groups that this process is in, its own and those above it."""
    name = ""
    with contextlib.suppress(OSError):
        lines = _OWN_GROUP.read_text().splitlines()
        name = next((line[3:] for line in lines if line.startswith("0::")), "")
    own = _CGROUP / name.strip("/")
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(_CGROUP)]
