"""Code that changed while its version did not: its author may have forgotten to raise it. No torch here."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache

from mia_bench.engine.grid import Resolved
from mia_bench.engine.plan import Stage
from mia_bench.errors import CorruptArtifact
from mia_bench.provenance import package_version
from mia_bench.store import Store

HOST = "mia-bench"
"""The distribution whose changes are reviewed for it."""


def code_of(stage: Stage) -> dict[str, str]:
    """What is installed of each third-party component of a stage that declares its version.

    By kind and name: the distribution's version, and a hash of the code.
    """
    return {
        f"{part.kind} {part.name!r}": f"{package_version(part.identity['distribution'])} "
        + code_hash(part.component.__module__)
        for part in _components(stage)
        if part.identity["distribution"] != HOST and not part.identity["version"].startswith("src-")
    }


def _components(stage: Stage) -> Iterator[Resolved]:
    for part in stage.parts.values():
        for one in part if isinstance(part, (list, tuple)) else [part]:
            if isinstance(one, Resolved):
                yield one


@cache
def code_hash(module: str) -> str:
    """Hash of an imported module without its comments, docstrings and layout."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, SyntaxError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


def changed_code(stages: Iterable[Stage], store: Store) -> list[str]:
    """A line for each component with a stored result of other code, though its versions are the same."""
    lines = {}
    for stage in {stage.id: stage for stage in stages}.values():
        now = code_of(stage)
        if not now or not store.has(*stage.id):
            continue
        try:
            then = store.info(*stage.id)["run"].get("code", {})
        except (CorruptArtifact, KeyError):
            continue
        for name, code in now.items():
            before = then.get(name, code)
            if before != code and before.split()[0] == code.split()[0]:
                lines[name] = (
                    f"the code of {name} changed after results of its version were stored; "
                    "raise version if results change, or the old ones are taken"
                )
    return list(lines.values())
