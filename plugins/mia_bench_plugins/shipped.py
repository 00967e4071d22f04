"""Weight files that come with the package, checked against ``SHA256SUMS`` in their folder."""

from __future__ import annotations

from pathlib import Path

from mia_bench.errors import MiaBenchError, Unavailable
from mia_bench.fetch import file_hash

SUMS = "SHA256SUMS"


def shipped_hash(path: Path) -> str:
    """SHA-256 of a shipped file.

    Raises:
        Unavailable: the file is missing.
        MiaBenchError: the hash is not the one in ``SHA256SUMS``.
    """
    if not path.is_file():
        raise Unavailable(f"{path.name} is missing from the installation")
    found = file_hash(path)
    if (expected := _sums(path.parent).get(path.name)) != found:
        raise MiaBenchError(
            f"{path.name} is truncated or altered: its SHA-256 is {found[:12]}…, not "
            f"{expected[:12] if expected else 'known'}…; install mia-bench again"
        )
    return found


def write_hash(path: Path) -> None:
    """Add the SHA-256 of a file to ship to ``SHA256SUMS``."""
    sums = _sums(path.parent)
    sums[path.name] = file_hash(path)
    text = "".join(f"{value}  {name}\n" for name, value in sorted(sums.items()))
    (path.parent / SUMS).write_text(text, encoding="utf-8")


def _sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: value for value, _, name in (line.partition("  ") for line in lines)}
