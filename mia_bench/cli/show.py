"""``mia-bench show CELL``."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cell import FinishedCell
from mia_bench.cli.shared import Integer, PathType, open_store, store_option, writing
from mia_bench.errors import CorruptArtifact, StoreError, UsageError
from mia_bench.pictures import cell_picture


@click.command("show")
@click.argument("cell")
@click.option("--output", type=PathType(output=True), help="PNG file.  [default: CELL.png]")
@click.option("--rows", type=Integer(1), default=12, show_default=True, help="Classes shown.")
@store_option
def command(cell: str, output: Path | None, rows: int, store: Path | None) -> None:
    """Write the picture of CELL (the beginning of a cell's key, as tables show it).

    Left: private training images. Right: reconstructions, best first, with the target's confidence
    and whether the evaluation model recognises the class.
    """
    opened = open_store(store)
    records = opened.records()
    found = [record for record in records if record.key.startswith(cell)]
    if not found:
        raise UsageError(
            f"no cell's key begins with {cell!r}; "
            + (f"{len(records)} cells: see mia-bench results" if records else "the store is empty")
        )
    if len(found) > 1:
        keys = ", ".join(record.key[:12] for record in found[:5])
        raise UsageError(f"{len(found)} cells' keys begin with {cell!r}: {keys}")
    (record,) = found
    if record.status != "done":
        raise UsageError(f"cell {record.key[:8]} is {record.status}: {record.reason}")
    path = output or Path(f"{record.key[:8]}.png")
    try:
        picture = cell_picture(FinishedCell(record, opened), rows)
    except CorruptArtifact as error:
        raise StoreError(f"{error}; mia-bench run --rerun always makes it again") from error
    with writing(path):
        picture.save(path, format="PNG")
    click.echo(str(path))
