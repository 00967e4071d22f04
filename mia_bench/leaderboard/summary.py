"""The summary of a board that ships with its track."""

from __future__ import annotations

import json

from mia_bench.leaderboard.aggregate import Shown
from mia_bench.leaderboard.published import Published, PublishedCell, with_options
from mia_bench.leaderboard.standings import Standings
from mia_bench.leaderboard.words import brief
from mia_bench.statistics import Estimate


def summary_text(decided: Standings) -> str:
    """The text of the file, which :func:`mia_bench.leaderboard.published.read_published` reads."""
    board = decided.board
    quantity = board.quantities[board.primary]

    def number(shown: Shown | None) -> str:
        return brief(quantity, shown)

    cells = []
    for section in board.sections:
        attack = section.attack
        for row in section.rows if not section.reference else ():
            standing = next((one for one in decided.rows if one.key == row.key), None)
            if standing is None or row.value(board.primary) is None:
                continue
            cells.append(
                PublishedCell(
                    defense=standing.defense,
                    defense_options=dict(standing.changed),
                    attack=attack.name,
                    attack_options=attack.changed,
                    prior=section.prior.name,
                    prior_options=section.prior.changed,
                    leakage=number(row.metrics.get(board.primary)),
                    verdict=standing.verdict.outcome
                    if standing.verdict and standing.role == "defense"
                    else "",
                    baseline=standing.role == "baseline",
                )
            )
    floors = {
        with_options(section.prior.name, section.prior.changed): number(row.metrics.get(board.primary))
        for section, row in board.floors
        if row.value(board.primary) is not None
    }
    ceiling = board.ceiling.metrics.get(board.primary) if board.ceiling else None
    undefended = decided.baseline.accuracy if decided.baseline else None
    found = Published(
        track=board.track.name,
        version=board.track.version,
        seeds=len({record.seed for record in board.done}),
        quantity=board.primary,
        better=quantity.better,
        ceiling=number(ceiling) if ceiling else "",
        accuracy=round(undefended.value, 4) if isinstance(undefended, Estimate) else None,
        floors=floors,
        cells=tuple(cells),
    )
    return json.dumps(found.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
