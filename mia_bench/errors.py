"""Errors whose message is one clear line for the user; the CLI prints it without a traceback."""

from __future__ import annotations

import difflib
import sysconfig
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path

from mia_bench.text import one_line, shortened


class MiaBenchError(Exception):
    """Something went wrong that the user can act on; its message is one line. Exit code 1."""

    exit_code = 1

    def __str__(self) -> str:
        """The message on one line, whatever it quotes."""
        return one_line(super().__str__())


class UsageError(MiaBenchError):
    """The command, an option, a name or a path is wrong. Exit code 2."""

    exit_code = 2


class DataError(MiaBenchError):
    """A data set is missing, empty or unusable."""


class StoreError(MiaBenchError):
    """The store can't be read or written."""


class CorruptArtifact(StoreError):
    """An artifact was read and is truncated or altered: it is set aside and computed again.

    Attributes:
        stage, key: which.
        reason: what is wrong with it.
        lacks: the field that its info lacks, if that is what is wrong.
    """

    def __init__(self, stage: str, key: str, reason: str, lacks: str = "") -> None:
        super().__init__(stage, key, reason, lacks)
        self.stage, self.key, self.reason, self.lacks = stage, key, reason, lacks

    def __str__(self) -> str:
        return one_line(f"the {self.stage} artifact {self.key} is damaged ({self.reason})")


class Unavailable(MiaBenchError):
    """Something optional is missing (a weight file, a package): what needs it becomes null."""


class Diverged(MiaBenchError):
    """A loss stopped being finite."""


class OutOfMemory(MiaBenchError):
    """The memory does not suffice for what can't be done in smaller batches."""


class Modified(MiaBenchError):
    """A plugin modified what it may only use."""


LONGEST = 500
"""Number of characters that are shown of a message."""


def summarize_error(error: BaseException, packages: Collection[str] = ()) -> str:
    """What went wrong: ``ValueError: no such class (my_defense.py:41)``; of a clear line just that line.

    Args:
        packages: top-level names of plugins' modules, so that the line of one that is installed is shown
            and not the line of a library that it calls.
    """
    try:
        text = str(error)
    except Exception:  # a plugin's error may raise anything
        text = "a message that can't be shown"
    text = shortened(one_line(text) or "no message", LONGEST)
    if isinstance(error, MiaBenchError):
        return text
    return f"{type(error).__name__}: {text}" + _place(error, packages)


def _place(error: BaseException, packages: Collection[str]) -> str:
    """File, without its folders, and line where a plugin's code last was before the error."""
    installed = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        path = Path(frame.f_code.co_filename)
        libraries = package == __package__ or bool(installed & {*path.parents})
        if package in packages or (path.suffix == ".py" and not libraries):
            return f" ({path.name}:{line})"
    return ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped ``name``: the nearest known names, or all of them if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(word) for word in near) + "?"
    return "known: " + ", ".join(known) if known else "none is known"
