"""Records of cross-fitting: those of a track, and those of its further folds, told apart."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard.board import Board, build_board
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.track import Track, Variation


def fold_of(record: Record) -> int | None:
    """The fold that the record's target was trained on, where nothing else of the track was changed."""
    with contextlib.suppress(MiaBenchError):
        told = Variation.read(record.track.variant)
        if told == Variation(fold=told.fold):
            return told.fold
    return None


def by_fold(track: Track, found: Iterable[Record]) -> list[tuple[Track, list[Record]]]:
    """The track with its records, then the track in each further fold with the records of that.

    Records of other variants stay with the track's own, where they are refused.
    """
    folds: dict[int, list[Record]] = {}
    usual = []
    for record in found:
        fold = fold_of(record)
        folds.setdefault(fold, []).append(record) if fold else usual.append(record)
    return [(track, usual), *((Variation(fold=fold).of(track), folds[fold]) for fold in sorted(folds))]


def boards_of(registry: Registry, track: Track, found: Iterable[Record]) -> list[Board]:
    """The sweep that records are of, then a board for each further fold.

    Raises:
        MiaBenchError: the records of one can't share a board.
    """
    return [build_board(registry, changed, same) for changed, same in by_fold(track, found)]
