"""Lines and tables of any text on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils.epy import lazy_imports

from mia_bench.streams import put
from mia_bench.text import lines, one_line, unbroken

with lazy_imports():
    import tabulate


def say(text: object, *, err: bool = False) -> None:
    """Print one line, whatever ``text`` holds.

    Raises:
        OSError: standard output can't be written. Standard error that can't be written is no error.
    """
    put(f"{unbroken(str(text))}\n", err=err)


def say_lines(text: str, *, err: bool = False) -> None:
    """Print several lines, as :func:`say` prints one."""
    put(f"{lines(text)}\n", err=err)


def warn(warnings: Iterable[object]) -> None:
    """Print each as a line on standard error, with ``warning:`` before it."""
    for line in warnings:
        say(f"warning: {line}", err=True)


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
