"""What components say of themselves: third-party ones by their records, built-in ones as installed.

So a page is the same wherever it is built, with a third party's plugin installed or without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mia_bench.api.component import Component
from mia_bench.api.metric import Metric, Quantity, Recorded
from mia_bench.api.options import Options
from mia_bench.errors import MiaBenchError
from mia_bench.provenance import HOST
from mia_bench.record import About, ComponentRef, Record
from mia_bench.recorded_options import changed_options, said_of_itself
from mia_bench.registry import Registry
from mia_bench.track import Track

UNDECLARED = Quantity("reported by the defense")
"""What is said of a number that no metric of the track and no built-in defense declares."""


def describe(registry: Registry, track: Track, records: Iterable[Record]) -> Iterator[Record]:
    """The records with every option of their components, and with all that these say of themselves.

    After this, ``about`` can be read without asking what is installed.
    """
    known: dict[tuple[str, str], ComponentRef] = {}
    for record in records:
        parts = {}
        for kind, part in record.components.items():
            key = kind, repr(part)
            if key not in known:
                known[key] = _describe(registry, track, kind, part)
            parts[kind] = known[key]
        yield record.model_copy(update=parts)


def _describe(registry: Registry, track: Track, kind: str, component: ComponentRef) -> ComponentRef:
    completed = component.model_copy(update={"options": _all_options(registry, kind, component)})
    if _speaks_for_itself(component):
        return completed
    changed = changed_options(registry, track, kind, completed)
    found: dict[str, Any] = {"changed": list(changed)}
    if component.name in registry.names(kind):
        cls = registry.get(kind, component.name).load()
        found = said_of_itself(cls, changed, _parsed(cls, completed.options), component.name)
    return completed.model_copy(update={"about": component.about.model_copy(update=found)})


def _parsed(component: type[Component], options: dict[str, Any]) -> Options | None:
    """The options, None where today's component does not take them."""
    try:
        return component.Options(**options)
    except (MiaBenchError, ValueError):
        return None


def _all_options(registry: Registry, kind: str, component: ComponentRef) -> dict[str, Any]:
    """The options, with those that the component got after the record was made at their defaults.

    A new option whose default keeps the old behaviour leaves the version as it is, and rows from before
    and after must meet in one table.
    """
    try:
        entry = registry.get(kind, component.name)
        if entry.identity()["version"] == component.version:
            options = entry.load().Options(**component.options)
            complete: dict[str, Any] = options.model_dump(mode="json", exclude=set(options.places))
            return complete
    except (MiaBenchError, ValueError):
        pass  # not installed, or its options are others now
    return component.options


def _speaks_for_itself(component: ComponentRef) -> bool:
    """Whether its record is asked: that of a third party, unless it says nothing, and of own models."""
    return bool(component.about.own_model) or (component.distribution != HOST and component.about != About())


def declared(registry: Registry, track: Track) -> dict[str, Quantity]:
    """The quantities of the track's metrics, in their order."""
    metrics = [registry.get("metric", name).load() for name in track.metrics]
    return {name: quantity for metric in metrics for name, quantity in metric.quantities.items()}


def contradictions(registry: Registry, track: Track, record: Record) -> Iterator[str]:
    """What the track's metrics say can't be true together of a record's numbers."""
    values = {name: metric.value for name, metric in record.metrics.items() if metric}
    recorded = Recorded(values, record.per_class, record.per_image)
    for name in track.metrics:
        metric: type[Metric] = registry.get("metric", name).load()
        yield from metric.contradictions(recorded)


def known_quantities(registry: Registry, track: Track, records: Iterable[Record]) -> dict[str, Quantity]:
    """What is known of the numbers in ``records`` (as stored); those that the metrics declare come first."""
    return {**reports(registry, records), **declared(registry, track)}


def reports(registry: Registry, records: Iterable[Record]) -> dict[str, Quantity]:
    """The quantities that the defenses of ``records`` (as stored) report of their training."""
    defenses = {record.defense.name: record.defense for record in records}
    found: dict[str, Quantity] = {}
    for name in sorted(defenses.keys() & set(registry.names("defense"))):
        if not _speaks_for_itself(defenses[name]):
            found |= registry.get("defense", name).load().reports
    return found
