"""The grid: which cells a command asks for, with every option checked. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mia_bench.api.attack import Attack, Setting
from mia_bench.components import (
    ConfiguredComponent,
    OptionValues,
    resolve,
    short_options,
    track_options,
)
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.plugins import attribute_errors
from mia_bench.registry import Registry
from mia_bench.track import Track


@dataclass(frozen=True)
class Cell:
    """One (track, defense + options, prior, attack + options, seed)."""

    track: Track
    defense: ConfiguredComponent
    prior: ConfiguredComponent
    attack: ConfiguredComponent
    seed: int

    def named(self, component: ConfiguredComponent) -> str:
        """A component of the cell by its name and the options that are not the track's."""
        return component.name + short_options(component, self.track)

    @property
    def label(self) -> str:
        """The cell in words, for progress and messages; the prior unless it is the attack's default."""
        label, prior = (
            f"{self.named(self.defense)} × {self.named(self.attack)}",
            self.named(self.prior),
        )
        if prior != self.track.prior_of(self.attack.name):
            label += f" with {prior}"
        return f"{label}, seed {self.seed}"


def build_grid(
    registry: Registry,
    track: Track,
    *,
    defenses: Sequence[str] = (),
    attacks: Sequence[str] = (),
    priors: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    options: OptionValues | None = None,
    left_out: list[str] | None = None,
) -> list[Cell]:
    """Every cell asked for, targets first: the cells of one target stand together.

    No defenses (attacks) means all of them; no priors means each attack's default on the track. With
    ``left_out`` a component that fails by itself, not by options that were given, is left out, and a
    line on it goes there.
    """
    options = options or OptionValues()
    names = {
        "defense": list(dict.fromkeys(defenses)) or registry.names("defense"),
        "attack": list(dict.fromkeys(attacks)) or registry.names("attack"),
        "prior": list(dict.fromkeys(priors)),
    }
    attack_priors = {attack: names["prior"] or [track.prior_of(attack)] for attack in names["attack"]}
    used = {
        "defense": set(names["defense"]),
        "attack": set(names["attack"]),
        "prior": {p for ps in attack_priors.values() for p in ps},
        "dataset": {track.data.dataset.name},
        "encoder": {track.encoder.name} if track.encoder else set(),
    }
    for kind, name in options.values:
        if name not in used[kind]:
            raise UsageError(f"an option is set for the {kind} {name!r}, which this run does not use")

    def variants(kind: str, name: str) -> list[ConfiguredComponent]:
        plugin = registry.get(kind, name).plugin.id  # a name that is none is the user's mistake
        defaults = track_options(track, kind, name)
        combinations = list(options.combinations(kind, name))
        try:
            found = [resolve(registry, kind, name, defaults, given) for given in combinations]
            for resolved in found:
                resolved.make()
        except MiaBenchError as error:
            if left_out is None or any(combinations):
                raise
            left_out.append(f"the {kind} {name!r} of plugin {plugin} is left out: {error}")
            return []
        return found

    all_defenses = [d for name in names["defense"] for d in variants("defense", name)]
    all_attacks = [
        (attack, prior)
        for name in names["attack"]
        for attack in variants("attack", name)
        for prior_name in attack_priors[name]
        for prior in variants("prior", prior_name)
    ]
    return [
        Cell(track, defense, prior, attack, seed)
        for seed in dict.fromkeys(seeds)
        for defense in all_defenses
        for attack, prior in all_attacks
    ]


def skip_reason(cell: Cell) -> str | None:
    """Why the cell's attack can't run, or None.

    Raises:
        MiaBenchError: the attack's plugin fails; it is named.
    """
    attack: Attack = cell.attack.make()
    setting = Setting(cell.prior.make(), cell.defense.make(), cell.track.images_per_class)
    with attribute_errors(cell.attack.owner):
        reason = attack.skip(setting)
        if not (reason is None or (isinstance(reason, str) and reason)):
            raise TypeError(f"skip returned {reason!r}, neither a reason nor None")
    return reason
