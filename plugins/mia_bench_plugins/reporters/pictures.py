"""Write the picture of every finished cell into the store's ``pictures`` folder."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mia_bench import hookimpl
from mia_bench.cell import FinishedCell
from mia_bench.errors import CorruptArtifact
from mia_bench.pictures import is_whole, save_picture


@hookimpl
def mia_bench_cell_finished(cell: FinishedCell) -> None:
    if cell.record.status == "done":
        save_picture(cell, _path(cell))


@hookimpl
def mia_bench_cell_cached(cell: FinishedCell) -> None:
    """Write the picture again where it is missing or broken, unless what it shows was deleted."""
    if cell.record.status == "done" and not is_whole(_path(cell)):
        with contextlib.suppress(CorruptArtifact):
            save_picture(cell, _path(cell))


def _path(cell: FinishedCell) -> Path:
    return cell.pictures / f"{cell.key}.png"
