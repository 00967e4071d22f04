"""Results for people and for programs: a data frame, or a table, JSON or CSV. Imports no torch."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.components import track_options
from mia_bench.errors import MiaBenchError, UsageError, did_you_mean
from mia_bench.plugins import host
from mia_bench.record import ComponentRef, MetricValue, Record, TrackRef, read_record
from mia_bench.registry import Registry
from mia_bench.track import Track, load_track

if TYPE_CHECKING:
    import pandas as pd

METRIC_ORDER = (
    "test_accuracy",
    "train_accuracy",
    "validation_accuracy",
    "ece",
    "attack_acc1",
    "attack_acc5",
    "target_confidence",
    "delta_eval",
    "delta_face",
    "fid",
    "precision",
    "recall",
    "density",
    "coverage",
    "knowledge_extraction_train",
    "knowledge_extraction_test",
    "id_acc1",
    "id_acc5",
    "id_gallery_acc1",
    "id_median_rank",
    "epsilon",
)
"""The order of metrics in tables; others follow by name."""

FORMATS = ("table", "json", "csv", "markdown")

_CELL_COLUMNS = (
    "track",
    "track_version",
    "defense",
    "defense_options",
    "prior",
    "attack",
    "attack_options",
    "seed",
    "status",
    "reason",
    "key",
)
_COUNTS = ("peak_memory_bytes", "target_queries")
_COST_COLUMNS = ("train_seconds", "invert_seconds", *_COUNTS)
_TABLE_METRICS = ("test_accuracy", "attack_acc1", "id_acc1", "id_gallery_acc1", "id_median_rank")
_NONE = "–"


# --- options in words ------------------------------------------------------------------------


def option_text(value: Any) -> str:
    """An option's value as it is written after ``-o PLUGIN.KEY=``."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def options_text(options: Mapping[str, Any]) -> str:
    """``key=value, …`` sorted by key; empty without options."""
    return ", ".join(f"{key}={option_text(options[key])}" for key in sorted(options))


def changed_options(
    registry: Registry, track: Track | None, kind: str, component: ComponentRef
) -> dict[str, Any]:
    """The options that differ from the track's defaults; all of them where those are not known.

    Args:
        registry: where the component's class is looked up.
        track: the protocol the record was made under, or None when it is not known any more.
        kind: ``defense``, ``attack`` or ``prior``.
        component: as the record has it.
    """
    if track is None:
        return component.options
    try:
        cls = registry.get(kind, component.name).load()
        given = cls.Options(**track_options(track, kind, component.name))
        # JSON on both sides: a record's lists are the class's tuples.
        defaults: dict[str, Any] = given.model_dump(mode="json")
    except (MiaBenchError, ValueError):
        return component.options
    return {
        key: value
        for key, value in component.options.items()
        if key not in defaults or defaults[key] != value
    }


def find_track(registry: Registry, reference: TrackRef) -> Track | None:
    """The track a record names, or None when it, or that version of it, is not known any more."""
    try:
        track = load_track(registry, reference.name)
    except MiaBenchError:
        return None
    return track if track.version == reference.version else None


# --- reading ---------------------------------------------------------------------------------


def read_store(store: str | Path | None = None, track: str | None = None) -> list[Record]:
    """The valid records of a store, oldest first; damaged ones are passed over with a warning.

    Raises:
        UsageError: the store was given and is not there, or the track is known neither to the
            store nor to any plugin.
    """
    from mia_bench.engine.run import load_records
    from mia_bench.paths import default_store

    root = Path(store) if store is not None else default_store()
    if root.is_dir():
        records = load_records(root, track)
    elif store is not None:
        raise UsageError(f"there is no store at {root}")
    else:
        records = []
    if track is not None and not records:
        known = host().registry.names("track")
        if track not in known:
            raise UsageError(f"unknown track {track!r}; {did_you_mean(track, known)}")
    return records


def load_results(store: str | Path | None = None, track: str | None = None) -> pd.DataFrame:
    """The records of a store as a data frame, one row a cell.

    Columns: track, track_version, defense, defense_options, prior, attack, attack_options, seed,
    status, reason, key; ``NAME``, ``NAME_low`` and ``NAME_high`` of every metric (NaN where it was
    not computed); train_seconds, invert_seconds, peak_memory_bytes, target_queries.

    Args:
        store: folder of the store; the default one unless given.
        track: only this track's records.

    Raises:
        UsageError: the store or the track is not there.
    """
    import pandas as pd

    columns, rows = result_rows(read_store(store, track))
    frame = pd.DataFrame(rows, columns=columns)
    numbers = columns[len(_CELL_COLUMNS) :]
    types = {name: "Int64" if name in _COUNTS else "float64" for name in numbers}
    return frame.astype({"track_version": "int64", "seed": "int64", **types})


def metric_names(records: Sequence[Record]) -> list[str]:
    """The names of all metrics in ``records``: the usual ones in their order, then others by name."""
    found = {name for record in records for name in record.metrics}
    usual = [name for name in METRIC_ORDER if name in found]
    return usual + sorted(found.difference(METRIC_ORDER))


def result_rows(records: Sequence[Record]) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of :func:`load_results`, and one mapping a record."""
    names = metric_names(records)
    columns = list(_CELL_COLUMNS)
    for name in names:
        columns += [name, f"{name}_low", f"{name}_high"]
    return [*columns, *_COST_COLUMNS], [_result_row(record, names) for record in records]


def _result_row(record: Record, names: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "track": record.track.name,
        "track_version": record.track.version,
        "defense": record.defense.name,
        "defense_options": options_text(record.defense.options),
        "prior": record.prior.name,
        "attack": record.attack.name,
        "attack_options": options_text(record.attack.options),
        "seed": record.seed,
        "status": record.status,
        "reason": record.reason,
        "key": record.key,
    }
    for name in names:
        metric = record.metrics.get(name)
        row[name] = metric.value if metric else None
        row[f"{name}_low"] = metric.low if metric else None
        row[f"{name}_high"] = metric.high if metric else None
    return {**row, **record.cost.model_dump()}


# --- writing ---------------------------------------------------------------------------------


def results_table(records: list[dict[str, Any]], format: str = "table") -> str:
    """Records as text.

    Args:
        records: JSON objects as the store and :func:`mia_bench.run` give them.
        format: ``table`` and ``markdown`` for people, ``csv`` with the columns of
            :func:`load_results`, ``json`` for the records themselves.

    Raises:
        UsageError: no such format.
    """
    if format not in FORMATS:
        raise UsageError(f"no format {format!r}; {did_you_mean(format, FORMATS)}")
    if format == "json":
        return json.dumps(records, indent=1, sort_keys=True, ensure_ascii=False)
    checked = [read_record(record) for record in records]
    if format == "csv":
        return _csv(checked)
    from tabulate import tabulate

    style = "github" if format == "markdown" else "simple"
    rows = _people_rows(checked)
    if format == "markdown":
        rows = [{k.replace("|", "\\|"): v.replace("|", "\\|") for k, v in r.items()} for r in rows]
    return tabulate(rows, headers="keys", tablefmt=style, disable_numparse=True)


def _csv(records: Sequence[Record]) -> str:
    columns, rows = result_rows(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().removesuffix("\n")


def _people_rows(records: Sequence[Record]) -> list[dict[str, str]]:
    registry = host().registry
    references = {(r.track.name, r.track.version): r.track for r in records}
    tracks = {key: find_track(registry, reference) for key, reference in references.items()}
    several = len({record.track.name for record in records}) > 1
    unfinished = any(record.reason for record in records)
    present = set(metric_names(records))
    versions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        for kind in ("defense", "attack", "prior"):
            versions[kind, getattr(record, kind).name].add(getattr(record, kind).version)
    rows = []
    for record in records:
        track = tracks[record.track.name, record.track.version]

        def words(kind: str, component: ComponentRef, track: Track | None = track) -> str:
            changed = changed_options(registry, track, kind, component)
            told = [options_text(changed)] if changed else []
            if len(versions[kind, component.name]) > 1:
                told.append(f"version {component.version}")
            return component.name + (f" ({', '.join(told)})" if told else "")

        row = {"cell": record.key[:8]}
        if several:
            row["track"] = record.track.name
        row |= {
            "defense": words("defense", record.defense),
            "attack": words("attack", record.attack),
            "prior": words("prior", record.prior),
            "seed": str(record.seed),
            "status": record.status,
        }
        for name in _TABLE_METRICS:
            if name in present:
                row[name] = short_interval(name, record.metrics.get(name))
        if unfinished:
            row["reason"] = " ".join((record.reason or "").split())
        rows.append(row)
    return rows


def short_interval(name: str, metric: MetricValue | None) -> str:
    """``0.46 [0.41, 0.52]``; ranks with one decimal; a dash where there is no value."""
    if metric is None:
        return _NONE
    form = ".1f" if name.endswith("_rank") else ".2f"
    return f"{metric.value:{form}} [{metric.low:{form}}, {metric.high:{form}}]"
