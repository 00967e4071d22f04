"""Components with checked options: what a name and ``-o`` values on the command line become. No torch."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mia_bench.api.component import Component
from mia_bench.api.defense import Defense
from mia_bench.api.options import Options, parse_options
from mia_bench.errors import MiaBenchError, UsageError, did_you_mean
from mia_bench.names import OPTION
from mia_bench.plugins import attribute_errors
from mia_bench.registry import Registry
from mia_bench.track import Choice, Track

GRID_KINDS = ("defense", "attack", "prior")
"""Kinds whose repeated option values multiply the grid."""

OPTION_KINDS = (*GRID_KINDS, "dataset", "encoder")
"""Kinds whose options can be set from the command line."""


@dataclass(frozen=True)
class ConfiguredComponent:
    """A component with checked options, and what identifies it in keys and records.

    Attributes:
        kind: one of :data:`mia_bench.registry.KINDS`.
        identity: name, distribution and version.
        component: the class.
        options: all of them, checked.
        changed: the options that differ from the track's, without those that hold paths.
    """

    kind: str
    identity: dict[str, str]
    component: type[Any]
    options: Options
    changed: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The registered name."""
        return self.identity["name"]

    @property
    def label(self) -> str:
        """The name and, in parentheses, the options that differ from the track's."""
        changed = ", ".join(f"{key}={value}" for key, value in self.changed.items())
        return f"{self.name} ({changed})" if changed else self.name

    @property
    def title(self) -> str:
        """Kind and name: ``defense 'mixup'``."""
        return f"{self.kind} {self.name!r}"

    @property
    def owner(self) -> str:
        """The component and its plugin, as error messages name them."""
        return f"{self.title} of plugin {self.identity['distribution']}"

    def spec(self) -> dict[str, Any]:
        """What a cache key and a record hold: name, distribution, version and all options."""
        options = self.options.model_dump(mode="json", exclude=set(self.options.places))
        return {**self.identity, "options": options}

    def make(self) -> Any:
        """A fresh instance.

        Raises:
            MiaBenchError: the plugin fails; it is named.
        """
        with attribute_errors(self.owner):
            return self.component(self.options)

    @cached_property
    def planned(self) -> Any:
        """The instance that is asked while a run is planned; what computes makes its own."""
        return self.make()

    def __getstate__(self) -> dict[str, Any]:
        """The fields; the planned instance stays in this process."""
        return {key: value for key, value in vars(self).items() if key != "planned"}


@dataclass
class OptionValues:
    """``-o`` values: (kind, name) to key to the values given, in order."""

    values: dict[tuple[str, str], dict[str, list[Any]]] = field(default_factory=dict)

    def combinations(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Every combination of the values given for one component."""
        given = self.values.get((kind, name), {})
        return [
            dict(zip(given, combination, strict=True)) for combination in itertools.product(*given.values())
        ]

    def single(self, kind: str, name: str) -> dict[str, Any]:
        """The values of a component that does not multiply the grid.

        Raises:
            UsageError: an option was given twice.
        """
        combinations = self.combinations(kind, name)
        if len(combinations) > 1:
            raise UsageError(f"options of the {kind} {name!r} take one value each")
        return combinations[0]

    def refuse_others(
        self,
        used: Collection[tuple[str, str]],
        why: str = "which is not used here",
        kinds: Collection[str] = (),
    ) -> None:
        """Raise UsageError where an option is given for a component that is not ``used``.

        Args:
            used: kinds and names.
            why: the end of the message.
            kinds: only components of these; of all unless given.
        """
        for kind, name in self.values:
            if (kind, name) not in used and (not kinds or kind in kinds):
                raise UsageError(f"an option is set for the {kind} {name!r}, {why}")


def parse_option_values(
    registry: Registry, given: Mapping[str, Sequence[Any]], kinds_known: Sequence[str] = OPTION_KINDS
) -> OptionValues:
    """Find the components of known kinds that options are given for.

    Args:
        registry: where names are looked up.
        given: ``PLUGIN.KEY`` or ``kind:PLUGIN.KEY`` to the values in order.
        kinds_known: the kinds that may be meant.

    Raises:
        UsageError: a name is unknown, or belongs to two kinds and none was said.
    """
    parsed = OptionValues()
    for path, texts in given.items():
        owner, _, key = path.rpartition(".")
        kind, colon, name = owner.rpartition(":")
        if colon and kind not in kinds_known:
            raise UsageError(f"option {path!r}: no kind {kind!r}; {did_you_mean(kind, kinds_known)}")
        kinds = [k for k in ([kind] if colon else kinds_known) if name in registry.names(k)]
        if not kinds:
            others = [e.kind for e in registry.find(name) if e.kind not in kinds_known]
            if others and not colon:
                raise UsageError(f"option {path!r}: options of the {others[0]} {name!r} are set by the track")
            known = {n for k in ([kind] if colon else kinds_known) for n in registry.names(k)}
            raise UsageError(f"option {path!r}: no plugin {name!r}; {did_you_mean(name, known)}")
        if len(kinds) > 1:
            forms = " or ".join(f"{k}:{name}.{key}" for k in kinds)
            raise UsageError(f"option {path!r}: {name!r} is the name of several kinds; write {forms}")
        values = parsed.values.setdefault((kinds[0], name), {}).setdefault(key, [])
        values += [text for text in texts if text not in values]
    return parsed


def resolve(
    registry: Registry, kind: str, name: str, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> ConfiguredComponent:
    """Load the component ``name`` and check its options: the class's, then the track's, then given.

    Raises:
        UsageError: a name or an option is wrong.
        MiaBenchError: the plugin fails, or has options that no key and no record can hold; it is named.
    """
    entry = registry.get(kind, name)
    component: type[Component] = entry.load()
    with attribute_errors(entry.owner):
        options = parse_options(name, component.Options, {**defaults, **given})
        fields = component.Options.model_fields
        required = {key for key, field in fields.items() if field.is_required()} - defaults.keys()
        needed = {key: value for key, value in given.items() if key in required}
        plain = parse_options(name, component.Options, {**defaults, **needed}) if given else options
        dumped = options.model_dump(exclude=set(options.places))
        changed = {
            key: value for key, value in dumped.items() if key in needed or value != getattr(plain, key)
        }
        resolved = ConfiguredComponent(kind, entry.identity(), component, options, changed)
        recorded = resolved.spec()["options"]
        for key in recorded:
            OPTION.check(key)
        json.dumps(recorded, allow_nan=False, ensure_ascii=False).encode()
    return resolved


def resolve_choice(
    registry: Registry, kind: str, choice: Choice, options: OptionValues
) -> ConfiguredComponent:
    """A component that the track names, with the command line's options."""
    return resolve(registry, kind, choice.name, choice.options, options.single(kind, choice.name))


def loadable_defenses(registry: Registry) -> Iterator[tuple[str, type[Defense]]]:
    """Every defense that can be loaded, by name; a broken one must not hide the others."""
    for name in registry.names("defense"):
        with contextlib.suppress(MiaBenchError):
            yield name, registry.get("defense", name).load()


def baseline(registry: Registry) -> str:
    """The name of the defense that others are compared with.

    Raises:
        MiaBenchError: none is installed.
    """
    for name, defense in loadable_defenses(registry):
        if defense.baseline:
            return name
    raise MiaBenchError("no baseline is installed")


def reference_attack(registry: Registry) -> str:
    """The name of the attack that is the floor of tables: it asks the target nothing.

    Raises:
        MiaBenchError: none is installed.
    """
    for name in registry.names("attack"):
        with contextlib.suppress(MiaBenchError):
            if registry.get("attack", name).load().reference == "floor":
                return name
    raise MiaBenchError("further folds need the attack that is the floor of tables, and none is installed")


def track_options(track: Track, kind: str, name: str) -> dict[str, Any]:
    """The options that ``track`` sets for a component of the grid."""
    if kind == "defense":
        return track.defenses.get(name, {})
    if kind == "attack":
        return track.attacks[name].options if name in track.attacks else {}
    return track.priors.get(name, {})
