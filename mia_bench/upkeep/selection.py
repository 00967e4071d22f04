"""What goes into a bundle."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from mia_bench.origin import StageId
from mia_bench.upkeep.contents import Artifact, Contents, RecordFile, total_size
from mia_bench.upkeep.needs import Needs, reasons


@dataclass
class Selection:
    """Records, and the artifacts that go with them."""

    contents: Contents
    records: list[RecordFile]
    artifacts: list[Artifact] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The size of all files."""
        return total_size(self.records, self.artifacts)


def select(contents: Contents, records: Iterable[RecordFile], stages: Collection[str] | None) -> Selection:
    """Records and stored artifacts that they need; a warning where one is missing.

    Args:
        contents: of the store.
        records: of the cells.
        stages: only artifacts of these; None: of all, without the parts of an attack whose joined result is
            stored.

    Raises:
        StoreError: a part of the store can't be read.
    """
    chosen = Selection(contents, list(records))
    needs = Needs(contents)
    wanted: dict[StageId, None] = {}
    for record in chosen.records if stages is None or stages else ():
        behind = needs.of(record)
        if stages is None:
            joined = any(name == "invert" and (name, key) in contents.by_id for name, key in behind)
            kept = [stage for stage in behind if not (joined and stage[0] == "shard")]
        else:
            kept = [stage for stage in behind if stage[0] in stages]
        wanted |= dict.fromkeys(kept)
    chosen.artifacts = [contents.by_id[stage] for stage in sorted(wanted) if stage in contents.by_id]
    absent = [stage for stage in wanted if stage not in contents.by_id]
    if absent:
        named = ", ".join(f"{name} {key[:8]}" for name, key in absent[:5])
        chosen.warnings.append(f"not stored, and left out: {named}{' …' if absent[5:] else ''}")
    chosen.warnings += reasons(needs.unknown)
    return chosen
