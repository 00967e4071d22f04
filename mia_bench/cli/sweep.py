"""``mia-bench sweep``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mia_bench.cli.plan import print_plan
from mia_bench.cli.shared import PathType, config_options, output_option, writing
from mia_bench.config import OF_TARGETS, RunConfig, load_config
from mia_bench.engine.progress import terminal_progress
from mia_bench.engine.run import Prepared, execute
from mia_bench.engine.sweep import prepare_sweep
from mia_bench.errors import UsageError
from mia_bench.leaderboard.sweeps import figure, outcome, rows_of
from mia_bench.record import Record
from mia_bench.recorded_options import differing, options_text
from mia_bench.results import doubts, results_table, text_table
from mia_bench.terminal import say, say_lines, warn

_OTHERS = {
    "attack": "Attack to run; repeat for several.  [default: the default ones of the track's standard set]",
    "seeds": "Number of seeds: 0 … N-1.  [default: the track's tuning seeds]",
}
"""Keys with a default of their own."""

_KEYS = tuple(
    name for name in RunConfig.model_fields if name not in ("fold", "target", *OF_TARGETS, *_OTHERS)
)
"""The keys of a run but its fold, and those of own models, which a sweep can't train."""


@click.command("sweep")
@config_options(*_KEYS, **_OTHERS)
@click.option(
    "--config",
    type=PathType(exists=True, dir_okay=False),
    help="TOML file with these options as keys; the command line wins.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Cross-validate the accuracy over N folds, for few validation images; no key of --config.",
    show_default=True,
)
@click.option("--dry-run", is_flag=True, help="Print the plan, and stop.")
@output_option("SVG file of the figure.  [default: sweep-TRACK-DEFENSE….svg]")
def command(config: Path | None, folds: int, dry_run: bool, output: Path | None, **options: Any) -> None:
    """Run defenses over their strengths, and show what they cost and what leaks.

    The strengths are a defense's own. -o DEFENSE.OPTION=VALUE replaces the values of that option in them, or
    adds an option. Beside them undefended targets are run with fewer epochs or images: lower accuracy alone
    lowers leakage, so a defense must do better than they. Seeds are the track's tuning seeds unless given.
    Attacks are the default ones of its standard set unless given. In further folds targets are trained on
    other images, on the first seed, and not attacked. Everything is cached, as by mia-bench run.
    """
    given = load_config(options, config)
    if given.fold is not None:
        raise UsageError("a sweep has no 'fold': give --folds N")
    further = given.model_copy(update={"attack": ()})
    several = [prepare_sweep(given)]
    several += [prepare_sweep(further.model_copy(update={"fold": fold})) for fold in range(1, folds)]
    warn(dict.fromkeys(line for one in several for line in (*one.warnings, *one.left_out)))
    if dry_run:
        for fold, prepared in enumerate(several):
            if fold:
                say(f"\nfold {fold}:")
            print_plan(prepared)
        return
    records = [record for prepared in several for record in execute(prepared, terminal_progress())]
    show(several[0], records, output)
    if any(one.left_out for one in several) or any(record.status == "failed" for record in records):
        sys.exit(1)


def show(prepared: Prepared, records: list[Record], output: Path | None) -> None:
    """Print the table, or the records as JSON, and write the figure."""
    setup = prepared.setup
    config, track = setup.config, setup.track
    found = outcome(setup.registry, track, records)
    if config.format == "json":
        say_lines(results_table(records, "json"))
    elif found:
        say_lines(text_table(rows_of(found), config.format))
    else:
        say("no cell has numbers of accuracy and leakage")
    warn(doubts(records))
    if not found:
        return
    for defense, several in found.further.items():
        for more in several:
            tried = [record.defense.options for record in records if record.defense.name == defense]
            said = options_text(differing(more, tried))
            say(f"note: a chosen setting of {defense} is at the edge of the sweep; try {said} too", err=True)
    if drawn := figure(found):
        path = output or Path("-".join(["sweep", track.name, *config.defense]) + ".svg")
        with writing(path):
            path.write_text(drawn, encoding="utf-8")
        say(f"figure: {path}", err=config.format == "json")
