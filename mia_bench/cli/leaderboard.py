"""``mia-bench leaderboard``: build, check and extend the published boards."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from etils.epy import lazy_imports

from mia_bench.cell import FinishedCell
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
from mia_bench.leaderboard import records
from mia_bench.leaderboard.admit import changed_checkouts, name_record
from mia_bench.leaderboard.board import Board
from mia_bench.leaderboard.export import csv_lines, latex
from mia_bench.leaderboard.grouping import row_key, section_key
from mia_bench.leaderboard.reruns import far, half_widths, moved, same_conditions, sample, under
from mia_bench.leaderboard.standings import Standings
from mia_bench.leaderboard.submission import submit as copy_records
from mia_bench.paths import data_roots
from mia_bench.pictures import (
    PRIVATE,
    StripRow,
    shows_people,
    strip_classes,
    strip_row,
    strip_rows,
    write_png,
)
from mia_bench.pictures import strip as draw_strip
from mia_bench.plugins import host
from mia_bench.record import Record
from mia_bench.results import read_store
from mia_bench.store import Store
from mia_bench.terminal import say, say_lines
from mia_bench.upkeep.planning import Planner

with lazy_imports():
    from PIL import Image

RERUN = "*"
"""What marks ranks of another run than the published one."""

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
    for line in filter(None, map(Planner().changed_protocol, records.one_of_each(folder))):
        say(f"warning: {line}", err=True)
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

    Each row of the page is shown under its strongest attack, with the rank of the true identity. Rows of
    which the store lacks the cells stay as they are. Where the store has another run of a cell than the
    published one, the ranks are that run's and marked, and its record is written beside the picture. The
    picture becomes strips/<track>.png in the folder; the next build shows it.
    """
    decided = records.decide(folder, host().registry, track)
    path = folder / records.STRIPS / f"{track}.png"
    with writing(folder, remake="mia-bench run --rerun always"):
        made = _strip(decided, open_store(store), show_private, _drawn(path))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {records.CELLS: " ".join(made.shown), records.ROWS: "\n".join(made.shown.values())}
        write_png(made.picture, path, **said)
    records.write_reruns(folder, track, made.reruns, made.kept)
    say(path)


def _drawn(path: Path) -> dict[str, Image.Image]:
    """The rows of a strip by the keys of their cells; private images, if it has some, by their label."""
    try:
        keys, names = records.read_strip(path)
        with Image.open(path, formats=["PNG"]) as picture:
            rows = strip_rows(picture.convert("RGB"), names)
        named = dict(zip([PRIVATE, *keys], [PRIVATE, *names], strict=True))
    except (OSError, ValueError):  # there is none yet, or it is no strip
        return {}
    return {key: rows[name] for key, name in named.items() if name in rows}


class _Strip(NamedTuple):
    """A picture of reconstructions.

    Attributes:
        shown: the keys of the cells, and what their rows are called.
        kept: those that an earlier strip has, and the store lacks.
        reruns: records of the cells that are shown as they were run again, with other ranks.
    """

    picture: Image.Image
    shown: dict[str, str]
    kept: set[str]
    reruns: list[Record]


def _strip(decided: Standings, store: Store, show_private: bool, drawn: Mapping[str, Image.Image]) -> _Strip:
    """The reconstructions of each row under its strongest attack.

    Args:
        drawn: rows of an earlier strip by the keys of their cells.
    """
    board = decided.board
    rows: list[StripRow] = []
    shown: dict[str, str] = {}
    kept: set[str] = set()
    reruns: list[Record] = []
    private: Image.Image | None = None
    ranked = _rank_name(board)
    for standing in decided.rows:
        place = standing.section and (standing.section.key, standing.key)
        same = [record for record in board.done if (section_key(record), row_key(record)) == place]
        earlier = next((record.key for record in same if record.key in drawn), None)
        if found := _to_show(same, store, ranked):
            record, again = found
            arrays = FinishedCell(record, store).arrays()
            classes = strip_classes(len(arrays["classes"]))
            private = private or strip_row(arrays["examples"][classes, 0], [""] * len(classes))
            captions = _captions(record.per_image.get(ranked), classes, RERUN if again else "")
            rows.append(StripRow(standing.label, strip_row(arrays["reconstructions"][classes, 0], captions)))
            shown[record.key] = standing.label
            reruns += [record] * again
        elif earlier:
            rows.append(StripRow(standing.label, drawn[earlier]))
            shown[earlier] = standing.label
            kept.add(earlier)
        else:
            say(f"warning: {standing.label} is left out: {store.root} has no cell of it", err=True)
    if shown.keys() == kept:
        name = board.track.name
        raise UsageError(f"{store.root} has none of the cells of {name!r} on its page; --store names another")
    private = drawn.get(PRIVATE) or private
    if private and (show_private or not shows_people(board.done[0])):
        rows.insert(0, StripRow(PRIVATE, private))
    heading = "each under the strongest attack on it"
    if ranked:
        heading += "; the rank of the true person in the gallery"
        heading += f" ({RERUN} of another run than the table's)" if reruns or kept else ""
    return _Strip(draw_strip(rows, heading), shown, kept, reruns)


def _captions(ranks: Sequence[Sequence[float]] | None, classes: Sequence[int], mark: str) -> list[str]:
    return [f"rank {ranks[index][0]:g}{mark}" if ranks else "" for index in classes]


def _to_show(published: Sequence[Record], store: Store, ranked: str) -> tuple[Record, bool] | None:
    """The store's record whose reconstructions are shown, and whether its ranks are not the published ones.

    It is that of the first seed of which the store has the run that was published, or else of the first seed.
    """
    found = [
        (own, own.per_image.get(ranked) != record.per_image.get(ranked))
        for record in published
        if store.has("measure", record.key) and (own := store.record(record.track.name, record.key))
    ]
    return min(found, key=lambda one: (one[1], one[0].seed), default=None)


def _rank_name(board: Board) -> str:
    """Under which name records of the board keep ranks of single images; empty where they keep none."""
    ranks = (quantity.per_image for quantity in board.quantities.values() if quantity.kind == "rank")
    return next(filter(None, ranks), "")


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
    for line in changed_checkouts(record for record in found if record.key in written):
        say(f"warning: {line}", err=True)
    new = len(done.written) - len(done.changed)
    counts = f"{new} new, {len(done.changed)} changed, {len(done.removed)} removed"
    # The pages of a tuning folder are built with those of the folder above, which link to them.
    built = folder.parent if folder.name == records.TUNING else folder
    where = "" if built == Path("leaderboards") else f" --folder {built}"
    say(f"{counts}; next: mia-bench leaderboard build{where}", err=True)
