"""What is printed: any text, in any encoding, on a stream that may be full, closed or read by nobody."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from etils.epy import lazy_imports

from mia_bench.text import lines, one_line, unbroken

with lazy_imports():
    import tabulate

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


_unread = False
"""Whether the reader of standard error went away."""


def unread() -> bool:
    """Whether nobody reads standard error any more: what it was piped into has ended."""
    return _unread


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


def say(text: object, *, err: bool = False) -> None:
    """Print one line, whatever ``text`` holds.

    Raises:
        OSError: standard output can't be written. Standard error that can't be written is no error.
    """
    _print(unbroken(str(text)), err)


def say_lines(text: str, *, err: bool = False) -> None:
    """Print several lines, as :func:`say` prints one."""
    _print(lines(text), err)


def _print(text: str, err: bool) -> None:
    global _unread
    stream = sys.stderr if err else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        if not err:
            raise
        _unread = _unread or isinstance(error, BrokenPipeError)
        silence(stream)


def table(
    rows: Iterable[Mapping[str, Any]] | Iterable[Sequence[Any]], headers: Any = "keys", style: str = "simple"
) -> str:
    """Rows as a table for people, one line each, whatever the cells hold."""
    clean: list[Any] = [
        {one_line(str(key)): one_line(str(cell)) for key, cell in row.items()}
        if isinstance(row, Mapping)
        else [one_line(str(cell)) for cell in row]
        for row in rows
    ]
    return str(tabulate.tabulate(clean, headers=headers, tablefmt=style, disable_numparse=True))
