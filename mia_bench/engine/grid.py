"""The grid: which cells a command asks for, with every option checked. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mia_bench.api.attack import Attack, Setting
from mia_bench.components import ConfiguredComponent, OptionValues, resolve, track_options
from mia_bench.errors import MiaBenchError
from mia_bench.own_models import OwnTarget
from mia_bench.plugins import attribute_errors
from mia_bench.record import canonical
from mia_bench.registry import Registry
from mia_bench.track import Track


@dataclass(frozen=True)
class Cell:
    """One (track, defense + options, prior, attack + options, seed).

    ``defense`` may be an :class:`OwnTarget`: a model of the user's own in place of one that is trained.
    """

    track: Track
    defense: ConfiguredComponent
    prior: ConfiguredComponent
    attack: ConfiguredComponent
    seed: int

    @property
    def label(self) -> str:
        """The cell in words, for progress and messages; the prior unless it is the attack's default."""
        label = f"{self.defense.label} × {self.attack.label}"
        if self.prior.label != self.track.prior_of(self.attack.name):
            label += f" with {self.prior.label}"
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
    own: Sequence[OwnTarget] = (),
    left_out: list[str] | None = None,
) -> list[Cell]:
    """Every cell asked for, targets first: the cells of one target stand together.

    No defenses (attacks) means all of them, but for attacks that are run only by name; no priors means each
    attack's default on the track. Models of the user's own stand beside the defenses; where there are some,
    no defenses means none. With ``left_out`` a component that fails by itself, not by options that were
    given, is left out, and a line on it goes there.
    """
    options = options or OptionValues()
    names = {
        "defense": list(dict.fromkeys(defenses)) or ([] if own else registry.names("defense")),
        "attack": list(dict.fromkeys(attacks)) or _attacks(registry),
    }
    attack_priors = {
        attack: list(dict.fromkeys(priors)) or [track.prior_of(attack)] for attack in names["attack"]
    }
    names["prior"] = list(dict.fromkeys(prior for several in attack_priors.values() for prior in several))
    used = {
        **names,
        "dataset": [track.data.dataset.name],
        "encoder": [track.encoder.name] if track.encoder else [],
    }
    options.refuse_others(
        [(kind, name) for kind, several in used.items() for name in several], "which this run does not use"
    )

    def variants(kind: str, name: str) -> list[ConfiguredComponent]:
        entry = registry.get(kind, name)  # a name that is unknown is the user's mistake
        defaults = track_options(track, kind, name)
        combinations = options.combinations(kind, name)
        try:
            found = [resolve(registry, kind, name, defaults, given) for given in combinations]
            for resolved in found:
                _ = resolved.planned
        except MiaBenchError as error:
            if left_out is None or any(combinations):
                raise
            left_out.append(f"the {entry.owner} is left out: {error}")
            return []
        return found

    found = {kind: {name: variants(kind, name) for name in several} for kind, several in names.items()}
    pairs = [
        (attack, prior)
        for name, several in found["attack"].items()
        for attack in several
        for prior_name in attack_priors[name]
        for prior in found["prior"][prior_name]
    ]
    targets = [*(defense for several in found["defense"].values() for defense in several), *own]
    return [
        Cell(track, defense, prior, attack, seed)
        for seed in dict.fromkeys(seeds)
        for defense in targets
        for attack, prior in pairs
    ]


def _attacks(registry: Registry) -> list[str]:
    """All attacks but those that are run only by name; one that can't be loaded is among them."""
    found = []
    for name in registry.names("attack"):
        with contextlib.suppress(MiaBenchError):
            if registry.get("attack", name).load().by_name:
                continue
        found.append(name)
    return found


def component_key(part: ConfiguredComponent | OwnTarget) -> tuple[str, str]:
    """Name, and options as canonical JSON: what tells it from others, in records too."""
    spec: dict[str, Any] = part.spec()
    return part.name, canonical(spec["options"])


def skip_reason(cell: Cell) -> str | None:
    """Why the cell's attack can't run, or None.

    Raises:
        MiaBenchError: the attack's plugin fails; it is named.
    """
    attack: Attack = cell.attack.planned
    setting = Setting(cell.prior.planned, cell.defense.planned, cell.track.images_per_class)
    with attribute_errors(cell.attack.owner):
        reason = attack.skip(setting)
        if not (reason is None or (isinstance(reason, str) and reason)):
            raise TypeError(f"skip returned {reason!r}, neither a reason nor None")
    return reason
