"""``mia-bench list``."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from mia_bench.plugins import describe_error, host
from mia_bench.registry import KINDS
from mia_bench.track import load_track

LISTED = ("defenses", "attacks", "tracks", "datasets", "priors", "metrics", "models", "encoders")


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(LISTED))
def command(kind: str | None) -> None:
    """List the components of a KIND, or of all kinds, with one line each."""
    console = Console(width=None if Console().is_terminal else 120)
    for plural in [kind] if kind else LISTED:
        table = Table(title=plural, title_justify="left", title_style="bold", box=None, padding=(0, 2))
        table.add_column("name", style="cyan", no_wrap=True)
        table.add_column("what it is")
        table.add_column("from", style="dim", no_wrap=True)
        for row in rows(plural):
            table.add_row(*row)
        console.print(table)
        console.print()


def rows(plural: str) -> list[tuple[str, str, str]]:
    """(name, summary, distribution) of every component of a kind; metrics by the names they give.

    What can't be loaded is listed with its error.
    """
    registry = host().registry
    kind = next(kind for kind, known in KINDS.items() if known == plural)
    found = []
    for entry in registry.entries(kind):
        owner = entry.plugin.distribution
        try:
            if kind == "metric":
                family = entry.load()
                found += [
                    (name, f"{quantity.description} [{entry.name}]", owner)
                    for name, quantity in family.quantities.items()
                ]
            elif kind == "track":
                track = load_track(registry, entry.name)
                found.append((entry.name, f"{track.summary} (version {track.version})", owner))
            else:
                found.append((entry.name, entry.summary, owner))
        except Exception as error:  # a plugin may raise anything
            found.append((entry.name, f"broken: {describe_error(error)}", owner))
    return sorted(found)
