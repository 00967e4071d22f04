"""Checks of tracks: the file, and the components and options that it names. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mia_bench.components import resolve
from mia_bench.errors import MiaBenchError
from mia_bench.plugins import host
from mia_bench.testing.checks import Finding
from mia_bench.track import Track, load_track


def check_track(name: str) -> list[Finding]:
    """What is wrong with a registered track: its file, and the components and options it names.

    Raises:
        UsageError: no track is called so.
    """
    registry = host().registry
    registry.get("track", name)
    try:
        track = load_track(registry, name)
    except MiaBenchError as error:
        return [Finding("runs", str(error), "See mia_bench.track.Track")]
    found = []
    if not track.summary.strip():
        found.append(Finding("summary", "it has no summary", "Set summary to one line"))
    for what, kind, name, options in _components(track):
        try:
            resolve(registry, kind, name, options, {})
        except MiaBenchError as error:
            found.append(Finding("components", f"{what}: {error}", "Name what is installed"))
    return found


def _components(track: Track) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Each component that the track names: where, its kind, name and options."""
    choices = {
        "data.dataset": ("dataset", track.data.dataset),
        "target.architecture": ("model", track.target.architecture),
        "evaluation.architecture": ("model", track.evaluation.architecture),
        "encoder": ("encoder", track.encoder),
        "judge.architecture": ("model", track.judge and track.judge.architecture),
    }
    for what, (kind, choice) in choices.items():
        if choice:
            yield what, kind, choice.name, choice.options
    priors = {track.default_prior, *(a.prior for a in track.attacks.values()), *track.priors}
    for kind, settings in (
        ("prior", {name: track.priors.get(name, {}) for name in sorted(priors)}),
        ("defense", track.defenses),
        ("attack", {name: defaults.options for name, defaults in track.attacks.items()}),
        ("metric", {name: {} for name in track.metrics}),
    ):
        for name, options in settings.items():
            yield f"{kind} {name}", kind, name, options
