"""How records are grouped: into sections, rows and cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

from mia_bench.record import ComponentRef, Record

ComponentKey: TypeAlias = tuple[str, str]
"""A component's name and its options as canonical JSON."""

SectionKey: TypeAlias = tuple[ComponentKey, ComponentKey]
"""Attack and prior."""

CellKey: TypeAlias = tuple[ComponentKey, ComponentKey, ComponentKey, int]

Key = TypeVar("Key", bound=Any)


def component_key(component: ComponentRef) -> ComponentKey:
    """What tells a component with its options from others, whatever its version."""
    return component.name, component.options_text


def row_key(record: Record) -> ComponentKey:
    """What the records of a row share: the defense."""
    return component_key(record.defense)


def section_key(record: Record) -> SectionKey:
    """What the records of a section share: attack and prior."""
    return component_key(record.attack), component_key(record.prior)


def cell_key(record: Record) -> CellKey:
    """What all records of a cell share, whatever the versions of its components."""
    return *section_key(record), row_key(record), record.seed


def group(records: Iterable[Record], key: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """Records by key, sorted by it."""
    groups = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return dict(sorted(groups.items()))


def by_seed(records: Iterable[Record]) -> dict[int, list[Record]]:
    """The records of each seed."""
    return group(records, lambda record: record.seed)
