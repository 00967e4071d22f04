"""What went into the key of a cell, and why two keys differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mia_bench import jsonfile
from mia_bench.engine.plan import PlannedCell
from mia_bench.errors import StoreError
from mia_bench.origin import Origin, StageId
from mia_bench.store import META, Store
from mia_bench.text import shortened
from mia_bench.upkeep.contents import Contents, RecordFile
from mia_bench.upkeep.needs import Needs

_ABSENT = object()
_LONGEST = 100


@dataclass(frozen=True)
class Node:
    """A stage of a cell.

    Attributes:
        id: name and key.
        label: in words; empty where that is not known.
        origin: what its key is the hash of; None where that is not known.
        stored: whether its artifact is there.
    """

    id: StageId
    label: str
    origin: Origin | None
    stored: bool

    @property
    def name(self) -> str:
        """The stage; with the number of the part, of a part of an attack."""
        number = self.origin.spec.get("shard") if self.origin else None
        return self.id[0] if number is None else f"{self.id[0]} {number}"


@dataclass(frozen=True)
class ExplainedCell:
    """A cell: its key, and its stages, inputs first."""

    key: str
    nodes: tuple[Node, ...]

    @property
    def by_name(self) -> dict[str, Node]:
        """The stages by name, with the role of those that are read beside another of their kind."""
        inputs = [(role, of) for node in self.nodes if node.origin for role, of in node.origin.inputs.items()]
        undefended = {stage for role, stage in inputs if role == "undefended"}
        return {f"{n.name}, undefended" if n.id in undefended else n.name: n for n in self.nodes}


@dataclass(frozen=True)
class Difference:
    """A value in two keys; ``path`` says where: ``defense.options.alpha``."""

    path: str
    before: str
    after: str


# --- cells -----------------------------------------------------------------------------------


def stored_cell(store: Store, file: RecordFile) -> ExplainedCell:
    """The cell of a record, from what its artifacts note, else planned again.

    Raises:
        StoreError: neither says what it was made from.
    """
    measured = read_node(store, file.measure)
    if measured is not None and measured.origin is not None:
        found = [
            read_node(store, stage) or Node(stage, "", None, False) for stage in measured.origin.upstream
        ]
        return ExplainedCell(file.key, (*found, measured))
    needs = Needs(Contents(store))
    needs.of(file)
    if file not in needs.planned:
        reason = needs.unknown[0].reason if needs.unknown else "it was skipped"
        raise StoreError(f"what cell {file.key[:8]} was made from is not known: {reason}")
    return planned_cell(store, needs.planned[file])


def planned_cell(store: Store, planned: PlannedCell) -> ExplainedCell:
    """A planned cell."""
    stages = {stage.id: stage for stage in planned.measure.upstream()}
    return ExplainedCell(
        planned.key,
        tuple(Node(stage.id, stage.label, stage.origin, store.has(*stage.id)) for stage in stages.values()),
    )


def read_node(store: Store, stage: StageId) -> Node | None:
    """A stored stage; None if it is missing or damaged."""
    try:
        info = jsonfile.read_object(store.folder(*stage) / META)["info"]
        return Node(stage, str(info.get("run", {}).get("label", "")), Origin.noted(stage[0], info), True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


# --- differences -----------------------------------------------------------------------------


def differences(before: Origin, after: Origin) -> list[Difference]:
    """How what two keys are made from differs, apart from inputs."""
    found = [*_compared("version of the host's code", before.version, after.version)]
    found += _compared("seed", before.seed, after.seed)
    # As JSON has it on both sides: what was stored holds lists where a plan holds tuples.
    found += _compared("", json.loads(json.dumps(before.spec)), json.loads(json.dumps(after.spec)))
    return found


def _compared(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if before == after:
        return
    if _named(before) and _named(after):
        before, after = ({one["name"]: one for one in several} for several in (before, after))
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)) or (
        "name" in before and "name" in after and before["name"] != after["name"]
    ):
        yield Difference(path, _text(before), _text(after))
        return
    for name in (*before, *(name for name in after if name not in before)):
        inner = f"{path}.{name}" if path else name
        yield from _compared(inner, before.get(name, _ABSENT), after.get(name, _ABSENT))


def _named(value: Any) -> bool:
    """Whether it is a list of components."""
    return isinstance(value, list) and all(isinstance(one, Mapping) and "name" in one for one in value)


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    return shortened(value if isinstance(value, str) else json.dumps(value, sort_keys=True), _LONGEST)


@dataclass(frozen=True)
class ComparedStage:
    """A stage in two cells.

    Attributes:
        name: the stage's.
        before, after: it in each of them; None where that has none.
        found: what differs; None where it is not known.
        inputs: names of the inputs that differ.
    """

    name: str
    before: Node | None
    after: Node | None
    found: list[Difference] | None
    inputs: list[str]

    @property
    def same(self) -> bool:
        """Whether both are one stage."""
        return bool(self.before and self.after and self.before.id == self.after.id)


def compare(before: ExplainedCell, after: ExplainedCell) -> list[ComparedStage]:
    """Two cells stage by stage."""
    names = dict.fromkeys([*before.by_name, *after.by_name])
    found = []
    for name in names:
        one, other = before.by_name.get(name), after.by_name.get(name)
        origins = [node.origin if node else None for node in (one, other)]
        known = None if None in origins else differences(*origins)  # type: ignore[arg-type]
        found.append(ComparedStage(name, one, other, known, _changed_inputs(*origins)))
    return found


def _changed_inputs(before: Origin | None, after: Origin | None) -> list[str]:
    if before is None or after is None:
        return []
    roles = dict.fromkeys([*before.inputs, *after.inputs])
    return [role for role in roles if before.inputs.get(role) != after.inputs.get(role)]


# --- what is missing -------------------------------------------------------------------------


@dataclass(frozen=True)
class Missing:
    """A stage that is not stored.

    Attributes:
        node: the stage.
        nearest: the most similar stored one; None if none is stored.
        found: what differs from that, apart from inputs.
        inputs: names of the inputs that differ.
    """

    node: Node
    nearest: Node | None
    found: list[Difference]
    inputs: list[str]


def missing_stages(store: Store, cell: ExplainedCell) -> list[Missing]:
    """The stages of a cell that are not stored, each beside the most similar one that is.

    Stores from before an attack prepared anything lack its preparation: nothing needs it once the attack is
    stored.
    """
    attacked = all(node.stored for node in cell.nodes if node.id[0] in ("shard", "invert"))
    absent = [
        node
        for node in cell.nodes
        if not node.stored and node.origin is not None and not (attacked and node.id[0] == "prepare")
    ]
    candidates = _candidates(store, {node.id[0] for node in absent})
    found = []
    for node in absent:
        assert node.origin is not None
        similar = [
            (differences(other.origin, node.origin), _changed_inputs(other.origin, node.origin), other)
            for other in candidates.get(node.id[0], ())
            if other.origin
        ]
        if similar:
            best = min(similar, key=lambda one: (len(one[0]), len(one[1]), one[2].id))
            found.append(Missing(node, best[2], best[0], best[1]))
        else:
            found.append(Missing(node, None, [], []))
    return found


def _candidates(store: Store, names: set[str]) -> dict[str, list[Node]]:
    """The stored artifacts of these stages; older ones with what planning their records says."""
    contents = Contents(store)
    found: dict[str, list[Node]] = {}
    older = set()
    for name in names:
        for artifact in contents.read_artifacts(name):
            node = None if artifact.problem else read_node(store, artifact.id)
            if node and node.origin:
                found.setdefault(name, []).append(node)
            elif node:
                older.add(node.id)
    if older:
        stages = Needs(contents).stages
        for stage in older & stages.keys():
            found.setdefault(stage[0], []).append(
                Node(stage, stages[stage].label, stages[stage].origin, True)
            )
    return found
