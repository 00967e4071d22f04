"""Compact letters for pairwise comparisons."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Sequence
from string import ascii_lowercase
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)

_LETTER = re.compile(r"[a-z]\d*")


def compact_letters(names: Sequence[Name], different: Collection[tuple[Name, Name]]) -> dict[Name, str]:
    """Letters for each name, such that two names share none if, and only if, they differ.

    The columns are those of *insert and absorb* (Piepho, *Journal of Computational and Graphical Statistics*
    13, 2004), without columns that are not needed.

    Args:
        names: in the order of the table: the first ones get the first letters.
        different: pairs that differ, in either order.
    """
    columns = [frozenset(names)]
    for one, other in different:
        split = [column for column in columns if {one, other} <= column]
        parts = [column - {name} for column in split for name in (one, other)]
        columns = _largest([*(column for column in columns if column not in split), *parts])
    apart = {frozenset(pair) for pair in different}
    for column in sorted(columns, key=len):
        others = [other for other in columns if other != column]
        if _covers(others, names, apart):
            columns = others
    place = {name: number for number, name in enumerate(names)}
    columns.sort(key=lambda column: sorted(place[name] for name in column))
    return {
        name: "".join(letter(number) for number, column in enumerate(columns) if name in column)
        for name in names
    }


def _largest(columns: Sequence[frozenset[Name]]) -> list[frozenset[Name]]:
    """The columns that are part of no other."""
    distinct = list(dict.fromkeys(columns))
    return [column for column in distinct if not any(column < other for other in distinct)]


def _covers(
    columns: Sequence[frozenset[Name]], names: Sequence[Name], apart: Collection[frozenset[Name]]
) -> bool:
    """Whether each name, and each pair that does not differ, is together in some column."""
    pairs = (frozenset((one, other)) for one in names for other in names)
    return all(any(pair <= column for column in columns) for pair in pairs if pair not in apart)


def share_a_letter(one: str, other: str) -> bool:
    """Whether two names with these letters do not differ."""
    return not {*_LETTER.findall(one)}.isdisjoint(_LETTER.findall(other))


def letter(number: int) -> str:
    """``a`` to ``z``, then ``a1`` and so on."""
    turn, place = divmod(number, 26)
    return ascii_lowercase[place] + (str(turn) if turn else "")
