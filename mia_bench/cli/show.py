"""``mia-bench show CELL``."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.shared import Integer, store_option
from mia_bench.errors import CorruptArtifact, StoreError, UsageError


@click.command(
    "show", short_help="Write a cell's picture: private examples beside reconstructions."
)
@click.argument("cell")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="PNG file.  [default: CELL.png]",
)
@click.option("--rows", type=Integer(1), default=12, show_default=True, help="Classes shown.")
@store_option
def command(cell: str, output: Path | None, rows: int, store: Path | None) -> None:
    """Write the picture of CELL (the beginning of a cell's key, as tables show it).

    Left: private training images. Right: reconstructions, best first, with the target's confidence
    and whether the evaluation model sees the class.
    """
    from mia_bench.cell import FinishedCell
    from mia_bench.paths import default_store
    from mia_bench.pictures import cell_picture
    from mia_bench.store import Store

    root = store or default_store()
    if not root.is_dir():
        raise UsageError(f"there is no store at {root}")
    opened = Store(root)
    records = opened.records()
    found = [record for record in records if record["key"].startswith(cell)]
    if not found:
        raise UsageError(
            f"no cell's key begins with {cell!r}; "
            + (f"{len(records)} cells: see mia-bench results" if records else "the store is empty")
        )
    if len(found) > 1:
        keys = ", ".join(record["key"][:12] for record in found[:5])
        raise UsageError(f"{len(found)} cells' keys begin with {cell!r}: {keys}")
    record = found[0]
    if record["status"] != "done":
        raise UsageError(f"cell {record['key'][:8]} is {record['status']}: {record['reason']}")
    path = output or Path(f"{record['key'][:8]}.png")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}")
    try:
        picture = cell_picture(FinishedCell(record, opened), rows)
    except CorruptArtifact as error:
        raise StoreError(f"{error}; mia-bench run --rerun always makes it again") from error
    try:
        picture.save(path, format="PNG")
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror or error}") from error
    click.echo(str(path))
