"""What the published board of a track says of the cells of a run: a small file beside the track's own.

``mia-bench leaderboard build`` writes it (:func:`mia_bench.leaderboard.summary.summary_text`), so that a run
can be compared with the board without the board's records. Reading it needs neither NumPy nor torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mia_bench.errors import MiaBenchError
from mia_bench.record import ComponentRef, Record
from mia_bench.recorded_options import changed_options, options_text
from mia_bench.registry import Registry
from mia_bench.track import Track, load_track

SUFFIX = ".board.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedCell(_Part):
    """A row of the board under one attack; options are those that are not the track's, numbers are text."""

    defense: str
    defense_options: dict[str, Any] = Field(default_factory=dict)
    attack: str
    attack_options: dict[str, Any] = Field(default_factory=dict)
    prior: str
    prior_options: dict[str, Any] = Field(default_factory=dict)
    leakage: str
    verdict: str = ""
    baseline: bool = False


class Published(_Part):
    """The summary of a board.

    Attributes:
        quantity: what orders the board, and all numbers are of.
        better: what is better for the defender.
        accuracy: of the undefended target, None where it is not known.
        floors: by prior with its options, what an attack reaches that learns nothing from the target.
    """

    track: str
    version: int
    seeds: int
    quantity: str
    better: str
    ceiling: str = ""
    accuracy: float | None = None
    floors: dict[str, str] = Field(default_factory=dict)
    cells: tuple[PublishedCell, ...] = ()


def summary_path(registry: Registry, track: str) -> Path:
    """The file beside the track's."""
    path = Path(str(registry.get("track", track).component))
    return path.with_name(path.stem + SUFFIX)


def read_published(registry: Registry, track: Track) -> Published | None:
    """The summary of the track's board; None where there is none of this version of the track."""
    try:
        found = Published.model_validate_json(summary_path(registry, track.name).read_text("utf-8"))
    except (OSError, ValueError, ValidationError):
        return None
    return found if (found.track, found.version) == (track.name, track.version) else None


def undefended_accuracy(registry: Registry, track: Track) -> dict[str, float]:
    """What the track's board says of the accuracy of undefended targets, by the track's name, if it does."""
    found = read_published(registry, track)
    return {track.name: found.accuracy} if found and found.accuracy is not None else {}


def published_lines(records: Iterable[Record], registry: Registry) -> Iterator[str]:
    """For people: what the boards say of the records' attacks on the baseline, and on the same defenses."""
    done = [record for record in records if record.status == "done"]
    for name in dict.fromkeys(record.track.name for record in done):
        try:
            track = load_track(registry, name)
        except MiaBenchError:
            continue
        this = name, track.version, ""
        ours = [r for r in done if (r.track.name, r.track.version, r.track.variant) == this]
        if found := read_published(registry, track):
            yield from _lines(found, [_cell(registry, track, record) for record in ours])


_Cell: TypeAlias = tuple[str, str, str]
"""Defense, attack, prior; each with its options that are not the track's."""


def _cell(registry: Registry, track: Track, record: Record) -> _Cell:
    def named(kind: str, part: ComponentRef) -> str:
        return with_options(part.name, changed_options(registry, track, kind, part))

    return named("defense", record.defense), named("attack", record.attack), named("prior", record.prior)


def _lines(found: Published, cells: Sequence[_Cell]) -> Iterator[str]:
    lines = []
    for attack, prior in dict.fromkeys((attack, prior) for _, attack, prior in cells):
        told = [
            f"{name} {one.leakage}"
            for one in sorted(found.cells, key=lambda one: not one.baseline)
            if with_options(one.attack, one.attack_options) == attack
            if with_options(one.prior, one.prior_options) == prior
            if ((name := with_options(one.defense, one.defense_options)), attack, prior) in cells
            or one.baseline
        ]
        lines += [f"  under {attack} with {prior}: {', '.join(told)}"] if told else []
    if not lines:
        return
    seeds = f"{found.seeds} seed{'s' if found.seeds != 1 else ''}"
    better = "" if found.better == "neutral" else f" ({found.better} is better for the defender)"
    yield f"published board of {found.track} version {found.version}, {seeds}, {found.quantity}{better}:"
    levels = [f"ceiling {found.ceiling} (real images)"] if found.ceiling else []
    priors = dict.fromkeys(prior for _, _, prior in cells)
    levels += [f"floor {found.floors[p]} (samples of {p})" for p in priors if p in found.floors]
    yield from [f"  {', '.join(levels)}", *lines] if levels else lines
    verdicts = {
        with_options(one.defense, one.defense_options): one.verdict for one in found.cells if one.verdict
    }
    if ours := [
        f"{name} {verdicts[name]}" for name in dict.fromkeys(d for d, _, _ in cells) if name in verdicts
    ]:
        yield f"  verdicts under the strongest attack on each: {'; '.join(ours)}"


def with_options(name: str, options: Mapping[str, Any]) -> str:
    """``ppa (loss=logit)``; the name alone without options."""
    return f"{name} ({options_text(options)})" if options else name
