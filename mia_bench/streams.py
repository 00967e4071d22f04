"""Standard output and error: any text, in any encoding, where they may be full, closed or read by nobody.

Imports little, as :mod:`mia_bench.cli.main` does.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
from typing import IO

_ASCII = {
    "–": "-",
    "…": "...",
    "×": "x",
    "✓": "ok",
    "≥": ">=",
    "≤": "<=",
    "↑": "^",
    "↓": "v",
    "→": "->",
    "±": "+/-",
    "−": "-",
    "Δ": "change of",
}
"""What stands for characters of our own where an encoding lacks them."""


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks as ASCII: codecs call this."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(escaped), error.end


codecs.register_error("mia_bench.ascii", _replace)


_OF_OUTPUT = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What is wrong where standard output can't be written; errors of files have their names."""

_unread = False
"""Whether the reader of standard error went away."""


def unread() -> bool:
    """Whether nobody reads standard error any more: what it was piped into has ended."""
    return _unread


def of_output(error: OSError) -> bool:
    """Whether the error says that standard output can't be written."""
    return error.errno in _OF_OUTPUT and error.filename is None


def prepare_streams() -> None:
    """Let standard output and error take any text; writing to one that is closed fails, or is in vain.

    What is opened later must not get the number of a closed stream.
    """
    global _unread
    _unread = False
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Standard output that was closed is opened for reading, so that what is to be printed fails.
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="mia_bench.ascii")


def silence(stream: IO[str] | None) -> None:
    """Drop what is written to a stream that failed, so that Python does not fail with it when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a test's stream has no number
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)


def put(text: str, *, err: bool = False) -> None:
    """Print text as it is.

    Raises:
        OSError: standard output can't be written. Standard error that can't be written is no error.
    """
    global _unread
    stream = sys.stderr if err else sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        if not err:
            raise
        _unread = _unread or isinstance(error, BrokenPipeError)
        silence(stream)
