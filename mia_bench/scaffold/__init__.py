"""New distributions from the files below ``templates``.

A distribution consists of ``common`` and the folder of its kind. These words are replaced in file names and
text: ``plugin_distribution``, ``plugin_module``, ``plugin_name``, ``plugin_metric``, ``PluginClass``,
``plugin_base`` and ``plugin_kind``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mia_bench.errors import UsageError
from mia_bench.plugins import host
from mia_bench.registry import BASES, Entry

KINDS = ("defense", "attack", "metric", "prior", "dataset", "track", "encoder", "model", "reporter")

LONGEST = 30
"""Maximum length of a name, so that lines of code stay short."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

_TEMPLATES = Path(__file__).parent / "templates"

_PLACES = {"gitignore": ".gitignore", "ci.yml": ".github/workflows/ci.yml"}
"""Destinations of files that would be hidden among the templates."""


def create(name: str, kind: str, output: Path, *, reuse_name: bool = False) -> Path:
    """Write the distribution ``mia-bench-NAME`` into a folder of that name, and return the folder.

    Args:
        name: of the component; lower-case words joined by ``-``.
        kind: one of :data:`KINDS`.
        output: parent of the new folder; created if it is missing.
        reuse_name: allow the name of something installed.

    Raises:
        UsageError: the name is invalid or taken, or the folder exists.
    """
    check_name(name, reuse_name=reuse_name)
    folder = output / f"mia-bench-{name}"
    files = {folder / _PLACES.get(target, target): text for target, text in rendered(name, kind).items()}
    try:
        folder.mkdir(parents=True)
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"{folder} is there already; nothing was written") from None
    except OSError as error:
        raise UsageError(f"{folder} can't be written: {error.strerror}") from error
    return folder


def check_name(name: str, *, reuse_name: bool) -> None:
    """Raise UsageError if a name is invalid or taken by something installed."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"name {name!r} is not lower-case words joined by '-', the first begins with a letter"
        )
    if len(name) > LONGEST:
        raise UsageError(f"name {name!r} is longer than {LONGEST} characters")
    if name.startswith("mia-bench"):
        raise UsageError(f"name {name!r}: leave out 'mia-bench-', the distribution gets it anyway")
    if not reuse_name and (owner := _owner(name)):
        raise UsageError(f"name {name!r} is taken by {owner}; --reuse-name takes it all the same")


def _owner(name: str) -> str:
    """The component or plugin with this name, or an empty string."""
    loaded = host()
    found: list[Entry] = loaded.registry.find(name)
    if found:
        return f"the {found[0].kind} of plugin {found[0].plugin.id}"
    owners = [p.id for p in loaded.plugins if name == p.name or p.distribution == f"mia-bench-{name}"]
    return f"the plugin {owners[0]}" if owners else ""


_BASE_NAMES = {kind: f"mia_bench.{base.__name__}" for kind, base in BASES.items()} | {
    "metric": "mia_bench.AttackMetric"
}
"""The base class of each kind, for ``python -m pydoc``."""


def class_name(name: str, kind: str) -> str:
    """The class name: ``MyDefense`` for ``my-defense``, ``ErasingDefense`` for ``erasing``."""
    words = "".join(word.capitalize() for word in name.split("-"))
    if not words.endswith(kind.capitalize()) or words in {base.__name__ for base in BASES.values()}:
        words += kind.capitalize()
    return words if words not in ("AttackMetric", "TargetMetric") else f"My{words}"


def rendered(name: str, kind: str) -> dict[str, str]:
    """The text of every file of the distribution, by path."""
    words = {
        "plugin_distribution": f"mia-bench-{name}",
        "plugin_module": f"mia_bench_{name.replace('-', '_')}",
        "plugin_metric": name.replace("-", "_"),
        "plugin_name": name,
        "PluginClass": class_name(name, kind),
        "plugin_base": _BASE_NAMES.get(kind, ""),
        "plugin_kind": {"dataset": "data set", "model": "architecture"}.get(kind, kind),
    }
    return {_fill(path, words): _fill(text, words) for path, text in (*_files("common"), *_files(kind))}


def _files(folder: str) -> Iterator[tuple[str, str]]:
    root = _TEMPLATES / folder
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(root).as_posix(), path.read_text("utf-8")


def _fill(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text
