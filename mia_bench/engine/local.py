"""The local executor: cell after cell in this process, each stage once, failures kept apart."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mia_bench import __version__, provenance
from mia_bench.components import ConfiguredComponent, changed_keys
from mia_bench.engine.code import code_of, label, stored_code
from mia_bench.engine.estimate import stage_seconds
from mia_bench.engine.plan import CELL_STAGES, PlannedCell, Stage, pending_stages
from mia_bench.engine.progress import Reporter, reporting
from mia_bench.errors import CorruptArtifact, MiaBenchError, StoreError, UsageError
from mia_bench.paths import Roots
from mia_bench.plugins import describe_error, host, plugin_behind
from mia_bench.record import RECORD_SCHEMA, About
from mia_bench.store import Store
from mia_bench.track import Track

if TYPE_CHECKING:
    import torch

    from mia_bench.engine.stages import Workspace

log = logging.getLogger(__name__)

_OWNERS = ("defense", "attack", "prior", "dataset", "encoder", "architecture")
"""Roles in a stage; the first that is there is named when it fails."""

LEARNED_SECONDS = 5.0
"""A stage that took longer makes the estimates of those that are left anew."""

Record = dict[str, Any]
Finished = Callable[[Record], None]


class Interrupted(MiaBenchError):
    """The user stopped the run; what is finished is kept."""

    def __init__(self, records: list[Record]) -> None:
        super().__init__("interrupted; what is finished is kept, run the same command to go on")
        self.records = records


class StageFailed(Exception):
    """A stage failed; ``reason`` is one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LocalExecutor:
    """Runs a plan in this process.

    Args:
        store: where artifacts and records go.
        device: ``auto``, ``cpu``, ``cuda[:i]`` or ``mps``.
        roots: where data and weights lie.
        reporter: who tells the user.
        finished: called with each new record once it is stored.
        compiled: compile what attacks pass through.
    """

    def __init__(
        self,
        store: Store,
        device: str,
        roots: Roots,
        reporter: Reporter,
        finished: Finished,
        *,
        compiled: bool = False,
    ) -> None:
        self._store = store
        self._device = device
        self._roots = roots
        self._reporter = reporter
        self._finished = finished
        self._compiled = compiled
        self._todo: list[Stage] = []
        self._failed: dict[tuple[str, str], str] = {}
        self._renew: set[tuple[str, str]] = set()
        self._workspace: Workspace | None = None

    def run(self, cells: list[PlannedCell], *, rerun: bool = False) -> list[Record]:
        """Compute the record of every cell, in order; ``rerun`` computes cached stages anew.

        Raises:
            Interrupted: Ctrl-C or a termination signal; carries the records so far.
            StoreError: the store is full or not writable.
        """
        todo = self._todo = self._pending(cells, rerun=rerun)
        seconds = stage_seconds(self._store, todo)
        records: list[Record] = []
        with reporting(self._reporter, len(todo), sum(seconds.values())):
            for planned in cells:
                started = provenance.now()
                try:
                    records.append(self._cell(planned, seconds, started))
                except KeyboardInterrupt:
                    records.append(self._interrupted(planned, started))
                    raise Interrupted(records) from None
        return records

    def _pending(self, cells: list[PlannedCell], *, rerun: bool) -> list[Stage]:
        """What there is to compute, inputs first."""
        runnable = [planned for planned in cells if planned.skip is None]
        if rerun:
            self._renew = {
                stage.id
                for planned in runnable
                for stage in planned.measure.upstream()
                if stage.name in CELL_STAGES
            }
        return pending_stages([planned.measure for planned in runnable], self._has)[0]

    def make(self, stage: Stage) -> None:
        """Compute one stage and what it needs, unless it is stored already.

        Raises:
            MiaBenchError: it failed.
            Interrupted: Ctrl-C or a termination signal.
        """
        todo, _ = pending_stages([stage], self._store.has)
        seconds = stage_seconds(self._store, todo)
        with reporting(self._reporter, len(todo), sum(seconds.values())):
            try:
                self._ensure(stage, seconds)
            except StageFailed as failure:
                raise MiaBenchError(failure.reason) from failure
            except KeyboardInterrupt:
                raise Interrupted([]) from None

    def compute(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Compute one stage of a plan whose inputs are there, as :class:`ParallelExecutor` asks for it.

        Raises:
            StageFailed: it can't be computed.
        """
        if renew:
            self._renew.add(stage.id)
        self._failed.clear()
        self._ensure(stage, {stage.id: seconds})

    def _keep(self, record: Record) -> None:
        """Store a record; a finished one is never replaced by one without numbers."""
        if record["status"] != "done":
            before = self._store.record(record["track"]["name"], record["key"])
            if before is not None and before.get("status") == "done":
                return
        self._store.write_record(record)

    def _has(self, name: str, key: str) -> bool:
        return (name, key) not in self._renew and self._store.has(name, key)

    def _cell(
        self, planned: PlannedCell, seconds: dict[tuple[str, str], float], started: str
    ) -> Record:
        """The record of a cell, computed, kept and announced."""
        if planned.skip is not None:
            record = self._record(planned, started, "skipped", planned.skip)
        else:
            try:
                self._ensure(planned.measure, seconds)
                record = self._record(planned, started, "done", None)
            except StageFailed as failure:
                self._reporter.say(f"FAILED {planned.cell.label}: {failure.reason}")
                record = self._record(planned, started, "failed", failure.reason)
        self._keep(record)
        self._finished(record)
        return record

    def _interrupted(self, planned: PlannedCell, started: str) -> Record:
        record = self._record(planned, started, "interrupted", "interrupted")
        self._keep(record)
        return record

    def _ensure(self, stage: Stage, seconds: dict[tuple[str, str], float]) -> None:
        """Compute ``stage`` and what it needs, unless it is stored already."""
        if stage.id in self._failed:
            raise StageFailed(self._failed[stage.id])
        if self._has(*stage.id):
            return
        for needed in stage.inputs.values():
            self._ensure(needed, seconds)

        def waiting() -> None:
            self._reporter.say(f"waiting for another run that computes: {stage.label}")

        with self._store.lock(*stage.id, waiting):
            if self._has(*stage.id):
                return
            self._reporter.stage_begins(stage, seconds.get(stage.id, 0.0))
            began = time.monotonic()
            try:
                self._compute(stage, seconds)
            except StageFailed:
                self._reporter.stage_fails(stage)
                raise
            self._renew.discard(stage.id)
            took = time.monotonic() - began
            self._reporter.stage_ends(stage, took)
            if took > LEARNED_SECONDS:
                left = [one for one in self._todo if not self._has(*one.id)]
                seconds.update(stage_seconds(self._store, left))

    def _compute(self, stage: Stage, seconds: dict[tuple[str, str], float]) -> None:
        from mia_bench.engine.stages import run_stage

        for attempt in range(3):
            try:
                workspace = self._open()
                workspace.progress = partial(self._reporter.progress, stage)
                run_stage(stage, workspace)
                return
            except CorruptArtifact as error:
                # An input was damaged after it was written: drop it, make it again, try again.
                if attempt == 2:
                    raise StageFailed(self._fail(stage, error)) from error
                for needed in stage.upstream():
                    if needed is not stage:
                        self._discard_if_damaged(needed)
                        self._ensure(needed, seconds)
            except (StoreError, UsageError):
                raise
            except (Exception, SystemExit) as error:  # a plugin's; the rest of the grid goes on
                log.debug("stage %s failed", stage.id, exc_info=True)
                raise StageFailed(self._fail(stage, error)) from error

    def _fail(self, stage: Stage, error: BaseException) -> str:
        part = next((p for role in _OWNERS if (p := stage.parts.get(role)) is not None), None)
        owner = f" of plugin {part.identity['distribution']}:{part.name}" if part else ""
        inside = plugin_behind(error)
        if part and inside == host().registry.get(part.kind, part.name).plugin.id:
            inside = ""
        inside = f", in plugin {inside}" if inside else ""
        self._failed[stage.id] = f"{stage.name}{owner}{inside}: {describe_error(error)}"
        return self._failed[stage.id]

    def _discard_if_damaged(self, stage: Stage) -> None:
        try:
            self._store.arrays(*stage.id)
            self._store.info(*stage.id)
        except CorruptArtifact as error:
            self._store.discard(*stage.id, str(error))

    def _open(self) -> Workspace:
        if self._workspace is None:
            from mia_bench.device import choose_device
            from mia_bench.engine.stages import Workspace

            device: torch.device = choose_device(self._device)
            self._workspace = Workspace(
                self._store, device, self._roots, lambda *_: None, self._compiled
            )
        return self._workspace

    def _record(
        self, planned: PlannedCell, started: str, status: str, reason: str | None
    ) -> Record:
        cell = planned.cell
        info = self._store.info(*planned.measure.id) if status == "done" else None
        run = info["run"] if info else {}
        made = self._made(planned.measure) if info else {}
        return {
            "schema": RECORD_SCHEMA,
            "key": planned.key,
            "track": {
                "name": cell.track.name,
                "version": cell.track.version,
                "data": planned.data_fingerprint,
                "protocol": planned.protocol,
            },
            "defense": self._described(planned, cell.defense),
            "prior": self._described(planned, cell.prior),
            "attack": self._described(planned, cell.attack),
            "seed": cell.seed,
            "status": status,
            "reason": reason,
            "metrics": info["metrics"] if info else {},
            "per_class": info["per_class"] if info else {},
            "cost": info["costs"] if info else {},
            "provenance": {
                "mia_bench": __version__,
                "git": made.get("git", provenance.git_commit()),
                "python": provenance.python_version(),
                "torch": made.get("torch", provenance.package_version("torch")),
                "device": made.get("device"),
                "platform": provenance.platform_name(),
                "started": started,
                "finished": run.get("finished", provenance.now()),
                "weights": _weights(planned.measure),
            },
            "notes": info["notes"] if info else {},
        }

    def _described(self, planned: PlannedCell, component: ConfiguredComponent) -> dict[str, Any]:
        """A component as the record has it, with the code that was run, which may not be today's."""
        made_by = {"defense": "train", "prior": "prior", "attack": "invert"}[component.kind]
        stage = next(s for s in planned.measure.upstream() if s.name == made_by)
        code = {**code_of(stage), **stored_code(self._store, stage)}
        return _component(component, planned.cell.track, code.get(label(component), ""))

    def _made(self, measure: Stage) -> dict[str, str]:
        """Commit, torch and device behind a cell; several where its stages differ."""
        found: dict[str, list[str]] = {}
        for stage in measure.upstream():
            try:
                run = self._store.info(*stage.id)["run"]
            except (CorruptArtifact, KeyError):
                continue  # an input that is gone; what was made from it is still there
            for name in ("git", "torch", "device"):
                value = run.get(name)
                if value and value not in found.setdefault(name, []):
                    found[name].append(value)
        return {name: ", ".join(values) for name, values in found.items() if values}


def _component(resolved: ConfiguredComponent, track: Track, code: str) -> dict[str, Any]:
    """What a record says of a component."""
    about = About(
        **{name: getattr(resolved.component, name, "") for name in ("summary", "paper", "access")},
        reference=getattr(resolved.component, "reference", ""),
        baseline=getattr(resolved.component, "baseline", False),
        changed=changed_keys(resolved, track),
        url=provenance.package_url(resolved.identity["distribution"]),
        code=code,
    )
    return {**resolved.spec(), "about": about.model_dump()}


def _weights(measure: Stage) -> dict[str, str]:
    """The weights behind a cell that nothing of it trained, by stage."""
    return {
        stage.name: str(stage.spec["weights"])
        for stage in measure.upstream()
        if stage.spec.get("weights")
    }
