"""``mia-bench data``: list data sets, check their layout, and decode them ahead of a run."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from mia_bench.cli.shared import config_options, data_option
from mia_bench.components import parse_option_values, resolve
from mia_bench.config import flatten_options
from mia_bench.engine.progress import terminal_progress
from mia_bench.engine.run import load_data
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.paths import data_roots
from mia_bench.plugins import host
from mia_bench.registry import Registry
from mia_bench.terminal import say
from mia_bench.track import Track, load_track
from mia_bench.weights import missing_lines, needed_by, weight_files


@click.group("data")
def command() -> None:
    """List data sets, check their layout, and decode them ahead of a run."""


@command.command("list")
def list_() -> None:
    """List the data sets.

    Prints what each is, which tracks use it, its terms, and where its files belong.
    """
    registry = host().registry
    tracks = _tracks_by_dataset(registry)
    for entry in registry.entries("dataset"):
        try:
            dataset = entry.load()
        except MiaBenchError as error:
            say(f"{entry.name}: broken: {error}")
            continue
        used = ", ".join(track.name for track in tracks[entry.name]) or "none"
        say(f"{entry.name}: {dataset.summary}")
        say(f"  tracks: {used}")
        say(f"  terms:  {dataset.terms}")
        if dataset.needs_root:
            _echo_source(dataset)


def _tracks_by_dataset(registry: Registry) -> dict[str, list[Track]]:
    """The tracks that can be loaded, by their data set."""
    tracks = defaultdict(list)
    for name in registry.names("track"):
        with contextlib.suppress(MiaBenchError):  # a broken track must not hide the data sets
            track = load_track(registry, name)
            tracks[track.data.dataset.name].append(track)
    return tracks


def _echo_missing_weights(registry: Registry, datasets: Iterable[str], folder: Path | None) -> None:
    """Print a line for each weight file that is missing for the tracks of data sets."""
    tracks = _tracks_by_dataset(registry)
    files = weight_files(needed_by(registry, [track for name in datasets for track in tracks[name]]))
    for line in missing_lines(files, folder):
        say(f"note: {line}")


def _echo_source(dataset: Any) -> None:
    """Print where files belong, and where to get them."""
    say(f"  layout: {dataset.layout}")
    say(f"  from:   {dataset.origin}")


@command.command()
@click.argument("names", nargs=-1, metavar="[DATASET]…")
@config_options(options="Set an option of a data set.")
@data_option
def check(names: tuple[str, ...], options: tuple[str, ...] | None, data: Path | None) -> None:
    """Check that data sets are complete.

    Prints what is wrong with each DATASET, by default with all of them, and which weight files their tracks
    need that are missing. Exit code 1 if one that was named is incomplete.
    """
    registry = host().registry
    given = parse_option_values(registry, flatten_options(options or ()))
    roots = data_roots(data)
    root = roots.data
    if root is None:
        raise UsageError("give --data DIR or set MIA_BENCH_DATA")
    complete = True
    for name in names or registry.names("dataset"):
        dataset = resolve(registry, "dataset", name, {}, given.single("dataset", name)).make()
        if not dataset.needs_root:
            continue
        try:
            say(f"{name}: complete, fingerprint {dataset.fingerprint(root)}")
        except MiaBenchError as error:
            complete = False
            say(f"{name}: {str(error).removeprefix(f'{name}: ')}")
            _echo_source(dataset)
    _echo_missing_weights(registry, names or registry.names("dataset"), roots.weights)
    if names and not complete:
        raise SystemExit(1)


@command.command()
@config_options("track", "options", "allow_partial", "store", "data")
def prepare(**options: Any) -> None:
    """Decode a track's images ahead of a run.

    They are decoded, cropped and resized once, as a run would do it.
    """
    splits = load_data(**options, display=terminal_progress())
    parts = ("train", "validation", "test", "public", "decoys")
    counts = ", ".join(f"{len(getattr(splits, part))} {part}" for part in parts)
    say(f"{splits.num_classes} classes; images: {counts}")
    for note in splits.notes:
        say(f"note: {note}")
