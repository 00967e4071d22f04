"""``mia-bench explain``: what is in a cell's key, and why two keys differ."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mia_bench.cli.shared import PathType, complete_key, config_options, open_store
from mia_bench.config import OF_TARGETS, flatten_options, load_config
from mia_bench.engine.plan import PlannedCell
from mia_bench.engine.run import Setup, set_up
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.names import STANDARD
from mia_bench.origin import Origin
from mia_bench.plugins import host
from mia_bench.record import Record
from mia_bench.recorded_options import data_options, options_text, run_options
from mia_bench.store import Store
from mia_bench.terminal import say, say_lines, table
from mia_bench.track import Variation, fold_of, load_track
from mia_bench.upkeep.contents import Contents, RecordFile
from mia_bench.upkeep.explain import (
    ComparedStage,
    Difference,
    ExplainedCell,
    Missing,
    Node,
    compare,
    missing_stages,
    planned_cell,
    stored_cell,
)
from mia_bench.upkeep.planning import Planner

_KEYS = (
    "track", "defense", "attack", "prior", "target", *OF_TARGETS, "seed", "options", "precision", "store",
    "data", "weights", "fold", "allow_partial",
)  # fmt: skip
_CELL = tuple(name for name in _KEYS if name not in ("store", "data", "weights"))
"""Those of them that say which cell is meant."""


@click.command("explain")
@click.argument("cell", required=False)
@click.option("--against", metavar="CELL", help="The cell to compare with.")
@config_options(*_KEYS)
@click.option(
    "--config",
    type=PathType(exists=True, dir_okay=False),
    help="TOML file with the options of a run as keys; the command line wins.",
)
@click.option("--full", is_flag=True, help="Print what is in the keys in any case.")
@click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="Text for people, or all that is known for programs.",
)  # fmt: skip
def command(
    cell: str | None, against: str | None, config: Path | None, full: bool, format_: str, **options: Any
) -> None:
    """Print what went into the key of CELL, and with --against or options of a run what differs.

    CELL is the beginning of a cell's key, as tables show it. Options of a run name a cell that need not be
    stored; what they leave open is as in CELL. Of each stage that is missing in the store, the most similar
    stored one is named, with what differs: that is why it is computed.
    """
    chosen = load_config(options, config)
    store = open_store(chosen.store)
    first, second = (_stored(store, one) if one else None for one in (cell, against))
    planned = None
    if config or any(options[name] is not None for name in _CELL):
        if first and second:
            raise UsageError("give --against or options of a run, not both, beside CELL")
        given = {name: getattr(chosen, name) if name in chosen.model_fields_set else None for name in _KEYS}
        planned = planned_cell(store, _plan(store, first or second, given, config))
    elif not first:
        raise UsageError("name a CELL, or give options of a run")
    stored = [stored_cell(store, file) for file in (first, second) if file]
    # From what is there to what is asked for.
    cells = [*stored, *([planned] if planned else [])]
    compared = compare(cells[0], cells[1]) if len(cells) == 2 else None
    missing = missing_stages(store, planned) if planned else []
    if format_ == "json":
        say_lines(json.dumps(_content(cells, compared, missing), indent=1, sort_keys=True))
        return
    for one in cells if full or not (compared or planned) else ():
        say_lines(_described(one))
    if compared is not None:
        _print_compared(cells, compared)
    elif planned:
        say_lines(table([_row(node) for node in planned.nodes]))
    if planned:
        _print_missing(planned, missing)


def _stored(store: Store, start: str) -> RecordFile:
    files = {file.key: file for file in Contents(store).records}
    return files[complete_key(start, files, "cell", "mia-bench results")]


def _plan(
    store: Store, like: RecordFile | None, options: Mapping[str, Any], config: Path | None
) -> PlannedCell:
    """The cell that the options mean.

    Raises:
        UsageError: they mean several.
    """
    record = store.record(like.track, like.key) if like else None
    chosen = load_config(_completed(options, record) if record else options, config)
    if record and record.track.name == chosen.track and chosen.precision is None:
        with contextlib.suppress(MiaBenchError):  # it is another cell now
            precision = Planner(chosen.roots).cell(record).cell.track.attack_precision
            chosen = chosen.model_copy(update={"precision": precision})
    if STANDARD in chosen.attack:
        raise UsageError(f"--attack {STANDARD} is a set of attacks: name one")
    setup: Setup = set_up(chosen)
    if record and record.track.name == chosen.track and chosen.fold is None:
        setup = replace(setup, track=Variation.read(record.track.variant).of(setup.track))
    left_out: list[str] = []
    cells = setup.grid(left_out)
    if len(cells) > 1:
        raise UsageError(
            f"these options mean {len(cells)} cells, of which one can be explained: give --defense, "
            "--attack, and each option once"
        )
    planned = setup.track_plan().cells(cells, left_out)
    if not planned:
        raise MiaBenchError("; ".join(left_out))
    return planned[0]


def _completed(given: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """Options with what they leave open as in a record."""
    registry, full = host().registry, dict(given)
    full["track"] = given["track"] or record.track.name
    full["seed"] = given["seed"] or (str(record.seed),)
    full["fold"] = given["fold"] or fold_of(record.track.variant)
    named = flatten_options(given["options"] or {})
    replaced = {path.rpartition(":")[2] for path in named}
    track = load_track(registry, record.track.name) if full["track"] == record.track.name else None
    recorded = data_options(registry, track, record) if track else {}
    for kind, component in record.components.items():
        if kind == "prior" and given["attack"] and not given["prior"]:
            continue  # another attack may have another one
        if kind == "defense" and given["target"]:
            continue
        full[kind] = given[kind] or (component.name,)
        if track and tuple(full[kind]) == (component.name,):
            recorded |= run_options(registry, track, kind, component)
    named |= {path: (text,) for path, text in recorded.items() if path.rpartition(":")[2] not in replaced}
    full["options"] = named or None
    return full


# --- text ------------------------------------------------------------------------------------


def _row(node: Node) -> dict[str, str]:
    state = "stored" if node.stored else "missing"
    return {"stage": node.name, "key": node.id[1][:8], "state": state, "what": node.label or "–"}


def _described(cell: ExplainedCell) -> str:
    lines = [f"cell {cell.key}"]
    for node in cell.nodes:
        row = _row(node)
        lines += ["", f"{row['stage']} {row['key']}, {row['state']}: {row['what']}"]
        lines += [f"  {line}" for line in _entries(node.origin)] if node.origin else ["  not known"]
    return "\n".join(lines)


def _entries(origin: Origin) -> Iterator[str]:
    """What is in a key, an entry a line."""
    if origin.inputs:
        yield "inputs: " + ", ".join(f"{role} {key[:8]}" for role, (_, key) in origin.inputs.items())
    yield f"version of the host's code {origin.version}, seed {origin.seed}"
    for name, value in origin.spec.items():
        several = value if isinstance(value, list) and value else [value]
        yield f"{name}: " + "; ".join(map(_value, several))


def _value(value: Any) -> str:
    if not isinstance(value, Mapping):
        return value if isinstance(value, str) else json.dumps(value)
    if "options" not in value:
        return options_text(value) or "none"
    options = options_text(value["options"])
    text = f"{value['name']} of {value['distribution']}, version {value['version']}"
    return f"{text} ({options})" if options else text


def _changes(found: list[Difference]) -> Iterator[str]:
    for one in found:
        yield f"{one.path}: {one.before} → {one.after}"


def _print_compared(cells: list[ExplainedCell], compared: list[ComparedStage]) -> None:
    say(f"{cells[0].key[:8]} → {cells[1].key[:8]}")
    same = [one.name for one in compared if one.same]
    follow: dict[str, list[str]] = {}
    for one in compared:
        if one.same:
            continue
        if one.before is None or one.after is None:
            say(f"{one.name}: only in {cells[one.before is None].key[:8]}")
        elif one.found is None:
            say(f"{one.name}: differs; what is in its key is not known of one that is not stored")
        elif one.found:
            for line in _changes(one.found):
                say(f"{one.name}: {line}")
        else:
            follow.setdefault(", ".join(sorted(one.inputs)), []).append(one.name)
    for inputs, names in follow.items():
        say(f"{', '.join(names)}: only through {inputs}")
    if same:
        say(f"{', '.join(same)}: the same")


def _print_missing(cell: ExplainedCell, missing: list[Missing]) -> None:
    say("")
    if not missing:
        say(f"all stages of cell {cell.key[:8]} are stored")
        return
    absent = {one.node.id for one in missing}
    follow = []
    for one in missing:
        name, key = one.node.name, one.node.id[1][:8]
        upstream = one.node.origin.inputs.values() if one.node.origin else ()
        if one.nearest is None:
            say(f"{name} {key} is missing, and no other {one.node.id[0]} is stored")
        elif one.found:
            other = one.nearest
            words = f" ({other.label})" if other.label else ""
            say(f"{name} {key} is missing; most similar stored: {other.id[1][:8]}{words}")
            for line in _changes(one.found):
                say(f"  {line}")
        elif absent & set(upstream):
            follow.append(name)
        else:
            near, inputs = one.nearest.id[1][:8], ", ".join(one.inputs)
            say(f"{name} {key} is missing; {near} is stored, which has other inputs: {inputs}")
    if follow:
        say(f"{', '.join(follow)}: missing because inputs are")


# --- JSON ------------------------------------------------------------------------------------


def _content(
    cells: list[ExplainedCell], compared: list[ComparedStage] | None, missing: list[Missing]
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "cells": [{"key": cell.key, "stages": [_node(node) for node in cell.nodes]} for cell in cells]
    }
    if compared is not None:
        content["differences"] = [
            {
                "stage": one.name,
                "same": one.same,
                "keys": [node and node.id[1] for node in (one.before, one.after)],
                "changed": None if one.found is None else [vars(found) for found in one.found],
                "inputs": one.inputs,
            }
            for one in compared
        ]
    content["missing"] = [
        {
            "stage": one.node.name,
            "key": one.node.id[1],
            "nearest": one.nearest and one.nearest.id[1],
            "changed": [vars(found) for found in one.found],
            "inputs": one.inputs,
        }
        for one in missing
    ]
    return content


def _node(node: Node) -> dict[str, Any]:
    origin = node.origin.to_json() if node.origin else None
    return {
        "stage": node.name,
        "key": node.id[1],
        "label": node.label,
        "stored": node.stored,
        "origin": origin,
    }
