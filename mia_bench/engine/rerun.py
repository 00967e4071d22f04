"""A cell of a record, run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mia_bench.config import load_config
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.run import Prepared, execute, prepare
from mia_bench.errors import MiaBenchError
from mia_bench.plugins import host
from mia_bench.record import Record
from mia_bench.recorded_options import data_options, run_options
from mia_bench.track import load_track, precisions

OTHER = "it is another cell now: its data, or the versions of the track or its components, have changed"


def run_again(record: Record, where: Mapping[str, Any], display: ProgressDisplay | None = None) -> Record:
    """Compute the cell's own stages anew; what the whole track shares is taken from the store.

    Args:
        record: of the cell.
        where: keys of :class:`mia_bench.config.RunConfig` that say where: store, data, weights, device, jobs.
        display: shows the progress.

    Raises:
        MiaBenchError: it fails, or is another cell now.
        Interrupted: stopped by the user.
    """
    prepared = prepare_again(record, {"rerun": "always", **where})
    found = {planned.key: planned for planned in prepared.cells}
    if record.key not in found:
        raise MiaBenchError("; ".join(prepared.left_out) or OTHER)
    prepared.cells = [found[record.key]]
    (again,) = execute(prepared, display)
    if again.status != "done":
        raise MiaBenchError(again.reason or again.status)
    return again


def prepare_again(record: Record, where: Mapping[str, Any]) -> Prepared:
    """The cell of a record as it would be run today, planned; arguments as of :func:`run_again`.

    It is in the precision that gives the record's key; in the track's where none does.

    Raises:
        MiaBenchError: it can't be run.
    """
    if record.defense.about.own_model:
        raise MiaBenchError("its target was not trained here but is a model of somebody's own")
    registry = host().registry
    track = load_track(registry, record.track.name)
    options = data_options(registry, track, record)
    for kind, part in record.components.items():
        options |= run_options(registry, track, kind, part)
    cell = {kind: [part.name] for kind, part in record.components.items()}
    given = {"track": track.name, **cell, "seed": [record.seed], "options": options, **where}
    found = []
    for precision in precisions(track):
        found.append(prepare(load_config({**given, "precision": precision}), record.track.variant))
        if record.key in [planned.key for planned in found[-1].cells]:
            return found[-1]
    return found[0]
