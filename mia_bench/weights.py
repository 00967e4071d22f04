"""The weight files that components need, and a line for each that is missing. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mia_bench.api.component import Published
from mia_bench.components import ConfiguredComponent, OptionValues, resolve, resolve_choice, track_options
from mia_bench.errors import MiaBenchError
from mia_bench.fetch import find
from mia_bench.plugins import attribute_errors
from mia_bench.registry import Registry
from mia_bench.track import Track

Needed = Iterable[tuple[str, ConfiguredComponent]]
"""Components, each with the word for whom it is needed."""


def needed_by(registry: Registry, tracks: Iterable[Track]) -> Iterator[tuple[str, ConfiguredComponent]]:
    """What cells of tracks use by default, without components that can't be loaded; with the track's name."""
    for track in tracks:
        with contextlib.suppress(MiaBenchError):  # a run says what is wrong with it
            yield from ((track.name, component) for component in _components(registry, track))


def _components(registry: Registry, track: Track) -> Iterator[ConfiguredComponent]:
    """The networks, the encoder and the priors of a track."""
    none = OptionValues()
    classifiers = [track.target, track.evaluation, *([track.judge] if track.judge else [])]
    for classifier in classifiers:
        yield resolve_choice(registry, "model", classifier.architecture, none)
    if track.encoder is not None:
        yield resolve_choice(registry, "encoder", track.encoder, none)
    for name in dict.fromkeys([track.default_prior, *(attack.prior for attack in track.attacks.values())]):
        yield resolve(registry, "prior", name, track_options(track, "prior", name), {})


def weight_files(needed: Needed) -> dict[Published, list[str]]:
    """The files that components need, each once, and for whom; nothing of a component that fails."""
    users: dict[Published, list[str]] = {}
    for user, component in needed:
        # A plugin that fails is named where it is used.
        with contextlib.suppress(MiaBenchError), attribute_errors(component.owner):
            for file in component.planned.weight_files():
                known = users.setdefault(file, [])
                known += [user] if user not in known else []
    return users


def missing_lines(files: Mapping[Published, list[str]], folder: Path | None) -> list[str]:
    """A line for each file that is not in ``folder``: for whom, where to get it, where to put it."""
    return [missing_line(file, users, folder) for file, users in files.items() if not find(file.name, folder)]


def missing_line(file: Published, users: Iterable[str], folder: Path | None) -> str:
    """What to do about a missing file."""
    place = f"into {folder}" if folder else "into the folder that MIA_BENCH_WEIGHTS names"
    by_hand = f"download {file.url} {place}" if file.url else f"put it {place}"
    how = f"{file.how}, or {by_hand}" if file.how else by_hand
    return f"weight file {file.name} is missing (needed for {', '.join(users)}): {how}"
