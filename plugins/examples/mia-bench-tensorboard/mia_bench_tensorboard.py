"""Write every finished cell for TensorBoard: metrics with their intervals, costs, the picture.

Each cell is a run in ``TRACK/DEFENSE-ATTACK-PRIOR-seedN-KEY`` below the folder in
``MIA_BENCH_TENSORBOARD``, or below ``tensorboard`` in the store. Scalars: ``METRIC/value``, ``METRIC/low``
and ``METRIC/high`` (95 % interval), ``cost/NAME`` (seconds, bytes, queries); images: ``picture``. Reasons
for missing metrics are in the text ``notes``.
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
from mia_bench.record import Record

with lazy_imports():
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.plugins.text import metadata
    from tensorboard.summary.writer import event_file_writer
    from tensorboard.util import tensor_util


VARIABLE = "MIA_BENCH_TENSORBOARD"
"""Environment variable with the folder."""


def run_folder(cell: FinishedCell) -> Path:
    """The folder for the events of a cell, the same whenever the cell is computed."""
    given = os.environ.get(VARIABLE)
    root = Path(given).expanduser() if given else cell.store.root / "tensorboard"
    record = cell.record
    parts = [record.defense.name, record.attack.name, record.prior.name]
    name = "-".join([*parts, f"seed{record.seed}", cell.key])
    return root / _plain(record.track.name) / _plain(name)


def scalars(record: Record) -> Iterator[tuple[str, float]]:
    """Yield tag and value of all numbers of a record."""
    for name, metric in record.metrics.items():
        if metric is not None:
            for part in ("value", "low", "high"):
                if (number := getattr(metric, part)) is not None:
                    yield f"{name}/{part}", number
    for name, value in record.cost:
        if value is not None:
            yield f"cost/{name}", value


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


@hookimpl
def mia_bench_cell_finished(cell: FinishedCell) -> None:
    """Write a done cell, and remove events of an earlier run of the cell in any case."""
    folder = run_folder(cell)
    for stale in folder.glob("events.out.tfevents.*"):
        stale.unlink()
    if cell.record.status != "done":
        return
    summary = _summary(cell)
    writer = event_file_writer.EventFileWriter(str(folder))
    try:
        writer.add_event(event_pb2.Event(step=0, wall_time=_finished(cell.record), summary=summary))
    finally:
        writer.close()


def _finished(record: Record) -> float:
    """The time when the cell was finished, in seconds since 1970."""
    return datetime.fromisoformat(record.provenance.finished).timestamp()


def _summary(cell: FinishedCell) -> Any:
    """The protocol buffer with scalars, picture and notes."""
    values = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(cell.record)]
    picture = cell_picture(cell)
    png = io.BytesIO()
    picture.save(png, format="PNG")
    image = summary_pb2.Summary.Image(
        width=picture.width,
        height=picture.height,
        colorspace=3,
        encoded_image_string=png.getvalue(),
    )
    values.append(summary_pb2.Summary.Value(tag="picture", image=image))
    if cell.record.notes:
        values.append(_notes(cell.record.notes))
    return summary_pb2.Summary(value=values)


def _notes(notes: dict[str, str]) -> Any:
    """The notes of a record as a text."""
    lines = "\n".join(f"- {name}: {text}" for name, text in notes.items())
    return summary_pb2.Summary.Value(
        tag="notes",
        metadata=metadata.create_summary_metadata("notes", ""),
        tensor=tensor_util.make_tensor_proto([lines.encode()]),
    )
