"""Which attack of a set is the strongest against a defense: pure functions of records of the tuning seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

from mia_bench.api.access import AccessLevel
from mia_bench.api.metric import Quantity
from mia_bench.errors import MiaBenchError
from mia_bench.record import Record
from mia_bench.track import StandardAttack, Track

EQUAL: Mapping[str, float] = {"bits": 0.5, "share": 0.05}
"""By kind of quantity, the difference of leakage too small to matter.

Gradient masking is suspected where an attack beats the default one by at least as much.
"""

DEARER = 1.05
"""An attack with at most this many times the queries of another costs no more."""


@dataclass(frozen=True)
class Candidate:
    """An attack of the set against one defense.

    Attributes:
        attack: as the set has it.
        records: those with numbers on the tuning seeds; they have the options in full.
        leakage: the quantity that decides, mean over the tuning seeds; None where a seed lacks it.
        reason: why there is no leakage.
    """

    attack: StandardAttack
    records: tuple[Record, ...]
    leakage: float | None
    reason: str = ""

    @property
    def access(self) -> str:
        """What it sees of the target; empty where no record says so."""
        return self.records[0].attack.about.access if self.records else ""

    @property
    def queries(self) -> float | None:
        """Images that the target answered to it, mean over its records; None where that is not known."""
        counts = [record.cost.target_queries for record in self.records]
        known = [count for count in counts if count is not None]
        return fmean(known) if known and len(known) == len(counts) else None


@dataclass(frozen=True)
class Strongest:
    """The attacks of the set against one defense, compared.

    Attributes:
        quantity: name of what decides.
        seeds: the tuning seeds.
        candidates: the strongest first; those without a number last.
        masking: why gradient masking is suspected, in words; empty where it is not.
    """

    quantity: str
    seeds: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    masking: str = ""

    @property
    def chosen(self) -> Candidate | None:
        """The strongest attack; None where none has a number."""
        first = next(iter(self.candidates), None)
        return first if first and first.leakage is not None else None

    @property
    def untried(self) -> tuple[str, ...]:
        """The attacks without a number: they were not run on every seed, or can't be used on the row."""
        return tuple(one.attack.label for one in self.candidates if one.leakage is None)

    def of(self, attack: StandardAttack) -> Candidate | None:
        """What an attack of the set recovers; None where it is not among the candidates."""
        return next((one for one in self.candidates if one.attack == attack), None)


def ranking(track: Track, quantities: Mapping[str, Quantity]) -> list[str]:
    """The quantities that order the rows of ``track``, the most telling first.

    Raises:
        MiaBenchError: the track names one that none of its metrics gives.
    """
    names = track.ranked_by or [
        name for name, quantity in quantities.items() if quantity.paired and quantity.role == "leakage"
    ]
    if unknown := [name for name in names if name not in quantities]:
        raise MiaBenchError(
            f"track {track.name!r}: it is ranked by {unknown[0]!r}, which none of its metrics gives"
        )
    return list(names)


def deciding(names: Iterable[str], records: Sequence[Record]) -> str:
    """The first of the quantities that some record has; empty where there is none."""
    return next((name for name in names if any(record.metrics.get(name) for record in records)), "")


def compare(
    tried: Iterable[tuple[StandardAttack, Sequence[Record]]],
    seeds: Sequence[int],
    name: str,
    quantity: Quantity,
    baseline: Strongest | None = None,
) -> Strongest:
    """Compare the attacks of a set against one defense by their mean leakage over ``seeds``.

    Args:
        tried: each attack, in the order of the set, with its records; of two equally strong ones the first
            is the stronger.
        seeds: the tuning seeds; an attack that lacks one can't be compared.
        name: the quantity that decides.
        quantity: what it is.
        baseline: the same set against the undefended target, for :func:`suspicion`.
    """
    found = [_candidate(attack, records, seeds, name) for attack, records in tried]
    order = [
        (
            one.leakage is None,
            0.0 if one.leakage is None else -quantity.sort_key(round(one.leakage, 9)),
            place,
        )
        for place, one in enumerate(found)
    ]
    ordered = tuple(found[place] for _, _, place in sorted(order))
    masking = suspicion(found, baseline.candidates, quantity) if baseline else ""
    return Strongest(name, tuple(seeds), ordered, masking)


def _candidate(
    attack: StandardAttack, records: Sequence[Record], seeds: Sequence[int], name: str
) -> Candidate:
    done = [record for record in records if record.status == "done" and record.seed in seeds]
    values, reasons = [], []
    for seed in seeds:
        same = [record for record in records if record.seed == seed]
        measured = [metric.value for record in same if (metric := record.metrics.get(name))]
        if measured:
            values.append(fmean(measured))
        else:
            given = [record.reason or record.notes.get(name, "") for record in same]
            reasons.append(f"seed {seed}: {next(filter(None, given), 'not run')}")
    leakage = fmean(values) if values and not reasons else None
    return Candidate(attack, tuple(done), leakage, "; ".join(reasons))


def suspicion(candidates: Sequence[Candidate], baseline: Sequence[Candidate], quantity: Quantity) -> str:
    """Why gradient masking is suspected; empty where it is not.

    It is where an attack that sees less of the target than the default white-box attack, or that sees as much
    and asks no more queries, recovers more by :data:`EQUAL`, and gains by as much more than it does
    on the undefended target. (An attack that is better everywhere says nothing about a defense. So there is
    no suspicion by attacks that the undefended target was not attacked with.)

    Args:
        candidates: the attacks against the defense, in the order of the set.
        baseline: those against the undefended target.
        quantity: what decides.
    """
    margin = EQUAL.get(quantity.kind)
    default = next((c for c in candidates if c.attack.default and _access(c) == 0 and c.records), None)
    if margin is None or default is None or default.leakage is None:
        return ""
    undefended = {_name(one): one.leakage for one in baseline if one.leakage is not None}
    least = margin - 1e-9
    suspects: list[tuple[float, str]] = []
    for one in candidates:
        if one.leakage is None or not _costs_less(one, default):
            continue
        gain = quantity.sort_key(one.leakage) - quantity.sort_key(default.leakage)
        if not {_name(one), _name(default)} <= undefended.keys():
            continue
        first, second = undefended[_name(one)], undefended[_name(default)]
        usual = max(0.0, quantity.sort_key(first) - quantity.sort_key(second))
        if gain - usual >= least:
            text = f"{_name(one)}, {_why(one, default)}, recovers {quantity.format(one.leakage)}"
            suspects.append((-gain, f"{text}; {_name(default)} {quantity.format(default.leakage)}"))
    return min(suspects)[1] if suspects else ""


def _access(candidate: Candidate) -> int:
    """0 for an attack that sees everything; more for those that see less."""
    levels = get_args(AccessLevel)
    return levels.index(candidate.access) if candidate.access in levels else 0


def _costs_less(candidate: Candidate, default: Candidate) -> bool:
    if candidate is default or _access(candidate) > _access(default):
        return candidate is not default
    own, others = candidate.queries, default.queries
    return own is not None and others is not None and own <= others * DEARER


def _why(candidate: Candidate, default: Candidate) -> str:
    return candidate.access if _access(candidate) > _access(default) else "at no more queries"


def _name(candidate: Candidate) -> str:
    return candidate.attack.label
