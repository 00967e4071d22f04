"""Provenance of results: versions, device, commit; never the name of a machine or a person."""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
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


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``-dirty`` if it was changed.

    Also where git can't tell whether it was changed. None where this package is in no checkout.
    """
    return checkout_commit(Path(__file__).resolve().parent.parent)


@functools.cache
def checkout_commit(root: Path) -> str | None:
    """The commit of the checkout at ``root`` (its top folder), if it is one that holds this package."""
    package = Path(__file__).resolve().parent.name
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root:
            return None
        _git(root, "ls-files", "--error-unmatch", f"{package}/{Path(__file__).name}")
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    try:
        # Files that git was told not to look at have a small letter, or S, before their names.
        unwatched = re.search(r"^(?:[a-z]|S) ", _git(root, "ls-files", "-v", package), re.MULTILINE)
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return f"{commit}-dirty"
    return f"{commit}-dirty" if unwatched or changed else commit


def _git(root: Path, *arguments: str) -> str:
    """What git says of ``root``, whatever repository the environment names."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", root, *arguments],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=10,
        check=True,
        stdin=subprocess.DEVNULL,
        env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
    )
    return done.stdout.rstrip("\n")


_START = r"(?:~[\w.-]*/|/|[A-Za-z]:[/\\]|\\\\)"

_PATH = re.compile(
    rf"""
    (?P<quote>["']) (?:file://)? {_START} [^"'\n]+ (?P=quote)   # in quotes: it may hold spaces
    | file:// [^\s'",;()<>|]+
    | (?<![\w.:/\\>~-]) (?: ~[\w.-]*/ | /[^\s/'",;:()<>|]+/ | [A-Za-z]:[/\\] | \\\\ ) [^\s'",;:()<>|]*
    """,
    re.VERBOSE,
)
"""Absolute paths of all systems; such as have but one folder (``/tmp``) in quotes only."""

_ORDINARY = {"admin", "data", "localhost", "nobody", "root", "runner", "test", "ubuntu", "user"}
"""Names of users and machines that say nothing, and may be words of a message."""


def anonymous(text: str, places: Mapping[str, Path | None] | None = None) -> str:
    """``text`` without what names a machine or a person, for records and pages.

    Paths begin at the place that they are in (``<data>/Ann/1.png``). Of other absolute paths the name of the
    file is left (``<path>/1.png``). The names of the user and the host become ``<user>`` and ``<host>``.

    Args:
        text: the message of an error, say.
        places: folders, by the words that stand for them. The home and the working folder are known.
    """
    known: dict[str, Path | None] = {**(places or {})}
    with contextlib.suppress(OSError, RuntimeError):  # a folder that is gone, a user without a home
        known |= {"home": Path.home(), "folder": Path.cwd()}
    words = {form: word for word, path in reversed(known.items()) if path for form in _forms(path)}
    for form in sorted(words, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./~-]){re.escape(form)}(?![\w-])", f"<{words[form]}>", text)
    text = _PATH.sub(_short_path, text)
    for name, word in _names().items():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", f"<{word}>", text)
    return text


def _forms(path: Path) -> list[str]:
    """How a folder may be written; not the root."""
    forms = {os.path.abspath(path), os.path.realpath(path)}
    return [form for form in forms if len(Path(form).parts) > 1]


def _short_path(found: re.Match[str]) -> str:
    quote = found["quote"] or ""
    name = re.split(r"[/\\]", found[0].strip("\"'"))[-1]
    is_file = re.search(r"[^.]\.\w", name)
    return f"{quote}<path>/{name}{quote}" if is_file else f"{quote}<path>{quote}"


@functools.cache
def _names() -> dict[str, str]:
    """Names of user and host that may not be told, with what stands for them."""
    found = {name: "host" for host in [platform.node()] for name in (host, host.partition(".")[0])}
    with contextlib.suppress(OSError, KeyError, ImportError):
        found[getpass.getuser()] = "user"
    return {name: word for name, word in found.items() if len(name) > 2 and name.lower() not in _ORDINARY}


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
