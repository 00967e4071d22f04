"""``mia-bench results``: what a store holds."""

from __future__ import annotations

from pathlib import Path

import click

from mia_bench.cli.answers import repeatable
from mia_bench.cli.shared import records_option, store_option, uncollected
from mia_bench.leaderboard.overview import Overview, overview_rows, overviews
from mia_bench.plugins import host
from mia_bench.results import doubts, read_store, results_table
from mia_bench.terminal import say, say_lines, table, warn


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
@uncollected()
def command(track: str | None, store: Path | None, format_: str) -> None:
    """Print the records of a store.

    First, for each track, a row for each defense: its accuracy, its leakage under the strongest attack found
    on it, and what follows from the differences to the undefended baseline. Then the cells.
    """
    repeatable()
    records = read_store(store, track)
    if not records:
        of_track = f" of {track}" if track else ""
        say(f"no records{of_track} yet; 'mia-bench run' makes some", err=True)
    if format_ == "table":
        for one in overviews([record for record in records if not record.track.variant], host().registry):
            _print_overview(one)
    if records or format_ != "table":
        say_lines(results_table(records, format_))
    warn(doubts(records) if format_ == "table" else ())


def _print_overview(one: Overview) -> None:
    if one.decided is None:
        say(f"note: no verdicts on {one.track}: {one.reason}", err=True)
        return
    here = one.decided.chosen_here
    labels = ", ".join(row.label for row in here)
    found = "under the one attack that was tried on it"
    if any(row.known for row in one.decided.rows):
        found = "under the attack that is strongest on it, as found on tuning seeds"
        found += f"; that of {labels} on these seeds, which overstates its leakage" if here else ""
    elif here:
        found = "under the attack that is strongest on these seeds, which overstates leakage"
    say(f"{one.track}: each row {found}")
    say_lines(table(overview_rows(one.decided)))
    say("")
