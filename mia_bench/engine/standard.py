"""The standard set of attacks: all of them on the tuning seeds, then the strongest on the run's seeds.

The strongest is chosen where no board looks, so that choosing it does not bias a board's numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import TypeAlias

from mia_bench.api.metric import Quantity
from mia_bench.components import OptionValues, resolve, track_options
from mia_bench.engine.grid import build_grid, component_key
from mia_bench.engine.plan import PlannedCell, TrackPlan
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.names import STANDARD
from mia_bench.own_models import OwnTarget
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.results import text_table
from mia_bench.strength import Strongest, compare, deciding, ranking
from mia_bench.track import Standard, StandardAttack, Track, loadable_tracks

Records: TypeAlias = Mapping[str, Record]
"""By the key of their cell."""

MASKING = "gradient masking suspected"

_DefenseKey: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Outcome:
    """What came out of the set against one defense.

    Attributes:
        defense: its name, with the options that are not the track's.
        strongest: the attacks on the tuning seeds, compared.
        values: of each attack that was run on the seeds of the run, by its label, the mean over them of the
            quantity that decides; None where a seed lacks it.
    """

    defense: str
    strongest: Strongest
    values: Mapping[str, float | None]


class StandardRun:
    """The cells of the standard set, planned.

    Attributes:
        standard: the set.
        seeds: those of the run.
        first: the cells that are known from the start: the whole set on the tuning seeds, and the default
            attacks on the seeds of the run.
        defenses: the label of each defense.

    Raises:
        UsageError: a name or an option is wrong, or the track has no such set.
        MiaBenchError: an attack of the set can't be used.
    """

    def __init__(
        self,
        registry: Registry,
        track: Track,
        plan: TrackPlan,
        *,
        defenses: Sequence[str],
        seeds: Sequence[int],
        options: OptionValues,
        own: Sequence[OwnTarget] = (),
        left_out: list[str],
    ) -> None:
        self._registry, self._track = registry, track
        self.standard, self.seeds = standard_of(registry, track), tuple(dict.fromkeys(seeds))
        _require_apart(self.standard, self.seeds)
        refuse_options(options)
        for one in self.standard.attacks:
            _require(registry, track, one)
        self._planned: dict[tuple[str, _DefenseKey, int], PlannedCell] = {}
        every = (*self.standard.seeds, *self.seeds)
        for one in self.standard.attacks:
            lines: list[str] = []
            cells = build_grid(
                registry,
                track,
                defenses=defenses,
                attacks=[one.name],
                priors=[one.prior] if one.prior else (),
                seeds=every,
                options=_with_options(options, one),
                own=own,
                left_out=lines,
            )
            for planned in plan.cells(cells, lines):
                self._planned[one.label, component_key(planned.cell.defense), planned.cell.seed] = planned
            left_out += [line for line in lines if line not in left_out]
        self.defenses = {
            component_key(one.cell.defense): one.cell.defense.label for one in self._planned.values()
        }
        usual = tuple(one for one in self.standard.attacks if one.default)
        self.first = [
            *self._cells(self.standard.seeds, self.standard.attacks),
            *self._cells(self.seeds, usual),
        ]

    def _cells(
        self, seeds: Iterable[int], attacks: Sequence[StandardAttack], defenses: Iterable[_DefenseKey] = ()
    ) -> list[PlannedCell]:
        """The planned cells, targets first: those of one target stand together."""
        keys = (
            (attack.label, defense, seed)
            for seed in seeds
            for defense in defenses or self.defenses
            for attack in attacks
        )
        return [self._planned[key] for key in keys if key in self._planned]

    @cached_property
    def tuning(self) -> list[PlannedCell]:
        """The cells of the tuning seeds."""
        return self._cells(self.standard.seeds, self.standard.attacks)

    @property
    def possible(self) -> dict[str, list[list[PlannedCell]]]:
        """By the label of each defense, the cells of each attack that may turn out to be the strongest."""
        others = [one for one in self.standard.attacks if not one.default]
        return {
            label: [self._cells(self.seeds, [one], [defense]) for one in others]
            for defense, label in self.defenses.items()
        }

    def further(self, records: Records) -> list[PlannedCell]:
        """The cells of the strongest attack against each defense on the run's seeds, if no default one."""
        chosen = {defense: one.chosen for defense, one in self._strongest(records).items()}
        return [
            planned
            for seed in self.seeds
            for defense, one in chosen.items()
            if one and not one.attack.default
            for planned in self._cells([seed], [one.attack], [defense])
        ]

    def outcomes(self, records: Records) -> list[Outcome]:
        """What came out, for each defense."""
        found = []
        for defense, strongest in self._strongest(records).items():
            values: dict[str, float | None] = {}
            for one in self.standard.attacks:
                cells = self._cells(self.seeds, [one], [defense])
                metrics = [
                    records[cell.key].metrics.get(strongest.quantity) for cell in cells if cell.key in records
                ]
                if metrics:
                    numbers = [metric.value for metric in metrics if metric]
                    values[one.label] = fmean(numbers) if len(numbers) == len(self.seeds) else None
            found.append(Outcome(self.defenses[defense], strongest, values))
        return found

    def _strongest(self, records: Records) -> dict[_DefenseKey, Strongest]:
        """The attacks against each defense, compared on the tuning seeds; nothing if nothing was measured."""
        known = [records[planned.key] for planned in self.tuning if planned.key in records]
        name = deciding(ranking(self._track, self.quantities), known)
        if not name:
            return {}
        found: dict[_DefenseKey, Strongest] = {}
        undefended = None
        for defense in sorted(self.defenses, key=lambda key: not self._is_baseline(key)):
            tried = [
                (one, [records[cell.key] for cell in cells if cell.key in records])
                for one in self.standard.attacks
                for cells in [self._cells(self.standard.seeds, [one], [defense])]
            ]
            found[defense] = compare(tried, self.standard.seeds, name, self.quantities[name], undefended)
            if self._is_baseline(defense):
                undefended = found[defense]
        return {defense: found[defense] for defense in self.defenses}

    def _is_baseline(self, defense: _DefenseKey) -> bool:
        chosen = next(one.cell.defense for (_, key, _), one in self._planned.items() if key == defense)
        return bool(chosen.component.baseline) and not chosen.changed

    @cached_property
    def quantities(self) -> dict[str, Quantity]:
        """What the track's metrics declare."""
        metrics = [self._registry.get("metric", name).load() for name in self._track.metrics]
        return {name: quantity for metric in metrics for name, quantity in metric.quantities.items()}


def standard_of(registry: Registry, track: Track) -> Standard:
    """The standard set of a track.

    Raises:
        UsageError: it has none.
    """
    if track.standard is None:
        others = ", ".join(one.name for one in loadable_tracks(registry) if one.standard) or "none"
        raise UsageError(
            f"track {track.name!r} has no standard set of attacks (tracks that have one: {others}); "
            "name attacks by --attack"
        )
    return track.standard


def _require_apart(standard: Standard, seeds: Iterable[int]) -> None:
    if shared := sorted(set(seeds) & set(standard.seeds)):
        raise UsageError(
            f"seed {shared[0]} is a tuning seed, on which the strongest attack is chosen; choose other seeds"
        )


def refuse_options(options: OptionValues) -> None:
    """Refuse options of attacks and priors, which the track fixes for the set.

    Raises:
        UsageError: there are some.
    """
    for kind, name in options.values:
        if kind in ("attack", "prior"):
            raise UsageError(
                f"options of the {kind} {name!r} can't be set together with --attack {STANDARD}: "
                "the track fixes those of the set"
            )


def _require(registry: Registry, track: Track, attack: StandardAttack) -> None:
    """Check an attack of the set.

    Raises:
        MiaBenchError: it can't be used; the track is named.
    """
    try:
        resolve(registry, "attack", attack.name, track_options(track, "attack", attack.name), attack.options)
        if attack.prior:
            resolve(registry, "prior", attack.prior, track_options(track, "prior", attack.prior), {})
    except MiaBenchError as error:
        raise MiaBenchError(f"the standard set of track {track.name!r}: {error}") from error


def _with_options(options: OptionValues, attack: StandardAttack) -> OptionValues:
    own = {key: [value] for key, value in attack.options.items()}
    return replace(options, values={**options.values, **({("attack", attack.name): own} if own else {})})


def outcome_table(run: StandardRun, records: Iterable[Record], format: str = "table") -> str:
    """A row for each defense: the strongest attack and its leakage beside that of the default ones.

    Args:
        run: what was run.
        records: of all its cells.
        format: ``table`` or ``markdown``.
    """
    outcomes = run.outcomes({record.key: record for record in records})
    if not outcomes:
        return "no attack of the standard set finished on the tuning seeds"
    usual = [one.label for one in run.standard.attacks if one.default]
    name = outcomes[0].strongest.quantity
    quantity = run.quantities[name]
    tuned, on = seeds_text(run.standard.seeds), seeds_text(run.seeds)

    def number(value: float | None) -> str:
        return "–" if value is None else quantity.format(value)

    rows = []
    for outcome in outcomes:
        chosen = outcome.strongest.chosen
        label = chosen.attack.label if chosen else ""
        row = {"defense": outcome.defense, "strongest attack": label or "no attack finished"}
        row[f"its {name}, {tuned}"] = number(chosen.leakage if chosen else None)
        row[f"its {name}, {on}"] = number(outcome.values.get(label))
        row |= {f"{default}, {on}": number(outcome.values.get(default)) for default in usual}
        row["remark"] = MASKING if outcome.strongest.masking else ""
        rows.append(row)
    if not any(row["remark"] for row in rows):
        rows = [{name: cell for name, cell in row.items() if name != "remark"} for row in rows]
    return text_table(rows, format)


def suspicions(run: StandardRun, records: Iterable[Record]) -> list[str]:
    """Against which defense, and why, gradient masking is suspected: a line for each."""
    found = run.outcomes({record.key: record for record in records})
    return [f"{one.defense}: {MASKING}: {one.strongest.masking}" for one in found if one.strongest.masking]


def seeds_text(seeds: Sequence[int]) -> str:
    """``seed 0``, ``seeds 0, 1``."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
