"""Write the picture of every finished cell into the store's ``pictures`` folder."""

from __future__ import annotations

from mia_bench import hookimpl
from mia_bench.cell import FinishedCell
from mia_bench.pictures import save_picture


@hookimpl
def mia_bench_cell_finished(cell: FinishedCell) -> None:
    if cell.record.status == "done":
        save_picture(cell, cell.pictures / f"{cell.key}.png")
