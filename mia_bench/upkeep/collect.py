"""What no record needs, and deleting it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from mia_bench.errors import StoreError
from mia_bench.origin import StageId
from mia_bench.store import RUN, Store, explained
from mia_bench.upkeep.contents import Artifact, Contents, Kind, Leftover, total_size
from mia_bench.upkeep.needs import Needs

DAY = 86400.0


@dataclass
class Garbage:
    """What can be deleted, and what is kept though no record is known to need it.

    Attributes:
        artifacts, leftovers: what can be deleted.
        kept: reason to what is kept for it.
    """

    artifacts: list[Artifact] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    kept: dict[str, list[Artifact | Leftover]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The size of what can be deleted."""
        return total_size(self.artifacts, self.leftovers)

    def keep(self, one: Artifact | Leftover, reason: str) -> None:
        """Keep it, for this reason."""
        self.kept.setdefault(reason, []).append(one)


def find_garbage(
    contents: Contents,
    needs: Needs,
    now: float,
    *,
    older_than: float = DAY,
    kinds: Collection[Kind] = (),
    joined_shards: bool = False,
    stages: Collection[str] = (),
    track: str | None = None,
) -> Garbage:
    """What can be deleted; deletes nothing.

    What killed runs left half-written, and checkpoints of stages that are stored, can always be.

    Args:
        contents, needs: of the store.
        now: seconds since 1970.
        older_than: seconds; what is younger is kept.
        kinds: what else can be: ``set aside``, ``checkpoint``, ``lock``, ``picture``.
        joined_shards: the parts of attacks whose joined result is stored can be, too.
        stages, track: only artifacts of these stages, or of this track.

    Raises:
        StoreError: a part of the store can't be read.
    """
    found = Garbage()
    chosen = [
        one
        for one in contents.artifacts
        if (not stages or one.stage in stages) and track in (None, one.track)
    ]
    joined = set(_joined(contents)) if joined_shards else set()
    for one in chosen:
        if needs.counts[one.id] and one.id not in joined:
            continue
        unknown = needs.may_be_needed(one)
        if one.unreadable:
            found.keep(one, "they can't be read")
        elif one.link:
            found.keep(one, "they are links")
        elif one.id not in joined and one.stage == "metric" and one.upstream is None:
            found.keep(one, "older metrics do not say what they were computed of")
        elif one.id not in joined and unknown:
            found.keep(one, f"records of track {unknown.file.track} may need them")
        elif now - one.modified < older_than:
            found.keep(one, "they are younger")
        else:
            found.artifacts.append(one)
    if stages or track:
        return found
    measured = {("measure", record.key) for record in contents.records}
    for left in contents.leftovers:
        if left.kind != "other" and _is_waste(contents, left, kinds, measured):
            least = max(older_than, DAY) if left.kind == "half-written" else older_than
            if now - left.modified < least:
                found.keep(left, "they are younger")
            else:
                found.leftovers.append(left)
    return found


def _joined(contents: Contents) -> Iterator[StageId]:
    """The parts of attacks whose joined result is stored."""
    for one in contents.artifacts:
        if one.stage == "invert" and not one.problem:
            yield from (stage for stage in one.upstream or () if stage[0] == "shard")


def _is_waste(
    contents: Contents, left: Leftover, kinds: Collection[Kind], measured: Collection[StageId]
) -> bool:
    """Whether nothing needs it; ``measured`` are the stages that records come from."""
    if left.kind == "half-written":
        return True
    found = contents.by_id.get(left.stage) if left.stage else None
    stored = found is not None and not found.problem
    anew = found is not None and left.modified > found.modified  # of a run with --rerun always
    if left.kind == "checkpoint" and stored and not anew:
        return True
    if left.kind not in kinds:
        return False
    if left.kind == "picture":  # what it shows is gone
        return left.stage not in measured if left.stage and left.stage[0] == "measure" else found is None
    return True


def computed_now(contents: Contents) -> list[StageId]:
    """The stages that runs compute in the store now, and a name for each run, of the stage :data:`RUN`."""
    locks = (left.stage for left in contents.leftovers if left.kind == "lock" and left.stage)
    return [stage for stage in locks if contents.store.computed_now(*stage)]


def delete(store: Store, garbage: Garbage) -> Iterator[Artifact | Leftover]:
    """Delete garbage; gives each thing once it is gone. Stopped, it leaves nothing half-deleted in use.

    What a run computes now is left.

    Raises:
        StoreError: the store is not writable or gone.
    """
    for artifact in garbage.artifacts:
        if store.remove(*artifact.id):
            yield artifact
    for left in garbage.leftovers:
        if left.stage and left.kind == "lock":
            if store.remove_lock(*left.stage):
                yield left
            continue
        if left.stage and left.kind == "checkpoint" and store.computed_now(*left.stage):
            continue
        store.check_present()
        with explained(store.root), contextlib.suppress(FileNotFoundError):
            if left.path.is_dir() and not left.path.is_symlink():
                shutil.rmtree(left.path)
            else:
                left.path.unlink()
        yield left


def check_idle(contents: Contents) -> None:
    """Refuse to delete while a run computes: its inputs may be among what no record needs yet.

    Raises:
        StoreError: one does.
    """
    if running := computed_now(contents):
        stages = [f"{stage} {key[:8]}" for stage, key in running if stage != RUN]
        more = f" and {len(stages) - 1} more" if stages[1:] else ""
        which = f" ({stages[0]}{more})" if stages else ""
        raise StoreError(
            f"a run computes in the store now{which}, and may need what no record needs yet: wait for it, or "
            "give --while-running (what it lacks is computed again)"
        )


def total_seconds(artifacts: Iterable[Artifact]) -> float:
    """How long the artifacts took to compute."""
    return sum(one.seconds for one in artifacts)
