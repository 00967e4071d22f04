"""The record of a cell: what was measured, with what, and where the numbers come from."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from mia_bench import provenance
from mia_bench.components import ConfiguredComponent
from mia_bench.engine.code import code_of, stored_run
from mia_bench.engine.plan import PlannedCell, Stage
from mia_bench.errors import CorruptArtifact
from mia_bench.own_models import OwnTarget
from mia_bench.record import RECORD_SCHEMA, About, Record, Status
from mia_bench.recorded_options import said_of_itself
from mia_bench.store import Store

_MADE_BY = {"defense": ("train", "load"), "prior": ("prior",), "attack": ("invert",)}
"""The stages whose code is that of a component."""

_ORIGIN = {
    "unchecked": "whether it was trained on the track's training images was not checked",
    "stated": "its file says that it was trained on the track's training images, which was not checked",
}


def make_record(
    store: Store, planned: PlannedCell, started: str, status: Status, reason: str | None = None
) -> Record:
    """The record of a planned cell whose stages are stored, or that has no numbers.

    Args:
        store: where the artifacts are.
        started: when the run began, ISO 8601.
        status: ``done``, ``failed``, ``skipped`` or ``interrupted``.
        reason: why it is not done.

    Raises:
        CorruptArtifact: what the measurement noted can't be read, or is no measurement.
    """
    cell = planned.cell
    done = status == "done"
    info = store.info(*planned.measure.id) if done else {}
    made = _made(store, planned.measure) if done else {}
    places = {"store": store.root, "data": planned.roots.data, "weights": planned.roots.weights}
    content = {
        "schema": RECORD_SCHEMA,
        "key": planned.key,
        "track": {
            "name": cell.track.name,
            "version": cell.track.version,
            "data": planned.data_fingerprint,
            "protocol": planned.protocol,
            "variant": cell.track.variant,
        },
        "defense": _describe(store, planned, cell.defense, done),
        "prior": _describe(store, planned, cell.prior, done),
        "attack": _describe(store, planned, cell.attack, done),
        "seed": cell.seed,
        "status": status,
        "reason": reason and provenance.anonymous(reason, places),
        "metrics": info["metrics"] if done else {},
        **{name: info.get(name, {}) for name in ("per_class", "class_counts", "per_image")},
        "cost": info.get("costs", {}),
        "provenance": {
            "mia_bench": provenance.package_version("mia-bench"),
            "git": made.get("git") if done else provenance.git_commit(),
            "python": provenance.python_version(),
            "torch": made.get("torch", provenance.package_version("torch")),
            "device": made.get("device"),
            "threads": made.get("threads"),
            "capability": made.get("capability"),
            "processor": made.get("processor"),
            "platform": provenance.platform_name(),
            "started": started,
            "finished": info["run"]["finished"] if done else provenance.now(),
            "weights": {
                stage.name: str(stage.spec["weights"])
                for stage in planned.measure.upstream()
                if stage.spec.get("weights")
            },
        },
        "notes": {
            **info.get("notes", {}),
            **(_halved(store, planned.measure) if info else {}),
            **_own_model_note(planned),
        },
    }
    try:
        record = Record.model_validate(content)
    except ValidationError as error:
        if not done:
            raise
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise CorruptArtifact(*planned.measure.id, f"{place}: {error.errors()[0]['msg']}") from error
    notes = {name: provenance.anonymous(note, places) for name, note in record.notes.items()}
    return record.model_copy(update={"notes": notes})


def _describe(
    store: Store, planned: PlannedCell, component: ConfiguredComponent, done: bool
) -> dict[str, Any]:
    """A component as the record has it, with the code that was run, which may not be today's."""
    made_by = _MADE_BY[component.kind]
    stage = next(s for s in planned.measure.upstream() if s.name in made_by)
    code = {**code_of(stage), **stored_run(store, stage).get("code", {})}
    about = About(
        **said_of_itself(
            component.component, component.changed, component.options, component.name, answered=done
        ),
        url=provenance.package_url(component.identity["distribution"]),
        code=code.get(component.title, ""),
    )
    said = about.model_dump()
    if isinstance(component, OwnTarget):
        said["own_model"] = component.origin(planned.cell.track, planned.data_fingerprint)
        said["randomised"] = done and bool(component.planned.stochastic)
    return {**component.spec(), "about": said}


def _own_model_note(planned: PlannedCell) -> dict[str, str]:
    """What a reader must know of a model of the user's own."""
    own = planned.cell.defense
    if not isinstance(own, OwnTarget):
        return {}
    origin = _ORIGIN[own.origin(planned.cell.track, planned.data_fingerprint)]
    return {"own_model": f"{own.name} is a model of the user's own: {origin}; its seeds are of attacks alone"}


def _halved(store: Store, measure: Stage) -> dict[str, str]:
    """By stage, the batches that were halved for lack of memory, beside those of attacks."""
    found = {stage.name: stored_run(store, stage).get("halved") for stage in measure.upstream()}
    return {name: halved for name, halved in found.items() if halved}


def _made(store: Store, measure: Stage) -> dict[str, Any]:
    """Commit, torch and device behind a cell, several where its stages differ; threads where they don't."""
    # Nothing is known of an input that is gone; what was made from it is still there.
    runs = [stored_run(store, stage) for stage in measure.upstream()]
    names = ("git", "torch", "device", "capability", "processor")
    found = {name: dict.fromkeys(run[name] for run in runs if run.get(name)) for name in names}
    threads = {run.get("threads") for run in runs if run}
    made: dict[str, Any] = {name: ", ".join(values) for name, values in found.items() if values}
    return made | ({"threads": threads.pop()} if len(threads) == 1 else {})
