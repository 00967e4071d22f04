"""``mia-bench leaderboard``: build, check and extend the published boards."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mia_bench.cli.shared import PathType, open_store, records_option, store_option
from mia_bench.errors import UsageError
from mia_bench.leaderboard import records
from mia_bench.leaderboard.submission import submit as copy_records
from mia_bench.plugins import host
from mia_bench.results import read_store
from mia_bench.terminal import say

_folder = click.option(
    "--folder",
    type=PathType(file_okay=False),
    default=Path("leaderboards"),
    show_default=True,
    help="Folder of the pages and of results/<track>/<key>.json.",
)


@click.group("leaderboard")
def command() -> None:
    """Build, check and extend the leaderboards."""


@command.command()
@_folder
def build(folder: Path) -> None:
    """Write the pages from the records."""
    written = records.build(folder, host().registry)
    for path in written:
        say(path)
    if not written:
        say("all pages are up to date", err=True)


@command.command()
@_folder
def check(folder: Path) -> None:
    """Check records and pages. Exit code 1 if something is wrong."""
    problems = records.check(folder, host().registry)
    for problem in problems:
        say(problem)
    if problems:
        sys.exit(1)
    say("records and pages are right", err=True)


@command.command()
@_folder
@store_option
@records_option
@click.option("--finished-only", is_flag=True, help="Leave out cells that failed or were skipped.")
@click.option(
    "--replace",
    is_flag=True,
    help="Remove the folder's records that can't share a board with these (those of older versions).",
)
@click.pass_context
def submit(
    context: click.Context,
    folder: Path,
    store: Path | None,
    track: str | None,
    finished_only: bool,
    replace: bool,
) -> None:
    """Copy a store's records into the folder.

    The next build shows them. Interrupted cells and records of older track or component versions are left
    out. A newer record of a cell replaces the folder's.
    """
    opened = open_store(store)
    given = context.get_parameter_source("folder") is not click.core.ParameterSource.DEFAULT
    if not given and not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder} here; go to a checkout, or name one by --folder (it is made)"
        )
    found = read_store(opened.root, track, strict=True)
    done = copy_records(found, folder, host().registry, finished_only=finished_only, replace=replace)
    for path in done.written:
        say(path)
    for path in done.removed:
        say(f"removed {path}")
    if not (done.written or done.removed):
        say("nothing new", err=True)
        return
    counts = f"{len(done.written)} new or changed, {len(done.removed)} removed"
    # The pages of a tuning folder are built with those of the folder above, which link to them.
    built = folder.parent if folder.name == records.TUNING else folder
    where = "" if built == Path("leaderboards") else f" --folder {built}"
    say(f"{counts}; next: mia-bench leaderboard build{where}", err=True)
