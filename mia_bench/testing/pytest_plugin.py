"""The plugin of pytest: a test for each check of a :class:`~mia_bench.testing.Conformance`.

It comes with mia-bench (entry point ``mia-bench`` of ``pytest11``) and imports no more than pytest until a
test file imports the kit.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from etils.epy import lazy_imports

with lazy_imports():
    from mia_bench import testing
    from mia_bench.testing import Conformance


class CheckItem(pytest.Item):
    """One check of one component."""

    def __init__(self, *, conformance: Conformance, check: str, **more: Any) -> None:
        super().__init__(**more)
        self.conformance = conformance
        self.check = check

    def runtest(self) -> None:
        """Make the check; its findings are the failure, without a traceback."""
        try:
            findings = self.conformance.check(self.check)
        except testing.CheckSkipped as reason:
            pytest.skip(str(reason))
        if findings:
            pytest.fail("\n".join(map(str, findings)), pytrace=False)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where the test is, and its name."""
        return self.path, None, self.name


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Item] | None:
    """A test for each check of a conformance whose name begins with ``test``."""
    if "mia_bench.testing" not in sys.modules or not name.startswith("test"):
        return None
    if not isinstance(obj, testing.Conformance):
        return None
    return [
        CheckItem.from_parent(collector, name=f"{name}[{check}]", conformance=obj, check=check)
        for check in obj.checks
    ]
