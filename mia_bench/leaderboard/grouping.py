"""How records are grouped: into sections, rows and cells."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from mia_bench.record import Record

RowKey: TypeAlias = tuple[str, str]
"""Defense and its options."""

SectionKey: TypeAlias = tuple[str, str, str, str]
"""Attack, its options, prior, its options."""

CellKey: TypeAlias = tuple[SectionKey, RowKey, int]

Key = TypeVar("Key", bound=Any)


def _canonical(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True)


def row_key(record: Record) -> RowKey:
    """What records of one row share."""
    return record.defense.name, _canonical(record.defense.options)


def section_key(record: Record) -> SectionKey:
    """What records of one section share."""
    attack, prior = record.attack, record.prior
    return attack.name, _canonical(attack.options), prior.name, _canonical(prior.options)


def cell_key(record: Record) -> CellKey:
    """What all records of a cell share, whatever the versions of its components."""
    return section_key(record), row_key(record), record.seed


def group(records: Iterable[Record], key: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """Records by key, sorted by it."""
    groups = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return dict(sorted(groups.items()))


def by_seed(records: Iterable[Record]) -> dict[int, list[Record]]:
    """The records of each seed."""
    return group(records, lambda record: record.seed)
