"""Compute metrics of cells whose reconstructions are stored: no target is trained or attacked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mia_bench.components import OPTION_KINDS, ConfiguredComponent, OptionValues, resolve
from mia_bench.config import RunConfig
from mia_bench.engine.plan import PlannedCell, Stage, pending_stages
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.run import Setup, set_up
from mia_bench.engine.scheduler import Scheduler
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.names import STANDARD
from mia_bench.statistics import Estimate

_NEEDED = ("train", "load", "invert")
"""The stages of a cell that must be stored, unless the metrics are."""


@dataclass(frozen=True)
class MeasuredCell:
    """What metrics say of a cell.

    Attributes:
        values: each quantity by its name, None where it has no value.
        notes: by quantity, the reason why it is None or in doubt; by metric, why it failed.
        failed: whether a metric failed.
    """

    planned: PlannedCell
    values: dict[str, Estimate | None]
    notes: dict[str, str]
    failed: bool


@dataclass
class PlannedMeasurement:
    """Metrics to compute, and the cells they are computed of.

    Attributes:
        metrics: in the order of columns.
        stages: of each cell the stage of each metric, in the metrics' order.
        absent: the cells whose reconstructions, or whose target, are not stored.
    """

    setup: Setup
    metrics: list[ConfiguredComponent]
    stages: list[tuple[PlannedCell, list[Stage]]] = field(default_factory=list)
    absent: list[PlannedCell] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> list[Stage]:
        """The stages of all metrics and cells."""
        return [stage for _, several in self.stages for stage in several]

    @property
    def pending(self) -> tuple[list[Stage], list[Stage]]:
        """The stages to compute, and those stored."""
        return pending_stages(self.wanted, self.setup.store.has)


def plan_measurement(config: RunConfig, names: Sequence[str]) -> PlannedMeasurement:
    """Find the cells of a grid whose reconstructions are stored, and plan metrics of them; imports no torch.

    Args:
        config: the grid, as of a run; its options may be those of metrics, too.
        names: of the metrics; those of the track unless given.

    Raises:
        UsageError: a name, option, path or device is wrong.
        MiaBenchError: a plugin fails.
    """
    if STANDARD in config.attack:
        raise UsageError(f"--attack {STANDARD} is a set: name the attacks whose reconstructions to measure")
    if config.fold is not None:
        raise UsageError("cells of a further fold have no reconstructions to measure: leave out 'fold'")
    if config.shard is not None or "rerun" in config.model_fields_set:
        raise UsageError("metrics are computed of all stored cells, once: leave out 'shard' and 'rerun'")
    setup = set_up(config, (*OPTION_KINDS, "metric"))
    chosen = list(dict.fromkeys(names or setup.track.metrics))
    setup.options.refuse_others([("metric", name) for name in chosen], "which is not computed", ["metric"])
    metrics = [
        resolve(setup.registry, "metric", name, {}, setup.options.single("metric", name)) for name in chosen
    ]
    others = {owner: values for owner, values in setup.options.values.items() if owner[0] != "metric"}
    planned = PlannedMeasurement(setup, metrics)
    cells = setup.grid(planned.left_out, OptionValues(others))
    plan = setup.track_plan()
    planned.warnings = plan.warnings
    for cell in plan.cells(cells, planned.left_out):
        stages = [plan.metric(cell, metric) for metric in metrics]
        needed = [one for stage in stages for one in stage.inputs.values() if one.name in _NEEDED]
        if any(all(setup.store.has(*one.id) for one in enough) for enough in (needed, stages)):
            planned.stages.append((cell, stages))
        elif cell.skip is None:
            planned.absent.append(cell)
    return planned


def measure(planned: PlannedMeasurement, display: ProgressDisplay | None = None) -> list[MeasuredCell]:
    """Compute what was planned, unless it is stored already; cells in the grid's order.

    Raises:
        MiaBenchError: no reconstructions are stored.
        Interrupted: stopped by the user; the next call goes on.
    """
    if not planned.stages:
        raise MiaBenchError("no reconstructions of these cells are stored: 'mia-bench run' makes them")
    setup, shown = planned.setup, display or ProgressDisplay()
    todo, _ = planned.pending
    failed: dict[tuple[str, str], str] = {}
    if todo:
        setup.store.check_writable()
        with setup.store.in_use():
            failed = Scheduler(setup.store, setup.executor(shown, todo), shown).attempt(planned.wanted)
    return [_measured(planned, cell, stages, failed) for cell, stages in planned.stages]


def _measured(
    planned: PlannedMeasurement,
    cell: PlannedCell,
    stages: Sequence[Stage],
    failed: dict[tuple[str, str], str],
) -> MeasuredCell:
    values: dict[str, Estimate | None] = {}
    notes: dict[str, str] = {}
    for metric, stage in zip(planned.metrics, stages, strict=True):
        if reason := failed.get(stage.id):
            values |= dict.fromkeys(metric.component.quantities)
            notes[metric.name] = reason
            continue
        info: dict[str, Any] = planned.setup.store.info(*stage.id)
        values |= {name: value and Estimate(**value) for name, value in info["metrics"].items()}
        notes |= info["notes"]
    return MeasuredCell(cell, values, notes, any(stage.id in failed for stage in stages))
