"""Where things lie: the store, the data sets, the weight files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from mia_bench.errors import UsageError


@dataclass(frozen=True)
class Roots:
    """Where data sets and local weight files lie; None where nothing was given."""

    data: Path | None = None
    weights: Path | None = None


def default_store() -> Path:
    """``MIA_BENCH_STORE``, else the user's data folder."""
    if given := os.environ.get("MIA_BENCH_STORE"):
        return Path(given)
    return Path(platformdirs.user_data_dir("mia-bench", appauthor=False)) / "store"


def data_roots(data: Path | None) -> Roots:
    """``--data`` or ``MIA_BENCH_DATA``, and ``MIA_BENCH_WEIGHTS`` or ``weights`` beside it.

    Raises:
        UsageError: the folder does not exist.
    """
    if data is None and (given := os.environ.get("MIA_BENCH_DATA")):
        data = Path(given)
    if data is not None and not data.is_dir():
        raise UsageError(f"the data root {data} is not a folder")
    weights = os.environ.get("MIA_BENCH_WEIGHTS")
    return Roots(data, weights_root(data, Path(weights) if weights else None))


def weights_root(data: Path | None, weights: Path | None) -> Path | None:
    """The folder of local weight files: given, or ``weights`` beside the data root."""
    if weights is not None or data is None:
        return weights
    return data.resolve().parent / "weights"
