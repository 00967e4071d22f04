"""Plans the cell of a record again: what older artifacts were made from is noted nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import get_args

from mia_bench.components import ConfiguredComponent, OptionValues, resolve, track_options
from mia_bench.device import Precision
from mia_bench.engine.grid import Cell
from mia_bench.engine.plan import PlannedCell, TrackPlan
from mia_bench.errors import MiaBenchError
from mia_bench.paths import Roots, data_roots
from mia_bench.plugins import host
from mia_bench.record import ComponentRef, Record
from mia_bench.registry import Registry
from mia_bench.track import Track, Variation, load_track


class Planner:
    """Plans cells of records, each track once."""

    def __init__(self, roots: Roots | None = None) -> None:
        self._given = roots
        self._plans: dict[tuple[str, ...], TrackPlan] = {}
        self._failed: dict[tuple[str, ...], MiaBenchError] = {}

    @cached_property
    def _roots(self) -> Roots:
        return self._given or data_roots()

    @property
    def _registry(self) -> Registry:
        return host().registry

    def cell(self, record: Record) -> PlannedCell:
        """The planned cell that has the record's key.

        Raises:
            MiaBenchError: the installed code, the track or the data give another key, or none.
        """
        track = load_track(self._registry, record.track.name)
        if track.version != record.track.version:
            raise MiaBenchError(
                f"it is of version {record.track.version} of track {track.name}, {track.version} is installed"
            )
        for changed in _in_each_precision(Variation.read(record.track.variant).of(track)):
            found = self._plan(changed, record).cell(self._cell(changed, record))
            if found.key == record.key:
                return found
        raise MiaBenchError("the installed code or the data give its cell another key")

    def _cell(self, track: Track, record: Record) -> Cell:
        parts = {kind: self._component(track, kind, part) for kind, part in record.components.items()}
        return Cell(track, parts["defense"], parts["prior"], parts["attack"], record.seed)

    def _component(self, track: Track, kind: str, ref: ComponentRef) -> ConfiguredComponent:
        defaults = track_options(track, kind, ref.name)
        return resolve(self._registry, kind, ref.name, defaults, ref.options)

    def _plan(self, track: Track, record: Record) -> TrackPlan:
        _, *changed = record.track.data.split("+")
        known = track.name, track.variant, track.attack_precision, "+".join(changed)
        if known in self._failed:
            raise self._failed[known]
        if known not in self._plans:
            options = OptionValues(dict(self._changed_data(track, changed)))
            try:
                self._plans[known] = TrackPlan(self._registry, track, self._roots, options)
            except MiaBenchError as error:
                self._failed[known] = error
                raise
        return self._plans[known]

    def _changed_data(
        self, track: Track, changed: list[str]
    ) -> Iterator[tuple[tuple[str, str], dict[str, list[str]]]]:
        """The options of data set and encoder that a run changed, which stand in the fingerprint."""
        given = dict(text.split("=", 1) for text in changed if "=" in text)
        choices = {"dataset": track.data.dataset, **({"encoder": track.encoder} if track.encoder else {})}
        for kind, choice in choices.items():
            fields = self._registry.get(kind, choice.name).load().Options.model_fields
            if mine := {name: [value] for name, value in given.items() if name in fields}:
                yield (kind, choice.name), mine


def _in_each_precision(track: Track) -> Iterator[Track]:
    """The track, then as ``--precision`` changes it, which records do not name."""
    yield track
    for precision in get_args(Precision):
        if precision != track.attack_precision:
            yield track.model_copy(update={"attack_precision": precision})
