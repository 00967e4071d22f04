"""``mia-bench run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mia_bench.cli.answers import repeatable
from mia_bench.cli.plan import print_phases, print_plan
from mia_bench.cli.shared import PathType, config_options
from mia_bench.config import load_config
from mia_bench.engine.progress import terminal_progress
from mia_bench.engine.run import Prepared, execute, prepare
from mia_bench.engine.scheduler import Interrupted
from mia_bench.engine.standard import outcome_table, suspicions
from mia_bench.leaderboard.published import published_lines, undefended_accuracy
from mia_bench.record import Record
from mia_bench.results import doubts, own_model_doubts, results_table
from mia_bench.store import PICTURES
from mia_bench.terminal import say, say_lines, warn

_OTHERS_FIRST = (
    "the strongest attacks follow once the attacks on the tuning seeds are done, those of other shares too: "
    "run this command again then"
)


@click.command("run")
@config_options()
@click.option(
    "--config",
    type=PathType(exists=True, dir_okay=False),
    help="TOML file with these options as keys; the command line wins.",
)
@click.option("--show-config", is_flag=True, help="Print the configuration as a file for --config, and stop.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and stop.")
def command(config: Path | None, show_config: bool, dry_run: bool, **options: Any) -> None:
    """Run every defense × attack pair of a track and print the results.

    Everything is cached: a run that was stopped goes on where it was, and a second run computes nothing. Exit
    code 0: every cell is done, or skipped with a reason; 1: a cell failed; 2: wrong usage.
    """
    chosen = load_config(options, config)
    if show_config:
        say_lines(chosen.to_toml().rstrip())
        return
    prepared = prepare(chosen)
    warn([*prepared.warnings, *prepared.left_out])
    if dry_run:
        print_plan(prepared)
        return
    if prepared.standard:
        print_phases(prepared)
    computed = bool(prepared.open_cells)
    if not computed:
        repeatable()
    try:
        records = execute(prepared, terminal_progress())
    except Interrupted as stopped:
        done = [record for record in stopped.records if record.status != "interrupted"]
        if done or chosen.format == "json":
            _print_records(stopped.records if chosen.format == "json" else done, prepared, computed)
        raise
    _print_records(records, prepared, computed)
    if prepared.left_out or any(record.status == "failed" for record in records):
        sys.exit(1)


def _print_records(records: list[Record], prepared: Prepared, computed: bool) -> None:
    setup = prepared.setup
    if prepared.chosen and prepared.standard and setup.config.format != "json":
        say_lines(outcome_table(prepared.standard, prepared.known.values(), setup.config.format))
    else:
        say_lines(results_table(records, setup.config.format))
    warnings = doubts(records)
    if setup.own:
        published = undefended_accuracy(setup.registry, setup.track)
        warnings += own_model_doubts(records, setup.store.records(setup.track.name), published)
    if computed or setup.config.format == "table":  # where nothing was computed, programs hear nothing new
        warn(warnings)
    if setup.config.format != "table":
        return
    for note in sorted({note for record in records for note in record.notes.values()} - set(warnings)):
        say(f"note: {note}", err=True)
    if prepared.standard and not prepared.chosen:
        say(f"note: {_OTHERS_FIRST}", err=True)
    if prepared.standard and prepared.chosen:
        for line in suspicions(prepared.standard, prepared.known.values()):
            say(f"note: {line}", err=True)
    for line in published_lines(records, setup.registry):
        say(line)
    pictures = [setup.store.root / PICTURES / f"{record.key}.png" for record in records]
    if shown := [path for path in pictures if path.exists()]:
        say(f"pictures: {shown[0]}" + (f" and {len(shown) - 1} more" if shown[1:] else ""))
