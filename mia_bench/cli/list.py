"""``mia-bench list``."""

from __future__ import annotations

import io

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mia_bench.cli.answers import repeatable
from mia_bench.plugins import describe_error, host
from mia_bench.registry import KINDS, Entry
from mia_bench.text import one_line
from mia_bench.track import load_track

LISTED = ("defenses", "attacks", "tracks", "datasets", "priors", "metrics", "models", "encoders")

LEAST = 30
"""Characters that a line of the text has at least; a terminal that is too narrow breaks the lines."""


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(LISTED), metavar="[KIND]")
def command(kind: str | None) -> None:
    """List the components of a KIND, or of all kinds, with one line each.

    KIND is defenses, attacks, tracks, datasets, priors, metrics, models or encoders.
    """
    repeatable()
    kinds = {plural: one for one, plural in KINDS.items()}
    for plural in [kind] if kind else LISTED:
        rows = [
            (one_line(name), one_line(what), entry.plugin.distribution, *more)
            for entry in host().registry.entries(kinds[plural])
            for name, (what, *more) in _lines(entry).items()
        ]
        _print(plural, ["name", "what it is", "from", *(["version"] if plural == "tracks" else [])], rows)


def _print(title: str, head: list[str], rows: list[tuple[str, ...]]) -> None:
    """A table in which only the text wraps, as wide as the terminal, or 120 characters."""
    out = io.StringIO()
    terminal = Console()
    fixed = sum(max(len(row[column]) for row in [tuple(head), *rows] if row[column:]) + 4
                for column in range(len(head)) if column != 1)  # fmt: skip
    width = max(terminal.width if terminal.is_terminal else 120, fixed + LEAST)
    console = Console(
        file=out,
        width=width,
        force_terminal=terminal.is_terminal,
        color_system="auto" if terminal.color_system else None,
        no_color=terminal.no_color,
    )
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, padding=(0, 2))
    for column, style in zip(head, ("cyan", "", "dim", "dim"), strict=False):
        table.add_column(column, style=style, no_wrap=column != "what it is")
    for row in sorted(rows):
        table.add_row(*map(Text, row))
    console.print(table)
    print(out.getvalue(), flush=True)


def _lines(entry: Entry) -> dict[str, tuple[str, ...]]:
    """What a component is, by its name; a metric by its quantities. The error if it can't be loaded.

    Of a track its version, too.
    """
    try:
        if entry.kind == "metric":
            quantities = entry.load().quantities
            return {
                name: (f"{quantity.description} [{entry.name}]",) for name, quantity in quantities.items()
            }
        if entry.kind == "track":
            track = load_track(host().registry, entry.name)
            return {entry.name: (track.summary, str(track.version))}
        return {entry.name: (entry.summary,)}
    except Exception as error:  # a plugin may raise anything
        return {entry.name: (f"broken: {describe_error(error)}",)}
