"""Components as records hold them: what they say of themselves, and their options."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mia_bench.api.component import Component
from mia_bench.api.options import Options
from mia_bench.components import track_options
from mia_bench.errors import MiaBenchError
from mia_bench.record import ComponentRef, Matched, Record
from mia_bench.registry import Registry
from mia_bench.track import Track


def row_label(defense: str, changed: Mapping[str, Any]) -> str:
    """The defense with the options that are not the track's: ``dp-sgd epsilon=50``."""
    return f"{defense} {options_text(changed)}".strip()


def options_text(options: Mapping[str, Any]) -> str:
    """``key=value, …`` sorted by key, each as after ``-o PLUGIN.``; empty without options."""
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in sorted(options.items())
    )


def said_of_itself(
    component: type[Component],
    changed: Collection[str],
    options: Options | None = None,
    name: str = "",
    *,
    answered: bool = True,
) -> dict[str, Any]:
    """What a component says of itself: fields of a record's ``about``.

    Args:
        component: its class.
        changed: names of the options that are not the track's.
        options: all of them; None where they are not known.
        name: its registered name.
        answered: whether a target under it has answered; only then it is known whether answers are random.
    """
    said: dict[str, Any] = {
        what: str(getattr(component, what, "")) for what in ("summary", "paper", "access", "reference")
    }
    baseline = bool(getattr(component, "baseline", False))
    matched = getattr(component, "matched", None)
    alone = matched is not None and _leaves_its_architecture(matched, name, options)
    return {
        **said,
        "baseline": baseline or alone,
        "front": baseline and bool(changed) and set(changed) <= set(getattr(component, "front_options", ())),
        "matched": None if alone or not matched else Matched(name=matched[0], options=dict(matched[1])),
        "randomised": answered
        and options is not None
        and bool(getattr(component(options), "stochastic", False)),
        "changed": list(changed),
    }


def _leaves_its_architecture(
    matched: tuple[str, Mapping[str, Any]], name: str, options: Options | None
) -> bool:
    """Whether a defense has the options with which it names itself as undefended."""
    wanted = matched[1].items()
    return matched[0] == name and all(getattr(options, option, None) == value for option, value in wanted)


def changed_options(
    registry: Registry, track: Track | None, kind: str, component: ComponentRef
) -> dict[str, Any]:
    """The options that differ from the track's defaults; all of them where those are not known.

    Args:
        registry: where the component's class is looked up.
        track: the protocol the record was made under, or None when it is not known any more.
        kind: ``defense``, ``attack`` or ``prior``.
        component: as the record has it.
    """
    if component.about.own_model:
        return component.changed
    if track is None:
        return component.options
    try:
        cls = registry.get(kind, component.name).load()
        given = cls.Options(**track_options(track, kind, component.name))
        # JSON on both sides: a record's lists are the class's tuples.
        defaults: dict[str, Any] = given.model_dump(mode="json")
    except (MiaBenchError, ValueError):
        return component.options
    return {
        key: value
        for key, value in component.options.items()
        if key not in defaults or defaults[key] != value
    }


def usual_options(
    components: Iterable[ComponentRef], without: Mapping[str, Collection[str]] = MappingProxyType({})
) -> dict[str, dict[str, Any]]:
    """By component the options that hold where its label gives no others, sorted by name.

    Args:
        components: as records have them.
        without: by component the names of options that are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in components:
        others = {*one.about.changed, *without.get(one.name, ())}
        kept = {key: value for key, value in one.options.items() if key not in others}
        found.setdefault(one.name, {}).update(kept)
    return dict(sorted(found.items()))


def run_options(
    registry: Registry, track: Track | None, kind: str, component: ComponentRef
) -> dict[str, str]:
    """The values of ``-o`` that give a component its recorded options; see :func:`changed_options`."""
    return {
        f"{kind}:{component.name}.{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in changed_options(registry, track, kind, component).items()
    }


def data_options(registry: Registry, track: Track, record: Record) -> dict[str, str]:
    """The values of ``-o`` that change data set and encoder as a record's fingerprint of the data tells."""
    _, *changed = record.track.data.split("+")
    given = dict(text.split("=", 1) for text in changed if "=" in text)
    choices = {"dataset": track.data.dataset, **({"encoder": track.encoder} if track.encoder else {})}
    return {
        f"{kind}:{choice.name}.{name}": value
        for kind, choice in choices.items()
        for name, value in given.items()
        if name in registry.get(kind, choice.name).load().Options.model_fields
    }


def differing(options: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The options that some of ``others`` don't share."""
    return {
        key: option for key, option in options.items() if any(other.get(key) != option for other in others)
    }
