"""Plans the cell of a record again: what older artifacts were made from is noted nowhere else."""

from __future__ import annotations

from functools import cached_property

from mia_bench.components import ConfiguredComponent, parse_option_values, resolve, track_options
from mia_bench.engine.grid import Cell
from mia_bench.engine.plan import PlannedCell, TrackPlan
from mia_bench.errors import MiaBenchError
from mia_bench.paths import Roots, data_roots
from mia_bench.plugins import host
from mia_bench.record import ComponentRef, Record
from mia_bench.recorded_options import data_options
from mia_bench.registry import Registry
from mia_bench.track import Track, Variation, load_track, precisions


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
        for changed in _in_precisions(track, record):
            found = self._plan(changed, record).cell(self._cell(changed, record))
            if found.key == record.key:
                return found
        raise MiaBenchError("the installed code or the data give its cell another key")

    def changed_protocol(self, record: Record) -> str | None:
        """A message if the protocol that is installed is not the record's, though it has the same version.

        Empty if it is the same; None where that can't be told: another version, or no data or weights here.
        """
        try:
            track = load_track(self._registry, record.track.name)
            plans = [self._plan(one, record) for one in _in_precisions(track, record)]
        except MiaBenchError:
            return None
        installed = [digest for plan in plans for digest in (plan.protocol, plan.without_gallery)]
        if record.track.protocol in installed:
            return ""
        known = track.version == record.track.version and plans[0].fingerprint == record.track.data
        lacks = track.encoder is not None and plans[0].gallery is None
        if lacks or not known or record.track.protocol is None:
            return None
        return (
            f"track {track.name!r}: the records are of another protocol ({record.track.protocol}) than is "
            f"installed ({installed[0]}), and both are of version {track.version}: the track's file, or code "
            "or weights that its cells share, changed without a new version; the page may describe what was "
            "not run"
        )

    def _cell(self, track: Track, record: Record) -> Cell:
        parts = {kind: self._component(track, kind, part) for kind, part in record.components.items()}
        return Cell(track, parts["defense"], parts["prior"], parts["attack"], record.seed)

    def _component(self, track: Track, kind: str, ref: ComponentRef) -> ConfiguredComponent:
        defaults = track_options(track, kind, ref.name)
        return resolve(self._registry, kind, ref.name, defaults, ref.options)

    def _plan(self, track: Track, record: Record) -> TrackPlan:
        changed = record.track.data.partition("+")[2]
        known = track.name, track.variant, track.attack_precision, changed
        if known in self._failed:
            raise self._failed[known]
        if known not in self._plans:
            given = {path: (value,) for path, value in data_options(self._registry, track, record).items()}
            try:
                options = parse_option_values(self._registry, given, ("dataset", "encoder"))
                self._plans[known] = TrackPlan(self._registry, track, self._roots, options)
            except MiaBenchError as error:
                self._failed[known] = error
                raise
        return self._plans[known]


def _in_precisions(track: Track, record: Record) -> list[Track]:
    """The track in the record's variant, in each precision that the record may have been made in."""
    varied = Variation.read(record.track.variant).of(track)
    return [varied.model_copy(update={"attack_precision": precision}) for precision in precisions(track)]
