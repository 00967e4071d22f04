"""What became of the files of a data set: an account that runs, ``data check`` and records share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field

K = TypeVar("K", bound=str)
V = TypeVar("V")

Reason = Literal[
    "unreadable",
    "dangling links",
    "no image",
    "no regular file",
    "too small",
    "too large",
    "of unknown brightness",
    "outside the folders of identities",
]
"""Why a file is left out."""

EXAMPLES = 3
"""Names that a line gives at most."""

Role = Literal["private", "public", "decoys"]

PARTS = ("train", "validation", "test", "public", "decoys", "public and decoys", "judging")
"""The order in which the parts of splits are listed."""


class LeftOut(BaseModel):
    """A file that is not read.

    Attributes:
        name: its path relative to the data root.
        reason: the kind of fault.
        detail: more about it, without paths; may be empty.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


class Group(BaseModel):
    """How many things have a property, and the first of them by name."""

    model_config = ConfigDict(frozen=True)

    count: int
    examples: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[object], most: int = EXAMPLES) -> Self:
        """Count the names and keep the first ``most``."""
        texts = list(map(str, names))
        return cls(count=len(texts), examples=tuple(texts[:most]))

    def __str__(self) -> str:
        more = self.count - len(self.examples)
        return ", ".join(self.examples) + (f" and {more:,} more" if more else "")


class Inventory(BaseModel):
    """The files of a data set, read or left out with the reason, and who has which role.

    Attributes:
        found: files that may be images; None where they are not counted.
        used: images in the splits.
        left_out: files that are not read, by reason.
        unused: readable images that the splits don't need.
        first_frames: animations and files of several pages, of which the first image is read.
        vanished: identities none of whose images is read.
        overlaps: lines on images that several identities share.
        people: number of images of each identity by role; empty where there are no identities.
        parts: number of images in each part of the splits.
        remarks: further lines for the user, which are no warnings.
        estimated: whether nothing was decoded yet, so that the numbers are those of the listing.
    """

    model_config = ConfigDict(frozen=True)

    found: int | None = None
    used: int | None = None
    unused: int = 0
    left_out: dict[Reason, Group] = Field(default_factory=dict)
    first_frames: Group | None = None
    vanished: Group | None = None
    overlaps: tuple[str, ...] = ()
    people: dict[Role, dict[str, int]] = Field(default_factory=dict)
    parts: dict[str, int] = Field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    estimated: bool = False

    @classmethod
    def stored(cls, info: Mapping[str, Any]) -> Self | None:
        """The inventory in the JSON info of stored images; None if an older version stored them."""
        found = info.get("inventory")
        return None if found is None else cls.model_validate(found)

    def warnings(self) -> tuple[str, ...]:
        """What a user should know, one line each; records keep it as notes."""
        lines = [
            f"{counted(group.count, 'file')} left out, {reason}: {group}"
            for reason, group in _in_order(self.left_out, get_args(Reason))
        ]
        if self.vanished:
            verb = "is" if self.vanished.count == 1 else "are"
            lines.append(
                f"{counted(self.vanished.count, 'identity', 'identities')} {verb} lost, "
                f"as no image of theirs is read: {self.vanished}"
            )
        if self.first_frames:
            lines.append(
                f"only the first image is read of {counted(self.first_frames.count, 'file')} "
                f"with several: {self.first_frames}"
            )
        return (*lines, *self.overlaps)

    def lines(self, named: int = 60) -> Iterator[str]:
        """The numbers, one line each: files, identities of each role, images of each part.

        At most ``named`` identities of each role are named.
        """
        if self.found is not None:
            left_out = sum(group.count for group in self.left_out.values())
            counts = [f"{self.found:,} found", f"{self.used:,} {'to read' if self.estimated else 'read'}"]
            counts += [f"{self.unused:,} not needed"] * bool(self.unused)
            yield f"files: {', '.join([*counts, f'{left_out:,} left out'])}"
        for role in get_args(Role):
            if role in self.people:
                yield f"{role}: {_people(self.people[role], named)}"
        if self.parts:
            yield "images: " + ", ".join(f"{count:,} {part}" for part, count in _in_order(self.parts, PARTS))
        yield from self.remarks


def by_reason(files: Iterable[LeftOut]) -> dict[Reason, Group]:
    """Group files by the reason why they are left out."""
    grouped: dict[Reason, list[LeftOut]] = {}
    for file in files:
        grouped.setdefault(file.reason, []).append(file)
    return {reason: Group.of(grouped[reason]) for reason in get_args(Reason) if reason in grouped}


def relative_name(path: Path, root: Path | None) -> str:
    """``path`` relative to ``root``, printable; its last two parts where it lies elsewhere."""
    try:
        relative = path.relative_to(root) if root else Path(*path.parts[-2:])
    except ValueError:
        relative = Path(*path.parts[-2:])
    return printable(str(relative))


def printable(text: str) -> str:
    """``text`` on one line, with escapes for what can't be printed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _people(counts: Mapping[str, int], most: int) -> str:
    total = f"{counted(len(counts), 'identity', 'identities')} with {counted(sum(counts.values()), 'image')}"
    named = Group.of((f"{name} {count}" for name, count in counts.items()), most)
    return f"{total}: {named}" if named.count else total


def _in_order(given: Mapping[K, V], order: Sequence[str]) -> list[tuple[K, V]]:
    """The items in this order, which stored JSON does not keep; others last."""
    places = {key: place for place, key in enumerate(order)}
    return sorted(given.items(), key=lambda item: places.get(item[0], len(order)))


def counted(count: int, one: str, many: str = "") -> str:
    """``1 identity``, ``2,000 identities``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
