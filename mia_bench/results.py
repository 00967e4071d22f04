"""Results for people and for programs: a data frame, or a table, JSON or CSV. Imports no torch."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from etils.epy import lazy_imports

from mia_bench.api.metric import Metric, Quantity
from mia_bench.errors import MiaBenchError, UsageError, did_you_mean
from mia_bench.names import COMPONENT
from mia_bench.paths import default_store, expand_path
from mia_bench.plugins import host
from mia_bench.record import Cost, MetricValue, Record
from mia_bench.recorded_options import changed_options, options_text
from mia_bench.store import Store
from mia_bench.terminal import table
from mia_bench.text import lines, prose
from mia_bench.track import Track, fold_of, load_track

with lazy_imports():
    import pandas as pd

FORMATS = ("table", "json", "csv", "markdown")

_CELL_COLUMNS: dict[str, Callable[[Record], Any]] = {
    "track": attrgetter("track.name"),
    "track_version": attrgetter("track.version"),
    "variant": attrgetter("track.variant"),
    "defense": attrgetter("defense.name"),
    "defense_options": lambda record: options_text(record.defense.options),
    "prior": attrgetter("prior.name"),
    "attack": attrgetter("attack.name"),
    "attack_options": lambda record: options_text(record.attack.options),
    "seed": attrgetter("seed"),
    "status": attrgetter("status"),
    "reason": attrgetter("reason"),
    "key": attrgetter("key"),
}
_COUNTS = ("peak_memory_bytes", "target_queries")


def read_store(
    store: str | Path | None = None, track: str | None = None, *, strict: bool = False
) -> list[Record]:
    """The records of a store, oldest first.

    Args:
        store: folder of the store; the default one unless given.
        track: only this track's records.
        strict: raise instead of leaving out invalid records with a warning.

    Raises:
        UsageError: the store was given and is not there, or the track is known neither to the
            store nor to any plugin.
        MiaBenchError: a record is not valid.
    """
    root = expand_path(store) if store is not None else default_store()
    if store is not None and not root.is_dir():
        raise UsageError(f"there is no store at {root}")
    named = track is None or COMPONENT.matches(track)  # it becomes the name of a folder
    records = Store(root, make=False).records(track, strict=strict) if named and root.is_dir() else []
    if track is not None and not records and track not in (known := host().registry.names("track")):
        raise UsageError(f"unknown track {track!r}; {did_you_mean(track, known)}")
    return records


def load_results(store: str | Path | None = None, track: str | None = None) -> pd.DataFrame:
    """The records of a store as a data frame, one row a cell.

    Columns: track, track_version, defense, defense_options, prior, attack, attack_options, seed,
    status, reason, key; ``NAME``, ``NAME_low`` and ``NAME_high`` of every metric (NaN where it was
    not computed or has no interval); train_seconds, invert_seconds, peak_memory_bytes, target_queries.

    Args:
        store: folder of the store; the default one unless given.
        track: only this track's records.

    Raises:
        UsageError: the store or the track is not there.
    """
    return _frame(read_store(store, track))


def _frame(records: Sequence[Record]) -> pd.DataFrame:
    names = _quantities(_tracks(records).values(), records)
    costs = tuple(Cost.model_fields)
    metrics = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    rows = []
    for record in records:
        row = [read(record) for read in _CELL_COLUMNS.values()]
        for name, quantity in names.items():
            found = record.metrics.get(name)
            ends = [found.low, found.high] if found and quantity.interval else [None, None]
            row += [found.value if found else None, *ends]
        rows.append([*row, *(getattr(record.cost, name) for name in costs)])
    types = {name: "Int64" if name in _COUNTS else "float64" for name in (*metrics, *costs)}
    frame = pd.DataFrame(rows, columns=[*_CELL_COLUMNS, *types])
    return frame.astype({"track_version": "int64", "seed": "int64", **types})


def _tracks(records: Iterable[Record]) -> dict[tuple[str, int], Track | None]:
    """The tracks of the records by name and version; None where that version is not known any more."""
    found: dict[tuple[str, int], Track | None] = {}
    for name, version in dict.fromkeys((record.track.name, record.track.version) for record in records):
        found[name, version] = None
        with contextlib.suppress(MiaBenchError):
            track = load_track(host().registry, name)
            found[name, version] = track if track.version == version else None
    return found


def _quantities(tracks: Iterable[Track | None], records: Iterable[Record]) -> dict[str, Quantity]:
    """What the records hold: in the order of the tracks' metrics, of other installed ones, then the rest."""
    registry = host().registry
    names = [name for track in tracks if track for name in track.metrics]
    known: dict[str, Quantity] = {}
    for name in dict.fromkeys([*names, *registry.names("metric")]):
        with contextlib.suppress(MiaBenchError):  # not installed or broken: nothing is known of its numbers
            metric: type[Metric] = registry.get("metric", name).load()
            known |= {n: quantity for n, quantity in metric.quantities.items() if n not in known}
    present = {name for record in records for name in record.metrics}
    unknown = dict.fromkeys(sorted(present - known.keys()), Quantity(""))
    return {name: quantity for name, quantity in (known | unknown).items() if name in present}


def results_table(records: Sequence[Record], format: str = "table") -> str:
    """Records as text.

    Args:
        records: of a store or of a run.
        format: ``table`` and ``markdown`` for people, ``csv`` with the columns of
            :func:`load_results`, ``json`` for the records themselves.

    Raises:
        UsageError: no such format.
    """
    if format not in FORMATS:
        raise UsageError(f"no format {format!r}; {did_you_mean(format, FORMATS)}")
    if format == "json":
        objects = [record.to_json() for record in records]
        return json.dumps(objects, indent=1, sort_keys=True)  # ASCII: right in any encoding
    if format == "csv":
        frame = _frame(records)
        for name, kind in frame.dtypes.items():
            if kind not in ("int64", "Int64", "float64"):
                frame[name] = frame[name].map(_spreadsheet_text, na_action="ignore")
        frame = frame.rename(columns=_spreadsheet_text)
        return str(frame.to_csv(index=False, lineterminator="\n")).removesuffix("\n")
    rows = _table_rows(records)
    note = f"\n\n{ONE_SEED}" if any(cell.endswith("]") for row in rows for cell in row.values()) else ""
    return text_table(rows, format) + note


def text_table(rows: Sequence[dict[str, str]], format: str = "table") -> str:
    """Rows as a ``table`` for terminals or for ``markdown``."""
    if format == "markdown":
        rows = [{_markdown(name): _markdown(cell) for name, cell in row.items()} for row in rows]
        return table(rows, style="github")
    return table(rows)


ONE_SEED = "A row is one seed: its intervals are for other classes only, not for another training."

_PLAIN = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*|[0-9.e+-]+ \[[0-9.e+-]+, [0-9.e+-]+\]")
"""Names and intervals, which Markdown shows as they are."""


def _markdown(text: str) -> str:
    """``text`` for a cell of a Markdown table."""
    return text if _PLAIN.fullmatch(text) else str(prose(text)).replace("&#124;", "\\|")


def _spreadsheet_text(text: str) -> str:
    """``text`` so that a spreadsheet shows it instead of computing it."""
    shown = lines(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def doubts(records: Sequence[Record]) -> list[str]:
    """Why what judged the reconstructions may be unfit: a line for each reason, for people."""
    quantities = _quantities(_tracks(records).values(), records)
    several = len({record.track.name for record in records}) > 1
    found: dict[str, None] = {}
    for record in records:
        lines = [quantities[name].doubt(name, one.value) for name, one in record.metrics.items() if one]
        who = f"{record.track.name}: " if several else ""
        found |= dict.fromkeys(who + line for line in (*lines, record.notes.get("gallery", "")) if line)
    return list(found)


FAR_BELOW = 0.2
"""How much less accurate than the undefended target a model of the user's own is before it is warned of."""


def own_model_doubts(
    records: Sequence[Record], others: Iterable[Record] = (), published: Mapping[str, float] | None = None
) -> list[str]:
    """Why models of the user's own may have been read wrongly: a line for each that is far from accurate.

    They are compared with undefended targets of the same data in ``records`` and ``others``, else with what
    boards say by track, else with answers at random.
    """
    own = {r.key: r for r in records if r.defense.about.own_model and r.status == "done"}
    if not own:
        return []
    every = {record.key: record for record in (*others, *records)}.values()
    quantities = _quantities(_tracks(own.values()).values(), list(own.values()))
    accuracy = [n for n, q in quantities.items() if q.role == "utility" and q.better == "higher" and q.paired]
    found: dict[str, None] = {}
    for record, name in itertools.product(own.values(), accuracy[:1]):
        value, classes = record.metrics.get(name), len(record.per_class.get(name, ()))
        undefended = [
            metric.value
            for other in every
            if (other.track.name, other.track.version, other.track.data)
            == (record.track.name, record.track.version, record.track.data)
            and other.defense.about.baseline
            and not (other.defense.about.changed or other.track.variant)
            and (metric := other.metrics.get(name))
        ]
        usual = fmean(undefended) if undefended else (published or {}).get(record.track.name)
        if value is None or (value.value >= usual - FAR_BELOW if usual else value.value * classes >= 2):
            continue
        than = f"the {usual:.2f} of an undefended target" if usual else f"answers at random, 1 of {classes}"
        found[
            f"{record.defense.name}: {name} is {value.value:.2f}, {'far below' if usual else 'little above'} "
            f"{than}: are its classes in the track's order, and its images normalised as in its training "
            "(--mean, --std)?"
        ] = None
    return list(found)


def _table_rows(records: Sequence[Record]) -> list[dict[str, str]]:
    """One row a cell: the utility that is better the higher, and what orders the rows of the track's board.

    Of a track that says nothing of the order, or is not known any more, what boards compare class by class.
    """
    tracks = _tracks(records)
    known = [track for track in tracks.values() if track]
    ranked = {name for track in known for name in track.ranked_by}
    compared = len(known) < len(tracks) or not all(track.ranked_by for track in known)
    folded = any(fold_of(record.track.variant) for record in records)
    shown = {
        name: quantity
        for name, quantity in _quantities(tracks.values(), records).items()
        if name in ranked
        or (quantity.paired and compared)
        or (quantity.role == "utility" and quantity.better == "higher")
        or (quantity.role == "selection" and folded)
    }
    several = len(tracks) > 1
    again = len({name for name, _ in tracks}) < len(tracks)  # of one track several versions
    varied = any(record.track.variant for record in records)
    unfinished = any(record.reason for record in records)
    versions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        for kind, component in record.components.items():
            versions[kind, component.name].add(component.version)
    rows = []
    for record in records:
        track = tracks[record.track.name, record.track.version]
        row = {"cell": record.key[:8]}
        if several:
            row["track"] = (
                f"{record.track.name}, version {record.track.version}" if again else record.track.name
            )
        if varied:
            row["variant"] = record.track.variant
        for kind, component in record.components.items():
            changed = changed_options(host().registry, track, kind, component)
            words = [options_text(changed)] if changed else []
            if len(versions[kind, component.name]) > 1:
                words.append(f"version {component.version}")
            row[kind] = component.name + (f" ({', '.join(words)})" if words else "")
        row |= {"seed": str(record.seed), "status": record.status}
        for name, quantity in shown.items():
            row[name] = _interval(quantity, record.metrics.get(name))
            if ceiling := record.metrics.get(quantity.ceiling):
                row[name] += f" (ceiling {_number(quantity, ceiling.value)})"
        if unfinished:
            row["reason"] = " ".join((record.reason or "").split())
        rows.append(row)
    return rows


def _interval(quantity: Quantity, metric: MetricValue | None) -> str:
    """``0.46 [0.41, 0.52]``, the value alone where it has no interval, a dash where there is no value."""
    if metric is None:
        return "–"
    value, *ends = (
        _number(quantity, number) for number in (metric.value, metric.low, metric.high) if number is not None
    )
    return f"{value} [{', '.join(ends)}]" if ends and quantity.interval else value


def _number(quantity: Quantity, value: float) -> str:
    return f"{value:.2f}" if quantity.kind == "share" else quantity.format(value)
