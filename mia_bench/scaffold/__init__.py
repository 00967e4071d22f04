"""New plugin distributions, written from the jinja2 templates in ``templates``."""

from __future__ import annotations

import re
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.errors import UsageError
from mia_bench.plugins import host
from mia_bench.registry import BASES
from mia_bench.registry import KINDS as PLURALS

with lazy_imports():
    import jinja2

KINDS = ("defense", "attack", "metric", "prior", "dataset", "track", "encoder", "model", "reporter")

LONGEST = 30
"""Maximum length of a name, so that lines of code stay short."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


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
    files = rendered(name, kind)
    try:
        folder.mkdir(parents=True)
        for target, text in files.items():
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"{folder} exists already; nothing was written") from None
    except OSError as error:
        raise UsageError(f"{folder} can't be written: {error.strerror}") from error
    return folder


def check_name(name: str, *, reuse_name: bool) -> None:
    """Raise UsageError if a name is invalid or taken by something installed."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"name {name!r} is not lower-case words joined by '-', of which the first begins with a letter"
        )
    if len(name) > LONGEST:
        raise UsageError(f"name {name!r} is longer than {LONGEST} characters")
    if name.startswith("mia-bench"):
        raise UsageError(f"name {name!r}: leave out 'mia-bench-', the distribution gets it anyway")
    if not reuse_name and (owner := _owner(name)):
        raise UsageError(f"name {name!r} is taken by {owner}; use it all the same with --reuse-name")


def _owner(name: str) -> str:
    """The component or plugin with this name, or an empty string."""
    loaded = host()
    if found := loaded.registry.find(name):
        return f"the {found[0].kind} of plugin {found[0].plugin.id}"
    owners = [p.id for p in loaded.plugins if name == p.name or p.distribution == f"mia-bench-{name}"]
    return f"the plugin {owners[0]}" if owners else ""


def class_name(name: str, kind: str) -> str:
    """The class name: ``MyDefense`` for ``my-defense``, ``ErasingDefense`` for ``erasing``."""
    words = "".join(word.capitalize() for word in name.split("-"))
    if not words.endswith(kind.capitalize()) or words in {base.__name__ for base in BASES.values()}:
        words += kind.capitalize()
    return words if words not in ("AttackMetric", "TargetMetric") else f"My{words}"


def rendered(name: str, kind: str) -> dict[str, str]:
    """The text of every file of the distribution, by path."""
    module = f"mia_bench_{name.replace('-', '_')}"
    templates = {
        ".github/workflows/ci.yml": "ci.yml",
        ".gitignore": "gitignore",
        "LICENSE": "LICENSE",
        "README.md": "README.md.j2",
        "pyproject.toml": "pyproject.toml.j2",
        f"tests/test_{module}.py": "test.py.j2",
    }
    if kind == "track":
        templates |= {f"{module}/__init__.py": "track.py.j2", f"{module}/{name}.toml": "track.toml.j2"}
    else:
        templates[f"{module}.py"] = f"{kind}.py.j2"
    base = "AttackMetric" if kind == "metric" else BASES[kind].__name__ if kind in BASES else ""
    values = {
        "name": name,
        "kind": kind,
        "kind_words": {"dataset": "data set", "model": "architecture"}.get(kind, kind),
        "plural": PLURALS.get(kind),
        "module": module,
        "class_name": class_name(name, kind),
        "base": f"mia_bench.{base}",
        "metric": name.replace("-", "_"),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__name__),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return {path: environment.get_template(file).render(values) for path, file in templates.items()}
