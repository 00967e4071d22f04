"""Computes stages in this process, one at a time; errors name the plugin that they came from."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from dataclasses import dataclass
from functools import cached_property, partial

from etils.epy import lazy_imports

from mia_bench import interruption
from mia_bench.api.progress import no_progress
from mia_bench.device import choose_device
from mia_bench.engine.plan import Stage
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.errors import CorruptArtifact, StoreError
from mia_bench.own_models import OwnTarget
from mia_bench.paths import Roots
from mia_bench.plugins import describe_error, host, plugin_behind, raised_by_host
from mia_bench.store import Store
from mia_bench.text import one_line, shortened

with lazy_imports():
    from mia_bench.engine import stages
    from mia_bench.engine.stages import Workspace

log = logging.getLogger(__name__)

_OWNERS = ("defense", "attack", "prior", "dataset", "encoder", "architecture")
"""Roles in a stage; the first that it has is named when it fails."""

_ATTEMPTS = 3


class StageFailed(Exception):
    """A stage failed; ``reason`` is one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class WorkerSetup:
    """What every worker of a run needs; it can be sent to another process.

    Attributes:
        store: where artifacts go.
        device: ``auto``, ``cpu``, ``cuda[:i]`` or ``mps``.
        roots: where data and weights lie.
        compiled: compile what attacks pass through.
    """

    store: Store
    device: str
    roots: Roots
    compiled: bool = False


class Worker:
    """Computes stages, stores them, and shows the progress on a display."""

    def __init__(self, setup: WorkerSetup, display: ProgressDisplay) -> None:
        self._setup = setup
        self._store = setup.store
        self._display = display

    @cached_property
    def _workspace(self) -> Workspace:
        device = choose_device(self._setup.device)
        return stages.Workspace(self._store, device, self._setup.roots, no_progress, self._setup.compiled)

    def show_on(self, display: ProgressDisplay) -> None:
        """Show the progress of later stages on another display."""
        self._display = display

    def warm_up(self) -> None:
        """Import what computing needs, which takes seconds."""
        with contextlib.suppress(Exception):  # the first stage raises it again
            _ = self._workspace

    def compute(self, stage: Stage, *, renew: bool = False, seconds: float = 0.0) -> None:
        """Compute a stage, and inputs that are missing, unless they are stored already.

        Raises:
            StageFailed: it can't be computed.
            StoreError: the store is full, not writable or gone.
            UsageError: the device is not there.
        """
        if not renew and self._store.has(*stage.id):
            return
        for needed in stage.inputs.values():
            self.compute(needed)
        waiting = f"waiting for another run that computes: {stage.label}"
        with self._store.lock(*stage.id, partial(self._display.say, waiting)):
            if not renew and self._store.has(*stage.id):
                return
            self._display.stage_begins(stage, seconds)
            began = time.monotonic()
            try:
                self._attempt(stage)
            except StageFailed:
                self._display.stage_fails(stage)
                raise
            self._display.stage_ends(stage, time.monotonic() - began)

    def _attempt(self, stage: Stage) -> None:
        workspace = self._workspace  # a device that is not there is the user's mistake
        for attempt in range(_ATTEMPTS):
            workspace.progress = partial(self._report, stage)  # inputs that are made again have had their own
            try:
                with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                    stages.run_stage(stage, workspace)
                return
            except CorruptArtifact as error:
                self._store.check_present()
                # An input was damaged after it was written: set it aside, make it again, try again.
                if attempt == _ATTEMPTS - 1:
                    raise StageFailed(failure(stage, error)) from error
                for needed in stage.upstream():
                    if needed is not stage:
                        found = needed.id == (error.stage, error.key)
                        self._store.set_aside_if_damaged(*needed.id, error.lacks if found else "")
                        self.compute(needed)
            except BaseException as error:  # a plugin may raise anything; the rest of the grid goes on
                interruption.check(error)
                if isinstance(error, StoreError) and raised_by_host(error):
                    raise
                self._store.check_present()
                log.debug("stage %s failed", stage.id, exc_info=True)
                raise StageFailed(failure(stage, error)) from error

    def _report(self, stage: Stage, done: int, total: int, unit: str) -> None:
        """Show the progress that a plugin reports; what makes no sense is an error in its call."""
        self._display.progress(stage, int(done), int(total), shortened(one_line(str(unit)), 40))


def failure(stage: Stage, error: BaseException) -> str:
    """One line on why a stage failed: the stage, the plugin it is there for, the one that raised."""
    part = next((stage.parts[role] for role in _OWNERS if role in stage.parts), None)
    source = plugin_behind(error)
    if isinstance(part, OwnTarget):  # no plugin has registered it
        owner = f" of {part.owner}"
    else:
        owner = f" of plugin {part.identity['distribution']}:{part.name}" if part else ""
        if part and source == host().registry.get(part.kind, part.name).plugin.id:
            source = ""
    source = f", in plugin {source}" if source else ""
    return f"{stage.name}{owner}{source}: {describe_error(error)}"
