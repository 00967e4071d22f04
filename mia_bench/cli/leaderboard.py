"""``mia-bench leaderboard``: build, check and extend the published boards."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mia_bench.cli.shared import store_option

_folder = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("leaderboards"),
    show_default=True,
    help="Folder of the pages and of results/<track>/<key>.json.",
)


@click.group(name="leaderboard")
def command() -> None:
    """Build, check and extend the leaderboards."""


@command.command()
@_folder
def build(folder: Path) -> None:
    """Write the pages from the records."""
    from mia_bench.leaderboard import records
    from mia_bench.plugins import host

    written = records.build(folder, host().registry)
    for path in written:
        click.echo(path)
    if not written:
        click.echo("all pages are up to date", err=True)


@command.command()
@_folder
def check(folder: Path) -> None:
    """Check records and pages; exit code 1 if something is wrong."""
    from mia_bench.leaderboard import records
    from mia_bench.plugins import host

    problems = records.check(folder, host().registry)
    for problem in problems:
        click.echo(problem)
    if problems:
        sys.exit(1)
    click.echo("records and pages are right", err=True)


@command.command()
@_folder
@store_option
@click.option("--track", metavar="NAME", help="Only this track's records.")
def submit(folder: Path, store: Path | None, track: str | None) -> None:
    """Copy a store's records into the folder, so that the next build shows them.

    Interrupted cells and records of older track or component versions are left out.
    """
    from mia_bench.errors import UsageError
    from mia_bench.leaderboard import records
    from mia_bench.plugins import host
    from mia_bench.results import read_store
    from mia_bench.runner import default_store
    from mia_bench.store import Store

    root = store or default_store()
    if not root.is_dir():
        raise UsageError(f"there is no store at {root}")
    read_store(root, track)  # a mistyped track is an error, not "nothing new"
    outdated = records.outdated_by(host().registry)
    written = records.submit(Store(root), track, folder, outdated=outdated)
    for path in written:
        click.echo(path)
    if not written:
        click.echo("nothing new", err=True)
