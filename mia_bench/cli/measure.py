"""``mia-bench measure``."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import click

from mia_bench.api.metric import Quantity
from mia_bench.cli.plan import print_stages
from mia_bench.cli.shared import PathType, config_options
from mia_bench.components import ConfiguredComponent
from mia_bench.config import OF_TARGETS, load_config
from mia_bench.engine.measure import MeasuredCell, PlannedMeasurement, measure, plan_measurement
from mia_bench.engine.progress import counted, terminal_progress
from mia_bench.statistics import Estimate
from mia_bench.terminal import say, say_lines, table, warn

_KEYS = (
    "track", "defense", "attack", "prior", "target", *OF_TARGETS, "seeds", "seed", "options", "device",
    "jobs", "time_limit", "precision", "store", "data", "weights", "allow_partial",
)  # fmt: skip
"""The keys of a run that say which cells are meant, and where metrics are computed."""


@click.command("measure")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Metric; repeat for several.")
@config_options(*_KEYS)
@click.option(
    "--config",
    type=PathType(exists=True, dir_okay=False),
    help="TOML file with the options of a run as keys; the command line wins.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan, and stop.")
@click.option(
    "--format", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True,
    help="Format in which the numbers are printed.",
)  # fmt: skip
def command(
    metrics: tuple[str, ...], config: Path | None, dry_run: bool, format: str, **options: Any
) -> None:
    """Compute metrics of cells whose reconstructions are stored, without attacking again.

    Any metric, also one that the track does not name; those of the track unless --metric is given. Records
    stay as they are. Cells whose reconstructions are not stored are named and left out. Exit code 0: done; 1:
    a metric failed, or no reconstructions are stored; 2: wrong usage.
    """
    planned = plan_measurement(load_config(options, config), metrics)
    warn((*planned.warnings, *planned.left_out, *_absent(planned)))
    if dry_run:
        metric_names = ", ".join(metric.name for metric in planned.metrics)
        say(f"{counted(len(planned.stages), 'cell')} of track {planned.setup.config.track}: {metric_names}")
        print_stages(planned.setup, *planned.pending)
        return
    found = measure(planned, terminal_progress())
    say_lines(_text(planned, found, format))
    for note in sorted({note for cell in found for note in cell.notes.values()}) if format == "table" else ():
        say(f"note: {note}", err=True)
    if planned.left_out or any(cell.failed for cell in found):
        sys.exit(1)


def _absent(planned: PlannedMeasurement) -> list[str]:
    """A line that names the cells that are left out."""
    if not planned.absent:
        return []
    labels = [cell.cell.label for cell in planned.absent]
    more = f" and {len(labels) - 5} more" if labels[5:] else ""
    count = counted(len(labels), "cell")
    return [f"no reconstructions are stored of {count}, left out: {'; '.join(labels[:5])}{more}"]


def _text(planned: PlannedMeasurement, found: list[MeasuredCell], format: str) -> str:
    quantities = {
        name: quantity for metric in planned.metrics for name, quantity in metric.component.quantities.items()
    }
    if format == "json":
        cells = [
            {
                "key": one.planned.key,
                **_named(one, tables=False),
                "metrics": {name: value and vars(value) for name, value in one.values.items()},
                "notes": one.notes,
            }
            for one in found
        ]
        return json.dumps(cells, indent=1, sort_keys=True)
    if format == "csv":
        text = io.StringIO()
        rows = [{"key": one.planned.key, **_named(one), **_numbers(one, quantities)} for one in found]
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    shown = {name: quantity for metric in planned.metrics for name, quantity in _columns(metric).items()}
    return table(
        [
            {
                "cell": one.planned.key[:8],
                **_named(one),
                **{name: _shown(quantity, one.values.get(name)) for name, quantity in shown.items()},
            }
            for one in found
        ]
    )


def _columns(metric: ConfiguredComponent) -> dict[str, Quantity]:
    """What a table shows of a metric: no references, unless it gives nothing else."""
    every: dict[str, Quantity] = dict(metric.component.quantities)
    return {name: quantity for name, quantity in every.items() if quantity.role != "reference"} or every


def _named(one: MeasuredCell, *, tables: bool = True) -> dict[str, Any]:
    """What a cell is: with labels for people, else with all options."""
    cell = one.planned.cell
    parts = {"defense": cell.defense, "prior": cell.prior, "attack": cell.attack}
    shown = {kind: part.label if tables else part.spec() for kind, part in parts.items()}
    return {**({} if tables else {"track": cell.track.name}), **shown, "seed": cell.seed}


def _numbers(one: MeasuredCell, quantities: dict[str, Quantity]) -> dict[str, float | None]:
    """``NAME``, ``NAME_low`` and ``NAME_high`` of each quantity."""
    row: dict[str, float | None] = {}
    for name in quantities:
        value = one.values.get(name)
        ends = (value.value, value.low, value.high) if value else (None, None, None)
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    return row


def _shown(quantity: Quantity, value: Estimate | None) -> str:
    if value is None:
        return "–"
    if value.low is None or value.high is None or not quantity.interval:
        return quantity.format(value.value)
    return f"{quantity.format(value.value)} [{quantity.format(value.low)}, {quantity.format(value.high)}]"
