"""The layers of the host: arrows run down, the root is for users, imports stand at the top."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
FILES = [
    path
    for folder in ("mia_bench", "plugins/mia_bench_plugins")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "templates" not in path.parts
]

pytestmark = pytest.mark.newest


def test_arrows_run_down_without_circles() -> None:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    checked = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


def test_the_host_does_not_import_its_own_front_door() -> None:
    graph = grimp.build_graph("mia_bench", cache_dir=None)
    assert graph.find_modules_that_directly_import("mia_bench") == set()


def _in_functions(tree: ast.AST) -> Iterator[ast.stmt]:
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from (node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_stand_at_the_top(path: Path) -> None:
    text = path.read_text("utf-8")
    if path != ROOT / "mia_bench" / "__init__.py":
        assert "\nif TYPE_CHECKING" not in text, "use lazy_imports"
    lines = text.splitlines()
    unexplained = [
        node.lineno
        for node in _in_functions(ast.parse(text))
        if "#" not in lines[node.lineno - 1] + lines[node.lineno - 2]
    ]
    assert not unexplained, f"import at the top, or say why not: lines {unexplained}"
