"""Options and checks that several commands have."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from mia_bench.config import RunConfig, flatten_options, key_choices
from mia_bench.errors import UsageError
from mia_bench.paths import default_store, expand_path
from mia_bench.store import Store

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


class Integer(click.IntRange):
    """An integer within limits; click's own name would be "integer range"."""

    name = "integer"


class PathType(click.Path):
    """A path in which ``~`` and environment variables are expanded.

    Args:
        output: the file will be written, so its folder must exist.
    """

    def __init__(self, *, output: bool = False, **more: Any) -> None:
        super().__init__(path_type=Path, **more)
        self.output = output

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Expand and check the path."""
        if not str(value):
            self.fail("a path can't be empty", param, ctx)
        path = expand_path(value)
        super().convert(path, param, ctx)  # checks it
        if self.output and not path.parent.is_dir():
            self.fail(f"there is no folder {path.parent}", param, ctx)
        return path


class _Choice(click.Choice[str]):
    """Show the choices; :class:`RunConfig` checks the value, so that every way has one message."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value as it is."""
        return value


def config_options(*names: str) -> Decorator:
    """The keys of :class:`RunConfig` named, or all of them, as options of a command."""

    def decorate(command: Command) -> Command:
        for name in reversed(names or tuple(RunConfig.model_fields)):
            command = _option(name)(command)
        return command

    return decorate


def _option(name: str) -> Decorator:
    field = RunConfig.model_fields[name]
    flag, help_text = f"--{name.replace('_', '-')}", field.description
    if field.annotation is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    if field.default is not None and isinstance(field.default, (str, int)):
        help_text = f"{help_text}  [default: {field.default}]"
    flags = ("-o", "--option") if name == "options" else (flag,)
    more: dict[str, Any] = {"help": help_text, "multiple": isinstance(field.default, (tuple, dict))}
    if choices := key_choices(name):
        more["type"] = _Choice(choices)
    elif field.default_factory is not None:
        more["type"] = click.Path()
    else:
        more["metavar"] = (field.json_schema_extra or {})["metavar"]  # type: ignore[index]
    return click.option(*flags, name, **more)


def given_values(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a command that were given; () is an option that can be repeated and was not."""
    return {name: value for name, value in options.items() if value != ()}


def set_option(help_text: str = "Set an option.") -> Decorator:
    """``-o PLUGIN.KEY=VALUE``, as often as wanted; the command gets :func:`flatten_options` of it."""
    return click.option(
        "-o",
        "--option",
        "options",
        multiple=True,
        metavar="PLUGIN.KEY=VALUE",
        callback=lambda context, parameter, texts: flatten_options(texts),
        help=help_text,
    )


store_option = click.option("--store", type=PathType(), help=RunConfig.model_fields["store"].description)
data_option = click.option("--data", type=PathType(), help=RunConfig.model_fields["data"].description)


def open_store(folder: Path | None) -> Store:
    """The store there, or the default one.

    Raises:
        UsageError: there is none.
    """
    root = folder or default_store()
    if not root.is_dir():
        raise UsageError(f"there is no store at {root}")
    return Store(root)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why a file can't be written.

    Raises:
        UsageError: the operating system refuses it.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror or error}") from error
