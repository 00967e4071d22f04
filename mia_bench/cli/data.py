"""``mia-bench data``: list data sets, check their layout, and decode them ahead of a run."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path

import click

from mia_bench.cli.shared import data_option, set_option, store_option
from mia_bench.errors import MiaBenchError, UsageError


@click.group(name="data", short_help="List and check data sets, and prepare them ahead of a run.")
def command() -> None:
    """List data sets, check their layout, and decode them ahead of a run."""


@command.command(name="list")
def list_() -> None:
    """Say of each data set what it is, which tracks use it, its terms, and where its files belong."""
    from mia_bench.plugins import host
    from mia_bench.track import load_track

    registry = host().registry
    tracks = defaultdict(list)
    for name in registry.names("track"):
        with contextlib.suppress(MiaBenchError):  # a broken track must not hide the data sets
            tracks[load_track(registry, name).data.dataset.name].append(name)
    for entry in registry.entries("dataset"):
        try:
            dataset = entry.load()
        except MiaBenchError as error:
            click.echo(f"{entry.name}: broken: {error}")
            continue
        click.echo(f"{entry.name}: {dataset.summary}")
        lines = {"tracks": ", ".join(tracks[entry.name]) or "none", "terms": dataset.terms}
        if dataset.needs_root:
            lines |= {"layout": dataset.layout, "from": dataset.origin}
        for label, text in lines.items():
            click.echo(f"  {label + ':':<8}{text}")


@command.command()
@click.argument("names", nargs=-1, metavar="[DATASET]…")
@set_option()
@data_option
def check(names: tuple[str, ...], options: tuple[str, ...], data: Path | None) -> None:
    """Say whether each DATASET (all of them unless told) is complete, and if not what is wrong.

    Exit code 1 if one that was named is not.
    """
    from mia_bench.components import parse_option_values, resolve
    from mia_bench.paths import data_roots
    from mia_bench.plugins import host

    registry = host().registry
    given = parse_option_values(registry, options)
    roots = data_roots(data)
    if roots.data is None:
        raise UsageError("give --data DIR or set MIA_BENCH_DATA")
    fine = True
    for name in names or registry.names("dataset"):
        dataset = resolve(registry, "dataset", name, {}, given.single("dataset", name)).make()
        if not dataset.needs_root:
            continue
        try:
            click.echo(f"{name}: complete, fingerprint {dataset.fingerprint(roots.data)}")
        except MiaBenchError as error:
            fine = False
            click.echo(f"{name}: {str(error).removeprefix(f'{name}: ')}")
            click.echo(f"  layout: {dataset.layout}")
            click.echo(f"  from:   {dataset.origin}")
    if names and not fine:
        raise SystemExit(1)


@command.command()
@click.option(
    "--track", help="Protocol whose images are decoded.  [default: synth-faces]", default=None
)
@set_option()
@click.option("--allow-partial", is_flag=True, help="Go on with data that are not the protocol's.")
@store_option
@data_option
def prepare(
    track: str | None,
    options: tuple[str, ...],
    allow_partial: bool,
    store: Path | None,
    data: Path | None,
) -> None:
    """Decode, crop and resize a track's images once, as a run would, and print what they are."""
    from mia_bench.engine.progress import terminal_progress
    from mia_bench.engine.run import DEFAULT_TRACK, Request, make_data

    request = Request(
        track=track or DEFAULT_TRACK,
        options=options,
        store=store,
        data=data,
        allow_partial=allow_partial,
    )
    splits = make_data(request, terminal_progress())
    parts = ("train", "validation", "test", "public", "decoys")
    counts = ", ".join(f"{len(getattr(splits, part))} {part}" for part in parts)
    click.echo(f"{splits.num_classes} classes; images: {counts}")
    for note in splits.notes:
        click.echo(f"note: {note}")
