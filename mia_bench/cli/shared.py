"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Integer(click.IntRange):
    """An integer within limits; of what is none click says that it is no "integer range"."""

    name = "integer"


class Number(click.FloatRange):
    """A number within limits."""

    name = "number"


store_option: Decorator = click.option(
    "--store", type=click.Path(path_type=Path), help="Folder of artifacts and records."
)
data_option: Decorator = click.option(
    "--data", type=click.Path(path_type=Path), help="Root of the data sets."
)


def set_option(help_text: str = "Set an option.") -> Decorator:
    """``-o PLUGIN.KEY=VALUE``, as often as wanted."""
    return click.option(
        "-o", "--option", "options", multiple=True, metavar="PLUGIN.KEY=VALUE", help=help_text
    )
