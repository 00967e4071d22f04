"""One run from names to records: what the command line and ``mia_bench.run`` share. No torch here."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from etils.epy import lazy_imports

from mia_bench.api.progress import Progress, no_progress
from mia_bench.cell import FinishedCell
from mia_bench.components import (
    OPTION_KINDS,
    ConfiguredComponent,
    OptionValues,
    parse_option_values,
    reference_attack,
    resolve_choice,
    track_options,
)
from mia_bench.config import DEFAULT_TRACK, RunConfig, load_config
from mia_bench.device import Precision, choose_device
from mia_bench.engine.cluster import Needs, RayExecutor, room
from mia_bench.engine.code import changed_code
from mia_bench.engine.executor import Executor
from mia_bench.engine.grid import Cell, build_grid
from mia_bench.engine.jobs import automatic_jobs, most_at_once
from mia_bench.engine.local import LocalExecutor
from mia_bench.engine.parallel import ParallelExecutor
from mia_bench.engine.plan import CELL_STAGES, PlannedCell, Stage, TrackPlan, own_share, pending_stages
from mia_bench.engine.progress import ProgressDisplay, reporting
from mia_bench.engine.scheduler import Interrupted, Scheduler
from mia_bench.engine.standard import StandardRun, standard_of
from mia_bench.engine.worker import Worker, WorkerSetup
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.names import STANDARD
from mia_bench.origin import StageId
from mia_bench.own_models import OwnTarget, origin_warnings, own_targets
from mia_bench.paths import Roots
from mia_bench.plugins import attribute_errors, describe_error, host
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.results import doubts, own_model_doubts
from mia_bench.store import Store
from mia_bench.track import Choice, Track, Variation, load_track
from mia_bench.weights import missing_lines, needed_by, weight_files

with lazy_imports():
    from mia_bench.api.dataset import Splits
    from mia_bench.engine import stages
    from mia_bench.engine.stages import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """What the names and paths of a configuration mean here, each looked up once."""

    config: RunConfig
    registry: Registry
    track: Track
    options: OptionValues
    roots: Roots
    store: Store
    own: Sequence[OwnTarget] = ()

    def at_once(self, todo: Collection[Stage]) -> int:
        """How many of these stages are computed at once; a cluster is asked.

        Raises:
            UsageError: the cluster does not answer, or can't compute them.
        """
        given = self.config.jobs
        if self.config.executor == "ray":
            return room(self.config.address, self._needs, self.config.device, self._most)
        return automatic_jobs(self.config.device, self.track, todo) if given == "auto" else given

    @property
    def _needs(self) -> Needs:
        """What a stage takes of a cluster."""
        return Needs(self.track.threads, self.config.gpus_per_stage)

    @property
    def _most(self) -> int | None:
        """The largest number of stages at once on a cluster."""
        return None if self.config.jobs == "auto" else self.config.jobs

    def executor(self, display: ProgressDisplay, todo: Collection[Stage]) -> Executor:
        """What computes stages: this process, others where jobs or a time limit ask for it, or a cluster."""
        config, time_limit = self.config, self.config.time_limit
        given = WorkerSetup(self.store, config.device, self.roots, config.compile)
        if config.executor == "ray":
            return RayExecutor(
                given,
                display,
                address=config.address,
                needs=self._needs,
                most=self._most,
                time_limit=time_limit,
                todo=todo,
            )
        jobs = self.at_once(todo)
        if jobs == 1 and time_limit is None:
            return LocalExecutor(Worker(given, display))
        needed = min(jobs, most_at_once(todo))
        return ParallelExecutor(given, display, jobs=jobs, needed=needed, time_limit=time_limit)

    def workspace(self, progress: Progress = no_progress) -> Workspace:
        """What loads, or computes, stages here: on the device, unless only nodes of a cluster have it."""
        on_nodes = self.config.executor == "ray" and self.config.device != "cpu"
        device = choose_device("auto" if on_nodes else self.config.device)
        return stages.Workspace(self.store, device, self.roots, progress)

    def track_plan(self) -> TrackPlan:
        """The stages that the track's cells share."""
        return TrackPlan(self.registry, self.track, self.roots, self.options)

    def grid(self, left_out: list[str], options: OptionValues | None = None) -> list[Cell]:
        """The cells that the configuration asks for; see :func:`mia_bench.engine.grid.build_grid`.

        Args:
            left_out: gets a line on each component that fails by itself.
            options: instead of all that were given.
        """
        return build_grid(
            self.registry,
            self.track,
            defenses=self.config.defense,
            attacks=self.config.attack,
            priors=self.config.prior,
            seeds=self.config.seed_list,
            options=self.options if options is None else options,
            own=self.own,
            left_out=left_out,
        )

    def make(self, wanted: Sequence[Stage], display: ProgressDisplay | None = None) -> None:
        """Compute stages, or go on with them, unless they are stored already and undamaged.

        Raises:
            MiaBenchError: one failed.
            Interrupted: stopped by the user; the next call goes on.
        """
        self.store.check_writable()
        display = display or ProgressDisplay()
        with self.store.in_use():
            self._make(wanted, display)
            if [stage for stage in wanted if self.store.set_aside_if_damaged(*stage.id)]:
                self._make(wanted, display)

    def _make(self, wanted: Sequence[Stage], display: ProgressDisplay) -> None:
        todo, _ = pending_stages(wanted, self.store.has)
        Scheduler(self.store, self.executor(display, todo), display).make(wanted)


def set_up(config: RunConfig, kinds: Sequence[str] = OPTION_KINDS) -> Setup:
    """Look up the track, the components of the options (of these kinds) and the store.

    Imports torch only for a GPU.

    Raises:
        UsageError: a name, option, path or device is wrong.
    """
    if config.device not in ("auto", "cpu") and config.executor == "local":
        choose_device(config.device)
    registry = host().registry
    track = load_track(registry, config.track)
    if config.precision is not None:
        track = track.model_copy(update={"attack_precision": config.precision})
    if config.fold is not None:
        if config.target:
            raise UsageError("--fold is for targets that are trained: models of your own have no folds")
        reference = reference_attack(registry)
        if config.attack not in ((), (reference,)):
            raise UsageError("targets of a further fold are not attacked: give --fold without --attack")
        config = config.model_copy(update={"attack": (reference,)})
        track = Variation(fold=config.fold).of(track)
    given: dict[str, Sequence[str]] = dict(config.options)
    if config.allow_partial:
        given[f"dataset:{track.data.dataset.name}.allow_partial"] = ("true",)
    options = parse_option_values(registry, given, (*kinds, "model") if config.target else kinds)
    own, options = own_targets(config, registry, track, options)
    return Setup(config, registry, track, options, config.roots, Store(config.store), own)


@dataclass
class Prepared:
    """A planned run: its cells, and the records that are there already."""

    setup: Setup
    cells: list[PlannedCell] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    cached: dict[str, Record] = field(default_factory=dict)
    standard: StandardRun | None = None
    others: dict[str, Record] = field(default_factory=dict)
    """Records of tuning seeds that other shares computed."""
    chosen: bool = False
    """Whether the cells of the strongest attacks are among ``cells``, where the standard set is run."""

    @property
    def known(self) -> dict[str, Record]:
        """The records that there are, of other shares too."""
        return {**self.others, **self.cached}

    @property
    def open_cells(self) -> list[PlannedCell]:
        """The cells without a usable record."""
        return [planned for planned in self.cells if planned.key not in self.cached]

    @cached_property
    def pending(self) -> tuple[list[Stage], list[Stage]]:
        """The stages of the open cells, as planned: those to compute and those stored."""
        wanted = [planned.measure for planned in self.open_cells if planned.skip is None]
        anew = CELL_STAGES if self.setup.config.rerun == "always" else ()
        return pending_stages(wanted, lambda name, key: name not in anew and self.setup.store.has(name, key))

    def look_up(self, cells: Iterable[PlannedCell]) -> None:
        """Find the usable records of cells."""
        rerun = self.setup.config.rerun
        keep = {"done", "skipped"} | ({"failed"} if rerun == "never" else set())
        for one in cells if rerun != "always" else ():
            record = self.setup.store.record(self.setup.track.name, one.key)
            if record is not None and record.status in keep:
                self.cached[one.key] = record

    def choose_strongest(self) -> list[PlannedCell]:
        """Add the cells of the strongest attacks, once the whole standard set has records; the new cells."""
        standard = self.standard
        if not standard or self.chosen:
            return []
        own = {one.key for one in self.cells}
        for one in standard.tuning:  # of other shares
            record = self.setup.store.record(self.setup.track.name, one.key) if one.key not in own else None
            if record is not None and record.status != "interrupted":
                self.others[one.key] = record
        known = self.known
        if any(one.key not in known for one in standard.tuning):
            return []
        self.chosen = True
        added = [one for one in standard.further(known) if one.key not in own]
        added = own_share(added, *self.setup.config.share)
        self.cells += added
        self.__dict__.pop("pending", None)
        self.look_up(added)
        return added


def prepare(config: RunConfig, variant: str = "") -> Prepared:
    """Check everything and plan; computes nothing and imports no torch (unless a GPU is asked for).

    Args:
        config: what to run.
        variant: what :attr:`mia_bench.track.Track.variant` tells of a changed track.

    Raises:
        UsageError: a name, option, path or device is wrong.
        MiaBenchError: there is no such variant, or nothing is left to run.
    """
    setup = set_up(config)
    setup = replace(setup, track=Variation.read(variant).of(setup.track))
    prepared = Prepared(setup)
    left_out = prepared.left_out
    if STANDARD in setup.config.attack:
        _plan_standard(prepared)
    else:
        cells = setup.grid(left_out)
        if cells:
            plan = setup.track_plan()
            prepared.cells, prepared.warnings = plan.cells(cells, left_out), plan.warnings
            prepared.warnings += origin_warnings(setup.own, setup.track, plan.fingerprint)
    complete(prepared)
    return prepared


def complete(prepared: Prepared) -> None:
    """Find the records of planned cells, and what the user should know.

    Raises:
        MiaBenchError: nothing is left to run.
    """
    setup, config = prepared.setup, prepared.setup.config
    if prepared.left_out and not prepared.cells:
        told = "; ".join(prepared.left_out)
        files = weight_files(needed_by(setup.registry, [setup.track]))
        others = {file: users for file, users in files.items() if file.name not in told}
        raise MiaBenchError("; ".join([told, *missing_lines(others, setup.roots.weights)]))
    prepared.cells = own_share(prepared.cells, *config.share)
    prepared.look_up(prepared.cells)
    prepared.choose_strongest()
    if config.rerun != "always":
        prepared.warnings += changed_code(prepared.cells, setup.store)
    prepared.warnings += missing_lines(weight_files(_to_compute(prepared)), setup.roots.weights)


def _plan_standard(prepared: Prepared) -> None:
    """Plan a run of the standard set."""
    setup, config = prepared.setup, prepared.setup.config
    if config.attack != (STANDARD,) or config.prior:
        what = "a prior" if config.prior else "another attack"
        raise UsageError(f"--attack {STANDARD} is a set of attacks with their priors: give it without {what}")
    standard_of(setup.registry, setup.track)
    plan = setup.track_plan()
    prepared.standard = StandardRun(
        setup.registry,
        setup.track,
        plan,
        defenses=config.defense,
        seeds=config.seed_list,
        options=setup.options,
        own=setup.own,
        left_out=prepared.left_out,
    )
    prepared.cells, prepared.warnings = list(prepared.standard.first), plan.warnings
    prepared.warnings += origin_warnings(setup.own, setup.track, plan.fingerprint)


def _to_compute(prepared: Prepared) -> Iterator[tuple[str, ConfiguredComponent]]:
    """The components of the stages to compute, each with its kind and name."""
    todo, _ = prepared.pending
    for stage in todo:
        if stage.name == "load":  # its weights are those of the file
            continue
        for part in stage.parts.values():
            if isinstance(part, ConfiguredComponent):
                yield f"{part.kind} {part.name}", part


def _load_own_models(prepared: Prepared, display: ProgressDisplay) -> set[StageId]:
    """Read the models of the user's own before anything that takes long, and here, where their files are.

    Returns:
        the stages that were computed.

    Raises:
        UsageError: one can't be read or does not fit; the file is named.
    """
    setup = prepared.setup
    todo = [stage for stage in prepared.pending[0] if stage.name == "load"]
    if not todo:
        return set()
    for stage in todo:
        stages.read_file_of(stage.parts["defense"])
    setup.make([stage.inputs["data"] for stage in todo], display)
    workspace = setup.workspace()
    for stage in todo:
        with setup.store.lock(*stage.id, lambda: None):
            stages.run_stage(stage, workspace)
    prepared.__dict__.pop("pending", None)
    return {stage.id for stage in todo}


def execute(prepared: Prepared, display: ProgressDisplay | None = None) -> list[Record]:
    """Carry out a prepared run; the records of all its cells in the grid's order.

    Raises:
        UsageError: a model of the user's own can't be read or does not fit.
        Interrupted: stopped by the user.
    """
    setup = prepared.setup

    def report(hook: str, record: Record) -> None:
        """Call every reporter; one that raises is named in a warning and stops nothing."""
        cell = FinishedCell(record.model_copy(deep=True), setup.store)  # a copy is theirs to change
        for plugin, error in host().call(hook, cell=cell):
            log.warning("plugin %s: %s raised %s", plugin, hook, describe_error(error))

    fresh: list[Record] = []
    shown = display or ProgressDisplay()
    finished = partial(report, "mia_bench_cell_finished")
    renewed: set[StageId] = set()

    def compute() -> None:
        cells = prepared.open_cells
        scheduler = Scheduler(setup.store, setup.executor(shown, prepared.pending[0]), shown, finished)
        try:
            records = scheduler.run(cells, rerun=setup.config.rerun == "always", renewed=renewed)
        except Interrupted as stopped:
            raise Interrupted([*fresh, *stopped.records]) from None
        fresh.extend(records)
        renewed.update(stage.id for cell in cells for stage in cell.measure.upstream())
        prepared.cached.update({record.key: record for record in records})

    for record in prepared.cached.values():
        report("mia_bench_cell_cached", record)
    if prepared.open_cells:
        setup.store.check_writable()
        with setup.store.in_use():
            setup.store.sweep()
            renewed |= _load_own_models(prepared, shown)
            compute()
            for added in prepared.choose_strongest():
                if added.key in prepared.cached:
                    report("mia_bench_cell_cached", prepared.cached[added.key])
            if prepared.open_cells:
                compute()
    return [prepared.cached[planned.key] for planned in prepared.cells]


def run(
    *,
    track: str = DEFAULT_TRACK,
    defense: str | Sequence[str] = (),
    attack: str | Sequence[str] = (),
    prior: str | Sequence[str] = (),
    target: str | Path | Sequence[str | Path] | Mapping[str, str | Path] = (),
    target_key: str | None = None,
    target_defense: str | None = None,
    architecture: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    seeds: int | Sequence[int] | None = None,
    seed: int | Sequence[int] = (),
    options: Mapping[str, Any] | Sequence[str] | None = None,
    device: str = "auto",
    jobs: int | Literal["auto"] | None = None,
    executor: Literal["local", "ray"] = "local",
    address: str | None = None,
    gpus_per_stage: float = 1.0,
    shard: str | None = None,
    time_limit: float | None = None,
    precision: Precision | None = None,
    compile: bool = False,
    store: str | Path | None = None,
    data: str | Path | None = None,
    weights: str | Path | None = None,
    rerun: Literal["never", "failed", "always"] = "failed",
    fold: int | None = None,
    allow_partial: bool = False,
    display: ProgressDisplay | None = None,
) -> list[Record]:
    """Run every defense × attack × seed of a track and return the records (:mod:`mia_bench.record`).

    The arguments are the keys of :class:`mia_bench.config.RunConfig`, which explains and checks them. One
    process computes, this one, unless ``jobs`` says otherwise: a script with several, or ``"auto"``, guards
    what it does by ``if __name__ == "__main__"``.

    Args:
        target: files of models of your own, or a table of rows' names and files; defenses are then run beside
            them, none unless given.
        seeds: a list, or a number N for 0 … N−1; 0 alone unless given.
        options: ``{"neg-ls.alpha": -0.1}`` or ``{"neg-ls": {"alpha": -0.1}}``; a list of values multiplies
            the grid.
        display: shows the progress; silent unless given.

    Raises:
        UsageError: a name, option, path or device is wrong.
    """
    given = dict(locals())
    del given["display"]
    if jobs is None and executor == "local":
        given["jobs"] = 1
    prepared = prepare(load_config(given))
    for line in (*prepared.warnings, *prepared.left_out):
        log.warning("%s", line)
    computed = bool(prepared.open_cells)
    records = execute(prepared, display)
    known = prepared.setup.store.records(track) if prepared.setup.own and computed else []
    for line in (*doubts(records), *own_model_doubts(records, known)) if computed else ():
        log.warning("%s", line)
    return records


def prior_stage(setup: Setup, prior: str = "") -> Stage:
    """The stage that makes the prior of that name, or the track's default.

    Raises:
        UsageError: the name or an option is wrong.
    """
    name = prior or setup.track.default_prior
    setup.options.refuse_others([("prior", name), ("dataset", setup.track.data.dataset.name)])
    choice = Choice(name=name, options=track_options(setup.track, "prior", name))
    return setup.track_plan().prior(resolve_choice(setup.registry, "prior", choice, setup.options))


def check_data(setup: Setup, stage: Stage, display: ProgressDisplay) -> Splits:
    """Read the images of a data stage as a run would, and store nothing.

    Raises:
        MiaBenchError: the data are missing or unusable; a run would fail for that reason.
    """
    with (
        reporting(display, 0, 0.0),
        tempfile.TemporaryDirectory() as scratch,
        attribute_errors(stage.parts["dataset"].owner),
    ):
        display.stage_begins(stage, 0.0)
        workspace = setup.workspace(partial(display.progress, stage))
        return stages.read_data(stage, workspace, Path(scratch) / "images")


def load_data(
    *,
    track: str = DEFAULT_TRACK,
    options: Mapping[str, Any] | Sequence[str] | None = None,
    store: str | Path | None = None,
    data: str | Path | None = None,
    allow_partial: bool = False,
    display: ProgressDisplay | None = None,
) -> Splits:
    """A track's images, decoded and split as every run sees them; arguments as of :func:`run`.

    What :func:`mia_bench.evaluate` is to attack can be trained on the part ``train``.

    Raises:
        UsageError: a name, option or path is wrong.
        MiaBenchError: the data are missing or unusable.
        Interrupted: stopped by the user.
    """
    given = {**locals(), "jobs": 1}
    del given["display"]
    setup = set_up(load_config(given))
    setup.options.refuse_others([("dataset", setup.track.data.dataset.name)])
    stage = setup.track_plan().data
    setup.make([stage], display)
    return stages.load_data(stage, setup.workspace())
