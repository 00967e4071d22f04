"""From records to a board: which quantities are shown where, and the tables.

Everything follows from records, track and registry; the order of the records never matters.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mia_bench.api.metric import AttackMetric, Metric
from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard.admit import refusals
from mia_bench.leaderboard.aggregate import Quantities, Row, Shown, make_row, make_rows, measured, shown
from mia_bench.leaderboard.compare import Difference, best_first, differences
from mia_bench.leaderboard.described import UNDECLARED, describe, known_quantities, reports
from mia_bench.leaderboard.grouping import (
    ComponentKey,
    SectionKey,
    by_seed,
    component_key,
    group,
    row_key,
    section_key,
)
from mia_bench.record import About, ComponentRef, Record
from mia_bench.recorded_options import options_text, row_label
from mia_bench.registry import Registry
from mia_bench.statistics import Estimate
from mia_bench.strength import deciding, ranking
from mia_bench.track import Track


@dataclass(frozen=True)
class Unfinished:
    """Cells without numbers: failed or skipped, with one reason."""

    defense: str
    options: str
    seeds: tuple[int, ...]
    status: str
    reason: str


@dataclass(frozen=True)
class Section:
    """One attack with its options and prior: a table whose rows can be compared.

    Attributes:
        reference: what kind of reference the attack is (``floor``), empty for real attacks.
        rows: best defended first.
        baseline: the row that ``differences`` are taken from; None for a reference attack, and where
            no cell of it finished.
    """

    attack: ComponentRef
    prior: ComponentRef
    reference: str
    rows: tuple[Row, ...]
    baseline: Row | None
    differences: tuple[Difference, ...]
    unfinished: tuple[Unfinished, ...]

    @property
    def key(self) -> SectionKey:
        """What its records share."""
        return component_key(self.attack), component_key(self.prior)


@dataclass(frozen=True)
class Board:
    """Everything a page shows, derived from the records.

    Attributes:
        records: sorted by key, and described (:mod:`mia_bench.leaderboard.described`).
        quantities: by name, those that the track's metrics declare first, in their order.
        of_attack: names of the quantities that are measured on reconstructions.
        ranked: the quantity that orders the tables and the one that breaks ties, as far as there are any.
    """

    track: Track
    records: tuple[Record, ...]
    quantities: Quantities
    of_attack: frozenset[str]
    ranked: tuple[str, ...]

    @property
    def primary(self) -> str:
        """The quantity that orders the tables; empty where there is none."""
        return next(iter(self.ranked), "")

    @property
    def paired(self) -> tuple[str, ...]:
        """What is compared with the baseline class by class, of the quantities that order rows."""
        ranked = ((name, self.quantities[name]) for name in self.ranked)
        return tuple(name for name, quantity in ranked if quantity.paired and quantity.interval)

    @cached_property
    def columns(self) -> Quantities:
        """What was measured and is shown in tables."""
        present = {name for record in self.records for name in record.metrics}
        hidden = ("reference", "selection")
        return {n: q for n, q in self.quantities.items() if n in present and q.role not in hidden}

    @property
    def utility_metrics(self) -> tuple[str, ...]:
        """Names of the columns about the target, with what defenses report."""
        return tuple(name for name in self.columns if name not in self.of_attack)

    @property
    def accuracy(self) -> str:
        """Name of the quantity of utility that the verdict table shows; empty where there is none."""
        shown = ((name, self.quantities[name]) for name in self.utility_metrics)
        return next((name for name, q in shown if q.role == "utility" and q.better == "higher"), "")

    @property
    def leakage_metrics(self) -> tuple[str, ...]:
        """Names of the columns that say what an attack recovers."""
        return tuple(n for n, q in self.columns.items() if n in self.of_attack and q.role == "leakage")

    @property
    def further_metrics(self) -> tuple[str, ...]:
        """Names of the other columns about reconstructions."""
        return tuple(n for n, q in self.columns.items() if n in self.of_attack and q.role != "leakage")

    @cached_property
    def attack_columns(self) -> Quantities:
        """The columns of a section, leakage first."""
        return {name: self.quantities[name] for name in self.leakage_metrics + self.further_metrics}

    @cached_property
    def done(self) -> tuple[Record, ...]:
        """The records with numbers."""
        return tuple(record for record in self.records if record.status == "done")

    @cached_property
    def utility(self) -> tuple[Row, ...]:
        """A row for each setting of a defense, the baseline first."""
        columns = {name: self.quantities[name] for name in self.utility_metrics}
        settings = sorted(group(self.done, row_key).items(), key=lambda item: item[0] not in self.baselines)
        return tuple(make_rows([same for _, same in settings], columns))

    @cached_property
    def baselines(self) -> frozenset[ComponentKey]:
        """The undefended target with the track's options, which other rows are compared with."""
        said = ((row_key(record), record.defense.about) for record in self.records)
        return frozenset(key for key, about in said if about.baseline and not about.changed)

    @cached_property
    def reference_kinds(self) -> dict[str, str]:
        """Of each reference attack its kind, as some record of it says."""
        said = ((record.attack.name, record.attack.about.reference) for record in self.records)
        return {name: reference for name, reference in said if reference}

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """A section for each setting of attack and prior: real attacks, then references."""
        made = [self._section(same) for same in group(self.records, section_key).values()]
        return tuple(sorted(made, key=self._place))

    def _place(self, section: Section) -> tuple[Any, ...]:
        """References last; of each attack first the track's prior and options."""
        attack, prior = section.attack, section.prior
        usual = prior.name == self.track.prior_of(attack.name)
        changed = len(attack.about.changed) + len(prior.about.changed)
        return bool(section.reference), attack.name, not usual, prior.name, changed, section.key

    def label(self, section: Section) -> str:
        """The attack with what tells it from the board's others: ``ppa (stylegan2, steps=0)``."""
        variant = self.variant(section)
        return f"{section.attack.name} ({variant})" if variant else section.attack.name

    def variant(self, section: Section) -> str:
        """The prior and the options that are not the track's; empty where all are.

        Options that are words stand without their names, unless another section would have the same words.
        """
        return self._variants[section.key]

    @cached_property
    def _variants(self) -> dict[SectionKey, str]:
        short = {section.key: self._words(section, named=False) for section in self.sections}
        alike = Counter((section.attack.name, short[section.key]) for section in self.sections)
        return {
            section.key: self._words(section, named=alike[section.attack.name, short[section.key]] > 1)
            for section in self.sections
        }

    def _words(self, section: Section, *, named: bool) -> str:
        attack, prior = section.attack, section.prior
        words = [] if prior.name == self.track.prior_of(attack.name) else [prior.name]
        for part in (attack, prior):
            for name in sorted({*part.about.changed} & part.options.keys()):
                option = part.options[name]
                bare = isinstance(option, str) and not named
                words.append(option if bare else options_text({name: option}))
        return ", ".join(words)

    def _section(self, records: Sequence[Record]) -> Section:
        attack, prior = records[0].attack, records[0].prior
        reference = self.reference_kinds.get(attack.name, "")
        rows = _finished_rows(records)
        baseline = [] if reference else self._baseline(rows)
        made = make_rows(rows, self.attack_columns, reference)
        return Section(
            attack=attack,
            prior=prior,
            reference=reference,
            rows=tuple(best_first(made, self.ranked, self.quantities)),
            baseline=next((row for row, same in zip(made, rows, strict=True) if same is baseline), None),
            differences=tuple(differences(rows, baseline, self.paired, self.quantities)),
            unfinished=_unfinished(records),
        )

    def _baseline(self, rows: Iterable[list[Record]]) -> list[Record]:
        return next((same for same in rows if row_key(same[0]) in self.baselines), [])

    @cached_property
    def ceiling(self) -> Row | None:
        """What held-out real images reach; it depends on no cell, so the cells' numbers are averaged."""
        found: dict[str, Shown] = {
            name: shown(quantity, ceiling)
            for name, quantity in self.attack_columns.items()
            if (ceiling := measured(quantity.ceiling, self.done))
        }
        return Row("", "", (), found, label="real held-out images") if found else None

    @property
    def floors(self) -> tuple[tuple[Section, Row], ...]:
        """Of the reference attacks those in which the target plays no part."""
        return tuple(one for one in self.reference_rows if one[0].reference == "floor")

    @cached_property
    def reference_rows(self) -> tuple[tuple[Section, Row], ...]:
        """The reference attacks with their rows for the baseline."""
        found = []
        for section in self.sections:
            baseline = self._baseline(_finished_rows(self._of(section))) if section.reference else []
            if baseline:
                label = f"{section.reference}: {self.label(section)}"
                found.append((section, make_row(baseline, self.attack_columns, label)))
        return tuple(found)

    @cached_property
    def oracles(self) -> dict[str, Row]:
        """By prior, what its imitations of real held-out images reach."""
        found = {}
        for prior, same in group(self.done, lambda record: record.prior.name).items():
            reached: dict[str, Shown] = {
                name: shown(quantity, oracle)
                for name, quantity in self.attack_columns.items()
                if (oracle := measured(quantity.oracle, same))
            }
            if reached:
                found[prior] = Row("", "", (), reached, label=f"real images imitated by {prior}")
        return found

    def _of(self, section: Section) -> list[Record]:
        return [record for record in self.records if section_key(record) == section.key]

    def short(self, row: Row | Difference) -> str:
        """The defense of a row with the options that are not the track's: ``dp-sgd epsilon=50``."""
        return self._short.get((row.defense, row.options), row.defense)

    @cached_property
    def _short(self) -> dict[tuple[str, str], str]:
        found = {}
        for defense in (record.defense for record in self.records):
            text = row_label(defense.name, defense.changed)
            found[defense.name, options_text(defense.options)] = text
        return found

    @property
    def references(self) -> dict[str, Estimate]:
        """Quantities that depend on no cell; no ceilings of others, no oracles, which depend on priors."""
        ceilings = {name for q in self.quantities.values() for name in (q.ceiling, q.oracle)}
        return {
            name: shown(quantity, found)
            for name, quantity in self.quantities.items()
            if quantity.role == "reference" and name not in ceilings and (found := measured(name, self.done))
        }

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """Why what judged the reconstructions may be unfit, one line each."""
        judges = {n: quantity for n, quantity in self.quantities.items() if quantity.unfit_below is not None}
        judged = ((name, quantity, measured(name, self.done)) for name, quantity in judges.items())
        lines = [quantity.doubt(name, found.value) for name, quantity, found in judged if found]
        noted = sorted({record.notes.get("gallery", "") for record in self.done})
        return tuple(line for line in (*lines, *noted) if line)

    @property
    def methods(self) -> dict[tuple[str, str], About]:
        """What the components say of themselves in their newest record, by kind and name."""
        newest = sorted(self.records, key=lambda record: record.provenance.finished)
        return {(kind, part.name): part.about for r in newest for kind, part in r.components.items()}

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all cells."""
        return tuple(by_seed(self.records))

    @property
    def versions(self) -> dict[str, tuple[str, ...]]:
        """The distinct versions of what made the records, the most frequent first."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for record in self.records:
            for name in ("mia_bench", "git", "python", "torch", "device", "capability", "platform"):
                if name != "capability" or record.provenance.capability:  # older records don't say
                    found[name][getattr(record.provenance, name) or "unknown"] += 1
            for kind, part in record.components.items():
                found[kind][f"{part.name} {part.version} ({part.distribution})"] += 1
        return {
            name: tuple(sorted(counts, key=lambda version: (-counts[version], version)))
            for name, counts in found.items()
        }

    @property
    def finished(self) -> str:
        """When the newest record was finished; empty where there is none."""
        return max((record.provenance.finished for record in self.records), default="")


def build_board(registry: Registry, track: Track, records: Iterable[Record]) -> Board:
    """The board of ``track`` from its records.

    Raises:
        MiaBenchError: a record can't be on it; the message names the record and why.
    """
    stored = sorted(records, key=lambda record: record.key)
    described = tuple(describe(registry, track, stored))
    if lines := refusals(track, described, known_quantities(registry, track, stored)):
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise MiaBenchError(f"track {track.name!r}: {lines[0]}{more}")
    metrics: list[type[Metric]] = [registry.get("metric", name).load() for name in track.metrics]
    declared = {name: quantity for m in metrics for name, quantity in m.quantities.items()}
    known = {**declared, **{n: q for n, q in reports(registry, stored).items() if n not in declared}}
    others = {name for record in stored for name in record.metrics} - known.keys()
    return Board(
        track,
        described,
        {**known, **dict.fromkeys(sorted(others), UNDECLARED)},
        frozenset(n for m in metrics if issubclass(m, AttackMetric) for n in m.quantities),
        _ranked(track, declared, stored),
    )


def _ranked(track: Track, quantities: Quantities, records: Sequence[Record]) -> tuple[str, ...]:
    """The first quantity of the track's ranking that was measured, and the last, which breaks ties."""
    names = ranking(track, quantities)
    first = [name] if (name := deciding(names, records)) else []
    return tuple(dict.fromkeys([*first, *names[-1:]]))


def _finished_rows(records: Iterable[Record]) -> list[list[Record]]:
    return list(group((record for record in records if record.status == "done"), row_key).values())


def _unfinished(records: Iterable[Record]) -> tuple[Unfinished, ...]:
    groups = group(
        (record for record in records if record.status != "done"),
        lambda record: (row_key(record), record.status, record.reason or "no reason recorded"),
    )
    return tuple(
        Unfinished(
            same[0].defense.name, options_text(same[0].defense.options), tuple(by_seed(same)), status, reason
        )
        for (_, status, reason), same in groups.items()
    )
