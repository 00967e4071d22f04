"""The track ``plugin_name``: the file beside this one."""

from __future__ import annotations

from pathlib import Path

from mia_bench import hookimpl
from mia_bench.hookspecs import Register

NAME = "plugin_name"


@hookimpl
def mia_bench_register_tracks(register: Register) -> None:
    """Register ``plugin_name``."""
    register(NAME, Path(__file__).with_name(f"{NAME}.toml"))
