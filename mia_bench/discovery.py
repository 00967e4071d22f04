"""The entry points of plugins: found without importing any.

The host iterates distributions and entry points itself: ``importlib.metadata`` stops at the first that it
can't read. Imports little, so that ``mia-bench --help`` stays fast.
"""

from __future__ import annotations

import contextlib
import re
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

from mia_bench.errors import summarize_error
from mia_bench.text import one_line

GROUP = "mia_bench"


def find_plugins() -> tuple[list[EntryPoint], list[str]]:
    """The entry points of the group, and one line for each distribution that can't be read.

    Of two distributions of one name the first on the path counts, as for imports.
    """
    found: list[EntryPoint] = []
    unreadable: list[str] = []
    seen: set[str] = set()
    try:
        for distribution in distributions():
            try:
                text = distribution.read_text("entry_points.txt")
                if not text or GROUP not in text:
                    continue
                name = re.sub(r"[-_.]+", "-", distribution_name(distribution)).lower()
                if name not in seen:
                    found += [entry for entry in distribution.entry_points if entry.group == GROUP]
                seen.add(name)
            except Exception as error:  # the parser fails in many ways
                where, why = folder_name(distribution), summarize_error(error)
                unreadable.append(f"the entry points of {where} can't be read: {why}")
    except Exception as error:  # of a finder that some package installed
        unreadable.append(f"the installed distributions can't all be listed: {summarize_error(error)}")
    return found, unreadable


def folder_name(distribution: Distribution) -> str:
    """The name of the folder where a distribution's metadata lie."""
    return one_line(Path(str(getattr(distribution, "_path", "an unknown distribution"))).name)


def distribution_name(distribution: Distribution) -> str:
    """The name in a distribution's metadata, or that of their folder where they have none."""
    with contextlib.suppress(Exception):  # METADATA is missing or damaged
        if isinstance(name := distribution.metadata["Name"], str):
            return name
    return folder_name(distribution)
