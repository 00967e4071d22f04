"""``mia-bench export CELL [FILE]``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mia_bench.cli.shared import PathType, complete_key, config_options, open_store, writing
from mia_bench.config import load_config
from mia_bench.engine.export import export_target
from mia_bench.errors import UsageError
from mia_bench.terminal import say


@click.command("export")
@click.argument("cell")
@click.argument("file", required=False, type=PathType(output=True, dir_okay=False))
@config_options("store", "data", "weights")
def command(cell: str, file: Path | None, **where: Any) -> None:
    """Write the trained target of CELL to FILE, as safetensors, with a model card.

    CELL is the beginning of a cell's key, as tables show it. FILE is DEFENSE-CELL.safetensors unless given;
    the card is in its header, and as Markdown beside it. 'mia-bench run --target FILE' attacks it, with the
    same numbers, and mia_bench.load_target(FILE) is the model in Python.
    """
    opened = open_store(load_config({"store": where["store"]}).store)
    records = {record.key: record for record in opened.records()}
    record = records[complete_key(cell, records, "cell", "mia-bench results")]
    path = file or Path(f"{record.defense.name}-{record.key[:8]}.safetensors")
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} must end in .safetensors")
    given = {name: value for name, value in where.items() if value is not None}
    with writing(path, remake="mia-bench run --rerun always"):
        for written in export_target(record, opened, {**given, "store": opened.root}, path):
            say(written)
