"""The whole plugin contract: every hook a plugin may implement, and nothing else.

A plugin is a module named by an entry point of the group ``mia_bench``. Each ``register`` hook gets
a callback ``register(name, component, summary="")``: ``component`` is a class, or the string
``"package.module:Class"``, imported on first use (give ``summary`` then, so that listing needs no
import). Tracks register the path of a TOML file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pluggy
from etils.epy import lazy_imports

with lazy_imports():
    import click


hookspec = pluggy.HookspecMarker("mia_bench")
hookimpl = pluggy.HookimplMarker("mia_bench")


class Register(Protocol):
    """The callback that component hooks are called with."""

    def __call__(self, name: str, component: type | str | Path, summary: str = "") -> None:
        """Claim ``name`` for ``component``."""


@hookspec
def mia_bench_register_defenses(register: Register) -> None:
    """Register subclasses of :class:`mia_bench.Defense`."""


@hookspec
def mia_bench_register_attacks(register: Register) -> None:
    """Register subclasses of :class:`mia_bench.Attack`."""


@hookspec
def mia_bench_register_priors(register: Register) -> None:
    """Register subclasses of :class:`mia_bench.Prior`."""


@hookspec
def mia_bench_register_datasets(register: Register) -> None:
    """Register subclasses of :class:`mia_bench.Dataset`."""


@hookspec
def mia_bench_register_models(register: Register) -> None:
    """Register subclasses of :class:`mia_bench.Architecture`."""


@hookspec
def mia_bench_register_encoders(register: Register) -> None:
    """Register subclasses of :class:`mia_bench.Encoder`."""


@hookspec
def mia_bench_register_metrics(register: Register) -> None:
    """Register subclasses of :class:`mia_bench.Metric`."""


@hookspec
def mia_bench_register_tracks(register: Register) -> None:
    """Register tracks: the path of a TOML file each."""


@hookspec
def mia_bench_register_commands(cli: click.Group) -> None:
    """Add commands to the ``mia-bench`` command line."""


@hookspec
def mia_bench_cell_finished(cell: Any) -> None:
    """Report a cell whose record was stored; ``cell`` is a :class:`mia_bench.cell.FinishedCell`."""


@hookspec
def mia_bench_cell_cached(cell: Any) -> None:
    """Look at a cell whose record was stored before the run, and make again what a reporter's file lacks.

    ``cell`` is a :class:`mia_bench.cell.FinishedCell`.
    """
