"""Errors whose message is one clear line for the user; the CLI prints it without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MiaBenchError(Exception):
    """Something went wrong that the user can act on. Exit code 1."""

    exit_code = 1


class UsageError(MiaBenchError):
    """The command, an option, a name or a path is wrong. Exit code 2."""

    exit_code = 2


class DataError(MiaBenchError):
    """A data set is missing, empty or unusable."""


class StoreError(MiaBenchError):
    """The store can't be read or written."""


class CorruptArtifact(StoreError):
    """An artifact is truncated or altered: it is discarded and computed again."""


class Unavailable(MiaBenchError):
    """Something optional is missing (a weight file, a package): what needs it becomes null."""


class Diverged(MiaBenchError):
    """A loss stopped being finite."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped ``name``: the nearest known names, or all of them if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(word) for word in near) + "?"
    return "known: " + ", ".join(known) if known else "none is known"
