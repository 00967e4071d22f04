"""``mia-bench store``: look after a store."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mia_bench.cli.shared import (
    PathType,
    complete_key,
    open_store,
    records_option,
    store_option,
    writing,
)
from mia_bench.engine.plan import STAGE_VERSIONS
from mia_bench.engine.progress import counted, duration, size
from mia_bench.errors import StoreError, UsageError, did_you_mean
from mia_bench.paths import default_store, expand_path
from mia_bench.store import Store
from mia_bench.terminal import say, say_lines, table, warn
from mia_bench.upkeep.bundle import Bundle, write_bundle
from mia_bench.upkeep.check import find_damage
from mia_bench.upkeep.collect import DAY, Garbage, check_idle, delete, find_garbage, total_seconds
from mia_bench.upkeep.contents import Artifact, Contents, Kind, Leftover, RecordFile, Thing, total_size
from mia_bench.upkeep.incoming import Source
from mia_bench.upkeep.merge import Merged, OtherStore, merge
from mia_bench.upkeep.needs import Needs, reasons
from mia_bench.upkeep.selection import select

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY}
_ORDER = {name: number for number, name in enumerate(STAGE_VERSIONS)}
_SORTS: dict[str, Any] = {
    "stage": lambda row: (row["track"], _ORDER.get(row["stage"], 99), row["what"], row["seed"] or 0),
    "size": lambda row: -row["bytes"],
    "age": lambda row: row["age"],
    "records": lambda row: (row["records"] or 0, -row["bytes"]),
}


class _Age(click.ParamType):  # type: ignore[type-arg]
    """A time span: ``90s``, ``30m``, ``12h``, ``1d``, ``2w``, or ``0``."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smhdw])|(0)", str(value).strip())
        if not found:
            self.fail(f"{value!r} is no time span such as 12h, 1d or 2w", param, ctx)
        return 0.0 if found[3] else float(found[1]) * _UNITS[found[2]]


def _stages(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Stages, several in a word joined by commas too."""
    found = tuple(name.strip() for text in names for name in text.split(","))
    for name in found:
        if name not in STAGE_VERSIONS:
            raise UsageError(f"no stage {name!r}; {did_you_mean(name, STAGE_VERSIONS)}")
    return found


stage_option = click.option(
    "--stage", "stages", multiple=True, metavar="NAME", callback=_stages,
    help="Only artifacts of this stage; repeat for several.",
)  # fmt: skip
format_option = click.option(
    "--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True,
    help="A table for people, or all that is known for programs.",
)  # fmt: skip


@click.group("store")
def command() -> None:
    """Look after a store: what lies there, for which records, what nobody needs.

    Bundles of cells move to other machines, and stores are merged. No command deletes a record.
    """


@command.command("ls")
@stage_option
@click.option("--track", metavar="NAME", help="Only what belongs to this track.")
@click.option("--cell", "cells", multiple=True, metavar="CELL", help="Only what the record of CELL needs.")
@click.option("--unused", is_flag=True, help="Only what no record needs.")
@click.option(
    "--sort", type=click.Choice(list(_SORTS)), default="stage", show_default=True, help="Order of the rows."
)
@format_option
@store_option
def list_(
    stages: tuple[str, ...],
    track: str | None,
    cells: tuple[str, ...],
    unused: bool,
    sort: str,
    format_: str,
    store: Path | None,
) -> None:
    """List the artifacts of a store, and for how many records each is needed.

    Checkpoints of stages under way are listed too. Of artifacts of earlier versions it may not be known who
    needs them ("?").
    """
    contents = Contents(open_store(store))
    needs = Needs(contents)
    counts = needs.counts
    wanted = None
    if cells:
        wanted = {stage for file in _named(contents, cells) for stage in needs.by_record[file]}
    now = time.time()
    rows = [
        _row(one, counts[one.id], needs, now)
        for one in contents.artifacts
        if (not stages or one.stage in stages)
        and track in (None, one.track)
        and (wanted is None or one.id in wanted)
    ]
    if not (track or unused):
        rows += [
            _checkpoint_row(left, now)
            for left in contents.leftovers
            if left.kind == "checkpoint"
            and left.stage
            and (not stages or left.stage[0] in stages)
            and (wanted is None or left.stage in wanted)
        ]
    if unused:
        rows = [row for row in rows if row["records"] == 0]
    rows.sort(key=_SORTS[sort])
    if format_ == "json":
        say_lines(json.dumps(rows, indent=1, sort_keys=True))
        return
    warn(reasons(needs.unknown))
    if rows:
        say_lines(table([_shown(row) for row in rows]))
    total = sum(row["bytes"] for row in rows)
    idle = [row for row in rows if row["records"] == 0]
    say(f"{counted(len(rows), 'artifact')}, {size(total)}; no record needs {len(idle)} of them, "
        f"{size(sum(row['bytes'] for row in idle))}")  # fmt: skip


def _row(one: Artifact, count: int, needs: Needs, now: float) -> dict[str, Any]:
    planned = needs.stages.get(one.id)  # of older artifacts, which do not note it
    unsure = not count and (needs.may_be_needed(one) or (one.stage == "metric" and one.upstream is None))
    return {
        "key": one.key,
        "stage": one.stage,
        "track": one.track,
        "what": one.label or (planned.label if planned else one.subject),
        "settings": one.settings,
        "seed": planned.seed if planned else one.seed,
        "bytes": one.size,
        "seconds": one.seconds,
        "age": max(0.0, now - one.finished),
        "records": None if unsure else count,
        "state": f"damaged: {one.problem}" if one.problem and not one.unreadable else one.problem or "stored",
    }


def _checkpoint_row(left: Leftover, now: float) -> dict[str, Any]:
    stage, key = left.stage or ("", "")
    return {
        "key": key, "stage": stage, "track": "", "what": "", "settings": "", "seed": None,
        "bytes": left.size, "seconds": 0.0, "age": max(0.0, now - left.modified), "records": None,
        "state": "checkpoint",
    }  # fmt: skip


def _shown(row: dict[str, Any]) -> dict[str, str]:
    state = {} if row["state"] == "stored" else {"what": f"{row['what'] or '–'} ({row['state']})"}
    settings = "" if row["seed"] is not None or not row["settings"] else f" (settings {row['settings'][:6]})"
    return {
        "artifact": row["key"][:8],
        "stage": row["stage"],
        "track": row["track"] or "–",
        "what": (row["what"] or "–") + settings,
        "seed": "–" if row["seed"] is None else str(row["seed"]),
        "size": size(row["bytes"]),
        "took": duration(row["seconds"]) if row["seconds"] else "–",
        "age": _age(row["age"]),
        "records": "?" if row["records"] is None else str(row["records"]) if row["records"] else "none",
        **state,
    }


def _age(seconds: float) -> str:
    """How long ago: ``40 s``, ``5 min``, ``3 h``, ``12 d``."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (2 * DAY, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / DAY:.0f} d"


def _named(contents: Contents, cells: Sequence[str]) -> list[RecordFile]:
    """The records whose cells' keys begin so."""
    files = {file.key: file for file in contents.records}
    return [files[complete_key(cell, files, "cell", "mia-bench results")] for cell in dict.fromkeys(cells)]


@command.command()
@format_option
@store_option
def du(format_: str, store: Path | None) -> None:
    """Print the sizes of what lies in a store, and what gc would free."""
    contents = Contents(open_store(store))
    needs = Needs(contents)
    sums: dict[tuple[str, str], list[int]] = {}
    for one in contents.artifacts:
        _add(sums, (one.track, one.stage), one.size)
    others: dict[tuple[str, str], list[int]] = {}
    for record in contents.records:
        _add(others, ("records", ""), record.size)
    for left in contents.leftovers:
        _add(others, (_PLURAL[left.kind], ""), left.size)
    garbage = find_garbage(contents, needs, time.time())
    rows: list[dict[str, Any]] = [
        {"track": track, "stage": stage, "count": count, "bytes": total}
        for (track, stage), (count, total) in sorted(
            sums.items(), key=lambda item: (item[0][0], _ORDER.get(item[0][1], 99))
        )
    ]
    rest: list[dict[str, Any]] = [
        {"what": what, "count": count, "bytes": total} for (what, _), (count, total) in others.items()
    ]
    total = sum(row["bytes"] for row in (*rows, *rest))
    if format_ == "json":
        content = {"artifacts": rows, "others": rest, "bytes": total, "gc": {"bytes": garbage.size}}
        say_lines(json.dumps(content, indent=1, sort_keys=True))
        return
    shown = [[row["track"] or "–", row["stage"], str(row["count"]), size(row["bytes"])] for row in rows]
    shown += [["", str(row["what"]), str(row["count"]), size(row["bytes"])] for row in rest]
    if shown:
        say_lines(table(shown, ["track", "what", "count", "size"]))
    say(f"{size(total)} in {contents.store.root}; 'mia-bench store gc' would free {size(garbage.size)}")


_PLURAL: dict[Kind, str] = {
    "checkpoint": "checkpoints",
    "lock": "lock files",
    "picture": "pictures",
    "set aside": "set aside",
    "half-written": "half-written",
    "other": "not the store's",
}


def _add(sums: dict[tuple[str, str], list[int]], name: tuple[str, str], count: int) -> None:
    found = sums.setdefault(name, [0, 0])
    found[0] += 1
    found[1] += count


@command.command()
@click.option(
    "--dry-run/--delete", "dry_run", default=True, help="Print what would be deleted (default), or delete it."
)
@click.option(
    "--older-than", type=_Age(), metavar="AGE", default="1d", show_default=True,
    help="Keep what is younger: 12h, 1d, 2w, or 0.",
)  # fmt: skip
@stage_option
@click.option("--track", metavar="NAME", help="Only artifacts of this track.")
@click.option("--set-aside", is_flag=True, help="Also what was set aside because it was damaged.")
@click.option("--checkpoints", is_flag=True, help="Also checkpoints of stages that were not finished.")
@click.option("--locks", is_flag=True, help="Also lock files that nobody holds.")
@click.option("--pictures", is_flag=True, help="Also pictures of cells without a record, and of priors gone.")
@click.option(
    "--joined-shards", is_flag=True, help="Also the parts of attacks whose joined result is stored."
)
@click.option("--while-running", is_flag=True, help="Delete even while a run computes in the store.")
@store_option
def gc(
    dry_run: bool,
    older_than: float,
    stages: tuple[str, ...],
    track: str | None,
    set_aside: bool,
    checkpoints: bool,
    locks: bool,
    pictures: bool,
    joined_shards: bool,
    while_running: bool,
    store: Path | None,
) -> None:
    """Delete the artifacts that no record needs, or print which these are.

    Needed is all that a record's numbers were made from. Records are never deleted, nor what a run computes
    now. Where it is not known what a record needs, what it may need is kept, with a note.
    """
    chosen: dict[Kind, bool] = {
        "set aside": set_aside, "checkpoint": checkpoints, "lock": locks, "picture": pictures,
    }  # fmt: skip
    if (stages or track) and any(chosen.values()):
        raise UsageError("--stage and --track choose artifacts: give --checkpoints and the like without them")
    contents = Contents(open_store(store))
    needs = Needs(contents)
    if not (dry_run or while_running):
        check_idle(contents)
    garbage = find_garbage(
        contents, needs, time.time(), older_than=older_than, joined_shards=joined_shards,
        kinds=[kind for kind, given in chosen.items() if given], stages=stages, track=track,
    )  # fmt: skip
    warn(reasons(needs.unknown))
    _print_garbage(garbage)
    things: list[Thing] = [*garbage.artifacts, *garbage.leftovers]
    if dry_run or not things:
        more = "; --delete deletes them" if things else ""
        say(f"{_things(things)} can be deleted{more}")
        return
    gone = list(delete(contents.store, garbage))
    say(f"deleted {_things(gone)}".rstrip(","))
    if left := len(things) - len(gone):
        say(f"note: {left} left, since a run computes them now", err=True)


def _things(several: Sequence[Thing]) -> str:
    """``3 artifacts and 1 other file, 1.2 MB``."""
    artifacts = sum(isinstance(one, Artifact) for one in several)
    others = len(several) - artifacts
    text = counted(artifacts, "artifact") + (f" and {counted(others, 'other file')}" if others else "")
    return f"{text}, {size(total_size(several))},"


def _print_garbage(garbage: Garbage) -> None:
    groups: dict[tuple[str, str], list[Artifact]] = {}
    for one in garbage.artifacts:
        groups.setdefault((one.track, one.stage), []).append(one)
    rows = [
        {
            "track": track or "–",
            "what": stage,
            "count": str(len(several)),
            "size": size(sum(one.size for one in several)),
            "took": duration(total_seconds(several)),
        }
        for (track, stage), several in groups.items()
    ]
    for kind, name in _PLURAL.items():
        if several := [left for left in garbage.leftovers if left.kind == kind]:
            total = sum(left.size for left in several)
            rows.append(
                {"track": "", "what": name, "count": str(len(several)), "size": size(total), "took": ""}
            )
    if rows:
        say_lines(table(rows))
    for reason, kept in garbage.kept.items():
        total = sum(one.size for one in kept)
        say(f"note: kept {len(kept)} that no record is known to need ({size(total)}): {reason}", err=True)


@contextmanager
def _bar(what: str, total: float) -> Iterator[Any]:
    """A bar on standard error, if that is a terminal; gives what advances it by a number of bytes."""
    console = Console(stderr=True, highlight=False, emoji=False)
    if not console.is_interactive:
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=max(total, 1))
        yield lambda count: bar.advance(task, count)


@command.command()
@click.option("--quick", is_flag=True, help="Check sizes and notes only, without reading tensors.")
@store_option
def verify(quick: bool, store: Path | None) -> None:
    """Check the hashes of all artifacts and records, and name what is damaged.

    Nothing is changed: a run moves what is damaged aside and makes it again. Exit code 1 if something is
    damaged or can't be read.
    """
    contents = Contents(open_store(store))
    total, found = total_size(contents.artifacts, contents.records), 0
    needs = Needs(contents)
    with _bar("checking", total) as advance:
        for damage in find_damage(contents, lambda one: advance(one.size), quick=quick):
            found += 1
            count = needs.counts[damage.stage] if damage.stage else 0
            say(damage.line + (f"; {counted(count, 'record')} need it" if count else ""))
    for left in contents.leftovers:
        if left.kind == "other":
            say(f"note: {left.path} is not the store's", err=True)
    what = f"{counted(len(contents.artifacts), 'artifact')} and {counted(len(contents.records), 'record')}"
    say(f"checked {what}, {size(total)}: {f'{found} damaged' if found else 'all as they were written'}")
    if found:
        say("a run that needs them makes them again; nothing was changed", err=True)
        sys.exit(1)


@command.command("export")
@click.argument("file", type=PathType(output=True, dir_okay=False))
@click.argument("cells", nargs=-1, metavar="[CELL]...")
@records_option
@click.option("--all", "everything", is_flag=True, help="All records of the store.")
@click.option("--records-only", is_flag=True, help="No artifacts.")
@click.option(
    "--with", "stages", multiple=True, metavar="NAME", callback=_stages,
    help="Only artifacts of these stages, joined by commas.  [default: all that the records need]",
)  # fmt: skip
@store_option
def export(
    file: Path,
    cells: tuple[str, ...],
    track: str | None,
    everything: bool,
    records_only: bool,
    stages: tuple[str, ...],
    store: Path | None,
) -> None:
    """Write chosen cells into FILE, a bundle for 'store import' on another machine.

    CELL is the beginning of a cell's key, as tables show it. The bundle holds the cells' records and the
    artifacts that they need, without the parts of attacks, which are in the joined result, unless --with
    names shard. It is a tar file.
    """
    if sum(map(bool, (cells, track, everything))) != 1:
        raise UsageError("give either cells, --track or --all")
    if records_only and stages:
        raise UsageError("give either --records-only or --with")
    if file.exists() and not file.is_file():
        raise UsageError(f"{file} is no regular file")
    contents = Contents(open_store(store))
    chosen = _named(contents, cells) if cells else contents.records
    chosen = [record for record in chosen if track in (None, record.track)]
    if not chosen:
        raise UsageError(f"there are no records of track {track}" if track else "there are no records")
    selected = select(contents, chosen, () if records_only else stages or None)
    warn(selected.warnings)
    with writing(file, remake="mia-bench run"), _bar("writing", selected.size) as advance:
        written = write_bundle(file, selected, advance)
    say(f"{file}: {counted(len(selected.records), 'record')}, "
        f"{counted(len(selected.artifacts), 'artifact')}, {size(written)}")  # fmt: skip


@command.command("import")
@click.argument("source", metavar="SOURCE", type=PathType(exists=True))
@click.option("--records-only", is_flag=True, help="No artifacts.")
@click.option("--dry-run", is_flag=True, help="Check the source and print what is new, and stop.")
@store_option
def import_(source: Path, records_only: bool, dry_run: bool, store: Path | None) -> None:
    """Add the records and artifacts of SOURCE, a bundle or another store, to the store.

    A bundle is checked as a whole before anything is written. What is stored already stays, unless it is
    damaged. A record with numbers is never replaced; where two of one key differ, this is said. Hashes find
    damage, not forgery: take bundles from people whom you trust. Exit code 1 if something in another store
    is damaged, and left out.
    """
    root = expand_path(store) if store else default_store()
    if source.is_dir() and root.exists() and source.samefile(root):
        raise UsageError(f"{source} is the store itself")
    opened: Source = OtherStore(source) if source.is_dir() else Bundle(source)
    with _bar("checking", opened.size) as advance:
        opened.check(advance)
    with _bar("importing", opened.size) as advance:
        target = Store(root, make=not dry_run)
        merged = merge(opened, target, advance, artifacts=not records_only, dry_run=dry_run)
    _print_merged(merged, dry_run)
    if merged.damaged:
        raise StoreError(f"{counted(len(merged.damaged), 'thing')} in {source} could not be imported")


def _print_merged(merged: Merged, dry_run: bool) -> None:
    warn(merged.damaged)
    for line in merged.differences:
        say(f"note: {line}", err=True)
    verb = "would be added" if dry_run else "added"
    say(f"{verb}: {counted(len(merged.artifacts), 'artifact')} ({size(merged.size)}) and "
        f"{counted(len(merged.records), 'record')}; {merged.present} were here")  # fmt: skip
    if merged.repaired:
        say(f"{len(merged.repaired)} of them in place of damaged ones")
