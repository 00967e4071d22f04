"""Writes every finished cell for TensorBoard: metrics with their intervals, costs, the picture.

One run a cell, in ``TRACK/DEFENSE-ATTACK-PRIOR-seedN-KEY`` below the folder that
``MIA_BENCH_TENSORBOARD`` names, or below ``tensorboard`` in the store. Scalars: ``METRIC/value``,
``METRIC/low`` and ``METRIC/high`` (95 % interval), ``cost/NAME`` (seconds, bytes, queries); images:
``picture``. A metric that could not be computed is left out, its reason is in the text ``notes``.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from mia_bench import hookimpl, lazy_imports
from mia_bench.cell import FinishedCell
from mia_bench.pictures import cell_picture

with lazy_imports():
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto


VARIABLE = "MIA_BENCH_TENSORBOARD"
"""Names the folder."""


def run_folder(cell: FinishedCell) -> Path:
    """Where the events of a cell lie; the same whenever it is computed."""
    given = os.environ.get(VARIABLE)
    root = Path(given).expanduser() if given else cell.store.root / "tensorboard"
    record = cell.record
    parts = [record[kind]["name"] for kind in ("defense", "attack", "prior")]
    name = "-".join([*parts, f"seed{record['seed']}", cell.key])
    return root / _plain(record["track"]["name"]) / _plain(name)


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Tag and value of all numbers of a record."""
    for name, metric in record["metrics"].items():
        if metric is not None:
            for part in ("value", "low", "high"):
                yield f"{name}/{part}", metric[part]
    for name, value in record["cost"].items():
        if value is not None:
            yield f"cost/{name}", value


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


@hookimpl
def mia_bench_cell_finished(cell: FinishedCell) -> None:
    """Write a done cell; what an earlier run of it left goes, whatever became of this one."""
    folder = run_folder(cell)
    for stale in folder.glob("events.out.tfevents.*"):
        stale.unlink()
    if cell.record["status"] != "done":
        return
    summary = _summary(cell)
    writer = EventFileWriter(str(folder))
    try:
        writer.add_event(Event(step=0, wall_time=_finished(cell.record), summary=summary))
    finally:
        writer.close()


def _finished(record: dict[str, Any]) -> float:
    """When the cell was finished, in seconds since 1970."""
    return datetime.fromisoformat(record["provenance"]["finished"]).timestamp()


def _summary(cell: FinishedCell) -> Any:
    """The protocol buffer with everything."""
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(cell.record)]
    picture = cell_picture(cell)
    png = io.BytesIO()
    picture.save(png, format="PNG")
    image = Summary.Image(
        width=picture.width,
        height=picture.height,
        colorspace=3,
        encoded_image_string=png.getvalue(),
    )
    values.append(Summary.Value(tag="picture", image=image))
    if cell.record["notes"]:
        values.append(_notes(cell.record["notes"]))
    return Summary(value=values)


def _notes(notes: dict[str, str]) -> Any:
    """The notes of a record as a text."""
    lines = "\n".join(f"- {name}: {text}" for name, text in notes.items())
    return Summary.Value(
        tag="notes",
        metadata=create_summary_metadata("notes", ""),
        tensor=make_tensor_proto([lines.encode()]),
    )
