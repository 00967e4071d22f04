"""Cost estimates of stages: the median of earlier runs, else the track's rough figure.

Earlier runs are those with the same settings, or with any settings where there are none. A rough figure is
scaled by how much longer than their figures other stages took on this machine.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
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
"""Of a prior that loads its weights rather than training them, and of joining the parts of an attack."""

_What = Literal["seconds", "megabytes", "gpu_megabytes"]


@dataclass(frozen=True)
class CostEstimate:
    """Time, disk space and GPU memory of a stage; None where nothing is known of it."""

    seconds: float
    disk: float | None = None
    gpu_memory: float | None = None


def estimates(store: Store, stages: Iterable[Stage]) -> dict[tuple[str, str], CostEstimate]:
    """The estimate of each stage, by stage id; disk space and memory in bytes."""
    stages = list(stages)
    tracks = {stage.track.name: stage.track for stage in stages}
    ratios: list[float] = []
    known: dict[tuple[str, ...], list[dict[str, float]]] = defaultdict(list)
    for name in {stage.name for stage in stages}:
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
            known[group].append(taken)
            known[*group, str(run.get("settings"))].append(taken)
            if figure and figure >= SCALED_SECONDS:
                ratios.append(taken["seconds"] / figure)

    def earlier_runs(stage: Stage) -> list[dict[str, float]]:
        group = (stage.name, stage.track.name, stage.subject)
        return known[*group, stage.settings_hash] or known[group]

    pace = statistics.median(ratios) if ratios else 1.0
    return {stage.id: _estimate(stage, earlier_runs(stage), pace) for stage in stages}


def stage_seconds(store: Store, stages: Iterable[Stage]) -> dict[tuple[str, str], float]:
    """Estimated seconds of each stage, by stage id."""
    return {key: estimate.seconds for key, estimate in estimates(store, stages).items()}


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
    """The track's figure for ``<stage>.<component>``, or for the stage; of a part of an attack its share."""
    figures: Mapping[str, float] = getattr(track, what)
    name = "invert" if stage == "shard" else stage
    figure = figures.get(f"{name}.{subject}", figures.get(name))
    if figure is None or stage != "shard" or what == "gpu_megabytes":  # that depends on the batch
        return figure
    return figure / track.shards


def _estimate(stage: Stage, before: list[dict[str, float]], pace: float) -> CostEstimate:
    def earlier(what: str) -> float | None:
        found = [taken[what] for taken in before if what in taken]
        return statistics.median(found) if found else None

    def figure(what: _What, unit: float) -> float | None:
        found = _figure(stage.track, what, stage.name, stage.subject)
        return None if found is None else unit * found

    seconds, disk, memory = map(earlier, ("seconds", "disk", "gpu_memory"))
    if seconds is None and (stage.shards or (stage.name == "prior" and stage.spec.get("weights"))):
        seconds = LOADED_SECONDS
    if seconds is None:
        seconds = figure("seconds", pace)
    return CostEstimate(
        seconds if seconds is not None else FALLBACK_SECONDS,
        disk if disk is not None else figure("megabytes", 1e6),
        memory if memory is not None else figure("gpu_megabytes", 1e6),
    )
