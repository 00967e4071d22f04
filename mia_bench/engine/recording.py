"""The record of a cell: what was measured, with what, and where the numbers come from."""

from __future__ import annotations

from typing import Any

from mia_bench import provenance
from mia_bench.components import ConfiguredComponent, changed_keys
from mia_bench.engine.code import code_of, label, stored_code
from mia_bench.engine.plan import PlannedCell, Stage
from mia_bench.errors import CorruptArtifact
from mia_bench.record import RECORD_SCHEMA, About, Record, Status
from mia_bench.store import Store
from mia_bench.track import Track

_MADE_BY = {"defense": "train", "prior": "prior", "attack": "invert"}
"""The stage whose code is that of a component."""


def make_record(
    store: Store, planned: PlannedCell, started: str, status: Status, reason: str | None = None
) -> Record:
    """The record of a planned cell whose stages are stored, or that has no numbers.

    Args:
        store: where the artifacts are.
        planned: the cell.
        started: when the run began, ISO 8601.
        status: ``done``, ``failed``, ``skipped`` or ``interrupted``.
        reason: why it is not done.
    """
    cell = planned.cell
    info = store.info(*planned.measure.id) if status == "done" else None
    run = info["run"] if info else {}
    made = _made(store, planned.measure) if info else {}
    content = {
        "schema": RECORD_SCHEMA,
        "key": planned.key,
        "track": {
            "name": cell.track.name,
            "version": cell.track.version,
            "data": planned.data_fingerprint,
            "protocol": planned.protocol,
        },
        "defense": _describe(store, planned, cell.defense),
        "prior": _describe(store, planned, cell.prior),
        "attack": _describe(store, planned, cell.attack),
        "seed": cell.seed,
        "status": status,
        "reason": reason,
        "metrics": info["metrics"] if info else {},
        "per_class": info["per_class"] if info else {},
        "cost": info["costs"] if info else {},
        "provenance": {
            "mia_bench": provenance.package_version("mia-bench"),
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
    return Record.model_validate(content)


def _describe(store: Store, planned: PlannedCell, component: ConfiguredComponent) -> dict[str, Any]:
    """A component as the record has it, with the code that was run, which may not be today's."""
    made_by = _MADE_BY[component.kind]
    stage = next(s for s in planned.measure.upstream() if s.name == made_by)
    code = {**code_of(stage), **stored_code(store, stage)}
    return _component(component, planned.cell.track, code.get(label(component), ""))


def _made(store: Store, measure: Stage) -> dict[str, str]:
    """Commit, torch and device behind a cell; several where its stages differ."""
    found: dict[str, list[str]] = {}
    for stage in measure.upstream():
        try:
            run = store.info(*stage.id)["run"]
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
        stage.name: str(stage.spec["weights"]) for stage in measure.upstream() if stage.spec.get("weights")
    }
