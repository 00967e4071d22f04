"""``mia-bench show CELL``."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cell import FinishedCell
from mia_bench.cli.shared import complete_key, open_store, output_option, store_option, writing
from mia_bench.errors import UsageError
from mia_bench.pictures import cell_picture, write_png
from mia_bench.terminal import say


@click.command("show")
@click.argument("cell")
@output_option("PNG file.  [default: CELL.png]")
@click.option(
    "--rows", type=click.IntRange(1), metavar="N", default=12, show_default=True, help="Classes shown."
)
@click.option(
    "--show-private", is_flag=True, help="Show private images beside the reconstructions even of real people."
)
@store_option
def command(cell: str, output: Path | None, rows: int, show_private: bool, store: Path | None) -> None:
    """Write the picture of CELL.

    CELL is the beginning of a cell's key, as tables show it. Left: private training images, unless they show
    people who exist. Right: reconstructions, best first, with the target's confidence and whether the
    evaluation model recognises the class.
    """
    opened = open_store(store)
    records = {record.key: record for record in opened.records()}
    record = records[complete_key(cell, records, "cell", "mia-bench results")]
    if record.status != "done":
        raise UsageError(f"cell {record.key[:8]} is {record.status}: {record.reason}")
    path = output or Path(f"{record.key[:8]}.png")
    with writing(path, remake="mia-bench run --rerun always"):
        picture = cell_picture(FinishedCell(record, opened), rows, private=show_private or None)
        write_png(picture, path)
    say(path)
