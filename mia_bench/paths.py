"""Where things lie: the store, the data sets, the weight files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

import platformdirs

from mia_bench.errors import UsageError
from mia_bench.text import shortened

SETTLED = 2 * 10**9
"""Nanoseconds since its last change after which the times of a file tell a further change."""


class Roots(NamedTuple):
    """Where data sets and local weight files lie; None where nothing was given."""

    data: Path | None = None
    weights: Path | None = None


def expand_path(path: str | Path) -> Path:
    """Replace ``~`` and environment variables (``$NAME``) by what they stand for.

    Raises:
        UsageError: no file can have such a name.
    """
    expanded = Path(os.path.expanduser(os.path.expandvars(path)))
    try:
        os.lstat(expanded)
    except ValueError as error:  # a null character, say
        raise UsageError(f"{str(expanded)!r} is no path: {error}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{shortened(str(expanded), 80)} is no path: {error.strerror}") from error
    return expanded


def _from_environment(variable: str) -> Path | None:
    given = os.environ.get(variable)
    return expand_path(given) if given else None


def default_store() -> Path:
    """``MIA_BENCH_STORE``, else the user's data folder."""
    folder = Path(platformdirs.user_data_dir("mia-bench", appauthor=False)) / "store"
    return _from_environment("MIA_BENCH_STORE") or folder


def cache_folder() -> Path:
    """``MIA_BENCH_CACHE``, else the user's cache folder."""
    folder = Path(platformdirs.user_cache_dir("mia-bench", appauthor=False))
    return _from_environment("MIA_BENCH_CACHE") or folder


def default_data() -> Path | None:
    """``MIA_BENCH_DATA``."""
    return _from_environment("MIA_BENCH_DATA")


def default_weights() -> Path | None:
    """``MIA_BENCH_WEIGHTS``."""
    return _from_environment("MIA_BENCH_WEIGHTS")


def check_data_root(path: Path) -> Path:
    """Return ``path`` if it is a folder.

    Raises:
        UsageError: it is not.
    """
    if not path.is_dir():
        raise UsageError(f"the data root {path} is not a folder")
    return path


def data_roots(data: Path | None = None, weights: Path | None = None) -> Roots:
    """The folders given, else those of the environment; weights lie in ``weights`` beside the data root.

    Raises:
        UsageError: the data root is not a folder.
    """
    data, weights = data or default_data(), weights or default_weights()
    if data is not None and weights is None:
        weights = data.resolve().parent / "weights"
    return Roots(data and check_data_root(data), weights)
