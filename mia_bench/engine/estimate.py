"""What stages cost: what they took before, in this run or in earlier ones, else the track's rough figure.

Earlier runs are those with the same settings, or with any settings where there are none. A rough figure is
scaled by how much longer than their figures other stages took on this machine; what earlier runs took, by how
much longer the stages of this run take than earlier ones did, as on another machine.
"""

from __future__ import annotations

import heapq
import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mia_bench.engine.plan import Stage
from mia_bench.store import Store
from mia_bench.track import Track

FALLBACK_SECONDS = 30.0

SCALED_SECONDS = 5.0
"""Stages with a smaller figure say little about how fast a machine is."""

LOADED_SECONDS = 1.0
"""Of a prior or a target that is loaded rather than trained, and of joining the parts of an attack."""

RECENT = 9
"""How many of the latest runs count."""

_What = Literal["seconds", "megabytes", "gpu_megabytes"]

_Group = tuple[str, ...]

_Id = tuple[str, str]


@dataclass(frozen=True)
class CostEstimate:
    """Time, disk space and GPU memory of a stage; None where nothing is known of it.

    Attributes:
        disk, gpu_memory: in bytes.
        source: in words, where the time is from.
    """

    seconds: float
    disk: float | None = None
    gpu_memory: float | None = None
    source: str = ""


class CostModel:
    """Estimates what stages cost, and learns from those that end."""

    def __init__(self, store: Store, stages: Iterable[Stage]) -> None:
        """Read what the store knows of stages like these."""
        kinds = {(stage.name, stage.track.name): stage.track for stage in stages}
        tracks = {track.name: track for track in kinds.values()}
        ratios: list[float] = []
        found: dict[_Group, list[tuple[str, dict[str, float]]]] = defaultdict(list)
        for name in {name for name, _ in kinds}:
            for meta in store.metas(name):
                try:
                    run = meta["info"]["run"]
                    group, taken = (name, run["track"], run["subject"]), _taken(meta)
                    track = tracks.get(run["track"])
                    figure = track and _figure(track, "seconds", name, run["subject"])
                    if "shards" in meta["info"]:
                        continue  # it joined the parts of an attack
                except (ValueError, KeyError, TypeError):
                    continue  # it was not made by a run
                dated = str(run.get("finished", "")), taken
                found[group].append(dated)
                found[*group, str(run.get("settings"))].append(dated)
                if figure and figure >= SCALED_SECONDS:
                    ratios.append(taken["seconds"] / figure)
        self._known = {group: _latest(dated) for group, dated in found.items()}
        self._learned: dict[_Group, list[float]] = defaultdict(list)
        self._figures_pace = statistics.median(ratios) if ratios else 1.0
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)

    def of(self, stage: Stage) -> CostEstimate:
        """The estimate of a stage."""
        known = next((self._known[group] for group in _groups(stage) if group in self._known), [])
        seconds, source = self._seconds(stage)
        disk, memory = (_median(known, what) for what in ("disk", "gpu_memory"))
        if disk is None and (figure := _figure_of(stage, "megabytes")) is not None:
            disk = 1e6 * figure
        if memory is None and (figure := _figure_of(stage, "gpu_megabytes")) is not None:
            memory = 1e6 * figure
        return CostEstimate(seconds, disk, memory, source)

    def learn(self, stage: Stage, seconds: float) -> None:
        """A stage of this run took so long."""
        if stage.shards:
            return
        before = _median(self._known.get(_groups(stage)[0], []), "seconds")
        if before is not None:
            self._recent.append((seconds, before))
        elif (figure := _figure_of(stage, "seconds")) and figure >= SCALED_SECONDS:
            self._figures_pace = seconds / figure
        for group in _groups(stage):
            self._learned[group].append(seconds)

    @property
    def pace(self) -> float:
        """How much longer the stages of this run take than earlier ones did."""
        taken, expected = (sum(one[place] for one in self._recent) for place in (0, 1))
        return taken / expected if expected else 1.0

    def _seconds(self, stage: Stage) -> tuple[float, str]:
        same, like = _groups(stage)
        for group, words in ((same, "this run"), (like, "this run, other settings")):
            if group in self._learned and (group is same or same not in self._known):
                return statistics.median(self._learned[group][-RECENT:]), words
        if before := self._earlier(stage):
            return before[0] * self.pace, before[1]
        loaded = stage.name in ("load", "prior") and stage.spec.get("weights")
        if stage.shards or loaded:
            return LOADED_SECONDS, "little to do"
        if (figure := _figure_of(stage, "seconds")) is not None:
            return figure * self._figures_pace, "the track's figure"
        return FALLBACK_SECONDS, "nothing like it ran"

    def _earlier(self, stage: Stage) -> tuple[float, str] | None:
        """What such stages took in earlier runs."""
        for group, words in zip(_groups(stage), ("earlier runs", "other settings"), strict=True):
            if (seconds := _median(self._known.get(group, []), "seconds")) is not None:
                return seconds, words
        return None


def estimates(store: Store, stages: Iterable[Stage]) -> dict[_Id, CostEstimate]:
    """The estimate of each stage, by stage id."""
    stages = list(stages)
    model = CostModel(store, stages)
    return {stage.id: model.of(stage) for stage in stages}


def makespan(stages: Iterable[Stage], seconds: Mapping[_Id, float], slots: int) -> float:
    """Seconds until all stages are done, if so many at once are computed, each as early as possible.

    Args:
        stages: inputs before what needs them; what is not among them is there already.
        seconds: of each stage.
        slots: how many are computed at once.
    """
    todo = {stage.id: stage for stage in stages}
    order = {key: place for place, key in enumerate(todo)}
    open_inputs = {key: _open(stage, todo) for key, stage in todo.items()}
    needed_by = dependents(todo.values())
    ready = [order[key] for key, count in open_inputs.items() if not count]
    heapq.heapify(ready)
    keys, running, now = list(todo), list[tuple[float, int]](), 0.0
    while ready or running:
        while ready and len(running) < slots:
            place = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[keys[place]], place))
        now, place = heapq.heappop(running)
        for stage in needed_by.get(keys[place], ()):
            open_inputs[stage.id] -= 1
            if not open_inputs[stage.id]:
                heapq.heappush(ready, order[stage.id])
    return now


def dependents(stages: Iterable[Stage]) -> dict[_Id, list[Stage]]:
    """The stages that need each one, once."""
    found: dict[_Id, list[Stage]] = defaultdict(list)
    for stage in stages:
        for needed in {needed.id for needed in stage.inputs.values()}:
            found[needed].append(stage)
    return found


def _open(stage: Stage, todo: Mapping[_Id, Stage]) -> int:
    return len({needed.id for needed in stage.inputs.values()} & todo.keys())


def _groups(stage: Stage) -> tuple[_Group, _Group]:
    """Stages like this one: with its settings, and with any."""
    like = (stage.name, stage.track.name, stage.subject)
    return (*like, stage.settings_hash), like


def _latest(dated: list[tuple[str, dict[str, float]]]) -> list[dict[str, float]]:
    return [taken for _, taken in sorted(dated, key=lambda one: one[0])[-RECENT:]]


def _median(taken: Iterable[Mapping[str, float]], what: str) -> float | None:
    found = [one[what] for one in taken if what in one]
    return statistics.median(found) if found else None


def _taken(meta: Mapping[str, Any]) -> dict[str, float]:
    """What a finished stage took."""
    run = meta["info"]["run"]
    taken = {
        "seconds": float(run["seconds"]),
        "disk": float(sum(file["bytes"] for file in meta["files"].values())),
    }
    if str(run.get("device", "")).startswith("cuda"):
        taken["gpu_memory"] = float(run["peak_memory"])
    return taken


def _figure(track: Track, what: _What, stage: str, subject: str) -> float | None:
    """The track's figure for ``<stage>.<component>``, or for the stage.

    Of a part of an attack it is its share of the attack's. Memory depends on the batch, which an attack, its
    parts and its preparation have in common; a preparation that differs has a figure of its own.
    """
    figures: Mapping[str, float] = getattr(track, what)
    memory = what == "gpu_megabytes"
    stages = ["invert" if stage == "shard" else stage]
    stages += ["invert"] if stage == "prepare" and memory else []
    names = [name for one in stages for name in (f"{one}.{subject}", one)]
    figure = next((figures[name] for name in names if name in figures), None)
    return figure / track.shards if figure and stage == "shard" and not memory else figure


def _figure_of(stage: Stage, what: _What) -> float | None:
    return _figure(stage.track, what, stage.name, stage.subject)
