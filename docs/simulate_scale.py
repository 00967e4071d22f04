"""Plan and schedule a hundred thousand stages whose computing is simulated; print how long that takes.

``python docs/simulate_scale.py``: 20 defenses × 20 attacks × 10 seeds × 5 tracks go through the planner and
the scheduler. An executor with a clock of its own stands in for 64 workers: a stage takes a time drawn for
it, and nothing is computed.
"""

from __future__ import annotations

import heapq
import random
import resource
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import tomli_w

from mia_bench.api.attack import Attack
from mia_bench.api.defense import Defense
from mia_bench.config import RunConfig
from mia_bench.engine.executor import Outcome
from mia_bench.engine.plan import PlannedCell, Stage
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.run import prepare
from mia_bench.engine.scheduler import Scheduler
from mia_bench.plugins import host
from mia_bench.registry import PluginInfo
from mia_bench.store import Store

SECONDS = {"train": 600.0, "shard": 300.0, "invert": 1.0, "measure": 30.0, "assess": 5.0}
"""The median of each kind of stage; others take 60."""

PLUGIN = PluginInfo("simulated", "simulated", "1", "simulated")


class SimulatedStore(Store):
    """Knows which stages are done, and holds nothing."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.done: dict[tuple[str, str], float] = {}

    def has(self, stage: str, key: str) -> bool:
        """Whether it is done."""
        return (stage, key) in self.done

    def info(self, stage: str, key: str) -> dict[str, Any]:
        """How long it took."""
        return {"run": {"seconds": self.done[stage, key]}}

    def metas(self, stage: str) -> Iterator[dict[str, Any]]:
        """Nothing: no earlier run is known."""
        return iter(())


class SimulatedExecutor:
    """So many workers, and a clock that jumps from the end of one stage to that of the next.

    Attributes:
        now: seconds on the clock.
        work: seconds of all stages that were begun.
    """

    def __init__(self, store: SimulatedStore, slots: int) -> None:
        self.slots = slots
        self.now = self.work = 0.0
        self._store, self._draws = store, random.Random(0)
        self._ends: list[tuple[float, int]] = []
        self._stages: dict[int, Stage] = {}
        self._number = 0

    @property
    def running(self) -> list[Stage]:
        """What the workers are at."""
        return list(self._stages.values())

    def begin(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Draw how long it takes."""
        took = SECONDS.get(stage.name, 60.0) * self._draws.lognormvariate(0, 0.3)
        self.work += took
        self._number += 1
        self._stages[self._number] = stage
        self._store.done[stage.id] = took
        heapq.heappush(self._ends, (self.now + took, self._number))

    def wait(self) -> Outcome:
        """Let the clock jump to the next end."""
        self.now, number = heapq.heappop(self._ends)
        return Outcome(self._stages.pop(number))

    def close(self) -> None:
        """Do nothing."""


def register(defenses: int, attacks: int, tracks: int, folder: Path) -> list[str]:
    """Register components that do nothing, and tracks whose attacks are shared out; the tracks' names."""
    registry = host().registry
    for kind, base, count in (("defense", Defense, defenses), ("attack", Attack, attacks)):
        for number in range(count):
            made = type(f"Simulated{number}", (base,), {"summary": "none", "paper": "none", "version": "1"})
            made.__abstractmethods__ = frozenset()
            registry.add(kind, f"simulated-{number}", made, "", PLUGIN)
    values: dict[str, Any] = tomllib.loads(registry.get("track", "synth-faces").component.read_text("utf-8"))
    values.pop("standard", None)
    names = [f"simulated-{number}" for number in range(tracks)]
    for name in names:
        path = folder / f"{name}.toml"
        path.write_text(tomli_w.dumps({**values, "name": name, "shards": 3}), "utf-8")
        registry.add("track", name, path, "", PLUGIN)
    return names


def planned(track: str, seeds: int, store: Path, defenses: int, attacks: int) -> list[PlannedCell]:
    """The cells of a track's whole grid."""
    config = RunConfig(
        track=track,
        defense=[f"simulated-{number}" for number in range(defenses)],
        attack=[f"simulated-{number}" for number in range(attacks)],
        seeds=seeds,
        store=store,
    )
    return prepare(config).cells


@dataclass(frozen=True)
class Simulated:
    """What a simulation took.

    Attributes:
        planning, scheduling: seconds.
        efficiency: share of the workers' time that they computed.
    """

    cells: int
    stages: int
    planning: float
    scheduling: float
    efficiency: float


def simulate(defenses: int, attacks: int, seeds: int, tracks: int, workers: int) -> Simulated:
    """Plan grids of components that do nothing, and schedule them with a simulated clock."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        names = register(defenses, attacks, tracks, folder)
        try:
            began = time.perf_counter()
            cells = [c for n in names for c in planned(n, seeds, folder / "store", defenses, attacks)]
            planning = time.perf_counter() - began
        finally:
            host().registry.discard(PLUGIN.id)
        store = SimulatedStore(folder / "store")
        executor = SimulatedExecutor(store, workers)
        began = time.perf_counter()
        failed = Scheduler(store, executor, ProgressDisplay()).attempt([cell.measure for cell in cells])
        scheduling = time.perf_counter() - began
        assert not failed
        efficiency = executor.work / (workers * executor.now)
        return Simulated(len(cells), len(store.done), planning, scheduling, efficiency)


@click.command()
@click.option("--defenses", default=20)
@click.option("--attacks", default=20)
@click.option("--seeds", default=10)
@click.option("--tracks", default=5)
@click.option("--workers", default=64)
def main(defenses: int, attacks: int, seeds: int, tracks: int, workers: int) -> None:
    """Simulate, and print the figures."""
    found = simulate(defenses, attacks, seeds, tracks, workers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    each = 1000 * found.scheduling / found.stages
    click.echo(f"{found.cells:,} cells, {found.stages:,} stages")
    click.echo(f"planning {found.planning:.1f} s; at most {peak:.2f} GiB of memory, scheduling included")
    click.echo(f"scheduling {found.scheduling:.1f} s, {each:.2f} ms a stage")
    click.echo(f"efficiency of {workers} workers {found.efficiency:.1%}")


if __name__ == "__main__":
    main()
