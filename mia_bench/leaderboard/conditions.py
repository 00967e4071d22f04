"""What a record's numbers were computed under: results of other conditions are not paired."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from mia_bench.record import Record

_KIND = re.compile(r"(?:^|, )(cpu|cuda|mps)\b")
_THREADS = re.compile(r"cpu \((\d+) threads?\)")


@dataclass(frozen=True, order=True)
class Conditions:
    """Kind of device, CPU threads and vector instructions; empty or 0 where a record does not say.

    The same cell has other numbers under others, as sums are computed in another order.
    """

    device: str
    threads: int
    capability: str

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}" if self.threads else ""
        return ", ".join(filter(None, (self.device, threads, self.capability))) or "unknown"


def conditions(record: Record) -> Conditions:
    """The conditions of a record; several kinds of device in the order of their names."""
    made = record.provenance
    return _conditions(made.device or "", made.threads or 0, made.capability or "")


@cache
def _conditions(device: str, threads: int, capability: str) -> Conditions:
    kinds = sorted(set(_KIND.findall(device)))
    if not threads and (said := _THREADS.fullmatch(device)):
        threads = int(said[1])  # where a stage of an older store does not say it
    return Conditions(" and ".join(kinds), threads, " and ".join(sorted(capability.split(", "))))
