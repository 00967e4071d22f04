"""Defenses beside each other: the differences of every pair, and letters that say which are told apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import TypeAlias

from mia_bench.api.metric import Quantity
from mia_bench.leaderboard.board import Board, Section
from mia_bench.leaderboard.grouping import ComponentKey, group, row_key, section_key
from mia_bench.leaderboard.tables import Table, class_table, named_effects
from mia_bench.leaderboard.verdicts import LEVEL
from mia_bench.statistics import Effect, adjusted_p_values, compact_letters

LETTERED = 50
"""Defenses that have letters at most, and a table of pairs: those of more can't be read."""

Pair: TypeAlias = tuple[ComponentKey, ComponentKey]


@dataclass(frozen=True)
class Pairs:
    """The differences of leakage between defenses.

    Attributes:
        differences: first minus second, of every pair that can be compared; the first leaks less on average.
    """

    differences: Mapping[Pair, Effect] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[ComponentKey, ...]:
        """The defenses, the one that leaks least first."""
        firsts, seconds = zip(*self.differences, strict=True) if self.differences else ((), ())
        return tuple(dict.fromkeys((*firsts, *seconds)))

    @cached_property
    def apart(self) -> frozenset[Pair]:
        """The pairs whose leakage differs, at the level of all pairs (Holm 1979)."""
        return frozenset(pair for pair, p in adjusted_p_values(self.differences).items() if p < LEVEL)

    @property
    def readable(self) -> bool:
        """Whether there are at most :data:`LETTERED` defenses."""
        return len(self.names) <= LETTERED

    @cached_property
    def letters(self) -> dict[ComponentKey, str]:
        """Letters of the defenses: two share one unless they are :attr:`apart`.

        Empty where some pair can't be compared, and where they are not :attr:`readable`.
        """
        whole = len(self.names) * (len(self.names) - 1) // 2
        if not self.readable or len(self.differences) < whole:
            return {}
        return compact_letters(self.names, [pair for pair in self.differences if pair in self.apart])


def pairs(
    leaked: Mapping[ComponentKey, Table | None], quantity: Quantity, *, unpaired: bool = False
) -> Pairs:
    """Every pair of ``leaked`` that can be compared; not over one seed, which says nothing of others.

    Args:
        leaked: of each defense its class means.
        quantity: of what.
        unpaired: also compare defenses of other conditions.
    """
    tables = {key: table for key, table in leaked.items() if table}
    names = sorted(tables, key=lambda key: (quantity.sort_key(float(tables[key].means.mean())), key))
    found = {pair: tables[pair[0]].minus(tables[pair[1]], beside=unpaired) for pair in combinations(names, 2)}
    made = named_effects(found, share=quantity.kind == "share")
    return Pairs({pair: effect for pair, effect in made.items() if effect.seeds > 1})


def section_letters(
    board: Board, section: Section, defenses: Collection[ComponentKey]
) -> dict[ComponentKey, str]:
    """The letters of these defenses under one attack."""
    rows = group((r for r in board.done if section_key(r) == section.key), row_key)
    tables = {key: class_table(board.primary, same) for key, same in rows.items() if key in defenses}
    return pairs(tables, board.quantities[board.primary], unpaired=True).letters
