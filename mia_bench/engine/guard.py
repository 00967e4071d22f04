"""The guard: a small process that ends what the workers of a run leave behind, however the run ends.

Each worker leads a process group, in which what it starts is too. The guard is told of these groups; when
the driver (the process that started the run) is gone, it kills those that are left. It is no thread of the
workers, because a thread can't run while a library holds the interpreter, nor in a stopped process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

POSIX = os.name == "posix"
KILL = signal.SIGKILL if POSIX else signal.SIGTERM

_INTERVAL = 1.0
"""Seconds between two looks at whether the driver is there: a process it forked may hold the pipe open."""


def lead_group() -> None:
    """Make this process the leader of a process group of its own."""
    if POSIX:
        os.setpgid(0, 0)


def signal_group(leader: int, number: int) -> None:
    """Send a signal to the leader of a group and what it started, if they are there."""
    if POSIX:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, number)


class Guard:
    """The driver's end: starts the guard and tells it of the workers. Nothing on Windows."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, leader: int) -> None:
        """From now on the group of that process is killed when the driver is gone."""
        self._groups.add(leader)
        self._tell(f"+{leader}\n")

    def forget(self, leader: int) -> None:
        """The driver has ended that group itself."""
        self._groups.discard(leader)
        self._tell(f"-{leader}\n")

    def close(self) -> None:
        """End the guard; the driver has ended all groups."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _tell(self, line: str) -> None:
        if not POSIX:
            return
        if self._process is None or self._process.poll() is not None:
            self._start()
            line = "".join(f"+{leader}\n" for leader in self._groups)
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it died just now: the next call starts another
            os.write(self._process.stdin.fileno(), line.encode())

    def _start(self) -> None:
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _guard(driver: int) -> None:
    """Read lines ``+LEADER`` and ``-LEADER`` until the driver is gone; kill the groups that are left."""
    groups: set[int] = set()
    text = b""
    while os.getppid() == driver:
        if not select.select([0], [], [], _INTERVAL)[0]:
            continue
        if not (more := os.read(0, 65536)):
            break
        *lines, text = (text + more).split(b"\n")
        for line in lines:
            (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    for leader in groups:
        signal_group(leader, KILL)


if __name__ == "__main__":
    _guard(int(sys.argv[1]))
