"""What a store has on each track: a row for each defense, as the verdict table of a page would have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard.board import build_board
from mia_bench.leaderboard.described import describe
from mia_bench.leaderboard.grouping import cell_key, group
from mia_bench.leaderboard.standings import Standing, Standings, standings
from mia_bench.leaderboard.strongest import strongest
from mia_bench.leaderboard.submission import outdated
from mia_bench.leaderboard.words import (
    accuracy_change,
    brief,
    change,
    remarks,
    unit_of_points,
)
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.track import load_track


@dataclass(frozen=True)
class Overview:
    """The records of one track.

    Attributes:
        decided: None where they can't share a board.
        reason: why they can't.
    """

    track: str
    decided: Standings | None
    reason: str = ""


def overviews(records: Iterable[Record], registry: Registry) -> list[Overview]:
    """One for each known track that has finished cells.

    Records of versions that are not installed are left out, and all but the newest of a cell.
    """
    known = registry.names("track")
    done = (record for record in records if record.status == "done" and record.track.name in known)
    return [_overview(name, same, registry) for name, same in group(done, lambda r: r.track.name).items()]


def _overview(name: str, records: Sequence[Record], registry: Registry) -> Overview:
    try:
        track = load_track(registry, name)
        current = [record for record in records if not outdated(record, track, registry)]
        cells = group(describe(registry, track, current), cell_key).values()
        newest = [max(same, key=lambda record: record.provenance.finished) for same in cells]
        if not newest:
            return Overview(name, None, "its cells are of other versions than are installed")
        tuning = [record for record in newest if record.seed in track.tuning_seeds]
        others = [record for record in newest if record.seed not in track.tuning_seeds]
        swept = strongest(build_board(registry, track, tuning)) if tuning and others else None
        return Overview(name, standings(build_board(registry, track, others or tuning), swept))
    except MiaBenchError as error:
        return Overview(name, None, str(error))


def overview_rows(decided: Standings) -> list[dict[str, str]]:
    """The rows of a table for people."""
    board = decided.board
    useful, primary = board.quantities.get(decided.accuracy), board.quantities.get(board.primary)
    rows = []
    for standing in decided.rows:
        row = {"defense": standing.label, "seeds": str(len(standing.shown))}
        if useful:
            row[decided.accuracy] = brief(useful, standing.accuracy)
            row[f"Δ {unit_of_points(useful) or 'accuracy'}"] = accuracy_change(decided, standing)
        if primary:
            row[board.primary] = brief(primary, standing.leakage)
            row["attack"] = board.label(standing.section) if standing.section else ""
            row["Δ leakage"] = change(primary, standing.difference)
        rows.append({**row, "verdict": _verdict(standing)} if board.track.verdicts else row)
    return rows


def _verdict(row: Standing) -> str:
    """The verdict, or why there is none."""
    if row.role == "defense":
        said = [row.verdict.outcome] if row.verdict else []
        return "; ".join([*said, *remarks(row)])
    return {"baseline": "baseline", "front": "undefended front", "undefended": "undefended"}[row.role]
