"""``mia-bench leaderboard``: build, check and extend the published boards."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from mia_bench.cli.drawn_strip import draw, drawn
from mia_bench.cli.shared import (
    PathType,
    config_options,
    open_store,
    records_option,
    store_option,
    uncollected,
    writing,
)
from mia_bench.engine.progress import terminal_progress
from mia_bench.engine.rerun import run_again
from mia_bench.engine.scheduler import Interrupted
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.leaderboard import records, strips
from mia_bench.leaderboard.admit import changed_checkouts, name_record
from mia_bench.leaderboard.export import csv_lines, latex
from mia_bench.leaderboard.reruns import far, half_widths, moved, same_conditions, sample, under
from mia_bench.leaderboard.submission import submit as copy_records
from mia_bench.paths import data_roots
from mia_bench.pictures import shows_people, write_png
from mia_bench.plugins import host
from mia_bench.record import Record
from mia_bench.results import read_store
from mia_bench.terminal import say, say_lines, warn
from mia_bench.upkeep.planning import Planner

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
@click.option(
    "--format",
    "format_",
    type=click.Choice(["pages", "latex", "csv"]),
    default="pages",
    show_default=True,
    help="Write the pages, or print the verdict table for a paper.",
)
@click.option("--track", metavar="NAME", help="Only this track; for latex and csv.")
@uncollected()
def build(folder: Path, format_: str, track: str | None) -> None:
    """Write the pages from the records.

    Or print the verdict tables of the pages, as LaTeX (with the package booktabs) or as CSV.
    """
    if format_ != "pages":
        names = [track] if track else records.track_names(folder)
        decided = (records.decide(folder, host().registry, name) for name in names)
        if format_ == "latex":
            say_lines("\n".join(map(latex, decided)).rstrip())
        else:
            say_lines("\n".join(csv_lines(decided)))
        return
    if track:
        raise UsageError("--track is for --format latex and csv; pages are written of all tracks")
    written = records.build(folder, host().registry)
    warn(filter(None, map(Planner().changed_protocol, records.one_of_each(folder))))
    for path in written:
        say(path)
    if not written:
        say("all pages are up to date", err=True)


@command.command()
@_folder
@click.option("--rerun", type=click.IntRange(min=1), metavar="N", help="Run N cells of the boards again.")
@click.option("--choice", default=0, metavar="SEED", help="Which cells: seed of the choice.  [default: 0]")
@click.option("--track", metavar="NAME", help="Run cells of this track only.")
@config_options("device", "jobs", "data", "weights", store="Store to run them in; else a temporary one.")
def check(folder: Path, rerun: int | None, choice: int, track: str | None, **where: Any) -> None:
    """Check records and pages, and run cells again. Exit code 1 if something is wrong.

    Cells are chosen at random, of as many attacks and defenses as possible, and their own stages computed
    anew. Under the same conditions (kind of device, threads, processor) every number must be the one
    published; under others it may differ by as much as was measured (docs/reproducibility.md).
    """
    if track:
        records.check_track(folder, track)
    with uncollected():
        given = where["data"] or where["weights"]
        planner = Planner(data_roots(where["data"], where["weights"]) if given else None)
        some = records.one_of_each(folder)
        shared = {record.track.name: planner.changed_protocol(record) for record in some}
        problems = [*records.check(folder, host().registry), *filter(None, shared.values())]
    for problem in problems:
        say(problem)
    if unknown := [name for name, found in shared.items() if found is None]:
        tracks = ", ".join(unknown)
        say(f"note: not compared with the installed protocol, without data or weights: {tracks}", err=True)
    if rerun:
        names = [track] if track else records.track_names(folder)
        published = [record for name in names for record in records.load(folder, name)]
        problems += _rerun(
            sample(published, rerun, choice), {k: v for k, v in where.items() if v is not None}
        )
    if problems:
        sys.exit(1)
    say("records and pages are right", err=True)


def _rerun(published: list[Record], where: dict[str, Any]) -> list[str]:
    """Run cells again and say what became of each; what is wrong with them."""
    if not published:
        raise UsageError("there is no finished record to run again")
    problems: list[str] = []
    distances: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for record in published:
            try:
                again = run_again(record, {"store": folder, **where}, terminal_progress())
            except Interrupted:
                raise
            except MiaBenchError as error:
                problems.append(f"{record.track.name}, {name_record(record)}: {error}")
                say(problems[-1])
                continue
            said = list(map(str, moved(record, again)))
            problems += said
            if not same_conditions(record, again):
                distances.append(half_widths(record, again))
                said.append(far(distances[-1:]))
            told = "; ".join(said) or "the numbers published"
            say(f"{record.track.name}, {name_record(record)}, {under(record, again)}: {told}")
    if len(distances) > 1:
        say(f"{len(distances)} cells under other conditions: {far(distances)}")
    return problems


def _distance(old: Record, new: Record) -> str:
    """How far a record is from the one that it replaces."""
    if old.status == new.status == "done":
        return far([half_widths(old, new)])
    return f"{new.status}, was {old.status}"


@command.command()
@_folder
@store_option
@click.option("--track", metavar="NAME", required=True, help="The track.")
@click.option("--show-private", is_flag=True, help="Begin with private images even of people who exist.")
def strip(folder: Path, store: Path | None, track: str, show_private: bool) -> None:
    """Draw reconstructions of the same classes under each defense for a track's page.

    Each row of the page is shown under its strongest attack, with the rank of the true identity. Rows that
    the store lacks stay as in an earlier picture, and so do rows of published runs of which the store has
    another. Where there is no such row, the other run is shown, its ranks are marked, and its record is
    written beside the picture. The picture becomes strips/<track>.png in the folder; the next build shows it.
    """
    decided = records.decide(folder, host().registry, track)
    path = folder / records.STRIPS / f"{track}.png"
    with writing(folder, remake="mia-bench run --rerun always"):
        made = draw(decided, open_store(store), drawn(path))
    warn(changed_checkouts(made.reruns))
    earlier = {record.key: record for record in records.strip_reruns(folder, track)}
    kept = [earlier[key] for key in made.kept if key in earlier]
    with writing(path):
        records.write_strip_reruns(folder, track, [*kept, *made.reruns])
        picture = made.picture(private=show_private or not shows_people(decided.board.done[0]))
        write_png(picture, path, **strips.texts(cell for cell, _ in made.rows))
    say(path)


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
@click.option(
    "--least-seeds",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Leave out attacks on a defense of which fewer seeds are finished; tuning seeds are all taken.",
)
@click.pass_context
@uncollected()
def submit(
    context: click.Context,
    folder: Path,
    store: Path | None,
    track: str | None,
    finished_only: bool,
    replace: bool,
    least_seeds: int,
) -> None:
    """Copy a store's records into the folder.

    The next build shows them. Records of tuning seeds go to the folder tuning below. Interrupted cells and
    records of older track or component versions are left out. A newer record of a cell replaces the folder's.
    """
    opened = open_store(store)
    given = context.get_parameter_source("folder") is not click.core.ParameterSource.DEFAULT
    if not given and not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder} here; go to a checkout, or name one by --folder (it is made)"
        )
    found = read_store(opened.root, track, strict=True)
    done = copy_records(
        found,
        folder,
        host().registry,
        finished_only=finished_only,
        replace=replace,
        least_seeds=least_seeds,
    )
    for path in done.written:
        told = f"changed, {_distance(*done.changed[path])}: " if path in done.changed else ""
        say(f"{told}{path}")
    for path in done.removed:
        say(f"removed {path}")
    if not (done.written or done.removed):
        say("nothing new", err=True)
        return
    written = {path.stem for path in done.written}
    warn(changed_checkouts(record for record in found if record.key in written))
    new = len(done.written) - len(done.changed)
    counts = f"{new} new, {len(done.changed)} changed, {len(done.removed)} removed"
    # The pages of a tuning folder are built with those of the folder above, which link to them.
    built = folder.parent if folder.name == records.TUNING else folder
    where = "" if built == Path("leaderboards") else f" --folder {built}"
    say(f"{counts}; next: mia-bench leaderboard build{where}", err=True)
