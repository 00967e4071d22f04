"""Provenance of results: versions, device, commit; never the name of a machine or a person."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

from etils.epy import lazy_imports

with lazy_imports():
    import resource  # not on Windows

    import torch


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def package_version(name: str) -> str | None:
    """The installed version of a distribution, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def package_url(name: str) -> str:
    """The repository, homepage or other URL of an installed distribution; empty if it names none."""
    try:
        given = metadata(name).get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    pairs = [(label.strip().lower(), url.strip()) for label, _, url in (g.partition(",") for g in given)]
    named = {label: url for label, url in pairs if re.fullmatch(r"https?://[^\s`<>\"']+", url)}
    ordered = ("repository", "source", "source code", "homepage", *named)
    return next((named[label] for label in ordered if label in named), "")


python_version = platform.python_version

HOST = "mia-bench"
"""The distribution of the host and the built-in plugins."""


def code_differs(one: str, other: str) -> bool:
    """Whether two records of a component's code differ though its distribution's version does not.

    Each is a version and a hash of the code, or empty where neither is known.
    """
    return bool(one and other) and one != other and one.split()[0] == other.split()[0]


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``-dirty`` if it was changed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def platform_name() -> str:
    """Operating system, processor architecture and number of cores; no host name."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def device_name(device: torch.device) -> str:
    """The name of the device; for a CPU with the number of threads, which changes rounding."""
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({threads} thread{'s' if threads != 1 else ''})"
    return str(device)


def reset_peak_memory(device: torch.device) -> None:
    """Restart the measurement of :func:`peak_memory`, if the system supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the high-water mark


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes since :func:`reset_peak_memory`, of the GPU or else of this process.

    On systems other than Linux, the peak of a process is counted from its start.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
