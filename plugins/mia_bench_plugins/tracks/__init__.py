"""The built-in tracks, one TOML file each."""

from __future__ import annotations

from pathlib import Path

from mia_bench import Register, hookimpl


@hookimpl
def mia_bench_register_tracks(register: Register) -> None:
    """Register every file of this folder under its own name."""
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        register(path.stem, path)
