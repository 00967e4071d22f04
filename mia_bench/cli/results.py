"""``mia-bench results``: what a store holds."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.shared import store_option


@click.command(name="results")
@click.option("--track", metavar="NAME", help="Only this track's records.")
@store_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="A table for people, or all columns for programs.",
)
def command(track: str | None, store: Path | None, form: str) -> None:
    """Show the records of a store."""
    from mia_bench.results import read_store, results_table

    records = read_store(store, track)
    if not records:
        click.echo("no records yet; 'mia-bench run' makes some", err=True)
    if records or form != "table":
        click.echo(results_table(records, form))
