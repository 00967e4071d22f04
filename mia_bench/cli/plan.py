"""What ``mia-bench run --dry-run`` prints."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection
from pathlib import Path

from mia_bench.api.inventory import Inventory
from mia_bench.engine.estimate import CostEstimate, estimates, makespan
from mia_bench.engine.plan import Stage, pending_stages
from mia_bench.engine.progress import counted, duration, size
from mia_bench.engine.run import Prepared, Setup
from mia_bench.engine.standard import seeds_text
from mia_bench.errors import StoreError
from mia_bench.plugins import attribute_errors
from mia_bench.terminal import say, say_lines, table, warn


def print_plan(prepared: Prepared) -> None:
    """The cells, the stages behind them, what is cached and what the rest may take."""
    setup = prepared.setup
    todo, cached = prepared.pending
    done = len(prepared.cells) - len(prepared.open_cells)
    if prepared.standard:
        print_phases(prepared, err=False)
    say(f"{counted(len(prepared.cells), 'cell')} of track {setup.config.track}, {done} done before")
    for planned in prepared.cells:
        state = "done" if planned.key in prepared.cached else "to run"
        state = f"skipped: {planned.skip}" if planned.skip else state
        say(f"  {planned.key[:8]}  {planned.cell.label}: {state}")
    _print_data(prepared, todo)
    print_stages(setup, todo, cached)
    if prepared.standard and not prepared.chosen:
        most = duration(_seconds_of_phase_2(prepared))
        say(f"phase 2: up to about {most} of one process more, where the slowest attacks are the strongest")


def print_stages(setup: Setup, todo: Collection[Stage], cached: Collection[Stage]) -> None:
    """The stages that are stored, and those to compute with what they may take."""
    expected = estimates(setup.store, todo)
    rows = [{"stage": stage.name, "what": stage.label, "state": "cached"} for stage in cached]
    rows += [_row(stage, expected[stage.id]) for stage in todo]
    if rows:
        say_lines("\n" + table(rows))
    seconds = {key: estimate.seconds for key, estimate in expected.items()}
    at_once = setup.at_once(todo) if todo else 1
    total = makespan(todo, seconds, at_once)
    say("")
    side_by_side = f", {at_once} at once" if at_once > 1 else ""
    say(
        f"{counted(len(todo), 'stage')} to compute, about {duration(total)}{side_by_side}; "
        f"store {setup.store.root}"
    )
    _print_room(setup.store.root, expected.values())


def print_phases(prepared: Prepared, *, err: bool = True) -> None:
    """What the two phases of a run of the standard set are; ``err`` prints to standard error."""
    run = prepared.standard
    assert run is not None
    attacks, tuned, on = run.standard.attacks, seeds_text(run.standard.seeds), seeds_text(run.seeds)
    say(f"standard set of attacks, version {run.standard.version}:", err=err)
    for one in attacks:
        say(f"  {one.label}{' (default)' if one.default else ''}", err=err)
    usual = counted(sum(one.default for one in attacks), "default attack")
    say(f"phase 1: {counted(len(attacks), 'attack')} on {tuned}, {usual} on {on}", err=err)
    if prepared.chosen:
        say(f"phase 2: the strongest against each defense on {on}", err=err)
        for outcome in run.outcomes(prepared.known):
            chosen = outcome.strongest.chosen
            say(f"  {outcome.defense}: {chosen.attack.label if chosen else 'no attack finished'}", err=err)
        return
    most = [max((cells for cells in several), key=len, default=[]) for several in run.possible.values()]
    more = counted(sum(map(len, most)), "cell")
    say(f"phase 2: the strongest against each defense on {on}, if no default one: up to {more} more", err=err)


def _seconds_of_phase_2(prepared: Prepared) -> float:
    """The time of the slowest attack against each defense, beyond what the first phase computes."""
    run, store = prepared.standard, prepared.setup.store
    assert run is not None
    todo = {stage.id for stage in prepared.pending[0]}
    total = 0.0
    for several in run.possible.values():
        times = [0.0]
        for cells in several:
            missing, _ = pending_stages([one.measure for one in cells if one.skip is None], store.has)
            expected = estimates(store, [stage for stage in missing if stage.id not in todo])
            times.append(sum(estimate.seconds for estimate in expected.values()))
        total += max(times)
    return total


def _print_data(prepared: Prepared, todo: Collection[Stage]) -> None:
    """Which images the cells use: those that are stored, or what the listing says.

    Raises:
        DataError: the data can't be used, so that the run would fail.
    """
    setup = prepared.setup
    upstream = (stage for planned in prepared.cells for stage in planned.measure.upstream())
    stage = next((stage for stage in upstream if stage.name == "data"), None)
    if stage is None:
        return
    inventory: Inventory | None = None
    if setup.store.has(*stage.id):
        with contextlib.suppress(StoreError):  # a run says what is wrong with it
            inventory = Inventory.stored(setup.store.info(*stage.id))
    elif stage in todo:
        chosen = stage.parts["dataset"]
        with attribute_errors(chosen.owner):
            inventory = chosen.planned.outline(setup.roots.data, resolution=setup.track.data.resolution)
    if inventory:
        say("")
        say("images, as listed; none is decoded yet" if inventory.estimated else "images")
        for line in inventory.lines(named=10):
            say(f"  {line}")
        warn(inventory.warnings())


def _row(stage: Stage, estimate: CostEstimate) -> dict[str, str]:
    row = {"stage": stage.name, "what": stage.label, "state": "to compute"}
    row["estimate"], row["from"] = duration(estimate.seconds), estimate.source
    if estimate.disk is not None:
        row["disk"] = size(estimate.disk)
    if estimate.gpu_memory is not None:
        row["GPU memory"] = size(estimate.gpu_memory)
    return row


def _print_room(store: Path, expected: Collection[CostEstimate]) -> None:
    """Disk space and GPU memory, where something is known of them, and whether they suffice."""
    if disk := sum(estimate.disk or 0 for estimate in expected):
        free = shutil.disk_usage(store).free
        say(f"disk: about {size(disk)}, {size(free)} are free")
        if disk > free:
            warn(["the disk is too small for all of it"])
    if memory := max((estimate.gpu_memory or 0 for estimate in expected), default=0):
        say(f"GPU memory: up to about {size(memory)}; attacks halve their batches until they fit")
