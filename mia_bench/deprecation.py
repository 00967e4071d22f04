"""What is public and will go: warnings that name the version it goes in."""

from __future__ import annotations

import warnings


class MiaBenchDeprecation(FutureWarning):
    """Something that still works and will not in the version named; shown to users by default."""


def deprecated(what: str, *, instead: str, removed_in: str) -> None:
    """Warn that ``what`` goes in mia-bench ``removed_in``; ``instead`` says what to do."""
    warnings.warn(
        f"{what} is deprecated and goes in mia-bench {removed_in}: {instead}",
        MiaBenchDeprecation,
        stacklevel=3,
    )
