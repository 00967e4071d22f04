"""Options and checks that several commands have."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import click

from mia_bench.config import RunConfig, key_choices
from mia_bench.errors import CorruptArtifact, StoreError, UsageError
from mia_bench.paths import default_store, expand_path
from mia_bench.store import Store

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


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
        try:
            path = expand_path(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        super().convert(path, param, ctx)  # checks it
        if self.output and not path.parent.is_dir():
            self.fail(f"there is no folder {path.parent}", param, ctx)
        return path


class _Choice(click.Choice[str]):
    """Show the choices; :class:`RunConfig` checks the value, so that every way has one message."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value as it is."""
        return value


class _AnyPath(click.Path):
    """Show that it is a path; :class:`RunConfig` checks it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value as it is."""
        return value


def config_options(*names: str, **help_texts: str) -> Decorator:
    """Keys of :class:`RunConfig` as options of a command, None where they are not given.

    Args:
        names: the keys; all of them if none is named.
        help_texts: further keys, with a help text of their own.
    """

    def decorate(command: Command) -> Command:
        for name in reversed((*names, *help_texts) or tuple(RunConfig.model_fields)):
            command = _option(name, help_texts.get(name))(command)
        return command

    return decorate


def _option(name: str, help_text: str | None) -> Decorator:
    field = RunConfig.model_fields[name]
    flag = f"--{name.replace('_', '-')}"
    more: dict[str, Any] = {"help": help_text or field.description}
    if field.annotation is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, **more)
    if not help_text and field.default is not None and isinstance(field.default, (str, int)):
        more["help"] += f"  [default: {field.default}]"
    if choices := key_choices(name):
        more["type"] = _Choice(choices)
    elif field.default_factory is not None:
        more["type"] = _AnyPath()
    else:
        more["metavar"] = (field.json_schema_extra or {})["metavar"]  # type: ignore[index]
    if name == "options":
        return click.option("-o", "--option", name, multiple=True, callback=_none_if_empty, **more)
    if isinstance(field.default, (tuple, dict)):
        more |= {"multiple": True, "callback": _none_if_empty}
    return click.option(flag, name, **more)


def _none_if_empty(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    return values or None


def output_option(help_text: str) -> Decorator:
    """``--output`` for a file whose folder exists."""
    return click.option("--output", type=PathType(output=True), help=help_text)


store_option = click.option("--store", type=PathType(), help=RunConfig.model_fields["store"].description)
data_option = click.option("--data", type=PathType(), help=RunConfig.model_fields["data"].description)
records_option = click.option("--track", metavar="NAME", help="Only this track's records.")


def open_store(folder: Path | None) -> Store:
    """The store there, or the default one.

    Raises:
        UsageError: there is none.
    """
    root = folder or default_store()
    if not root.is_dir():
        raise UsageError(f"there is no store at {root}")
    return Store(root, make=False)


def complete_key(start: str, keys: Collection[str], noun: str, command: str) -> str:
    """The only one of the keys that begins with ``start``.

    Messages name what the keys are of (``noun``) and the command that lists them.

    Raises:
        UsageError: none begins so, or several do.
    """
    found = sorted(key for key in keys if key.startswith(start))
    if len(found) > 1:
        begun = ", ".join(key[:12] for key in found[:5])
        raise UsageError(f"{len(found)} {noun}s' keys begin with {start!r}: {begun}")
    if not found:
        hint = f"{len(keys)} {noun}s: see {command}" if keys else "the store is empty"
        raise UsageError(f"no {noun}'s key begins with {start!r}; {hint}")
    return found[0]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the collector of reference cycles, which would look through all records again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor afterwards
        gc.enable()


@contextlib.contextmanager
def writing(path: Path, remake: str = "") -> Iterator[None]:
    """Say in one line why a file can't be written.

    Args:
        path: the file.
        remake: the command that makes the artifact again that the file shows.

    Raises:
        UsageError: the operating system refuses it.
        StoreError: the artifact is corrupt.
    """
    try:
        yield
    except CorruptArtifact as error:
        raise StoreError(f"{error}; {remake} makes it again") from error
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror or error}") from error
