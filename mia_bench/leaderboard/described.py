"""What components say of themselves: by their records if they are of third parties, else as installed.

So a page is the same wherever it is built, with a third party's plugin installed or without.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mia_bench.api.metric import Quantity
from mia_bench.errors import MiaBenchError
from mia_bench.provenance import HOST
from mia_bench.record import About, ComponentRef, Record
from mia_bench.recorded_options import changed_options
from mia_bench.registry import Registry
from mia_bench.track import Track

CELL_KINDS = ("defense", "prior", "attack")
"""The kinds of component that a record names."""


def _class_of(registry: Registry, kind: str, component: ComponentRef) -> type[Any] | None:
    """The class to ask, or None where the record speaks for itself or nothing is installed.

    Of what comes with mia-bench, and of records that say nothing, the class that is installed is asked.
    """
    if component.distribution != HOST and component.about != About():
        return None
    if component.name not in registry.names(kind):
        return None
    return registry.get(kind, component.name).load()


def about(registry: Registry, kind: str, component: ComponentRef) -> About:
    """What a component says of itself."""
    cls = _class_of(registry, kind, component)
    if cls is None:
        return component.about
    words = {name: str(getattr(cls, name, "")) for name in ("summary", "paper", "access", "reference")}
    return component.about.model_copy(update={**words, "baseline": bool(getattr(cls, "baseline", False))})


def changed(registry: Registry, track: Track, kind: str, component: ComponentRef) -> dict[str, Any]:
    """The options that are not the track's."""
    if component.distribution != HOST and component.about != About():
        asked = component.about.changed
        return {key: value for key, value in component.options.items() if key in asked}
    return changed_options(registry, track, kind, component)


def is_baseline(registry: Registry, record: Record) -> bool:
    """Whether others are compared with its defense."""
    return about(registry, "defense", record.defense).baseline


def reference_kind(registry: Registry, record: Record) -> str:
    """What kind of reference its attack is, ``floor`` say; empty for a real attack."""
    return about(registry, "attack", record.attack).reference


def reports(registry: Registry, records: Iterable[Record]) -> dict[str, Quantity]:
    """The quantities that the defenses of ``records`` report of their training."""
    defenses = {record.defense.name: record.defense for record in records}
    found: dict[str, Quantity] = {}
    for _, defense in sorted(defenses.items()):
        if cls := _class_of(registry, "defense", defense):
            found = {**found, **cls.reports}
    return found


def completed(registry: Registry, record: Record) -> Record:
    """The record with options that its components got later, at their defaults.

    A new option whose default keeps the old behaviour leaves the component's version as it is; rows from
    before and after must meet in one table.
    """
    changes = {}
    for kind in CELL_KINDS:
        component: ComponentRef = getattr(record, kind)
        try:
            entry = registry.get(kind, component.name)
            if entry.identity()["version"] == component.version:
                options = entry.load().Options(**component.options)
                complete = options.model_dump(mode="json", exclude=set(options.places))
                changes[kind] = component.model_copy(update={"options": complete})
        except (MiaBenchError, ValueError):
            continue  # not installed, or not as it was: the record speaks for itself
    return record.model_copy(update=changes)
