"""What a command printed, printed again while nothing has changed that it read.

Importing pydantic and the plugins is most of what a command takes that computes nothing. A command whose
output follows from its arguments, the environment and files alone says so (:func:`repeatable`). What it
printed is then kept in the cache folder, with the state of each file that it opened, looked for or imported
and of each folder that it listed. The same command prints that again as long as all of them are as they were.

Files are watched through Python's audit events. Looking for a file has none, so that :func:`os.stat`,
:func:`os.lstat` and :func:`os.access` are replaced meanwhile. A command that writes a file, starts a process
or opens a connection is not answered again. What code in C reads, or prints past Python's streams, is unseen.
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

from mia_bench.paths import SETTLED, cache_folder
from mia_bench.streams import put

MOST = 64
"""Number of answers that are kept."""

LARGEST = 20_000
"""Number of files, and of entries of folders, that a command reads at most whose answer is kept."""

_CHANGING = {"_", "OLDPWD", "SHLVL"}
"""Variables of the environment that a shell changes from one command to the next."""

_BYTECODE = "__pycache__"
"""The name of folders of Python's bytecode."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_ACTIONS = ("os.", "shutil.", "subprocess.", "socket.", "sqlite3.", "syslog.", "tempfile.")
"""Audit events with these beginnings change something outside, or depend on it ..."""

_HARMLESS = ("os.putenv", "os.unsetenv")
"""... but for these."""

_LOOKS = ("stat", "lstat", "access")
"""Functions of :mod:`os` that look for a file."""

_ABLE = (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks)
"""Sets of what functions of :mod:`os` are able to do."""

_STREAMS = ("stdout", "stderr", "__stdout__", "__stderr__")

_stat = os.stat

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
        self._left = LARGEST
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        self._kept: Path | None = None
        with contextlib.suppress(Exception):  # no folder for it, or none to stand in
            asked = [args, os.getcwd(), _environment(), *map(_terminal, range(3))]
            asked += [sys.version, sys.executable, sys.path, str(sys.flags)]
            asked += [sys.warnoptions, str(sys._xoptions)]
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
            if any(_folder(path)[0] != state for path, state in kept["folders"].items()):
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
        _watch()
        for name in _LOOKS:
            self._replace(os, name, _noticed(getattr(os, name)))
        for name in _STREAMS:
            if getattr(sys, name):
                self._replace(sys, name, _Heard(getattr(sys, name), self, err="err" in name))
        _asked = self
        try:
            yield
        finally:
            _asked = None
            self._restore(os, sys)

    def _replace(self, where: Any, name: str, new: Any) -> None:
        usual = getattr(where, name)
        for able in _ABLE:
            if usual in able:
                able.add(new)
        setattr(where, name, new)
        self._replaced.append((where, name, new, usual))

    def _restore(self, *modules: Any) -> None:
        """Put back what was replaced in these, but for what somebody else replaced since."""
        for where, name, new, usual in self._replaced:
            if where in modules and getattr(where, name) is new:
                setattr(where, name, usual)

    def keep(self) -> None:
        """Keep what was printed, if it may be printed again."""
        if self._kept is None or not self.repeatable:
            return
        with contextlib.suppress(Exception):  # the folder can't be written, say
            for module in list(sys.modules.values()):
                if isinstance(path := getattr(module, "__dict__", {}).get("__file__"), str):
                    self.note_file(path)
            settled = self._began - SETTLED
            changing = (path for path, state in self._files.items() if state and max(state[:2]) >= settled)
            if all(map(os.path.isdir, changing)):
                self._write()

    def _write(self) -> None:
        if self._kept is None:
            return
        content = {"files": self._files, "folders": self._folders, "printed": self._printed}
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        beside = self._kept.with_suffix(f".{os.getpid()}")
        beside.touch(mode=0o600)
        beside.write_text(json.dumps(content))
        beside.replace(self._kept)
        for old in sorted(self._kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-MOST]:
            old.unlink()

    def note_file(self, path: Any) -> None:
        """A file is opened or looked for."""
        if isinstance(path, int):
            return
        path = _source(_absolute(path))
        if path not in self._files and not path.startswith("/proc/self/"):
            self._files[path] = _file(path)
            self._count(1)

    def note_folder(self, path: Any) -> None:
        """A folder is listed."""
        if isinstance(path, int):
            self.give_up()
        elif (path := _absolute(path)) not in self._folders:
            self._folders[path] = None  # the next line lists it, too
            self._folders[path], entries = _folder(path)
            self._count(entries)

    def note_text(self, text: str, err: bool) -> None:
        """Something is printed, perhaps by one who has held the stream since before this gave up."""
        if self._kept:
            self._printed.append((text, err))

    def _count(self, read: int) -> None:
        self._left -= read
        if self._left < 0:
            self.give_up()

    def give_up(self) -> None:
        """Keep nothing."""
        global _asked
        self._kept = _asked = None
        self._restore(os)  # the streams stay: the command compares them
        self._printed, self._files, self._folders = [], {}, {}


def _environment() -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in os.environ.items() if name not in _CHANGING)


def _terminal(number: int) -> list[int]:
    """The size of the terminal behind a stream; nothing where there is none."""
    return list(os.get_terminal_size(number)) if os.isatty(number) else []


def _absolute(path: Any) -> str:
    return os.path.abspath(os.fsdecode("." if path is None else path))


def _source(path: str) -> str:
    """The source of a file of bytecode; other paths as they are."""
    folder, name = os.path.split(path)
    if not _is_bytecode(path) or name == _BYTECODE:
        return path
    return os.path.join(os.path.dirname(folder), f"{name.partition('.')[0]}.py")


def _is_bytecode(path: str) -> bool:
    """Whether this is a file of Python's bytecode, or a folder of them."""
    folder, name = os.path.split(path)
    return name == _BYTECODE or (os.path.basename(folder) == _BYTECODE and ".pyc" in name)


def _file(path: str) -> list[int] | None:
    """The times and the size of a file; None if there is none."""
    try:
        found = _stat(path)
    except (OSError, ValueError):
        return None
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_size]


def _folder(path: str) -> tuple[str | None, int]:
    """A hash of what lies in a folder, with times and sizes, and how much it is; None if there is none."""
    try:
        inside = sorted(name for name in os.listdir(path) if name != _BYTECODE)
        states = [(name, _file(os.path.join(path, name))) for name in inside]
    except (OSError, ValueError):
        return None, 0
    return hashlib.sha256(repr(states).encode("utf-8", "surrogateescape")).hexdigest()[:32], len(states)


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
        elif not _is_bytecode(_absolute(path)):
            _asked.give_up()
    elif event in ("os.listdir", "os.scandir"):
        _asked.note_folder(args[0])
    elif event.startswith(_ACTIONS) and event not in _HARMLESS and not _is_bytecode(str(*args[:1])):
        _asked.give_up()


def _noticed(look: Callable[..., Any]) -> Callable[..., Any]:
    """A look for a file that is noted."""

    def noted(path: Any, *mode: int, **more: Any) -> Any:
        if _asked and more.get("dir_fd") is None:
            _asked.note_file(path)
        elif _asked:
            _asked.give_up()
        return look(path, *mode, **more)

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
        if isinstance(text, str):  # click tries bytes, which fails
            self._question.note_text(text, self._err)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "detach", "writelines"):  # ways around write
            self._question.give_up()
        return getattr(self._stream, name)
