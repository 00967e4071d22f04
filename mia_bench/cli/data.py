"""``mia-bench data``: list data sets, check them, and decode them ahead of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from etils.epy import lazy_imports

from mia_bench.api.inventory import Inventory
from mia_bench.cli.shared import config_options
from mia_bench.config import load_config
from mia_bench.engine.progress import terminal_progress
from mia_bench.engine.run import check_data, load_data, set_up
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.plugins import host
from mia_bench.registry import Registry
from mia_bench.terminal import say
from mia_bench.track import Track, loadable_tracks
from mia_bench.weights import missing_lines, needed_by, weight_files

with lazy_imports():
    from mia_bench.api.dataset import Dataset, Splits


@click.group("data")
def command() -> None:
    """List data sets, check them, and decode them ahead of a run."""


@command.command("list")
def list_() -> None:
    """List the data sets.

    Prints what each is, which tracks use it, its terms, and where its files belong.
    """
    registry = host().registry
    tracks = _tracks_by_dataset(registry)
    for name, dataset in _unbroken(registry):
        used = ", ".join(track.name for track in tracks[name]) or "none"
        say(f"{name}: {dataset.summary}")
        say(f"  tracks: {used}")
        say(f"  terms:  {dataset.terms}")
        if dataset.needs_root:
            _echo_source(dataset)


def _unbroken(registry: Registry) -> Iterator[tuple[str, type[Dataset]]]:
    """The data sets by name; of those that can't be loaded a line is printed."""
    for entry in registry.entries("dataset"):
        try:
            dataset = entry.load()
        except MiaBenchError as error:
            say(f"{entry.name}: broken: {error}")
        else:
            yield entry.name, dataset


def _tracks_by_dataset(registry: Registry) -> dict[str, list[Track]]:
    """The tracks that can be loaded, by their data set."""
    tracks = defaultdict(list)
    for track in loadable_tracks(registry):
        tracks[track.data.dataset.name].append(track)
    return tracks


def _echo_missing_weights(registry: Registry, datasets: Iterable[str], folder: Path | None) -> None:
    """Print a line for each weight file that is missing for the tracks of data sets."""
    tracks = _tracks_by_dataset(registry)
    files = weight_files(needed_by(registry, [track for name in datasets for track in tracks[name]]))
    for line in missing_lines(files, folder):
        say(f"note: {line}")


def _echo_source(dataset: type[Dataset]) -> None:
    """Print where files belong, and where to get them."""
    say(f"  layout: {dataset.layout}")
    say(f"  from:   {dataset.origin}")


@command.command()
@click.argument("names", nargs=-1, metavar="[DATASET]…")
@config_options("allow_partial", "data", "weights", options="Set an option of a data set.")
def check(names: tuple[str, ...], **given: Any) -> None:
    """Check that data sets can be used.

    Reads each DATASET, by default all of them, as a run of its tracks would: prints which files are read and
    which are left out, who is private, public or a decoy, what else to know, and which weight files of its
    tracks are missing. Nothing is stored. Exit code 1 if one that was named can't be used.
    """
    registry, roots = host().registry, load_config(given).roots
    if roots.data is None:
        raise UsageError("give --data DIR or set MIA_BENCH_DATA")
    tracks = _tracks_by_dataset(registry)
    usable = True
    chosen = ((name, registry.get("dataset", name).load()) for name in names)
    for name, dataset in chosen if names else _unbroken(registry):
        if dataset.needs_root:
            usable &= _check(name, tracks[name], given, named=bool(names))
    _echo_missing_weights(registry, names or registry.names("dataset"), roots.weights)
    if names and not usable:
        raise SystemExit(1)


def _check(name: str, tracks: list[Track], given: dict[str, Any], *, named: bool) -> bool:
    """Print what is to be said of a data set for each way in which its tracks read it; whether all can."""
    dataset = host().registry.get("dataset", name).load()
    if not (named or "allow_partial" in dataset.Options.model_fields):
        given = {**given, "allow_partial": None}
    ways: dict[str, list[str]] = defaultdict(list)
    for track in tracks:
        ways[track.data.model_dump_json(exclude={"fingerprint"})].append(track.name)
    if not ways:
        say(f"{name}: no track reads it, so it can't be checked")
    usable = True
    for users in ways.values():
        setup = set_up(load_config({**given, "track": users[0]}))
        setup.options.refuse_others([("dataset", name)])
        try:
            plan = setup.track_plan()
        except UsageError:
            raise
        except MiaBenchError as error:
            say(f"{name}: {str(error).removeprefix(f'{name}: ')}")
            _echo_source(dataset)
            return False  # nor can the other tracks
        try:
            splits = check_data(setup, plan.data, terminal_progress())
        except MiaBenchError as error:
            usable = False
            say(f"{name}: {str(error).removeprefix(f'{name}: ')}")
            continue
        say(f"{name}: complete, fingerprint {plan.fingerprint}")
        side = setup.track.data.resolution
        say(f"  read at {side}×{side} pixels by {', '.join(users)}")
        _echo_images(splits, plan.data_warnings)
    return usable


def _echo_images(splits: Splits, warnings: Sequence[str]) -> None:
    """Print what became of the files, and what else to know."""
    inventory = splits.inventory or Inventory()
    for line in inventory.lines():
        say(f"  {line}")
    warnings = [*warnings, *inventory.warnings()]
    for note in splits.notes:
        if note not in warnings:
            say(f"  note: {note}")
    for warning in warnings:
        say(f"  warning: {warning}")


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
