"""The reporter ``plugin_name``: what it does with finished cells.

An example: it appends a line of JSON per cell to a file in the store.
"""

from __future__ import annotations

import json

from mia_bench import hookimpl
from mia_bench.cell import FinishedCell

NAME = "plugin_name.jsonl"


@hookimpl
def mia_bench_cell_finished(cell: FinishedCell) -> None:
    """Append the line; a cell that failed or was skipped has a reason instead of metrics."""
    record = cell.record
    metrics = {name: metric and metric.value for name, metric in record.metrics.items()}
    line = {
        "cell": cell.key,
        "track": record.track.name,
        "defense": record.defense.name,
        "prior": record.prior.name,
        "attack": record.attack.name,
        "seed": record.seed,
        "status": record.status,
        "reason": record.reason,
        "metrics": metrics,
    }
    with open(cell.store.root / NAME, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
