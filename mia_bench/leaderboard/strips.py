"""The picture of reconstructions beside a page, and what its file says of its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.leaderboard.aggregate import Quantities
from mia_bench.leaderboard.described import describe, known_quantities
from mia_bench.record import Record
from mia_bench.recorded_options import row_label
from mia_bench.registry import Registry
from mia_bench.text import one_line
from mia_bench.track import load_track

with lazy_imports():
    from PIL import Image

CELLS, ROWS, RANKS = "cells", "rows", "ranks"
"""Names of the texts in the file: the keys of the cells, what their rows are called, one a line, and digests
of the ranks below the pictures."""


@dataclass(frozen=True)
class StripCell:
    """The cell of a row.

    Attributes:
        name: what the row is called.
        ranks: :func:`digest` of the ranks of the run that is shown.
    """

    key: str
    name: str
    ranks: str


def rank_name(quantities: Quantities) -> str:
    """Under which name records keep the ranks of single images; empty where they keep none."""
    ranks = (quantity.per_image for quantity in quantities.values() if quantity.kind == "rank")
    return next(filter(None, ranks), "")


def digest(record: Record, name: str) -> str:
    """What tells the ranks of a run from those of another run of its cell; ``-`` where it has none."""
    ranks = record.per_image.get(name)
    return hashlib.sha256(json.dumps(ranks).encode()).hexdigest()[:16] if ranks else "-"


def texts(cells: Iterable[StripCell]) -> dict[str, str]:
    """What a strip's file says of its rows, by the names of the texts."""
    cells = list(cells)
    return {
        CELLS: " ".join(one.key for one in cells),
        ROWS: "\n".join(one.name for one in cells),
        RANKS: " ".join(one.ranks for one in cells),
    }


def read_strip(path: Path) -> list[StripCell]:
    """The cells of a strip in the order of its rows.

    Raises:
        OSError, ValueError: it is no picture, or no strip.
    """
    with Image.open(path, formats=["PNG"]) as picture:
        keys, rows, ranks = (str(picture.info.get(name, "")) for name in (CELLS, ROWS, RANKS))
    told = zip(keys.split(), rows.splitlines(), ranks.split(), strict=True)
    return [StripCell(*one) for one in told]


def problems(
    path: Path, registry: Registry, published: Sequence[Record], reruns: Sequence[Record]
) -> list[str]:
    """What is wrong with a strip.

    It shows cells of the board, under the names that rows have today (an option is named where it is not the
    track's), with ranks that are in the published record or in that of a rerun.

    Args:
        reruns: the records beside the picture; each must be of a run that it shows.
    """
    again = f"run 'mia-bench leaderboard strip --track {path.stem}'"
    try:
        cells = read_strip(path)
    except OSError as error:
        return [f"{path}: not a picture ({one_line(str(error))})"]
    except ValueError:
        return [f"{path}: doesn't say what it shows; {again}"]
    known = {record.key: record for record in published}
    if not (cells and known.keys() >= {one.key for one in cells}):
        return [f"{path}: shows cells without records; {again}"]
    track = load_track(registry, path.stem)
    shown = describe(registry, track, [known[one.key] for one in cells])
    if [one.name for one in cells] != [row_label(one.defense.name, one.defense.changed) for one in shown]:
        return [f"{path}: its rows have other names by now; {again}"]
    name = rank_name(known_quantities(registry, track, published))
    wanted = {(one.key, one.ranks) for one in cells if one.ranks != digest(known[one.key], name)}
    there = {(record.key, digest(record, name)) for record in reruns}
    lines = [
        f"{path}: the ranks of {one.name} are in no record; {again}"
        for one in cells
        if (one.key, one.ranks) in wanted - there
    ]
    return lines + [f"{path}: doesn't show the rerun {key}; {again}" for key, _ in sorted(there - wanted)]
