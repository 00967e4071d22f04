"""One run from names to records: what the command line and ``mia_bench.run`` share. No torch here."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.cell import FinishedCell
from mia_bench.components import parse_option_values, resolve, track_options
from mia_bench.device import PRECISIONS, Precision, check_device_form, choose_device
from mia_bench.engine.code import changed_code
from mia_bench.engine.executor import Executor
from mia_bench.engine.grid import build_grid
from mia_bench.engine.local import LocalExecutor
from mia_bench.engine.parallel import ParallelExecutor
from mia_bench.engine.plan import PlannedCell, Stage, build_plan, plan_data, plan_prior
from mia_bench.engine.progress import ProgressDisplay, SilentProgress
from mia_bench.engine.scheduler import Scheduler
from mia_bench.engine.worker import Worker
from mia_bench.errors import MiaBenchError, UsageError, did_you_mean
from mia_bench.paths import Roots, data_roots, default_store
from mia_bench.plugins import Host, describe_error, host
from mia_bench.record import Record, read_record
from mia_bench.store import Store
from mia_bench.track import load_track

if TYPE_CHECKING:
    from mia_bench.api.dataset import Splits
    from mia_bench.components import OptionValues
    from mia_bench.registry import Registry
    from mia_bench.track import Track

DEFAULT_TRACK = "synth-faces"
RERUN = ("never", "failed", "always")
EXECUTORS = ("local",)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a run is asked for; the fields are the command line's."""

    track: str = DEFAULT_TRACK
    defenses: Sequence[str] = ()
    attacks: Sequence[str] = ()
    priors: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    options: Sequence[str] = ()
    device: str = "auto"
    store: Path | None = None
    data: Path | None = None
    rerun: str = "failed"
    executor: str = "local"
    jobs: int = 1
    """Processes that compute at once, each on the next GPU."""
    time_limit: float | None = None
    """Seconds that a stage may take before it fails."""
    precision: Precision | None = None
    """Of the networks in attacks; None leaves the track's."""
    compiled: bool = False
    """Compile the networks that attacks pass through."""
    allow_partial: bool = False
    """Go on with data that are not the protocol's, where the data set can."""

    def option_values(self, registry: Registry, track: Track) -> OptionValues:
        """The options, parsed."""
        partial = [f"{track.data.dataset.name}.allow_partial=true"] if self.allow_partial else []
        return parse_option_values(registry, [*self.options, *partial])


@dataclass
class Prepared:
    """A planned run: its cells, and the records that are there already."""

    request: Request
    store: Store
    roots: Roots
    cells: list[PlannedCell]
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    cached: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def open_cells(self) -> list[PlannedCell]:
        """The cells without a usable record."""
        return [planned for planned in self.cells if planned.key not in self.cached]


def prepare(request: Request) -> Prepared:
    """Check everything and plan; computes nothing and imports no torch (unless a GPU is asked for).

    Raises:
        UsageError: a name, option, path or device is wrong.
    """
    if request.rerun not in RERUN:
        raise UsageError(f"--rerun {request.rerun!r}; {did_you_mean(request.rerun, RERUN)}")
    if request.executor not in EXECUTORS:
        raise UsageError(f"no executor {request.executor!r}; known: {', '.join(EXECUTORS)}")
    if not request.seeds:
        raise UsageError("at least one seed is needed")
    if request.jobs < 1:
        raise UsageError("at least one job is needed")
    if request.time_limit is not None and not request.time_limit > 0:
        raise UsageError("the time limit must be more than 0 seconds")
    if check_device_form(request.device) not in ("auto", "cpu"):
        choose_device(request.device)
    registry = host().registry
    track = load_track(registry, request.track)
    if request.precision is not None:
        if request.precision not in PRECISIONS:
            hint = did_you_mean(request.precision, PRECISIONS)
            raise UsageError(f"no precision {request.precision!r}; {hint}")
        track = track.model_copy(update={"attack_precision": request.precision})
    options = request.option_values(registry, track)
    cells = build_grid(
        registry,
        track,
        defenses=request.defenses,
        attacks=request.attacks,
        priors=request.priors,
        seeds=request.seeds,
        options=options,
        left_out=(left_out := []),
    )
    roots = data_roots(request.data)
    plan = build_plan(registry, cells, roots, options)
    left_out += plan.left_out
    if left_out and not plan.cells:
        raise MiaBenchError("; ".join(left_out))
    store = Store(request.store or default_store())
    prepared = Prepared(request, store, roots, plan.cells, plan.warnings, left_out)
    if request.rerun != "always":
        keep = {"done", "skipped"} | ({"failed"} if request.rerun == "never" else set())
        for one in plan.cells:
            record = _valid(prepared.store.record(track.name, one.key))
            if record is not None and record["status"] in keep:
                prepared.cached[one.key] = record
        prepared.warnings += changed_code(plan.cells, store)
    return prepared


def _valid(record: dict[str, Any] | None) -> dict[str, Any] | None:
    if record is None:
        return None
    try:
        read_record(record)
    except ValueError as error:
        log.warning(
            "a stored record doesn't fit the schema (%s); the cell is computed again", error
        )
        return None
    return record


def execute(prepared: Prepared, reporter: ProgressDisplay | None = None) -> list[dict[str, Any]]:
    """Carry out a prepared run; the records of all its cells in the grid's order.

    Raises:
        Interrupted: stopped by the user.
    """
    if prepared.open_cells:
        prepared.store.check_writable()
        prepared.store.sweep()
        scheduler = _scheduler(prepared, reporter or SilentProgress())
        fresh = scheduler.run(prepared.open_cells, rerun=prepared.request.rerun == "always")
        prepared.cached.update({record["key"]: record for record in fresh})
    return [prepared.cached[planned.key] for planned in prepared.cells]


def _scheduler(prepared: Prepared, display: ProgressDisplay) -> Scheduler:
    def finished(record: dict[str, Any]) -> None:
        announce(host(), FinishedCell(copy.deepcopy(record), prepared.store))  # theirs to change

    return Scheduler(prepared.store, _executor(prepared, display), display, finished)


def _executor(prepared: Prepared, display: ProgressDisplay) -> Executor:
    request = prepared.request
    given = (prepared.store, request.device, prepared.roots, display)
    if request.jobs == 1 and request.time_limit is None:
        return LocalExecutor(Worker(*given, compiled=request.compiled))
    return ParallelExecutor(
        *given, jobs=request.jobs, time_limit=request.time_limit, compiled=request.compiled
    )


def announce(loaded: Host, cell: FinishedCell) -> None:
    """Call every reporter; one that raises is named in a warning and stops nothing."""
    for plugin, error in loaded.call("mia_bench_cell_finished", cell=cell):
        log.warning("plugin %s: mia_bench_cell_finished raised %s", plugin, describe_error(error))


def run(
    *,
    track: str = DEFAULT_TRACK,
    defense: str | Sequence[str] = (),
    attack: str | Sequence[str] = (),
    prior: str | Sequence[str] = (),
    seeds: int | Sequence[int] = (0,),
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    store: str | Path | None = None,
    data: str | Path | None = None,
    rerun: str = "failed",
    jobs: int = 1,
    time_limit: float | None = None,
    precision: Precision | None = None,
    compiled: bool = False,
    reporter: ProgressDisplay | None = None,
) -> list[dict[str, Any]]:
    """Run every defense × attack × seed of a track and return the records (:mod:`mia_bench.record`).

    Args:
        track: name of the protocol.
        defense: names; none means all.
        attack: names; none means all.
        prior: names; none means each attack's default on the track.
        seeds: a list, or a number N for 0 … N−1.
        options: ``{"neg-ls.alpha": -0.1}``; a list of values multiplies the grid.
        device: ``auto``, ``cpu``, ``cuda[:i]`` or ``mps``.
        store: folder of artifacts and records.
        data: root of data sets.
        rerun: ``never``, ``failed`` or ``always``.
        jobs: processes that compute at once, on the GPUs in turn; a script that asks for several guards
            what it does by ``if __name__ == "__main__"``.
        time_limit: seconds that a stage may take before it fails; computes in a process of its own, too.
        precision: ``float32`` or ``bfloat16``, of the networks in attacks; none means the track's.
        compiled: compile the networks that attacks pass through.
        reporter: told about the progress; silent unless given.

    Raises:
        UsageError: a name, option, path or device is wrong.
    """
    texts = [
        f"{key}={value}"
        for key, given in (options or {}).items()
        for value in (given if isinstance(given, (list, tuple)) else [given])
    ]

    def names(given: str | Sequence[str]) -> Sequence[str]:
        return (given,) if isinstance(given, str) else given

    request = Request(
        track=track,
        defenses=names(defense),
        attacks=names(attack),
        priors=names(prior),
        seeds=range(seeds) if isinstance(seeds, int) else seeds,
        options=texts,
        device=device,
        store=Path(store) if store else None,
        data=Path(data) if data else None,
        rerun=rerun,
        jobs=jobs,
        time_limit=time_limit,
        precision=precision,
        compiled=compiled,
    )
    prepared = prepare(request)
    for line in (*prepared.warnings, *prepared.left_out):
        log.warning("%s", line)
    return execute(prepared, reporter)


@dataclass(frozen=True)
class PlannedStage:
    """A stage that a track's cells share, to be made ahead of them."""

    stage: Stage
    store: Store
    roots: Roots


def prepare_prior(request: Request, prior: str = "") -> PlannedStage:
    """Plan the prior of that name, or the track's default; options and paths are checked.

    Raises:
        UsageError: a name, option, path or device is wrong.
    """
    if check_device_form(request.device) not in ("auto", "cpu"):
        choose_device(request.device)
    registry = host().registry
    track = load_track(registry, request.track)
    options = request.option_values(registry, track)
    name = prior or track.default_prior
    resolved = resolve(
        registry,
        "prior",
        name,
        track_options(track, "prior", name),
        options.single("prior", name),
    )
    roots = data_roots(request.data)
    stage = plan_prior(registry, track, resolved, roots, options)
    return PlannedStage(stage, Store(request.store or default_store()), roots)


def make_data(request: Request, reporter: ProgressDisplay | None = None) -> Splits:
    """A track's images, decoded unless they are stored already.

    Raises:
        MiaBenchError: a name, option or path is wrong, or the data are.
        Interrupted: stopped by the user.
    """
    from mia_bench.engine.stages import Workspace, load_data

    registry = host().registry
    track = load_track(registry, request.track)
    roots = data_roots(request.data)
    stage = plan_data(registry, track, roots, request.option_values(registry, track))
    planned = PlannedStage(stage, Store(request.store or default_store()), roots)
    make_stage(planned, request.device, reporter)
    workspace = Workspace(planned.store, choose_device("cpu"), roots, lambda *_: None)
    return load_data(stage, workspace)


def make_stage(planned: PlannedStage, device: str, reporter: ProgressDisplay | None = None) -> None:
    """Compute a planned stage, or go on with it, unless it is stored already.

    Raises:
        MiaBenchError: it failed.
        Interrupted: stopped by the user; the next call goes on.
    """
    planned.store.check_writable()
    display = reporter or SilentProgress()
    worker = Worker(planned.store, device, planned.roots, display)
    Scheduler(planned.store, LocalExecutor(worker), display).make(planned.stage)


def load_records(store: str | Path | None = None, track: str | None = None) -> list[Record]:
    """The records of a store, checked; damaged ones are passed over with a warning."""
    found = Store(Path(store) if store else default_store()).records(track)
    return [read_record(record) for record in found if _valid(record)]
