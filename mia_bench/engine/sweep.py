"""A sweep: defenses over their strengths, and the undefended front beside them, on the tuning seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from mia_bench.api.defense import Defense
from mia_bench.components import OptionValues, loadable_defenses
from mia_bench.config import RunConfig
from mia_bench.engine.grid import Cell, build_grid
from mia_bench.engine.run import Prepared, Setup, complete, set_up
from mia_bench.engine.standard import refuse_options, standard_of
from mia_bench.errors import UsageError
from mia_bench.names import STANDARD
from mia_bench.registry import Registry
from mia_bench.track import StandardAttack, Track

SettingValues: TypeAlias = tuple[str, dict[str, Any]]
"""A defense's name, and the options that differ from the track's."""


def prepare_sweep(config: RunConfig) -> Prepared:
    """Check everything and plan, as :func:`mia_bench.engine.run.prepare` does.

    Every defense of ``config``, or every one that states strengths, is run with these
    (:attr:`Defense.strengths`), or with the values that are given; beside them the baselines with each of
    their front options, and what a defense names as its ``matched`` baseline. Seeds are the tuning seeds
    unless given. Attacks are the default ones of the track's standard set unless given; ``standard`` is the
    whole set. In a further fold the same settings are trained on the first seed, and not attacked.

    Raises:
        UsageError: a name, option, path or device is wrong.
    """
    if config.target:
        raise UsageError("a sweep trains its targets: 'mia-bench run --target' attacks models of your own")
    setup, fold = set_up(config), config.fold
    names = list(dict.fromkeys(config.defense)) or list(_with_strengths(setup.registry))
    prepared = Prepared(setup)
    seeds = config.given_seeds or setup.track.tuning_seeds
    attacks = _attacks(setup) if fold is None else [StandardAttack(name=setup.config.attack[0])]
    settings = [
        one
        for name in names
        for one in _settings(setup.registry, name, setup.options.values.get(("defense", name), {}))
    ]
    undefended = list(_undefended(setup, names))
    if fold is not None:  # accuracy is compared with that of the baseline alone
        undefended = [(name, chosen) for name, chosen in undefended if not chosen]
    settings += [one for one in undefended if one not in settings]
    options, priors = setup.options, config.prior
    if fold is None:
        _refuse_unused(options, [name for name, _ in settings], setup.track, attacks)
    else:
        seeds, priors = seeds[:1], priors[:1]
        options = OptionValues(
            {key: values for key, values in options.values.items() if key[0] != "prior" or key[1] in priors}
        )
    cells: list[Cell] = []
    for name, chosen in settings:
        for attack in attacks:
            lines: list[str] = []
            cells += build_grid(
                setup.registry,
                setup.track,
                defenses=[name],
                attacks=[attack.name],
                priors=[attack.prior] if attack.prior else priors,
                seeds=seeds,
                options=_only(options, name, chosen, attack),
                left_out=lines,
            )
            prepared.left_out += [line for line in lines if line not in prepared.left_out]
    if cells:
        cells.sort(key=lambda cell: seeds.index(cell.seed))  # a whole seed is of more use than a half of two
        plan = setup.track_plan()
        prepared.cells, prepared.warnings = plan.cells(cells, prepared.left_out), plan.warnings
    complete(prepared)
    return prepared


def _attacks(setup: Setup) -> list[StandardAttack]:
    given, track = setup.config.attack, setup.track
    if STANDARD in given:
        if given != (STANDARD,) or setup.config.prior:
            raise UsageError(f"--attack {STANDARD} is a set of attacks with their priors: give it alone")
        refuse_options(setup.options)
        return list(standard_of(setup.registry, track).attacks)
    if given:
        return [StandardAttack(name=name) for name in dict.fromkeys(given)]
    if track.standard is None:
        raise UsageError(f"track {track.name!r} has no standard set of attacks: name the attacks by --attack")
    return [one for one in track.standard.attacks if one.default]


def _with_strengths(registry: Registry) -> Iterator[str]:
    """The defenses that state strengths, without the baselines, which are beside every sweep."""
    for name, defense in loadable_defenses(registry):
        if defense.strengths and not defense.baseline:
            yield name


def _settings(registry: Registry, name: str, given: Mapping[str, Sequence[Any]]) -> Iterator[SettingValues]:
    """Every combination of the strengths of a defense; those of a baseline one option at a time.

    Raises:
        UsageError: it states none, and none were given.
    """
    defense: type[Defense] = registry.get("defense", name).load()
    strengths = {**defense.strengths, **given}
    if defense.baseline:
        yield from _front(name, defense, given)
    elif not strengths:
        raise UsageError(
            f"the defense {name!r} states no strengths to sweep over: give values, "
            f"-o {name}.OPTION=VALUE, once for each"
        )
    else:
        for values in itertools.product(*strengths.values()):
            yield name, dict(zip(strengths, values, strict=True))


def _front(name: str, defense: type[Defense], given: Mapping[str, Sequence[Any]]) -> Iterator[SettingValues]:
    """The baseline as it is, and with each value of each front option."""
    yield name, {}
    for option in defense.front_options:
        for value in given.get(option, defense.strengths.get(option, ())):
            yield name, {option: value}
    if others := {key: values for key, values in given.items() if key not in defense.front_options}:
        for values in itertools.product(*others.values()):
            yield name, dict(zip(others, values, strict=True))


def _undefended(setup: Setup, names: Iterable[str]) -> Iterator[SettingValues]:
    """The undefended front, and the baselines that defenses are matched with."""
    registry = setup.registry
    for name, defense in loadable_defenses(registry):
        if defense.baseline:
            yield from _front(name, defense, setup.options.values.get(("defense", name), {}))
    for name in names:
        matched = registry.get("defense", name).load().matched
        if matched:
            yield matched[0], dict(matched[1])


def _only(
    options: OptionValues, name: str, chosen: Mapping[str, Any], attack: StandardAttack
) -> OptionValues:
    """The options of one setting under one attack."""
    others = {key: values for key, values in options.values.items() if key[0] not in ("defense", "attack")}
    of_attack = {
        **{key: [value] for key, value in attack.options.items()},
        **options.values.get(("attack", attack.name), {}),
    }
    return OptionValues(
        {
            **others,
            ("defense", name): {key: [value] for key, value in chosen.items()},
            ("attack", attack.name): of_attack,
        }
    )


def _refuse_unused(
    options: OptionValues, defenses: Iterable[str], track: Track, attacks: Sequence[StandardAttack]
) -> None:
    used = {("defense", name) for name in defenses} | {("attack", one.name) for one in attacks}
    options.refuse_others(used, "which this sweep does not use", kinds=("defense", "attack"))
