"""Weight files that come with the package, checked against ``SHA256SUMS`` in their folder."""

from __future__ import annotations

from pathlib import Path

from mia_bench.errors import MiaBenchError, Unavailable
from mia_bench.fetch import file_hash

SUMS = "SHA256SUMS"
"""File with the hashes of the shipped files of its folder, written by ``docs/train_shipped.py``."""


def shipped_hash(path: Path) -> str:
    """SHA-256 of a shipped file.

    Raises:
        Unavailable: the file is missing.
        MiaBenchError: the hash is not the one in ``SHA256SUMS``.
    """
    if not path.is_file():
        raise Unavailable(f"{path.name} is missing from the installation")
    found = file_hash(path)
    if (expected := read_sums(path.parent).get(path.name)) != found:
        raise MiaBenchError(
            f"{path.name} is truncated or altered: its SHA-256 is {found[:12]}…, not "
            f"{expected[:12] if expected else 'known'}…; install mia-bench again"
        )
    return found


def read_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that is named in the folder's ``SHA256SUMS``."""
    path = folder / SUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: value for value, _, name in (line.partition("  ") for line in lines)}
