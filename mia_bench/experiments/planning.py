"""The cells of an experiment, and their run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mia_bench.components import OptionValues
from mia_bench.config import RunConfig
from mia_bench.engine.grid import Cell, build_grid
from mia_bench.engine.run import Prepared, Setup, complete, set_up
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.experiments.definition import Experiment, settings_of
from mia_bench.record import canonical
from mia_bench.recorded_options import row_label
from mia_bench.registry import Registry
from mia_bench.track import Track


@dataclass(frozen=True)
class Placed:
    """A cell, and where its target stands on the axis of the experiment; None for one beside the axis.

    ``words``: what its attack is called, if the experiment says so; ``first``: whether that is the
    experiment's first; ``given``: the options of the defense that the experiment sets.
    """

    cell: Cell
    at: float | None
    words: str = ""
    first: bool = False
    given: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A setting that can't be run, and why.

    Attributes:
        options: those that it was given, as canonical JSON.
    """

    defense: str
    options: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The cells of an experiment on a track, whole seeds first, and what can't be run."""

    cells: tuple[Placed, ...]
    left_out: tuple[LeftOut, ...] = ()


def plan_of(experiment: Experiment, registry: Registry, track: Track, seeds: Sequence[int]) -> Plan:
    """The cells on a track, or on a variant of it."""
    found: list[Placed] = []
    left_out: dict[LeftOut, None] = {}
    for one, given in settings_of(experiment.grid):
        for attack in experiment.attacks_on(track.name):
            values: dict[tuple[str, str], dict[str, list[Any]]] = {
                ("defense", one.defense): {key: [value] for key, value in given.items()},
                ("attack", attack.name): {key: [value] for key, value in attack.options.items()},
            }
            try:
                cells = build_grid(
                    registry,
                    track,
                    defenses=[one.defense],
                    attacks=[attack.name],
                    priors=[attack.prior] if attack.prior else (),
                    seeds=seeds,
                    options=OptionValues(values),
                )
            except MiaBenchError as error:
                words = row_label(one.defense, given)
                left_out[LeftOut(one.defense, canonical(given), f"{words} is left out: {error}")] = None
                continue
            at = given.get(experiment.axis, one.at) if experiment.axis else one.at
            place = None if at is None else float(at)
            first = attack is experiment.attacks[0]
            found += [Placed(cell, place, attack.words, first, tuple(given)) for cell in cells]
    found.sort(key=lambda placed: seeds.index(placed.cell.seed))
    return Plan(tuple(found), tuple(left_out))


def prepare_experiment(experiment: Experiment, config: RunConfig) -> list[tuple[Prepared, Plan]]:
    """Check everything and plan each variant, as :func:`mia_bench.engine.run.prepare` does.

    Args:
        experiment: defenses, attacks and their options.
        config: track, seeds (those of the experiment unless given) and where to compute.

    Raises:
        UsageError: a name, path or device is wrong, or two variants are the same on the track.
    """
    setup = set_up(config)
    seeds = config.given_seeds or tuple(range(experiment.seeds))
    if shared := sorted(set(seeds) & set(setup.track.tuning_seeds)):
        raise UsageError(f"seed {shared[0]} is one that settings of {setup.track.name!r} were chosen on")
    tracks: dict[str, str] = {}
    prepared = []
    for variation in experiment.variations_on(setup.track.name):
        track = variation.of(setup.track)
        if (same := tracks.setdefault(track.variant, variation.label)) != variation.label:
            raise UsageError(f"variants {same!r} and {variation.label!r} are the same on {track.name!r}")
        prepared.append(_prepared(experiment, replace(setup, track=track), seeds))
    return prepared


def _prepared(experiment: Experiment, setup: Setup, seeds: Sequence[int]) -> tuple[Prepared, Plan]:
    """The cells on the track of ``setup``."""
    plan = plan_of(experiment, setup.registry, setup.track, seeds)
    prepared = Prepared(setup, left_out=[one.reason for one in plan.left_out])
    if plan.cells:
        stages = setup.track_plan()
        cells = [one.cell for one in plan.cells]
        prepared.cells, prepared.warnings = stages.cells(cells, prepared.left_out), stages.warnings
    complete(prepared)
    return prepared, plan
