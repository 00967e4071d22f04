"""``mia-bench experiment``: what papers claim, each one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mia_bench.cli.plan import print_plan
from mia_bench.cli.shared import PathType, config_options, store_option, uncollected
from mia_bench.config import RunConfig, load_config
from mia_bench.engine.progress import terminal_progress
from mia_bench.engine.run import execute
from mia_bench.experiments import folder as published
from mia_bench.experiments.analysis import Answer, answer
from mia_bench.experiments.definition import experiment_names, load_experiment
from mia_bench.experiments.planning import cells_of, prepare_experiment
from mia_bench.leaderboard.words import brief, change
from mia_bench.plugins import host
from mia_bench.results import doubts, read_store, text_table
from mia_bench.terminal import say, say_lines

_OF_GRID = ("defense", "attack", "prior", "options", "rerun", "shard", "format")
_KEYS = tuple(
    name
    for name in RunConfig.model_fields
    if name not in _OF_GRID and not name.startswith("target") and name not in ("architecture", "mean", "std")
)
"""The keys of a run but those that the experiment sets, and those of own models."""


@click.group("experiment")
def command() -> None:
    """Run the experiments that test what papers claim, and write their pages."""


@command.command("list")
def list_() -> None:
    """List the experiments."""
    rows = []
    for name in experiment_names():
        one = load_experiment(name)
        rows.append({"name": name, "question": one.question, "tracks": ", ".join(one.tracks)})
    say_lines(text_table(rows))


@command.command()
@click.argument("name")
@config_options(*_KEYS)
@click.option("--dry-run", is_flag=True, help="Print the plan, and stop.")
def run(name: str, dry_run: bool, **options: Any) -> None:
    """Run the cells of the experiment NAME on a track, and print what they say.

    Everything is cached, as by mia-bench run: a run that was stopped goes on with the same command.
    """
    experiment = load_experiment(name)
    if options["track"] is None:
        options["track"] = experiment.tracks[0]
    prepared = prepare_experiment(experiment, load_config(options))
    for line in (*prepared.warnings, *prepared.left_out):
        say(f"warning: {line}", err=True)
    if dry_run:
        print_plan(prepared)
        return
    records = execute(prepared, terminal_progress())
    registry, track = prepared.setup.registry, prepared.setup.track
    seeds = tuple(dict.fromkeys(record.seed for record in records))
    found = answer(experiment, cells_of(experiment, registry, track, seeds, []), registry, track, records)
    if found:
        _print(found)
    else:
        say("no cell has numbers of accuracy and leakage")
    for line in doubts(records):
        say(f"warning: {line}", err=True)
    if prepared.left_out or any(record.status == "failed" for record in records):
        sys.exit(1)


def _print(found: Answer) -> None:
    """A row for each setting, and a line for each claim."""
    rows = []
    for line in found.lines:
        row = {"target": line.label, found.decided.accuracy: brief(found.accuracy, line.accuracy)}
        row["change"] = change(found.accuracy, line.lost)
        for label in found.attacks:
            row[f"{found.board.primary}, {label}"] = brief(found.leakage, line.leakage.get(label))
            row[f"change, {label}"] = change(found.leakage, line.more.get(label))
        rows.append(row)
    say_lines(text_table(rows))
    for one in found.tested:
        under = ", ".join(
            f"{change(found.leakage, effect)} under {label}" for label, effect in one.leakage.items()
        )
        say(f"{one.claim.text} {one.outcome.capitalize()}{f': {under}' if under else ''}")


@command.command()
@click.option(
    "--folder",
    type=PathType(file_okay=False),
    default=Path("docs/experiments"),
    show_default=True,
    help="Folder of the pages and of results/<track>/<key>.json.",
)
@click.option(
    "--boards",
    type=PathType(file_okay=False),
    default=Path("leaderboards"),
    show_default=True,
    help="Folder of the leaderboards, whose records count too.",
)
@store_option
@uncollected()
def build(folder: Path, boards: Path, store: Path | None) -> None:
    """Write the pages from the records; with --store, add the records of a store first."""
    registry = host().registry
    written = published.add(folder, boards, registry, read_store(store)) if store else []
    written += published.build(folder, boards, registry)
    for path in written:
        say(path)
    if not written:
        say("all pages are up to date", err=True)
