"""What a board decides: each defense under the strongest attack found on it, and the verdict.

The strongest attack of a row is taken from elsewhere where it is known (tuning records), so that the number
on the board's seeds is not biased by choosing. Where it is not, the attack under which the row leaks most on
the board stands in for it, and pages say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from mia_bench.api.metric import Direction
from mia_bench.leaderboard.aggregate import Shown
from mia_bench.leaderboard.attacked import Attacked, attacked
from mia_bench.leaderboard.board import Board, Section
from mia_bench.leaderboard.flags import USELESS, board_flags, flags, useless
from mia_bench.leaderboard.front import Point, beyond_front
from mia_bench.leaderboard.grouping import ComponentKey, by_seed
from mia_bench.leaderboard.pairs import Pairs, pairs
from mia_bench.leaderboard.tables import Table, named_effects
from mia_bench.leaderboard.verdicts import (
    AGAINST_FRONT,
    BASELINE,
    Comparison,
    Margins,
    Verdict,
    gives_accuracy,
    verdicts,
)
from mia_bench.record import About
from mia_bench.recorded_options import row_label
from mia_bench.statistics import Effect
from mia_bench.strength import Strongest

Role = Literal["defense", "baseline", "front", "undefended"]
"""What a row is: ``front`` has the baseline's options except those that make it less accurate,
``undefended`` other options of it, or those of a defense of which they leave only the architecture."""

KINDS = ("leaks less", "leaks less, at a cost", "no difference", "unclear", "leaks more")


@dataclass(frozen=True)
class Change:
    """A row minus another one.

    Attributes:
        leakage: None where it can't be compared.
        accuracy: likewise.
        paired: whether both rows were computed under the same conditions.
    """

    leakage: Effect | None = None
    accuracy: Effect | None = None
    paired: bool = True


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
        useless: whether it is a defense that leaves less than half of the baseline's accuracy.
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
    useless: bool = False

    @property
    def label(self) -> str:
        """The defense with the options that are not the track's: ``dp-sgd epsilon=50``."""
        return row_label(self.defense, self.changed)


@dataclass(frozen=True)
class Standings:
    """The verdict table of a board.

    Attributes:
        rows: the baseline, the defenses by their verdict, then other undefended rows.
        pairs: the defenses beside each other.
    """

    board: Board
    rows: tuple[Standing, ...]
    pairs: Pairs

    @property
    def accuracy(self) -> str:
        """Name of the quantity of utility; empty where there is none."""
        return self.board.accuracy

    @property
    def margins(self) -> Margins:
        """Differences too small to matter."""
        return _margins(self.board)

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
        return tuple(self.row(key) for key in self.pairs.names)

    def under_attack(self, row: Standing, name: str) -> Shown | None:
        """A quantity of a row under its strongest attack."""
        rows = row.section.rows if row.section else ()
        return next((one.metrics.get(name) for one in rows if one.key == row.key), None)

    def leaks_less(self, one: Standing, other: Standing) -> bool:
        """Whether a defense is shown to leak less than another, among all pairs."""
        return (one.key, other.key) in self.pairs.apart

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
        return tuple(row for row in self.defenses if row.useless)


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
        own_targets: as in :func:`~mia_bench.leaderboard.attacked.attacked`.
    """
    rows = attacked(board, strongest or {}, own_targets=own_targets)
    base = next((row for key, row in rows.items() if key in board.baselines), None)
    changes = _changes(board, rows, {key: base.key for key in rows if base and key != base.key}, unpaired)
    named = {key: other for key, row in rows.items() if row.defends and (other := _named(row, rows))}
    matched = _changes(board, rows, named, unpaired)
    beyond = _beyond_front(board, rows, base, changes)
    said = _flags(board, rows, base, changes)
    judged, compared = _verdicts(board, rows, changes, beyond, matched, said), Pairs()
    if board.primary and board.track.verdicts:
        leaked = {key: row.leaked for key, row in rows.items() if row.defends}
        compared = pairs(leaked, board.quantities[board.primary], unpaired=unpaired)
    made = [
        Standing(
            key=key,
            defense=row.records[0].defense.name,
            changed=row.records[0].defense.changed,
            about=row.about,
            role=_role(board, row),
            seeds=tuple(by_seed(row.records)),
            accuracy=row.accuracy,
            accuracy_difference=changes[key].accuracy if key in changes else None,
            section=row.attack.section if row.attack else None,
            shown=tuple(by_seed(row.under)),
            leakage=row.attack.leakage if row.attack else None,
            difference=changes[key].leakage if key in changes else None,
            beyond=beyond.get(key),
            verdict=BASELINE if row is base else judged.get(key),
            known=row.known,
            absent=row.absent,
            attacks=len(row.attacks),
            letters=compared.letters.get(key, ""),
            masking=row.found.masking if row.found else "",
            matched=_matched(named[key], matched[key]) if key in named else None,
            useless=USELESS in said.get(key, ()),
        )
        for key, row in rows.items()
    ]
    sign = -1 if _better(board) == "higher" else 1
    return Standings(board, tuple(sorted(made, key=partial(_order, sign=sign))), compared)


def _changes(
    board: Board,
    rows: Mapping[ComponentKey, Attacked],
    others: Mapping[ComponentKey, ComponentKey],
    unpaired: bool,
) -> dict[ComponentKey, Change]:
    """Of rows the differences from the others that they are held against.

    Args:
        unpaired: whether defenses are compared with rows of other conditions.
    """
    quantity = board.quantities.get(board.primary)

    def minus(part: Callable[[Attacked], Table | None], key: ComponentKey, beside: bool) -> Table | None:
        own, theirs = part(rows[key]), part(rows[others[key]])
        return own.minus(theirs, beside=beside) if own and theirs else None

    leaked = {key: minus(lambda row: row.leaked, key, unpaired and rows[key].defends) for key in others}
    unlike = {key for key, table in leaked.items() if table and not table.paired}
    right = {key: minus(lambda row: row.right, key, key in unlike) for key in others}
    more = named_effects(leaked, share=quantity is not None and quantity.kind == "share")
    lost = named_effects(right, share=True)
    return {key: Change(more.get(key), lost.get(key), key not in unlike) for key in others}


def _beyond_front(
    board: Board,
    rows: Mapping[ComponentKey, Attacked],
    base: Attacked | None,
    changes: Mapping[ComponentKey, Change],
) -> dict[ComponentKey, Effect]:
    """Of the defenses that give accuracy their leakage minus that of the undefended front."""
    if not any(row.about.front for row in rows.values()):  # the baseline alone is no front
        return {}
    points = {key: Point(row.right, row.leaked) for key, row in rows.items() if row.right and row.leaked}
    of_front = (row for row in rows.values() if (row is base or row.about.front) and not row.weaker)
    undefended = [points[row.key] for row in of_front if row.key in points]
    found: dict[ComponentKey, Effect] = {}
    for paired in (True, False):
        keys = [key for key, change in changes.items() if rows[key].defends and change.paired is paired]
        own = [points.get(key) for key in keys]
        against = beyond_front(own, undefended, _better(board), beside=not paired)
        found |= {
            key: effect
            for key, effect in zip(keys, against, strict=True)
            if effect and gives_accuracy(changes[key].accuracy, _margins(board))
        }
    return found


def _flags(
    board: Board,
    rows: Mapping[ComponentKey, Attacked],
    base: Attacked | None,
    changes: Mapping[ComponentKey, Change],
) -> dict[ComponentKey, tuple[str, ...]]:
    """Of each defense why its verdict may not hold."""
    of_board = tuple(board_flags(board, base))
    elsewhere = any(row.known for row in rows.values())
    found = {}
    for key, row in rows.items():
        if not row.defends:
            continue
        change = changes.get(key, Change())
        own = flags(board, row, change.leakage, paired=change.paired, elsewhere=elsewhere)
        found[key] = (*own, *of_board, *(USELESS,) * useless(board, row, base))
    return found


def _verdicts(
    board: Board,
    rows: Mapping[ComponentKey, Attacked],
    changes: Mapping[ComponentKey, Change],
    beyond: Mapping[ComponentKey, Effect],
    matched: Mapping[ComponentKey, Change],
    said: Mapping[ComponentKey, tuple[str, ...]],
) -> dict[ComponentKey, Verdict]:
    """The verdicts on the defenses that can be compared; none on a track without verdicts."""
    if not (board.primary and board.track.verdicts):
        return {}
    comparisons = {
        key: Comparison(
            change.leakage,
            change.accuracy,
            beyond.get(key),
            matched[key].leakage if key in matched else None,
            said[key],
        )
        for key, change in changes.items()
        # One seed says nothing of another training.
        if rows[key].defends and change.leakage and change.leakage.seeds > 1
    }
    judged = verdicts(comparisons, _better(board), _margins(board))
    return {key: _unclear(verdict) if rows[key].absent else verdict for key, verdict in judged.items()}


def _unclear(verdict: Verdict) -> Verdict:
    """The verdict on a row of which the strongest attack may recover more."""
    return verdict if verdict.kind == "leaks more" else Verdict("unclear", flags=verdict.flags)


def _named(row: Attacked, rows: Mapping[ComponentKey, Attacked]) -> ComponentKey | None:
    """The undefended row that a defense names as the one with its architecture, if the board has it.

    If it names itself, that has the row's own other options.
    """
    matched, own = row.about.matched, row.records[0].defense
    for key, other in rows.items():
        defense = other.records[0].defense
        if not matched or defense.name != matched.name:
            continue
        named = defense.options == {**own.options, **matched.options}
        if named if own.name == matched.name else defense.changed == matched.options:
            return key
    return None


def _matched(key: ComponentKey, change: Change) -> Matched | None:
    return Matched(key, change.leakage, change.accuracy) if change.leakage or change.accuracy else None


def _role(board: Board, row: Attacked) -> Role:
    if row.key in board.baselines:
        return "baseline"
    if row.about.front:
        return "front"
    return "defense" if row.defends else "undefended"


def _better(board: Board) -> Direction:
    quantity = board.quantities.get(board.primary)
    return quantity.better if quantity else "neutral"


def _margins(board: Board) -> Margins:
    quantity = board.quantities.get(board.primary)
    return Margins.of(quantity) if quantity else Margins()


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
