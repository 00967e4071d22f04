"""``mia-bench run``."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mia_bench.cli.shared import Integer, Number, data_option, set_option, store_option
from mia_bench.device import PRECISIONS
from mia_bench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from mia_bench.engine.estimate import Estimate
    from mia_bench.engine.run import Prepared

CONFIG_KEYS = {
    "track": str,
    "defense": list,
    "attack": list,
    "prior": list,
    "seeds": int,
    "seed": list,
    "options": dict,
    "device": str,
    "jobs": int,
    "time_limit": int,
    "precision": str,
    "compile": bool,
    "store": str,
    "data": str,
    "rerun": str,
    "format": str,
}
_KIND_WORDS = {str: "text", int: "a whole number", bool: "true or false", dict: "a table"}
_FORMATS = ("table", "json", "markdown")


@click.command("run", short_help="Run every defense × attack pair and print the results.")
@click.option("--track", help="Protocol to run.  [default: synth-faces]")
@click.option("--defense", multiple=True, help="Defense; repeat for several.  [default: all]")
@click.option("--attack", multiple=True, help="Attack; repeat for several.  [default: all]")
@click.option(
    "--prior", multiple=True, help="Image prior; repeat for several.  [default: each attack's]"
)
@click.option("--seeds", type=Integer(1), help="Number of seeds: 0 … N-1.  [default: 1]")
@click.option("--seed", type=Integer(0), multiple=True, help="One seed; repeat for several.")
@set_option("Set an option; several values of one key multiply the grid.")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file with these options; the command line wins.",
)
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps.  [default: auto]")
@click.option(
    "--jobs",
    type=Integer(1),
    help="Processes that compute at once, on the GPUs in turn.  [default: 1]",
)
@click.option(
    "--time-limit",
    type=Number(0, min_open=True),
    metavar="SECONDS",
    help="A stage that takes longer fails, and the rest goes on.  [default: none]",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of the networks in attacks; rows of another precision are of another protocol.",
)
@click.option(
    "--compile", is_flag=True, default=None, help="Compile the networks that attacks pass through."
)
@store_option
@data_option
@click.option(
    "--rerun",
    type=click.Choice(["never", "failed", "always"]),
    help="Which cells with a record are computed again.  [default: failed]",
)
@click.option(
    "--executor",
    type=click.Choice(["local"]),
    default="local",
    show_default=True,
    help="What computes the cells: processes of this machine.",
)
@click.option(
    "--allow-partial",
    is_flag=True,
    help="Go on with data that are not the protocol's; every record is marked.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(_FORMATS),
    help="What to print on standard output.  [default: table]",
)
def command(
    config: Path | None,
    allow_partial: bool,
    dry_run: bool,
    format_: str | None,
    executor: str,
    **given: Any,
) -> None:
    """Run every defense × attack pair of a track and print the results.

    Everything is cached: a run that was stopped goes on where it was, and a second run computes
    nothing. Exit code 0: all done or skipped with a reason; 1: a cell failed; 2: wrong usage.
    """
    from mia_bench.engine.run import DEFAULT_TRACK, Request, execute, prepare

    settings = _merge(_read_config(config) if config else {}, given, format_)
    request = Request(
        track=settings.get("track") or DEFAULT_TRACK,
        defenses=settings["defense"],
        attacks=settings["attack"],
        priors=settings["prior"],
        seeds=settings["seeds"],
        options=settings["options"],
        device=settings.get("device") or "auto",
        store=Path(settings["store"]) if settings.get("store") else None,
        data=Path(settings["data"]) if settings.get("data") else None,
        rerun=settings.get("rerun") or "failed",
        executor=executor,
        jobs=settings.get("jobs") or 1,
        time_limit=settings.get("time_limit"),
        precision=settings.get("precision"),
        compiled=settings.get("compile", False),
        allow_partial=allow_partial,
    )
    _warn_of_plugins()
    prepared = prepare(request)
    for line in (*prepared.warnings, *prepared.left_out):
        click.echo(f"warning: {line}", err=True)
    if dry_run:
        print_plan(prepared)
        return
    from mia_bench.engine.progress import terminal_progress
    from mia_bench.engine.scheduler import Interrupted

    style = settings.get("format") or "table"
    try:
        records = execute(prepared, terminal_progress())
    except Interrupted as stopped:
        if style == "json":
            click.echo(json.dumps(stopped.records, indent=1, ensure_ascii=False))
        elif done := [one for one in stopped.records if one["status"] != "interrupted"]:
            _print_records(done, style, prepared)
        raise
    _print_records(records, style, prepared)
    if prepared.left_out or any(record["status"] == "failed" for record in records):
        sys.exit(1)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {path}: {error}") from error
    for key, value in config.items():
        if key not in CONFIG_KEYS:
            raise UsageError(f"--config {path}: no key {key!r}; {did_you_mean(key, CONFIG_KEYS)}")
        kind = CONFIG_KEYS[key]
        if kind is list:
            config[key] = value if isinstance(value, list) else [value]
            one = int if key == "seed" else str
            if any(type(entry) is not one for entry in config[key]):
                raise UsageError(f"--config {path}: each {key} must be {_KIND_WORDS[one]}")
        elif type(value) is not kind:
            raise UsageError(f"--config {path}: {key} must be {_KIND_WORDS[kind]}")
    if {"seed", "seeds"} <= config.keys():
        raise UsageError(f"--config {path}: give either seed or seeds")
    if config.get("seeds", 1) < 1 or any(seed < 0 for seed in config.get("seed", ())):
        raise UsageError(f"--config {path}: seeds begin at 1, each seed at 0")
    if config.get("jobs", 1) < 1:
        raise UsageError(f"--config {path}: at least one job is needed")
    for key, known in (("format", _FORMATS), ("precision", PRECISIONS)):
        if key in config and config[key] not in known:
            raise UsageError(
                f"--config {path}: {key} {config[key]!r}; {did_you_mean(config[key], known)}"
            )
    return config


def _merge(config: dict[str, Any], given: dict[str, Any], format_: str | None) -> dict[str, Any]:
    """The command line over the file; option values of the file come first."""
    if given["seeds"] is not None and given["seed"]:
        raise UsageError("give either --seeds or --seed")
    merged = {**config, **{key: value for key, value in given.items() if value not in (None, ())}}
    merged["options"] = _config_options(config.get("options", {}), given["options"])
    for key in ("defense", "attack", "prior"):
        merged[key] = list(merged.get(key, ()))
    chosen = given if given["seeds"] is not None or given["seed"] else config
    listed = [int(seed) for seed in chosen.get("seed") or ()]
    merged["seeds"] = listed or list(range(chosen.get("seeds") or 1))
    if format_:
        merged["format"] = format_
    return merged


def _config_options(table: dict[str, Any], given: tuple[str, ...]) -> list[str]:
    """``[options]`` of the file as ``PLUGIN.KEY=VALUE``; a key given on the command line replaces it."""
    replaced = {text.partition("=")[0].rpartition(":")[2] for text in given}
    texts = []
    for plugin, values in table.items():
        if not isinstance(values, dict):
            raise UsageError(f"[options.{plugin}] must be a table of options")
        for key, value in values.items():
            if f"{plugin.rpartition(':')[2]}.{key}" not in replaced:
                several = value if isinstance(value, list) else [value]
                texts += [f"{plugin}.{key}={_text(one)}" for one in several]
    return [*texts, *given]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _warn_of_plugins() -> None:
    from mia_bench.plugins import host

    for line in host().problems():
        click.echo(f"warning: {line}", err=True)


def print_plan(prepared: Prepared) -> None:
    """The cells, the stages behind them, what is cached and what the rest may take."""
    from tabulate import tabulate

    from mia_bench.engine.estimate import estimates
    from mia_bench.engine.plan import pending_stages
    from mia_bench.engine.progress import duration, size

    wanted = [planned.measure for planned in prepared.open_cells if planned.skip is None]
    todo, cached = pending_stages(wanted, prepared.store.has)
    expected = estimates(prepared.store, todo)
    rows = [{"stage": s.name, "what": s.label, "state": "cached"} for s in cached]
    for stage in todo:
        estimate = expected[stage.id]
        row = {"stage": stage.name, "what": stage.label, "state": "to compute"}
        row |= {"estimate": duration(estimate.seconds)}
        if estimate.disk is not None:
            row["disk"] = size(estimate.disk)
        if estimate.gpu_memory is not None:
            row["GPU memory"] = size(estimate.gpu_memory)
        rows.append(row)
    done = len(prepared.cells) - len(prepared.open_cells)
    click.echo(f"{len(prepared.cells)} cells of track {prepared.request.track}, {done} done before")
    for planned in prepared.cells:
        state = (
            f"skipped: {planned.skip}"
            if planned.skip
            else "done"
            if planned.key in prepared.cached
            else "to run"
        )
        click.echo(f"  {planned.key[:8]}  {planned.cell.label}: {state}")
    if rows:
        click.echo()
        columns = dict.fromkeys(key for row in rows for key in row)
        click.echo(tabulate([[row.get(c, "") for c in columns] for row in rows], list(columns)))
    total = sum(estimate.seconds for estimate in expected.values()) / prepared.request.jobs
    click.echo(
        f"\n{len(todo)} stages to compute, about {duration(total)}; store {prepared.store.root}"
    )
    _print_room(prepared, list(expected.values()))


def _print_room(prepared: Prepared, expected: list[Estimate]) -> None:
    """Disk space and GPU memory, where something is known of them, and whether they are there."""
    from mia_bench.engine.progress import size

    disk = sum(estimate.disk or 0 for estimate in expected)
    if disk:
        free = shutil.disk_usage(prepared.store.root).free
        click.echo(f"disk: about {size(disk)}, {size(free)} are free")
        if disk > free:
            click.echo("warning: the disk is too small for all of it", err=True)
    memory = max((estimate.gpu_memory or 0 for estimate in expected), default=0)
    if memory:
        click.echo(
            f"GPU memory: up to about {size(memory)}; attacks halve their batches until they fit"
        )


def _print_records(records: list[dict[str, Any]], style: str, prepared: Prepared) -> None:
    from mia_bench.record import read_record
    from mia_bench.results import results_table

    click.echo(results_table([read_record(record) for record in records], style))
    if style != "table":
        return
    pictures = [prepared.store.root / "pictures" / f"{record['key']}.png" for record in records]
    shown = [path for path in pictures if path.exists()]
    for note in sorted({note for record in records for note in record["notes"].values()}):
        click.echo(f"note: {note}", err=True)
    if shown:
        click.echo(f"pictures: {shown[0]}" + (f" and {len(shown) - 1} more" if shown[1:] else ""))
