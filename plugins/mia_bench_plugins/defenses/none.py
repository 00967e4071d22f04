"""No defense: the undefended target, first row of every board."""

from __future__ import annotations

from typing import ClassVar

from mia_bench import Defense, hookimpl
from mia_bench.hookspecs import Register


class NoDefense(Defense):
    """Plain training with cross-entropy, by the track's recipe."""

    summary: ClassVar[str] = "plain training with cross-entropy (baseline)"
    version: ClassVar[str] = "1"
    baseline: ClassVar[bool] = True


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    """Register ``none``."""
    register("none", NoDefense)
