"""Checks of tracks: the file, and the components and options that it names. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mia_bench.components import OptionValues, resolve, resolve_choice
from mia_bench.errors import MiaBenchError
from mia_bench.registry import Entry, Registry
from mia_bench.testing.checks import Finding
from mia_bench.track import Track, load_track


def findings(registry: Registry, entry: Entry) -> list[Finding]:
    """What is wrong with a registered track."""
    try:
        track = load_track(registry, entry.name)
    except MiaBenchError as error:
        return [Finding("runs", str(error), "See mia_bench.track.Track")]
    found = []
    if not track.summary.strip():
        found.append(Finding("summary", "it has no summary", "Set summary to one line"))
    for what, ask in _asked(registry, track).items():
        try:
            ask()
        except MiaBenchError as error:
            found.append(Finding("components", f"{what}: {error}", "Name what is installed"))
    return found


def _asked(registry: Registry, track: Track) -> dict[str, Callable[[], object]]:
    """Each component that the track names, and how to see whether it is there."""
    choices = {
        "data.dataset": ("dataset", track.data.dataset),
        "target.architecture": ("model", track.target.architecture),
        "evaluation.architecture": ("model", track.evaluation.architecture),
    }
    if track.encoder:
        choices["encoder"] = ("encoder", track.encoder)
    if track.judge:
        choices["judge.architecture"] = ("model", track.judge.architecture)
    asked: dict[str, Callable[[], object]] = {}
    for what, (kind, choice) in choices.items():
        asked[what] = partial(resolve_choice, registry, kind, choice, OptionValues())
    for kind, settings in (
        ("prior", track.priors),
        ("defense", track.defenses),
        ("attack", {name: defaults.options for name, defaults in track.attacks.items()}),
        ("metric", {name: {} for name in track.metrics}),
    ):
        for name, options in settings.items():
            asked[f"{kind} {name}"] = partial(resolve, registry, kind, name, options, {})
    for prior in {track.default_prior, *(a.prior for a in track.attacks.values())}:
        asked[f"prior {prior}"] = partial(
            resolve, registry, "prior", prior, track.priors.get(prior, {}), {}
        )
    return asked
