"""The callback for progress reports."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""``progress(done, total, unit)``: called now and then by long work; must be cheap."""


def no_progress(done: int, total: int, unit: str) -> None:
    """Ignore the report."""
