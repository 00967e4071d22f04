"""What a board decides: each defense under the strongest attack found on it, and the verdict.

The strongest attack of a row is taken from elsewhere where it is known (tuning records), so that the number
on the board's seeds is not biased by choosing. Where it is not, the attack under which the row leaks most on
the board stands in for it, and pages say so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal, TypeAlias, TypeVar

from mia_bench.api.metric import Quantity
from mia_bench.leaderboard.aggregate import Row, Shown, combine
from mia_bench.leaderboard.board import Board, Section
from mia_bench.leaderboard.front import Point, beyond_front
from mia_bench.leaderboard.grouping import ComponentKey, SectionKey, by_seed, group, row_key, section_key
from mia_bench.leaderboard.strongest import attack_of, section_of
from mia_bench.leaderboard.tables import Table, class_table, effects
from mia_bench.leaderboard.trainings import met_by
from mia_bench.leaderboard.verdicts import (
    AGAINST_FRONT,
    BASELINE,
    LEVEL,
    MASKING,
    Comparison,
    Margins,
    Verdict,
    gives_accuracy,
    verdicts,
)
from mia_bench.record import About, Record
from mia_bench.record import Matched as MatchedRef
from mia_bench.recorded_options import row_label
from mia_bench.statistics import Effect, Estimate, compact_letters, holm
from mia_bench.strength import Strongest
from mia_bench.track import Standard

Role = Literal["defense", "baseline", "front", "undefended"]
"""What a row is: ``front`` has the baseline's options except those that make it less accurate,
``undefended`` other options of the baseline."""

AT_FLOOR = "baseline at the floor"
"""The flag of all defenses where attacks on the baseline may recover no more than such as learn nothing."""

NOT_PAIRED = "not paired"
"""The flag of a defense that was computed under other conditions than the baseline."""

NOT_RUN = "strongest attack not run"
"""The flag of a defense of which the board lacks the attack that is strongest on other seeds."""

USELESS = "no usable classifier"
"""The flag of a defense that leaves less than half of the baseline's accuracy."""

EQUAL = {"share": (0.05, ""), "bits": (0.5, "bits")}
"""By kind of quantity, the difference too small to matter, and its unit."""

LETTERED = 50
"""Defenses that have letters at most, and a table of pairs: those of more can't be read."""

KINDS = ("leaks less", "leaks less, at a cost", "no difference", "unclear", "leaks more")

Pair: TypeAlias = tuple[ComponentKey, ComponentKey]

_Leaks: TypeAlias = list[tuple[float, Section]]

Name = TypeVar("Name")


@dataclass(frozen=True)
class Matched:
    """A defense minus the undefended row that it names as the one with its architecture."""

    key: ComponentKey
    leakage: Effect | None
    accuracy: Effect | None


@dataclass(frozen=True)
class Standing:
    """A row of the verdict table.

    Attributes:
        changed: the options that are not the track's.
        accuracy: of the targets that the row's attack met; None where the track measures none.
        accuracy_difference: from the baseline; None where records hold no means of classes.
        section: the strongest attack; None where no attack on the row finished.
        shown: the seeds under that attack.
        leakage: the board's first quantity under that attack.
        difference: of the leakage from the baseline's under the baseline's strongest attack.
        beyond: the leakage minus that of the undefended front at the row's accuracy; None where the row gives
            no accuracy, and where the front is not known there.
        verdict: None where the row can't be compared, for other undefended rows, and on a track without
            verdicts.
        known: whether the strongest attack was chosen on other seeds than the board's.
        absent: whether an attack was chosen on other seeds that the board has no records of.
        attacks: how many attacks the row has on the board's seeds, without references.
        letters: defenses that share one can't be told apart.
        masking: why gradient masking is suspected, in words; empty where it is not.
        matched: the differences from the undefended row with the same architecture.
    """

    key: ComponentKey
    defense: str
    changed: Mapping[str, Any]
    about: About
    role: Role
    seeds: tuple[int, ...]
    accuracy: Shown | None
    accuracy_difference: Effect | None
    section: Section | None
    shown: tuple[int, ...]
    leakage: Shown | None
    difference: Effect | None
    beyond: Effect | None
    verdict: Verdict | None
    known: bool
    absent: bool
    attacks: int
    letters: str = ""
    masking: str = ""
    matched: Matched | None = None

    @property
    def label(self) -> str:
        """The defense with the options that are not the track's: ``dp-sgd epsilon=50``."""
        return row_label(self.defense, self.changed)


@dataclass(frozen=True)
class Standings:
    """The verdict table of a board.

    Attributes:
        rows: the baseline, the defenses by their verdict, then other undefended rows.
        accuracy: name of the quantity of utility; empty where there is none.
        margins: differences too small to matter.
        pairs: of every pair of defenses that can be compared the difference of leakage, first minus second.
        apart: those of which the first is shown to leak less, among all pairs.
    """

    board: Board
    rows: tuple[Standing, ...]
    accuracy: str
    margins: Margins
    pairs: Mapping[Pair, Effect]
    apart: frozenset[Pair]

    def row(self, key: ComponentKey) -> Standing:
        """The row of a defense with its options."""
        return next(row for row in self.rows if row.key == key)

    @property
    def baseline(self) -> Standing | None:
        """The row that the others are compared with."""
        return next((row for row in self.rows if row.role == "baseline"), None)

    @property
    def defenses(self) -> tuple[Standing, ...]:
        """The rows that defend."""
        return tuple(row for row in self.rows if row.role == "defense")

    @property
    def in_pairs(self) -> tuple[Standing, ...]:
        """The defenses that are compared with each other, the one that leaks least first."""
        return tuple(self.row(key) for key in _in_pairs(self.pairs))

    def leaks_less(self, one: Standing, other: Standing) -> bool:
        """Whether a defense is shown to leak less than another, among all pairs."""
        return (one.key, other.key) in self.apart

    @property
    def decided(self) -> tuple[Standing, ...]:
        """The defenses with a verdict."""
        return tuple(row for row in self.defenses if row.verdict)

    @property
    def against_front(self) -> tuple[Standing, ...]:
        """The defenses with a verdict that are held against the undefended front."""
        return tuple(row for row in self.decided if row.beyond)

    @property
    def most_seeds(self) -> int:
        """The largest number of seeds that a row has under its strongest attack."""
        return max((len(row.shown) for row in self.rows), default=0)

    @property
    def without_verdict(self) -> tuple[Standing, ...]:
        """The defenses that can't be compared, for example because of one seed."""
        return tuple(row for row in self.defenses if not row.verdict)

    @property
    def chosen_here(self) -> tuple[Standing, ...]:
        """The rows whose strongest attack was chosen on the board's own seeds, of several."""
        return tuple(row for row in self.rows if row.attacks > 1 and not (row.known or row.absent))

    @property
    def unusable(self) -> tuple[Standing, ...]:
        """The defenses that leave less than half of the baseline's accuracy."""
        quantity, base = self.board.quantities.get(self.accuracy), self.baseline
        full = base.accuracy if base else None
        return tuple(row for row in self.defenses if _useless(quantity, row.accuracy, full))


def standings(
    board: Board,
    strongest: Mapping[ComponentKey, Strongest] | None = None,
    *,
    unpaired: bool = True,
    own_targets: bool = True,
) -> Standings:
    """The verdict table of ``board``.

    Args:
        strongest: of each row the attacks compared on other seeds.
        unpaired: whether rows of other conditions than the baseline's are compared with it.
        own_targets: where attacks met different trainings of a row's target, its accuracy is of those that
            the strongest attack met, as is what it recovers; else the mean over all.
    """
    strongest = strongest or {}
    rows = group(board.done, row_key)
    abouts = {key: same[0].defense.about for key, same in rows.items()}
    defenses = [key for key in rows if not abouts[key].baseline]
    base = next((key for key in rows if key in board.baselines), None)
    accuracy = next((name for name in board.utility_metrics if _is_accuracy(board.quantities[name])), "")
    # Undefended rows that not the whole set was tried on are attacked as the baseline is, if they were.
    as_base = {
        key
        for key in rows
        if base and abouts[key].baseline and (key not in strongest or strongest[key].untried)
    }
    leaks = {key: _leaks(board, key) for key in rows}
    sections = {key: _section(leaks[key], _chosen(strongest.get(key))) for key in rows}
    if base and (attack := sections[base][0]):
        sections |= {key: (attack, sections[base][1]) for key in as_base if attack in _attacks(leaks[key])}
    cells = group(board.done, lambda record: (section_key(record), row_key(record)))
    under = {key: cells[section.key, key] if section else () for key, (section, _) in sections.items()}
    leaked = {key: class_table(board.primary, same) if same else None for key, same in under.items()}
    met = rows
    if own_targets:
        met = {key: met_by(under[key], same, board.quantities) for key, same in rows.items()}
    right = {key: class_table(accuracy, same) for key, same in met.items()}
    useful = board.quantities.get(accuracy)
    right_of = dict(zip(met, combine(accuracy, useful, list(met.values())), strict=True)) if useful else {}
    others = {key: base for key in rows if base and key != base}
    quantity = board.quantities.get(board.primary)
    share = quantity is not None and quantity.kind == "share"
    of_leakage = {
        key: _minus(leaked[key], leaked[other], unpaired and key in defenses) for key, other in others.items()
    }
    more = _effects(of_leakage, share)
    beside = {key for key, table in of_leakage.items() if table and not table.paired}
    if useful is None or useful.kind != "share":  # what a loss of another quantity costs is not known
        right = dict.fromkeys(rows)
    lost = _effects(
        {key: _minus(right[key], right[other], key in beside) for key, other in others.items()}, True
    )
    named = {key: _named(abouts[key].matched, rows) for key in defenses}
    matches = {key: other for key, other in named.items() if other}
    of_matched = {key: _minus(leaked[key], leaked[other], unpaired) for key, other in matches.items()}
    matched_more = _effects(of_matched, share)
    others_of = {key for key, table in of_matched.items() if table and not table.paired}
    matched_lost = _effects(
        {key: _minus(right[key], right[other], key in others_of) for key, other in matches.items()}, True
    )
    points = {key: _point(right[key], leaked[key]) for key in rows}
    better = quantity.better if quantity else "neutral"
    # Those that lack the baseline's attack look better than they are.
    weaker = {key for key in as_base if base and sections[key][0] is not sections[base][0]}
    undefended = [
        point
        for key, point in points.items()
        if point and (key == base or abouts[key].front) and key not in weaker
    ]
    if not any(about.front for about in abouts.values()):  # the baseline alone is no front
        undefended = []
    margins = margins_of(quantity) if quantity else Margins()
    beyond: dict[ComponentKey, Effect] = {}
    for unlike in (False, True):
        keys = [key for key in defenses if (key in beside) is unlike]
        against = beyond_front([points[key] for key in keys], undefended, better, beside=unlike)
        beyond |= {
            key: effect
            for key, effect in zip(keys, against, strict=True)
            if effect and gives_accuracy(lost.get(key), margins)
        }
    doubted = ("judge unfit",) * bool(board.doubts)
    if base and _at_floor(board, base, sections[base][0]):
        doubted += (AT_FLOOR,)
    not_run = {key for key in defenses if _chosen(strongest.get(key)) and not sections[key][1]}
    found_elsewhere = any(known for _, known in sections.values())
    flags = {
        key: ("own model, one training",) * bool(abouts[key].own_model)
        + (NOT_PAIRED,) * (key in beside)
        + _left_out(more.get(key), under[key])
        + ("randomised",) * abouts[key].randomised
        + (MASKING,) * bool(key in strongest and strongest[key].masking)
        + (NOT_RUN,) * (key in not_run)
        + _missed(strongest.get(key), board.track.standard)
        + _tried_here(board, rows[key], len(leaks[key]), alone=key not in strongest)
        * (found_elsewhere and not sections[key][1] and key not in not_run)
        + _more_elsewhere(board, leaks[key], sections[key][0])
        + doubted
        + (USELESS,) * _useless(useful, right_of.get(key), right_of.get(base) if base else None)
        for key in defenses
    }
    comparisons = {
        key: Comparison(more[key], lost.get(key), beyond.get(key), flags[key])
        for key in defenses
        if key in more and more[key].seeds > 1  # one seed says nothing of another training
    }
    judged, compared = dict[ComponentKey, Verdict](), dict[Pair, Effect]()
    if quantity and board.track.verdicts:
        judged = verdicts(comparisons, quantity.better, margins)
        judged |= {key: _unclear(judged[key]) for key in not_run & judged.keys()}
        compared = pairs({key: leaked[key] for key in defenses}, quantity, unpaired=unpaired)
    different = frozenset(apart(compared))
    letters = letters_of(compared)
    made = []
    for key, same in rows.items():
        section, known = sections[key]
        match = matches.get(key)
        made.append(
            Standing(
                key=key,
                defense=same[0].defense.name,
                changed=same[0].defense.changed,
                about=abouts[key],
                role=_role(key, abouts[key], board),
                seeds=tuple(by_seed(same)),
                accuracy=right_of.get(key),
                accuracy_difference=lost.get(key),
                section=section,
                shown=tuple(by_seed(cells[section.key, key])) if section else (),
                leakage=_shown(section.rows, key, board.primary) if section else None,
                difference=more.get(key),
                beyond=beyond.get(key),
                verdict=BASELINE if key == base else judged.get(key),
                known=known,
                absent=key in not_run,
                attacks=len(leaks[key]),
                letters=letters.get(key, ""),
                masking=strongest[key].masking if key in strongest else "",
                matched=Matched(match, matched_more.get(key), matched_lost.get(key))
                if match and (key in matched_more or key in matched_lost)
                else None,
            )
        )
    ordered = sorted(made, key=partial(_order, sign=-1 if better == "higher" else 1))
    return Standings(board, tuple(ordered), accuracy, margins, compared, different)


def _unclear(verdict: Verdict) -> Verdict:
    """The verdict on a row of which the strongest attack may recover more."""
    return verdict if verdict.kind == "leaks more" else Verdict("unclear", flags=verdict.flags)


def _named(matched: MatchedRef | None, rows: Mapping[ComponentKey, Sequence[Record]]) -> ComponentKey | None:
    """The row of the baseline that a defense names as the one with its architecture, if the board has it."""
    for key, same in rows.items():
        defense = same[0].defense
        if matched and (defense.name, defense.changed) == (matched.name, matched.options):
            return key
    return None


def _missed(found: Strongest | None, standard: Standard | None) -> tuple[str, ...]:
    """That the strongest attack may be another, as not all of the set were tried, or not on all seeds."""
    if found is None:
        return ()
    tried, total = len(found.candidates) - len(found.untried), len(found.candidates)
    lines = [f"{tried} of {total} attacks tried"] if tried < total else []
    if standard and len(found.seeds) < len(standard.seeds):
        lines.append(f"{len(found.seeds)} of {len(standard.seeds)} tuning seeds")
    return tuple(lines)


def _left_out(difference: Effect | None, shown: Sequence[Record]) -> tuple[str, ...]:
    """That some seeds can't be compared: the baseline lacks them, or has them under other conditions."""
    seeds = len(by_seed(shown))
    if difference is None or difference.seeds == seeds:
        return ()
    return (f"compared on {difference.seeds} of {seeds} seeds",)


def _tried_here(board: Board, row: Sequence[Record], attacks: int, *, alone: bool) -> tuple[str, ...]:
    """What a row's strongest attack was chosen from, where the board's seeds tell.

    Args:
        attacks: how many the row has, of the standard set or not.
        alone: whether it has none on other seeds.
    """
    chosen = ("attack chosen on these seeds",) * (attacks > 1)
    if not (alone and board.track.standard):
        return chosen or ("one attack tried",)
    whole = board.track.standard.attacks
    tried = {one.label for record in row if (one := attack_of(record, board, whole))}
    return (f"{len(tried)} of {len(whole)} attacks tried",) * (len(tried) < len(whole)) + chosen


def _useless(accuracy: Quantity | None, own: Shown | None, full: Shown | None) -> bool:
    """Whether less than half of the full accuracy is left."""
    if accuracy is None or accuracy.kind != "share":
        return False
    return isinstance(own, Estimate) and isinstance(full, Estimate) and own.value < full.value / 2


def _at_floor(board: Board, base: ComponentKey, section: Section | None) -> bool:
    """Whether the strongest attack on the baseline may recover no more than attacks that learn nothing."""
    quantity = board.quantities.get(board.primary)
    found = _shown(section.rows, base, board.primary) if section else None
    if quantity is None or not isinstance(found, Estimate):
        return False
    least = min(map(quantity.sort_key, found.ends))
    floors = [row.metrics.get(board.primary) for _, row in board.floors]
    return any(least <= max(map(quantity.sort_key, one.ends)) for one in floors if isinstance(one, Estimate))


def _more_elsewhere(board: Board, leaks: _Leaks, shown: Section | None) -> tuple[str, ...]:
    """That another attack recovers more on the board's seeds, by more than the margin of equality."""
    if shown is None:
        return ()
    here = next(leaked for leaked, section in leaks if section is shown)
    most, section = max(leaks, key=lambda one: one[0])
    margin = margins_of(board.quantities[board.primary]).leakage  # without one no difference is clear
    return (f"more under {board.label(section)}",) if margin and most - here > margin else ()


def _is_accuracy(quantity: Quantity) -> bool:
    return quantity.role == "utility" and quantity.better == "higher"


def _role(key: ComponentKey, about: About, board: Board) -> Role:
    if key in board.baselines:
        return "baseline"
    if about.front:
        return "front"
    return "undefended" if about.baseline else "defense"


def _order(row: Standing, sign: int) -> tuple[Any, ...]:
    """The baseline first, defenses by verdict and difference, then what is undefended.

    ``sign`` makes a difference the smaller, the better it is for the defender.

    Of the defenses that cost accuracy those that beat the undefended front come first, and those that are not
    compared with it last; the front may be more accurate than they are, for example. They are ordered by the
    difference from the front, where that is known.
    """
    roles: tuple[Role, ...] = ("baseline", "defense", "front", "undefended")
    kind = KINDS.index(row.verdict.kind) if row.verdict and row.verdict.kind in KINDS else len(KINDS)
    said = row.verdict.front if row.verdict and row.verdict.kind == "leaks less, at a cost" else ""
    front = AGAINST_FRONT.index(said) if said else 0
    decisive = row.beyond if said and row.beyond else row.difference
    difference = sign * decisive.value if decisive else 0.0
    return roles.index(row.role), kind, front, row.difference is None, difference, row.label


def _chosen(found: Strongest | None) -> SectionKey | None:
    return section_of(found.chosen) if found and found.chosen else None


def _attacks(leaks: _Leaks) -> list[Section]:
    return [section for _, section in leaks]


def _section(leaks: _Leaks, chosen: SectionKey | None) -> tuple[Section | None, bool]:
    """The strongest attack on a row, and whether that was found on other seeds than the board's.

    Args:
        leaks: of the row.
        chosen: on other seeds.
    """
    for section in _attacks(leaks):
        if section.key == chosen:
            return section, True
    return (max(leaks, key=lambda one: one[0])[1] if leaks else None), False


def _leaks(board: Board, key: ComponentKey) -> _Leaks:
    """What each attack recovers of a row, the more the larger; without attacks that are references."""
    quantity = board.quantities.get(board.primary)
    if quantity is None:
        return []
    return [
        (quantity.sort_key(value), section)
        for section in board.sections
        for row in section.rows
        if not section.reference and row.key == key and (value := row.value(board.primary)) is not None
    ]


def _shown(rows: Iterable[Row], key: ComponentKey, name: str) -> Shown | None:
    return next((row.metrics.get(name) for row in rows if row.key == key), None)


def _effects(tables: Mapping[Name, Table | None], share: bool) -> dict[Name, Effect]:
    """The mean of each table that is there; those of :func:`effects` are computed together."""
    found = zip(tables, effects(list(tables.values()), share=share), strict=True)
    return {name: effect for name, effect in found if effect}


def _minus(one: Table | None, other: Table | None, beside: bool) -> Table | None:
    return one.minus(other, beside=beside) if one and other else None


def margins_of(quantity: Quantity) -> Margins:
    """Differences of a quantity too small to matter; of some kinds none is known."""
    leakage, unit = EQUAL.get(quantity.kind, (0.0, ""))
    return Margins(leakage, unit)


# --- the undefended front, matched baselines, pairs -----------------------------------------------


def _point(right: Table | None, leaked: Table | None) -> Point | None:
    return Point(right, leaked) if right and leaked else None


def section_letters(
    board: Board, section: Section, defenses: Collection[ComponentKey]
) -> dict[ComponentKey, str]:
    """The letters of these defenses under one attack."""
    rows = group((r for r in board.done if section_key(r) == section.key), row_key)
    tables = {key: class_table(board.primary, same) for key, same in rows.items() if key in defenses}
    return letters_of(pairs(tables, board.quantities[board.primary], unpaired=True))


def pairs(
    leaked: Mapping[ComponentKey, Table | None], quantity: Quantity, *, unpaired: bool = False
) -> dict[Pair, Effect]:
    """The difference of leakage, first minus second, of every pair; the first leaks less on average.

    None over one seed, which says nothing of another training.
    """
    tables = {key: table for key, table in leaked.items() if table}
    names = sorted(tables, key=lambda key: (quantity.sort_key(float(tables[key].means.mean())), key))
    found = {pair: _minus(tables[pair[0]], tables[pair[1]], unpaired) for pair in combinations(names, 2)}
    made = _effects(found, quantity.kind == "share")
    return {pair: effect for pair, effect in made.items() if effect.seeds > 1}


def apart(compared: Mapping[Pair, Effect]) -> list[Pair]:
    """The pairs whose leakage differs, at the level of all pairs."""
    adjusted = holm([effect.p_value() for effect in compared.values()])
    return [pair for pair, p in zip(compared, adjusted, strict=True) if p < LEVEL]


def letters_of(compared: Mapping[Pair, Effect]) -> dict[ComponentKey, str]:
    """Letters of the defenses: two share one unless they are :func:`apart`.

    None where some pair can't be compared, and none of more than :data:`LETTERED` defenses.
    """
    names = _in_pairs(compared)
    if len(names) > LETTERED or len(compared) < len(names) * (len(names) - 1) // 2:
        return {}
    return compact_letters(names, apart(compared))


def _in_pairs(compared: Iterable[Pair]) -> list[ComponentKey]:
    firsts, seconds = zip(*compared, strict=True) if compared else ((), ())
    return list(dict.fromkeys((*firsts, *seconds)))
