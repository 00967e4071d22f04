"""``mia-bench results``: what a store holds."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.shared import records_option, store_option
from mia_bench.results import doubts, read_store, results_table
from mia_bench.terminal import say, say_lines


@click.command("results")
@records_option
@store_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="A table for people, or all columns for programs.",
)
def command(track: str | None, store: Path | None, format_: str) -> None:
    """Print the records of a store."""
    records = read_store(store, track)
    if not records:
        say("no records yet; 'mia-bench run' makes some", err=True)
    if records or format_ != "table":
        say_lines(results_table(records, format_))
    for line in doubts(records) if format_ == "table" else ():
        say(f"warning: {line}", err=True)
