"""Checks of tracks: the file, and the components and options that it names. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mia_bench.components import resolve, track_options
from mia_bench.errors import MiaBenchError
from mia_bench.plugins import host
from mia_bench.testing.checks import Finding
from mia_bench.track import Track, load_track


def check_track(name: str) -> list[Finding]:
    """What is wrong with the file of a registered track, and with the components and options it names.

    Raises:
        UsageError: no track has this name.
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
    for what, kind, choice in (
        ("data.dataset", "dataset", track.data.dataset),
        ("target.architecture", "model", track.target.architecture),
        ("evaluation.architecture", "model", track.evaluation.architecture),
        ("encoder", "encoder", track.encoder),
        ("judge.architecture", "model", track.judge and track.judge.architecture),
    ):
        if choice:
            yield what, kind, choice.name, choice.options
    priors = {track.default_prior, *(attack.prior for attack in track.attacks.values()), *track.priors}
    named = {
        "prior": sorted(priors),
        "defense": track.defenses,
        "attack": track.attacks,
        "metric": track.metrics,
    }
    for one in track.standard.attacks if track.standard else ():
        usual = track_options(track, "attack", one.name)
        yield f"standard set, {one.label}", "attack", one.name, {**usual, **one.options}
        prior = one.prior or track.prior_of(one.name)
        yield f"standard set, {one.label}", "prior", prior, track_options(track, "prior", prior)
    for kind, names in named.items():
        for name in names:
            yield f"{kind} {name}", kind, name, {} if kind == "metric" else track_options(track, kind, name)
