"""What ``mia-bench run --dry-run`` prints."""

from __future__ import annotations

import shutil
from collections.abc import Collection

import click
from tabulate import tabulate

from mia_bench.engine.estimate import CostEstimate, estimates
from mia_bench.engine.plan import PlannedCell, Stage, pending_stages
from mia_bench.engine.progress import duration, size
from mia_bench.engine.run import Prepared


def print_plan(prepared: Prepared) -> None:
    """The cells, the stages behind them, what is cached and what the rest may take."""
    wanted = [planned.measure for planned in prepared.open_cells if planned.skip is None]
    todo, cached = pending_stages(wanted, prepared.setup.store.has)
    expected = estimates(prepared.setup.store, todo)
    done = len(prepared.cells) - len(prepared.open_cells)
    click.echo(f"{len(prepared.cells)} cells of track {prepared.setup.config.track}, {done} done before")
    for planned in prepared.cells:
        click.echo(f"  {planned.key[:8]}  {planned.cell.label}: {_state(planned, prepared)}")
    rows = [{"stage": s.name, "what": s.label, "state": "cached"} for s in cached]
    rows += [_row(stage, expected[stage.id]) for stage in todo]
    if rows:
        columns = dict.fromkeys(column for row in rows for column in row)
        cells = [[row.get(column, "") for column in columns] for row in rows]
        click.echo("\n" + tabulate(cells, list(columns)))
    total = sum(estimate.seconds for estimate in expected.values()) / prepared.setup.config.jobs
    click.echo(f"\n{len(todo)} stages to compute, about {duration(total)}; store {prepared.setup.store.root}")
    _print_room(prepared, expected.values())


def _state(planned: PlannedCell, prepared: Prepared) -> str:
    if planned.skip:
        return f"skipped: {planned.skip}"
    return "done" if planned.key in prepared.cached else "to run"


def _row(stage: Stage, estimate: CostEstimate) -> dict[str, str]:
    row = {"stage": stage.name, "what": stage.label, "state": "to compute"}
    row["estimate"] = duration(estimate.seconds)
    if estimate.disk is not None:
        row["disk"] = size(estimate.disk)
    if estimate.gpu_memory is not None:
        row["GPU memory"] = size(estimate.gpu_memory)
    return row


def _print_room(prepared: Prepared, expected: Collection[CostEstimate]) -> None:
    """Disk space and GPU memory, where something is known of them, and whether they are there."""
    disk = sum(estimate.disk or 0 for estimate in expected)
    if disk:
        free = shutil.disk_usage(prepared.setup.store.root).free
        click.echo(f"disk: about {size(disk)}, {size(free)} are free")
        if disk > free:
            click.echo("warning: the disk is too small for all of it", err=True)
    memory = max((estimate.gpu_memory or 0 for estimate in expected), default=0)
    if memory:
        click.echo(f"GPU memory: up to about {size(memory)}; attacks halve their batches until they fit")
