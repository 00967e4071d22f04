"""The plugin of pytest: a test for each check of a :class:`~mia_bench.testing.Conformance`.

It comes with mia-bench (entry point ``mia-bench`` of ``pytest11``) and imports no more than pytest until a
test file imports the kit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mia_bench.testing import Conformance, Finding


class Nonconforming(Exception):
    """A check has findings."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("\n".join(map(str, findings)))


class CheckItem(pytest.Item):
    """One check of one component."""

    def __init__(self, *, conformance: Conformance, check: str, **more: Any) -> None:
        super().__init__(**more)
        self.conformance = conformance
        self.check = check

    def runtest(self) -> None:
        """Make the check.

        Raises:
            Nonconforming: it has findings.
        """
        from mia_bench.testing import NotMade

        try:
            findings = self.conformance.check(self.check)
        except NotMade as reason:
            pytest.skip(str(reason))
        if findings:
            raise Nonconforming(findings)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The findings, without a traceback."""
        if isinstance(excinfo.value, Nonconforming):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where the test is, and its name."""
        return self.path, None, self.name


def _is_conformance(thing: object) -> bool:
    module = sys.modules.get("mia_bench.testing")
    return module is not None and isinstance(thing, module.Conformance)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Item] | None:
    """A test for each check of a conformance whose name begins with ``test``."""
    if not name.startswith("test") or not _is_conformance(obj):
        return None
    return list(_items(collector, name, obj))


def _items(collector: pytest.Collector, name: str, conformance: Any) -> Iterator[pytest.Item]:
    for check in conformance.checks:
        yield CheckItem.from_parent(
            collector, name=f"{name}[{check}]", conformance=conformance, check=check
        )
