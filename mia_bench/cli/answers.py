"""What a command printed, printed again while nothing has changed that it read.

Importing pydantic and the plugins is most of what a command takes that computes nothing. A command whose
output follows from its arguments, the environment and files alone says so (:func:`repeatable`). What it
printed is then kept in the cache folder, with the state of each file that it opened, looked for or imported
and of each folder that it listed. The same command prints that again as long as all of them are as they were.

Files are watched through Python's audit events. Looking for a file has none, so that :func:`os.stat` and
:func:`os.lstat` are replaced meanwhile. A command that writes a file, starts a process or opens a connection
is not answered again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from mia_bench.paths import cache_folder
from mia_bench.streams import put

MOST = 64
"""Number of answers that are kept."""

LARGEST = 20_000
"""Number of files and folders that a command reads at most whose answer is kept."""

_CHANGING = {"_", "OLDPWD", "SHLVL"}
"""Variables of the environment that a shell changes from one command to the next."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_ACTIONS = ("os.", "shutil.", "subprocess.", "socket.", "tempfile.")
"""Audit events with these beginnings change something outside, or depend on it ..."""

_HARMLESS = ("os.putenv", "os.unsetenv")
"""... but for these."""

_stat, _lstat = os.stat, os.lstat

_asked: Question | None = None
"""The question whose answer is watched."""


def repeatable() -> None:
    """Say that the output of this command follows from arguments, environment and files alone."""
    if _asked:
        _asked.repeatable = True


class Question:
    """What a command is asked: with which arguments, where, and what its output goes to.

    Args:
        args: the arguments of the command line.
    """

    def __init__(self, args: list[str]) -> None:
        self.repeatable = False
        self._began = time.time_ns()
        self._printed: list[tuple[str, bool]] = []
        self._files: dict[str, list[int] | None] = {}
        self._folders: dict[str, str | None] = {}
        self._kept: Path | None = None
        with contextlib.suppress(Exception):  # no folder for it, or none to stand in
            asked = [args, os.getcwd(), _environment(), *map(_terminal, range(3))]
            asked += [sys.version, sys.executable, sys.path, str(sys.flags)]
            name = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
            self._kept = cache_folder() / "answers" / f"{name}.json"

    def answer_again(self) -> bool:
        """Print what the command printed before, if all that it read is as it was.

        Raises:
            OSError: standard output can't be written.
        """
        if self._kept is None:
            return False
        try:
            kept = json.loads(self._kept.read_bytes())
            if any(_file(path) != state for path, state in kept["files"].items()):
                return False
            if any(_folder(path) != state for path, state in kept["folders"].items()):
                return False
            printed = [(str(text), bool(err)) for text, err in kept["printed"]]
        except Exception:  # there is none, or it is damaged
            return False
        for text, err in printed:
            put(text, err=err)
        return True

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note what the command reads and prints."""
        global _asked
        if os.name != "posix":  # elsewhere Python looks for files in further ways
            self.give_up()
        if self._kept is None:
            yield
            return
        usual = sys.stdout, sys.stderr
        _watch()
        os.stat, os.lstat = _noticed(_stat), _noticed(_lstat)
        sys.stdout, sys.stderr = _Heard(usual[0], self, err=False), _Heard(usual[1], self, err=True)
        _asked = self
        try:
            yield
        finally:
            _asked = None
            os.stat, os.lstat = _stat, _lstat
            sys.stdout, sys.stderr = usual

    def keep(self) -> None:
        """Keep what was printed, if it may be printed again."""
        if self._kept is None or not self.repeatable:
            return
        for module in list(sys.modules.values()):
            if path := getattr(module, "__dict__", {}).get("__file__"):
                self._files.setdefault(path, _file(path))
        changed = any(state and max(state[:2]) >= self._began for state in self._files.values())
        if changed or len(self._files) + len(self._folders) > LARGEST:
            return
        content = {"files": self._files, "folders": self._folders, "printed": self._printed}
        with contextlib.suppress(OSError):  # the folder can't be written, say
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            beside = self._kept.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(content))
            beside.replace(self._kept)
            for old in sorted(self._kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-MOST]:
                old.unlink()

    def note_file(self, path: Any) -> None:
        """A file is opened or looked for."""
        if not isinstance(path, int) and not _is_own(path := _absolute(path)):
            self._files.setdefault(path, _file(path))

    def note_folder(self, path: Any) -> None:
        """A folder is listed."""
        if isinstance(path, int):
            self.give_up()
        elif (path := _absolute(path)) not in self._folders:
            self._folders[path] = None  # the next line lists it, too
            self._folders[path] = _folder(path)

    def note_text(self, text: str, err: bool) -> None:
        """Something is printed."""
        if self._kept:
            self._printed.append((text, err))

    def give_up(self) -> None:
        """Keep nothing."""
        global _asked
        self._kept = _asked = None
        self._printed, self._files, self._folders = [], {}, {}


def _environment() -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in os.environ.items() if name not in _CHANGING)


def _terminal(number: int) -> list[int]:
    """The size of the terminal behind a stream; nothing where there is none."""
    return list(os.get_terminal_size(number)) if os.isatty(number) else []


def _absolute(path: Any) -> str:
    return os.path.abspath(os.fsdecode("." if path is None else path))


def _is_own(path: str) -> bool:
    """Whether this is of Python's bytecode or of the process itself."""
    return "__pycache__" in path or path.startswith("/proc/self/")


def _file(path: str) -> list[int] | None:
    """The times and the size of a file; None if there is none."""
    try:
        found = _stat(path)
    except (OSError, ValueError):
        return None
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_size]


def _folder(path: str) -> str | None:
    """A hash of what lies in a folder, with times and sizes; None if there is none."""
    try:
        inside = sorted(name for name in os.listdir(path) if name != "__pycache__")
        states = [(name, _file(os.path.join(path, name))) for name in inside]
    except (OSError, ValueError):
        return None
    return hashlib.sha256(repr(states).encode("utf-8", "surrogateescape")).hexdigest()[:32]


@functools.cache
def _watch() -> None:
    sys.addaudithook(_notice)  # which can't be taken away


def _notice(event: str, args: tuple[Any, ...]) -> None:
    """Note what a command reads: Python calls this with each audit event."""
    if _asked is None:
        return
    if event == "open":
        path, _, flags = args
        if isinstance(path, int):
            if path <= 2:  # a way around the streams; others were opened before, which was noticed
                _asked.give_up()
        elif not flags & _WRITING:
            _asked.note_file(path)
        elif not _is_own(_absolute(path)):
            _asked.give_up()
    elif event in ("os.listdir", "os.scandir"):
        _asked.note_folder(args[0])
    elif event.startswith(_ACTIONS) and event not in _HARMLESS and not _is_own(str(*args[:1])):
        _asked.give_up()


def _noticed(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
    """A look for a file that is noted."""

    def noted(path: Any, **more: Any) -> os.stat_result:
        if _asked and more.get("dir_fd") is None:
            _asked.note_file(path)
        elif _asked:
            _asked.give_up()
        return look(path, **more)

    return noted


class _Heard:
    """A stream of text on which what is printed is noted.

    Args:
        stream: the stream.
        question: notes it.
        err: whether it is standard error.
    """

    def __init__(self, stream: IO[str], question: Question, *, err: bool) -> None:
        self._stream, self._question, self._err = stream, question, err

    def write(self, text: str) -> int:
        """Print and note text."""
        written = self._stream.write(text)
        self._question.note_text(text, self._err)
        return written

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "detach", "writelines"):  # ways around write
            self._question.give_up()
        return getattr(self._stream, name)
