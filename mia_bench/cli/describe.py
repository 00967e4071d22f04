"""``mia-bench describe NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from mia_bench.api.options import describe_options
from mia_bench.cli.answers import repeatable
from mia_bench.components import OPTION_KINDS
from mia_bench.errors import UsageError, did_you_mean
from mia_bench.plugins import attribute_errors, describe_error, host
from mia_bench.registry import KINDS, Entry, Registry
from mia_bench.terminal import say_lines, table
from mia_bench.text import unbroken
from mia_bench.track import Choice, load_track


@click.command("describe")
@click.argument("name")
def command(name: str) -> None:
    """Explain NAME: a defense, attack, prior, data set, model, encoder, metric or track.

    Where a name belongs to two kinds both are shown; kind:name shows one.
    """
    repeatable()
    registry = host().registry
    kind, _, bare = name.rpartition(":")
    entries = [entry for entry in registry.find(bare) if kind in ("", entry.kind)]
    entries = entries or [entry for entry in registry.entries("metric") if bare in _quantities(entry)]
    if not entries:
        known = {word for one in KINDS for word in registry.names(one)}
        raise UsageError(f"nothing is called {name!r}; {did_you_mean(bare, known)}")
    texts = []
    for entry in entries:
        with attribute_errors(f"{entry.kind} {entry.name!r} of plugin {entry.plugin.id}"):
            texts.append(describe(registry, entry))
    say_lines("\n\n".join(texts))


def _quantities(entry: Entry) -> list[str]:
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
    for attribute in ("paper", "access", "terms"):
        if value := getattr(component, attribute, ""):
            lines.append(f"  {attribute}: {value}")
    lines.append(f"  version: {entry.identity()['version']}")
    for name, quantity in getattr(component, "quantities", {}).items():
        better = "" if quantity.better == "neutral" else f" (better for the defender: {quantity.better})"
        lines.append(f"  {name}: {quantity.description}{better}")
    for name, quantity in getattr(component, "reports", {}).items():
        lines.append(f"  reports {name}: {quantity.description}")
    for name, values in getattr(component, "strengths", {}).items():
        lines.append(f"  strengths, which a sweep tries: {name} {', '.join(map(str, values))}")
    if matched := getattr(component, "matched", None):
        lines.append(f"  matched baseline: {matched[0]} {_table(matched[1])}".rstrip())
    try:
        options = describe_options(component.Options)
    except Exception as error:  # a plugin's validators and defaults may raise anything
        lines.append(f"  its options can't be shown: {describe_error(error)}")
        options = []
    if options:
        settable = f"set with -o {entry.name}.OPTION=VALUE"
        where = settable if entry.kind in OPTION_KINDS else "set by the track that names it"
        lines += ["", *table(options).splitlines(), "", f"  {where}"]
    elif entry.kind != "metric" and not component.Options.model_fields:
        lines.append("  no options")
    return "\n".join(map(unbroken, lines))


def describe_track(registry: Registry, entry: Entry) -> str:
    """The protocol of a track."""
    track = load_track(registry, entry.name)
    dataset, size, recipe = track.data.dataset, track.data.resolution, track.target.recipe
    lines = [
        f"{track.name} (track, version {track.version}, from {entry.plugin.id})",
        *(f"  {line}" for line in (track.summary, *track.protocol.strip().splitlines())),
        f"  data: {dataset.name} {_table(dataset.options)}, {size}×{size} pixels",
        f"  target: {_choice(track.target.architecture)}, {recipe.epochs} epochs, "
        f"batch {recipe.batch_size}, Adam {recipe.learning_rate:g}",
        f"  evaluation model: {_choice(track.evaluation.architecture)}, "
        f"{track.evaluation.recipe.epochs} epochs",
        f"  identity encoder: {_choice(track.encoder) if track.encoder else 'none'}",
        *([f"  independent judge: {_choice(track.judge.architecture)}"] if track.judge else []),
        f"  images a class: {track.images_per_class}; classes attacked: {track.attacked_classes or 'all'}",
        f"  default prior: {track.default_prior}",
        *([f"  CPU threads of every stage: {track.threads}"] if track.threads else []),
    ]
    attacks = {name: {"prior": one.prior, **one.options} for name, one in track.attacks.items()}
    for kind, settings in {"prior": track.priors, "defense": track.defenses, "attack": attacks}.items():
        lines += [f"  {kind} {name}: {_table(options)}" for name, options in settings.items() if options]
    if standard := track.standard:
        tuned = ", ".join(map(str, standard.seeds))
        lines.append(f"  standard set of attacks, version {standard.version}, tuning seeds {tuned}:")
        lines += [f"    {one.label}{' (default)' if one.default else ''}" for one in standard.attacks]
    return "\n".join(map(unbroken, lines))


def _choice(choice: Choice) -> str:
    return choice.name + (f" ({_table(choice.options)})" if choice.options else "")


def _table(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())
