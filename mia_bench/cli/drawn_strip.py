"""The strip of reconstructions of a page: which run of each row is shown, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from etils.epy import lazy_imports

from mia_bench.cell import FinishedCell
from mia_bench.errors import UsageError
from mia_bench.leaderboard import strips
from mia_bench.leaderboard.grouping import row_key, section_key
from mia_bench.leaderboard.standings import Standings
from mia_bench.leaderboard.strips import StripCell
from mia_bench.pictures import PRIVATE, StripRow, strip, strip_classes, strip_row, strip_rows
from mia_bench.record import Record
from mia_bench.store import Store
from mia_bench.terminal import warn

with lazy_imports():
    from PIL import Image

RERUN = "*"
"""What marks ranks of another run than the published one."""


def drawn(path: Path) -> dict[str, tuple[StripCell, Image.Image]]:
    """The rows of a strip by the keys of their cells; private images, if it has some, by their label."""
    try:
        cells = strips.read_strip(path)
        with Image.open(path, formats=["PNG"]) as picture:
            rows = strip_rows(picture.convert("RGB"), [one.name for one in cells])
    except (OSError, ValueError):  # there is none yet, or it is no strip
        return {}
    named = [StripCell(PRIVATE, PRIVATE, ""), *cells]
    return {one.key: (one, rows[one.name]) for one in named if one.name in rows}


@dataclass
class DrawnStrip:
    """A picture of reconstructions.

    Attributes:
        heading: what stands above it.
        rows: the cells with their reconstructions.
        kept: the keys of those of other runs than the published ones that an earlier picture has.
        reruns: the records of the others.
        examples: private images of the same classes.
    """

    heading: str
    rows: list[tuple[StripCell, Image.Image]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    reruns: list[Record] = field(default_factory=list)
    examples: Image.Image | None = None

    def picture(self, *, private: bool) -> Image.Image:
        """The strip, with the private images first if they may be shown."""
        rows = [StripRow(cell.name, images) for cell, images in self.rows]
        first = [StripRow(PRIVATE, self.examples)] if private and self.examples else []
        starred = f" ({RERUN} of another run than the table's)" if self.kept or self.reruns else ""
        return strip(first + rows, self.heading + starred)


def draw(
    decided: Standings, store: Store, earlier: Mapping[str, tuple[StripCell, Image.Image]]
) -> DrawnStrip:
    """The reconstructions of each row under its strongest attack.

    Args:
        earlier: the rows of an earlier strip, from :func:`drawn`.

    Raises:
        UsageError: the store has no cell of any row.
    """
    board = decided.board
    ranked = strips.rank_name(board.quantities)
    ranks = "; the rank of the true person in the gallery" if ranked else ""
    made = DrawnStrip(f"each under the strongest attack on it{ranks}")
    any_found = False
    for standing in decided.rows:
        place = standing.section and (standing.section.key, standing.key)
        same = [record for record in board.done if (section_key(record), row_key(record)) == place]
        digests = {record.key: strips.digest(record, ranked) for record in same}
        found = to_show(same, store, ranked)
        any_found = any_found or found is not None
        cell, images = next((earlier[key] for key in digests if key in earlier), (None, None))
        published = cell is not None and cell.ranks == digests[cell.key]
        if found and not (found.again and published):
            arrays = FinishedCell(found.record, store).arrays()
            classes = strip_classes(len(arrays["classes"]))
            images = strip_row(arrays["reconstructions"][classes, 0], captions(found, ranked, classes))
            cell = StripCell(found.record.key, standing.label, found.ranks)
            made.reruns += [found.record] * found.again
            made.examples = made.examples or strip_row(arrays["examples"][classes, 0], [""] * len(classes))
        elif cell:
            made.kept += [cell.key] * (not published)
        if cell and images:
            made.rows.append((replace(cell, name=standing.label), images))
        else:
            warn([f"{standing.label} is left out: {store.root} has no cell of it"])
    if not any_found:
        name = board.track.name
        raise UsageError(f"{store.root} has none of the cells of {name!r} on its page; --store names another")
    if PRIVATE in earlier:
        made.examples = earlier[PRIVATE][1]
    return made


class Run(NamedTuple):
    """A record in the store, the digest of its ranks, and whether these are not the published record's."""

    record: Record
    ranks: str
    again: bool


def captions(run: Run, ranked: str, classes: Sequence[int]) -> list[str]:
    """What stands below the first reconstructions of these classes: their ranks, marked if of another run."""
    ranks, mark = run.record.per_image.get(ranked), RERUN if run.again else ""
    return [f"rank {ranks[index][0]:g}{mark}" if ranks else "" for index in classes]


def to_show(published: Sequence[Record], store: Store, ranked: str) -> Run | None:
    """The run of a row to show: of the first seed of which the store has the published run, or else any."""
    found = [
        Run(own, ranks := strips.digest(own, ranked), ranks != strips.digest(record, ranked))
        for record in published
        if store.has("measure", record.key)
        and (own := store.record(record.track.name, record.key))
        and own.status == "done"
        and own.per_image.keys() >= record.per_image.keys()
    ]
    return min(found, key=lambda run: (run.again, run.record.seed), default=None)
