"""``mia-bench describe NAME``."""

from __future__ import annotations

from typing import Any

import click
from tabulate import tabulate

from mia_bench.api.options import describe_options
from mia_bench.components import OPTION_KINDS
from mia_bench.errors import MiaBenchError, UsageError, did_you_mean
from mia_bench.plugins import host
from mia_bench.registry import KINDS, Entry, Registry
from mia_bench.track import AttackDefaults, Choice, load_track


@click.command("describe")
@click.argument("name")
def command(name: str) -> None:
    """Explain NAME: a defense, attack, prior, data set, model, encoder, metric or track.

    Where a name belongs to two kinds both are shown; ``kind:name`` shows one.
    """
    registry = host().registry
    kind, _, bare = name.rpartition(":")
    entries = [e for e in registry.find(bare) if not kind or e.kind == kind]
    if not entries:
        entries = [e for e in registry.entries("metric") if bare in _metric_names(e)]
    if not entries:
        known = {n for kind_ in KINDS for n in registry.names(kind_)}
        raise UsageError(f"nothing is called {name!r}; {did_you_mean(bare, known)}")
    click.echo("\n\n".join(_described(registry, entry) for entry in entries))


def _described(registry: Registry, entry: Entry) -> str:
    try:
        return describe(registry, entry)
    except MiaBenchError:
        raise
    except Exception as error:  # a plugin may raise anything
        raise MiaBenchError(entry.failure(error)) from error


def _metric_names(entry: Entry) -> list[str]:
    try:
        return list(entry.load().quantities)
    except Exception:  # a broken one must not hide the others
        return []


def describe(registry: Registry, entry: Entry) -> str:
    """The text for one entry."""
    if entry.kind == "track":
        return describe_track(registry, entry)
    registry.get(entry.kind, entry.name)  # a name claimed twice is an error here
    component = entry.load()
    lines = [f"{entry.name} ({entry.kind}, from {entry.plugin.id})", f"  {component.summary}"]
    for label, attribute in (("paper", "paper"), ("access", "access"), ("terms", "terms")):
        if value := getattr(component, attribute, ""):
            lines.append(f"  {label}: {value}")
    lines.append(f"  version: {entry.identity()['version']}")
    for name, quantity in getattr(component, "quantities", {}).items():
        lines.append(f"  {name}: {quantity.description} (better for the defender: {quantity.better})")
    for name, quantity in getattr(component, "reports", {}).items():
        lines.append(f"  reports {name}: {quantity.description}")
    options = describe_options(component.Options)
    if options:
        lines += [
            "",
            tabulate(options, headers="keys"),
            "",
            f"  set with -o {entry.name}.OPTION=VALUE"
            if entry.kind in OPTION_KINDS
            else "  set by the track that names it",
        ]
    elif entry.kind != "metric":
        lines.append("  no options")
    return "\n".join(lines)


def describe_track(registry: Registry, entry: Entry) -> str:
    """The protocol of a track."""
    track = load_track(registry, entry.name)
    recipe = track.target.recipe
    lines = [
        f"{track.name} (track, version {track.version}, from {entry.plugin.id})",
        f"  {track.summary}",
        *(f"  {line}" for line in track.protocol.strip().splitlines()),
        f"  data: {track.data.dataset.name} {_table(track.data.dataset.options)}, "
        f"{track.data.resolution}×{track.data.resolution} pixels",
        f"  target: {_choice(track.target.architecture)}, {recipe.epochs} epochs, "
        f"batch {recipe.batch_size}, Adam {recipe.learning_rate:g}",
        f"  evaluation model: {_choice(track.evaluation.architecture)}, "
        f"{track.evaluation.recipe.epochs} epochs",
        f"  identity encoder: {_choice(track.encoder) if track.encoder else 'none'}",
        *([f"  independent judge: {_choice(track.judge.architecture)}"] if track.judge else []),
        f"  images a class: {track.images_per_class}; classes attacked: {track.attacked_classes or 'all'}",
        f"  default prior: {track.default_prior}",
    ]
    for kind, settings in (
        ("prior", track.priors),
        ("defense", track.defenses),
        ("attack", {name: _attack_settings(a) for name, a in track.attacks.items()}),
    ):
        lines += [f"  {kind} {name}: {_table(o)}" for name, o in settings.items() if o]
    return "\n".join(lines)


def _attack_settings(defaults: AttackDefaults) -> dict[str, Any]:
    """An attack's options on a track, after the prior if that is one of its own."""
    return {**({"prior": defaults.prior} if defaults.prior else {}), **defaults.options}


def _choice(choice: Choice) -> str:
    return choice.name + (f" ({_table(choice.options)})" if choice.options else "")


def _table(options: dict[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())
