"""How long a stage may take: the median of what it took before, else the track's rough figure."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable

from mia_bench.engine.plan import Stage
from mia_bench.store import Store

FALLBACK_SECONDS = 30.0


def stage_seconds(store: Store, stages: Iterable[Stage]) -> dict[tuple[str, str], float]:
    """Estimated seconds of each stage, by stage id."""
    known: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    names = {stage.name for stage in stages}
    for name in names:
        for path in (store.root / "artifacts" / name).glob("*/meta.json"):
            try:
                run = json.loads(path.read_text(encoding="utf-8"))["info"]["run"]
                known[name, run["track"], run["subject"]].append(float(run["seconds"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a damaged artifact is dealt with where it is used
    return {
        stage.id: statistics.median(known[stage.name, stage.track.name, stage.subject])
        if known[stage.name, stage.track.name, stage.subject]
        else _rough(stage)
        for stage in stages
    }


def _rough(stage: Stage) -> float:
    """The track's figure for ``<stage>.<component>``, or for the stage."""
    seconds = stage.track.seconds
    own = seconds.get(f"{stage.name}.{stage.subject}")
    return seconds.get(stage.name, FALLBACK_SECONDS) if own is None else own
