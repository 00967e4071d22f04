"""The cells of an experiment, and their run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mia_bench.components import OptionValues
from mia_bench.config import RunConfig
from mia_bench.engine.grid import Cell, build_grid
from mia_bench.engine.run import Prepared, complete, set_up
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.experiments.definition import Experiment, Grid
from mia_bench.registry import Registry
from mia_bench.track import Track


@dataclass(frozen=True)
class Placed:
    """A cell, and where its target stands on the axis of the experiment."""

    cell: Cell
    at: float


def cells_of(
    experiment: Experiment,
    registry: Registry,
    track: Track,
    seeds: Sequence[int],
    left_out: list[str],
) -> list[Placed]:
    """The cells on a track, whole seeds first.

    A line for each setting that can't be run goes to ``left_out``.
    """
    found: list[Placed] = []
    for one, given in _settings(experiment):
        for attack in experiment.attacks:
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
                said = f"{one.defense} {given} × {attack.label} is left out: {error}"
                left_out += [said] if said not in left_out else []
                continue
            at = one.at if one.at is not None else given[experiment.axis]
            found += [Placed(cell, float(at)) for cell in cells]
    return sorted(found, key=lambda placed: seeds.index(placed.cell.seed))


def _settings(experiment: Experiment) -> Iterator[tuple[Grid, dict[str, Any]]]:
    for one in experiment.grid:
        for values in itertools.product(*one.options.values()):
            yield one, dict(zip(one.options, values, strict=True))


def prepare_experiment(experiment: Experiment, config: RunConfig) -> Prepared:
    """Check everything and plan, as :func:`mia_bench.engine.run.prepare` does.

    Args:
        experiment: defenses, attacks and their options.
        config: track, seeds (those of the experiment unless given) and where to compute.

    Raises:
        UsageError: a name, path or device is wrong.
    """
    setup = set_up(config)
    given = config.model_fields_set & {"seed", "seeds"}
    seeds = tuple(dict.fromkeys(config.seed_list)) if given else tuple(range(experiment.seeds))
    if shared := sorted(set(seeds) & set(setup.track.tuning_seeds)):
        raise UsageError(f"seed {shared[0]} is one that settings of {setup.track.name!r} were chosen on")
    prepared = Prepared(setup)
    cells = [one.cell for one in cells_of(experiment, setup.registry, setup.track, seeds, prepared.left_out)]
    if cells:
        plan = setup.track_plan()
        prepared.cells, prepared.warnings = plan.cells(cells, prepared.left_out), plan.warnings
    complete(prepared)
    return prepared
