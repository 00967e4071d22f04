"""How a track's settings of the defenses were chosen: from the records of a sweep, by one rule.

Of the settings of a defense whose validation accuracy is at most so much (:data:`LEVELS`) below that of the
undefended target, the one that leaks least is chosen; where there is none, the one whose validation accuracy
is the least below it. A setting leaks what the strongest of the attacks recovers that were tried on every
setting of the defense. Accuracy and leakage are means over the tuning seeds. Where there are few validation
images accuracy is cross-validated: it is the mean over folds, in each of which other images are left out of
the training. No board shows a seed of a sweep, or measures accuracy on its validation images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from statistics import fmean
from typing import Any, TypeAlias

from mia_bench.api.metric import Quantity
from mia_bench.api.options import parse_options
from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard.board import Board
from mia_bench.leaderboard.grouping import ComponentKey, group, row_key
from mia_bench.leaderboard.standings import Standings
from mia_bench.leaderboard.strongest import attack_of, attack_set
from mia_bench.leaderboard.verdicts import Margins
from mia_bench.record import Record, canonical
from mia_bench.recorded_options import differing, row_label
from mia_bench.registry import Registry
from mia_bench.track import StandardAttack

MARGIN = 0.03
"""The loss of validation accuracy at which the track's settings are chosen."""

LEVELS = (0.01, MARGIN, 0.10)
"""The losses of validation accuracy at which settings are chosen."""

STILL = 0.2
"""The part of a difference too small to matter below which a step of a sweep changed nothing."""

Options: TypeAlias = Mapping[str, Any]

_Accepts: TypeAlias = Callable[[str, Options], bool]


@dataclass(frozen=True)
class Candidate:
    """Options of a defense that were tried, over the tuning seeds.

    Attributes:
        accuracy: on the validation images, mean over the folds; None where a seed of the usual fold has no
            number, or it failed in one of them.
        leakage: under the strongest of the attacks that count; None where a seed has no number.
        attack: that attack.
        seeds: those of the tuning seeds that it was run on.
        reason: why it failed on one of them, or in a further fold; empty where it did not.
        loss: the accuracy of the undefended target on the same folds, less that of this.
        folds: how many folds those are, the usual one included.
    """

    options: Options
    accuracy: float | None
    leakage: float | None
    attack: str = ""
    seeds: tuple[int, ...] = ()
    reason: str = ""
    loss: float | None = None
    folds: int = 0


@dataclass(frozen=True)
class Choice:
    """The setting chosen at one loss of accuracy.

    Attributes:
        loss: of validation accuracy, at most.
        near: whether the setting's accuracy is within it.
        further: settings to try next, as the chosen one has the first or last value of an option among those
            tried; empty where it lies inside.
        refused: options with which settings to try next would be refused by the defense.
        settled: options that have the first or last value tried, where the last step changed so little that
            nothing is expected beyond it.
    """

    loss: float
    setting: Candidate
    near: bool
    further: tuple[Options, ...] = ()
    refused: tuple[Options, ...] = ()
    settled: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """The candidates of one defense, and those chosen of them.

    Attributes:
        attacks: those tried on every candidate that finished; the strongest of them counts.
        tried: in the order of their options.
        choices: one for each of :data:`LEVELS`; none where no setting finished.
    """

    defense: str
    attacks: tuple[str, ...]
    tried: tuple[Candidate, ...]
    choices: tuple[Choice, ...]

    def at(self, loss: float) -> Choice | None:
        """The choice at a loss of accuracy; None where no setting finished."""
        return next((choice for choice in self.choices if choice.loss == loss), None)

    @property
    def setting(self) -> Candidate | None:
        """The setting that the track takes; None where none finished."""
        choice = self.at(MARGIN)
        return choice.setting if choice else None

    @property
    def further(self) -> tuple[Options, ...]:
        """The settings to try next, so that those chosen lie inside the sweep."""
        return _once(options for choice in self.choices for options in choice.further)

    @property
    def refused(self) -> tuple[Options, ...]:
        """The next steps beyond the edges of the sweep that the defense refuses."""
        return _once(options for choice in self.choices for options in choice.refused)

    @property
    def settled(self) -> tuple[Options, ...]:
        """The options of choices at edges of the sweep beyond which nothing is expected."""
        return _once(choice.settled for choice in self.choices if choice.settled)


def _once(several: Iterable[Options]) -> tuple[Options, ...]:
    found: list[Options] = []
    for options in several:
        if options not in found:
            found.append(options)
    return tuple(found)


@dataclass(frozen=True)
class Tuning:
    """A sweep and what it chose.

    Attributes:
        metric: the quantity of leakage.
        selection: the quantity of accuracy, on images by which no board measures any.
        accuracy: of the undefended target, mean over its folds.
        images: number of validation images of all these folds, the same on every seed.
        folds: how many folds those are, the usual one included.
        fold_seeds: those of the undefended target in the further folds.
    """

    metric: str
    selection: str
    seeds: tuple[int, ...]
    accuracy: float
    images: int
    choices: tuple[Chosen, ...]
    folds: int = 1
    fold_seeds: tuple[int, ...] = ()

    @property
    def error(self) -> float:
        """The standard error of the accuracy, for other images: that of one seed, as all share the images."""
        return math.sqrt(max(self.accuracy * (1 - self.accuracy), 0.0) / self.images)


def choose(board: Board, registry: Registry | None = None, folds: Sequence[Board] = ()) -> Tuning | None:
    """What the sweep on ``board`` chose; None where it tried no defense.

    Args:
        board: of the tuning records.
        folds: the boards of the further folds, of which accuracy alone is known.
        registry: says which options a defense accepts, so that none beyond its limits is proposed.

    Raises:
        MiaBenchError: the sweep's records don't allow a choice; says why.
    """
    track = f"track {board.track.name!r}"
    if all(record.defense.about.baseline for record in board.records):
        return None
    attacks = tuple(attack_set(board))
    usual = [record for record in board.records if attack_of(record, board, attacks)]
    tried = [record for record in usual if not record.defense.about.baseline]
    if not tried:
        names = ", ".join(one.label for one in attacks) or "none"
        raise MiaBenchError(f"{track}: no defense was tried under an attack that counts: {names}")
    selection = next((n for n, q in board.quantities.items() if q.role == "selection"), "")
    if not (selection and board.primary):
        raise MiaBenchError(
            f"{track}: its metrics give no quantity to choose settings by (one with the role 'selection', "
            "one of leakage)"
        )
    divisions = [_Fold.of(board, usual, selection), *(_Fold.of(one, one.records, selection) for one in folds)]
    usual_fold, *further = divisions
    if usual_fold is None:
        seeds = " ".join(f"--seed {seed}" for seed in sorted({record.seed for record in usual}))
        raise MiaBenchError(
            f"{track}: the sweep has no undefended target with a {selection} to compare with; run it on the "
            f"same seeds ({seeds}) and submit it, too"
        )
    sweep = _Sweep(board, attacks, (usual_fold, *(fold for fold in further if fold)))
    choices = tuple(
        _choose(defense, sweep, list(group(same, row_key).values()), _accepted_by(registry))
        for defense, same in group(tried, lambda record: record.defense.name).items()
    )
    return Tuning(
        metric=board.primary,
        selection=selection,
        seeds=usual_fold.seeds,
        accuracy=fmean(fold.accuracy for fold in sweep.folds),
        images=sum(fold.images for fold in sweep.folds),
        choices=choices,
        folds=len(sweep.folds),
        fold_seeds=tuple(sorted({seed for fold in sweep.folds[1:] for seed in fold.seeds})),
    )


@dataclass(frozen=True)
class _Fold:
    """The targets that were trained with one division into training and validation images.

    Attributes:
        name: of the quantity of accuracy.
        rows: the records of every setting.
        seeds: those of the undefended target; a setting that lacks one can't be compared.
        accuracy: of the undefended target.
        images: number of validation images.
    """

    name: str
    rows: Mapping[ComponentKey, Sequence[Record]]
    seeds: tuple[int, ...]
    accuracy: float
    images: int

    @classmethod
    def of(cls, board: Board, records: Iterable[Record], name: str) -> _Fold | None:
        """The fold of these records of ``board``; None where its undefended target has no accuracy."""
        rows = group(records, row_key)
        undefended = [record for key in rows if key in board.baselines for record in rows[key]]
        seeds = tuple(sorted({record.seed for record in undefended}))
        accuracy = _mean(undefended, name, seeds)
        if accuracy is None:
            return None
        images = max(metric.n for record in undefended if (metric := record.metrics.get(name)))
        return cls(name, rows, seeds, accuracy, images)

    def accuracy_of(self, setting: ComponentKey) -> float | None:
        """The accuracy of a setting; None where a seed has no number."""
        return _mean(self.rows.get(setting, ()), self.name, self.seeds)

    def failure_of(self, setting: ComponentKey) -> str:
        """Why the setting failed on one of the seeds; empty where it did not."""
        own = (record for record in self.rows.get(setting, ()) if record.seed in self.seeds)
        failed = sorted({record.reason or record.status for record in own if record.status != "done"})
        return failed[0] if failed else ""


def _mean(records: Iterable[Record], name: str, seeds: Collection[int]) -> float | None:
    """A quantity over the seeds; None where one lacks it."""
    values: dict[int, list[float]] = {seed: [] for seed in seeds}
    for record in records:
        metric = record.metrics.get(name)
        if metric and record.seed in values:
            values[record.seed].append(metric.value)
    return fmean(map(fmean, values.values())) if values and all(values.values()) else None


@dataclass(frozen=True)
class _Sweep:
    """What candidates are compared on.

    Attributes:
        folds: those of the undefended target, the usual one first.
    """

    board: Board
    attacks: Sequence[StandardAttack]
    folds: tuple[_Fold, ...]

    def leakage(self, records: Sequence[Record]) -> dict[str, float]:
        """The leakage under each attack, by its label, where every seed has it."""
        found = {
            one.label: _mean(
                [r for r in records if self.attack_of(r) is one], self.board.primary, self.folds[0].seeds
            )
            for one in self.attacks
        }
        return {label: value for label, value in found.items() if value is not None}

    def attack_of(self, record: Record) -> StandardAttack | None:
        """The attack that counts and that the record is of."""
        return attack_of(record, self.board, self.attacks)


def _choose(defense: str, sweep: _Sweep, rows: Sequence[Sequence[Record]], accepts: _Accepts) -> Chosen:
    leakages = [sweep.leakage(row) for row in rows]
    finished = [set(found) for found in leakages if found]
    common = set.intersection(*finished) if finished else set()
    shared = [one.label for one in sweep.attacks if one.label in common]
    if finished and not shared:
        raise MiaBenchError(
            f"track {sweep.board.track.name!r}: there is no attack under which all settings of {defense!r} "
            "were tried, so they can't be compared"
        )
    quantity = sweep.board.quantities[sweep.board.primary]
    tried = tuple(
        _candidate(sweep, row, found, shared, quantity) for row, found in zip(rows, leakages, strict=True)
    )
    choices = (_at(loss, defense, tried, quantity, accepts) for loss in LEVELS)
    return Chosen(defense, tuple(shared), tried, tuple(choice for choice in choices if choice))


def _candidate(
    sweep: _Sweep,
    records: Sequence[Record],
    leakages: Mapping[str, float],
    shared: Sequence[str],
    quantity: Quantity,
) -> Candidate:
    options, setting = records[0].defense.options, row_key(records[0])
    usual, *_ = sweep.folds
    run = tuple(sorted({record.seed for record in records if record.seed in usual.seeds}))
    accuracies = [(fold, fold.accuracy_of(setting)) for fold in sweep.folds]
    known = [(fold, accuracy) for fold, accuracy in accuracies if accuracy is not None]
    broken = [fold.failure_of(setting) for fold, accuracy in accuracies if accuracy is None]
    strongest = max(
        (label for label in shared if label in leakages),
        key=lambda label: quantity.sort_key(round(leakages[label], 9)),
        default="",
    )
    if any(broken) or accuracies[0][1] is None:
        return Candidate(options, None, None, seeds=run, reason=next(filter(None, broken), ""))
    return Candidate(
        options,
        accuracy=fmean(accuracy for _, accuracy in known),
        leakage=leakages[strongest] if strongest else None,
        attack=strongest,
        seeds=run,
        reason="" if strongest else usual.failure_of(setting),
        loss=fmean(fold.accuracy - accuracy for fold, accuracy in known),
        folds=len(known),
    )


def _at(
    loss: float,
    defense: str,
    tried: Sequence[Candidate],
    leakage: Quantity,
    accepts: _Accepts,
) -> Choice | None:
    finished = [
        (leakage.sort_key(one.leakage), one.loss, one)
        for one in tried
        if one.loss is not None and one.leakage is not None
    ]
    if not finished:
        return None
    most = loss + 1e-9  # a difference of exactly so many images is within
    near = [ranked for ranked in finished if ranked[1] <= most]
    best = min(near, key=itemgetter(0, 1)) if near else min(finished, key=itemgetter(1, 0))
    setting = best[2]
    still = unchanged(leakage)
    edges = list(edges_of(setting, tried))
    beyond = [edge.beyond for edge in edges if edge.step >= still]
    taken = [accepts(defense, options) for options in beyond]
    return Choice(
        loss,
        setting,
        near=bool(near),
        further=tuple(itertools.compress(beyond, taken)),
        refused=tuple(
            differing(options, [setting.options])
            for options, accepted in zip(beyond, taken, strict=True)
            if not accepted
        ),
        settled={edge.name: setting.options[edge.name] for edge in edges if edge.step < still},
    )


def unchanged(leakage: Quantity) -> float:
    """The change of leakage below which a step of a sweep changed nothing; 0 where no margin is known."""
    return STILL * Margins.of(leakage).leakage


@dataclass(frozen=True)
class Edge:
    """An option of which a setting has the first or last value tried.

    Attributes:
        beyond: the setting with the next value.
        step: by how much the last step changed leakage; infinite where that is not known.
    """

    name: str
    beyond: Options
    step: float


def edges_of(setting: Candidate, tried: Sequence[Candidate]) -> Iterator[Edge]:
    """The edges of a sweep on which a setting lies.

    An option of numbers has an edge at its first and its last value among those tried, where a setting failed
    too. The next value is as many times the last as that is of the one before it. Nothing lies beyond 0, as
    steps are geometric.
    """
    for name, value in setting.options.items():
        if not _is_number(value):
            continue
        values = sorted({one.options[name] for one in tried if _is_number(one.options.get(name))})
        if len(values) < 2 or value not in (values[0], values[-1]):
            continue
        before = values[1] if value == values[0] else values[-2]
        if value * before <= 0:
            continue
        following = float(f"{value * value / before:.3g}")
        following = round(following) if isinstance(value, int) and isinstance(before, int) else following
        if following and following not in values:
            step = abs(_step(setting, {**setting.options, name: before}, tried))
            yield Edge(name, {**setting.options, name: following}, step)


def _step(setting: Candidate, beside: Options, tried: Sequence[Candidate]) -> float:
    """The leakage of a setting less that of the one beside it; infinite where one is not known."""
    other = next((one.leakage for one in tried if one.options == beside), None)
    return math.inf if setting.leakage is None or other is None else setting.leakage - other


@dataclass(frozen=True)
class OtherChoice:
    """A setting chosen at a loss of accuracy that is not the track's.

    Attributes:
        shown: whether the board has a row of it.
        near: whether its accuracy is within the loss.
    """

    label: str
    shown: bool
    near: bool


def other_choices(tuning: Tuning, decided: Standings, loss: float) -> list[OtherChoice]:
    """The settings chosen at a loss of accuracy that are not those chosen at :data:`MARGIN`."""
    rows = {row.key: row for row in decided.rows}
    found = []
    for chosen in tuning.choices:
        choice = chosen.at(loss)
        if choice and chosen.setting and choice.setting.options != chosen.setting.options:
            row = rows.get((chosen.defense, canonical(choice.setting.options)))
            varied = differing(choice.setting.options, [chosen.setting.options])
            label = row.label if row else row_label(chosen.defense, varied)
            found.append(OtherChoice(label, row is not None, choice.near))
    return found


def rule_chose(tuning: Tuning, decided: Standings) -> bool:
    """Whether rows without options, of which there are some, have the settings chosen at :data:`MARGIN`."""
    chosen = {one.defense: canonical(one.setting.options) for one in tuning.choices if one.setting}
    usual = [row.key for row in decided.defenses if not row.changed and row.defense in chosen]
    return bool(usual) and all(chosen[name] == options for name, options in usual)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _accepted_by(registry: Registry | None) -> _Accepts:
    """Whether a defense accepts options; always, where it is not installed."""

    def accepts(defense: str, options: Options) -> bool:
        if registry is None or defense not in registry.names("defense"):
            return True
        try:
            parse_options(defense, registry.get("defense", defense).load().Options, options)
        except MiaBenchError:
            return False
        return True

    return accepts
