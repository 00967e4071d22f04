"""``mia-bench list``."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from mia_bench.plugins import describe_error, host
from mia_bench.registry import KINDS, Entry
from mia_bench.track import load_track

LISTED = ("defenses", "attacks", "tracks", "datasets", "priors", "metrics", "models", "encoders")


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(LISTED), metavar="[KIND]")
def command(kind: str | None) -> None:
    """List the components of a KIND, or of all kinds, with one line each.

    KIND is defenses, attacks, tracks, datasets, priors, metrics, models or encoders.
    """
    console = Console(width=None if Console().is_terminal else 120, markup=False)
    kinds = {plural: one for one, plural in KINDS.items()}
    for plural in [kind] if kind else LISTED:
        table = Table(title=plural, title_justify="left", title_style="bold", box=None, padding=(0, 2))
        table.add_column("name", style="cyan", no_wrap=True)
        table.add_column("what it is")
        table.add_column("from", style="dim", no_wrap=True)
        entries = host().registry.entries(kinds[plural])
        for row in sorted((*line, e.plugin.distribution) for e in entries for line in _lines(e).items()):
            table.add_row(*row)
        console.print(table)
        console.print()


def _lines(entry: Entry) -> dict[str, str]:
    """What a component is, by its name; a metric by its quantities. The error if it can't be loaded."""
    try:
        if entry.kind == "metric":
            quantities = entry.load().quantities
            return {name: f"{quantity.description} [{entry.name}]" for name, quantity in quantities.items()}
        if entry.kind == "track":
            track = load_track(host().registry, entry.name)
            return {entry.name: f"{track.summary} (version {track.version})"}
    except Exception as error:  # a plugin may raise anything
        return {entry.name: f"broken: {describe_error(error)}"}
    return {entry.name: entry.summary}
