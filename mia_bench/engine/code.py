"""Code that changed while its version did not: its author may have forgotten to raise it. No torch here."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from mia_bench.components import ConfiguredComponent
from mia_bench.engine.plan import PlannedCell, Stage
from mia_bench.errors import CorruptArtifact
from mia_bench.provenance import HOST, code_differs, package_version
from mia_bench.record import Record
from mia_bench.store import Store


def code_of(stage: Stage) -> dict[str, str]:
    """:func:`installed_code` of the third-party components of a stage, by kind and name."""
    found = {part.title: installed_code(part) for part in _components(stage)}
    return {name: code for name, code in found.items() if code}


def installed_code(component: ConfiguredComponent) -> str:
    """The version of a component's distribution, and a hash of its code.

    Empty where its version is such a hash already, and for what comes with mia-bench.
    """
    identity = component.identity
    if identity["distribution"] == HOST or identity["version"].startswith("src-"):
        return ""
    return f"{package_version(identity['distribution'])} {code_hash(component.component.__module__)}"


def _components(stage: Stage) -> Iterator[ConfiguredComponent]:
    for part in stage.parts.values():
        for one in part if isinstance(part, list) else [part]:
            if isinstance(one, ConfiguredComponent):
                yield one


def stored_run(store: Store, stage: Stage) -> dict[str, Any]:
    """What was noted of the run of a stage, its :func:`code_of` included; empty if it is not stored."""
    try:
        found: dict[str, Any] = store.info(*stage.id)["run"]
    except CorruptArtifact:
        return {}
    return found


@cache
def code_hash(module: str) -> str:
    """Hash of an imported module's code, without name, layout, comments, docstrings and imports."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, SyntaxError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(_RemoveImports().visit(tree)).encode()).hexdigest()[:12]


class _RemoveImports(ast.NodeTransformer):
    """Removes imports, ``with lazy_imports():`` blocks and ``if TYPE_CHECKING:`` blocks."""

    def visit_Import(self, node: ast.Import) -> None:
        """Remove it."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Remove it."""

    def visit_With(self, node: ast.With) -> ast.AST | None:
        """Remove a block of lazy imports."""
        calls = [ast.unparse(item.context_expr).partition("(")[0] for item in node.items]
        lazy = any(call.rpartition(".")[2] == "lazy_imports" for call in calls)
        return None if lazy else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """Remove a block for type checkers, but not its ``else``."""
        self.generic_visit(node)
        typing_only = ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"
        return node.orelse if typing_only else node


def changed_code(planned: Iterable[PlannedCell], store: Store) -> list[str]:
    """A line for each component with stored results of other code, though its versions are the same."""
    stages = {stage.id: stage for one in planned for stage in one.measure.upstream()}
    parts = {part.title: part for stage in stages.values() for part in _components(stage)}
    now = {name: code for name, part in parts.items() if (code := installed_code(part))}
    if not now:
        return []
    runs = (stored_run(store, stage) for stage in stages.values())
    then = [pair for run in runs for pair in run.get("code", {}).items()]
    tracks = {stage.track.name for stage in stages.values()}
    then += [pair for track in tracks for record in store.records(track) for pair in _recorded(record, parts)]
    changed = {name for name, code in then if code_differs(code, now.get(name, ""))}
    return [
        f"the code of {name} changed after results of its version were stored; raise version if results "
        "change, or rows mix both"
        for name in sorted(changed)
    ]


def _recorded(record: Record, parts: dict[str, ConfiguredComponent]) -> Iterator[tuple[str, str]]:
    """The code behind a record, of components in the version that is installed."""
    for kind, component in record.components.items():
        name = f"{kind} {component.name!r}"
        if name in parts and parts[name].identity["version"] == component.version:
            yield name, component.about.code
