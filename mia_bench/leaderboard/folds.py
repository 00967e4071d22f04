"""Records of cross-validation: those of a track, and those of its further folds, told apart."""

from __future__ import annotations

from collections.abc import Iterable

from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard.admit import disagreements
from mia_bench.leaderboard.board import Board, build_board
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.track import Track, Variation, fold_of


def by_fold(track: Track, found: Iterable[Record]) -> list[tuple[Track, list[Record]]]:
    """The track with its records, then the track in each further fold with the records of that.

    Records of other variants stay with the track's own, where they are refused.
    """
    folds: dict[int, list[Record]] = {}
    usual = []
    for record in found:
        if fold := fold_of(record.track.variant):
            folds.setdefault(fold, []).append(record)
        else:
            usual.append(record)
    return [(track, usual), *((Variation(fold=fold).of(track), folds[fold]) for fold in sorted(folds))]


def boards_of(registry: Registry, track: Track, found: Iterable[Record]) -> list[Board]:
    """The sweep that records are of, then a board for each further fold.

    Raises:
        MiaBenchError: the records of one can't share a board, or those of two differ in data or versions.
    """
    given = list(found)
    if lines := disagreements(given):
        raise MiaBenchError(f"track {track.name!r}: {lines[0]}")
    return [build_board(registry, changed, same) for changed, same in by_fold(track, given)]
