"""The conformance kit: a toy world in which a plugin runs in seconds, and what is found wrong with it.

In a test file, with pytest's plugin of this package::

    from mia_bench.testing import Conformance
    from mia_bench_my_defense import MyDefense

    test_conformance = Conformance(MyDefense)

Each check is a test of its own; a finding's text is its failure. The same from Python::

    findings = check_defense(MyDefense, options={"weight": 0.5}, device="cpu")

:mod:`mia_bench.testing.world` is the toy world, for tests of your own: ``world()`` gives data, a trained
target, a prior and the evidence that metrics get; ``finished_cell(folder)`` gives what reporters get.
Importing this module imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mia_bench.testing.conformance import (
    Conformance,
    check_attack,
    check_component,
    check_dataset,
    check_defense,
    check_encoder,
    check_metric,
    check_model,
    check_prior,
    check_reporter,
    check_track,
    checks_of,
)
from mia_bench.testing.findings import Finding, NotMade

if TYPE_CHECKING:
    from mia_bench.testing.reporter import finished_cell

__all__ = [
    "Conformance",
    "Finding",
    "NotMade",
    "check_attack",
    "check_component",
    "check_dataset",
    "check_defense",
    "check_encoder",
    "check_metric",
    "check_model",
    "check_prior",
    "check_reporter",
    "check_track",
    "checks_of",
    "finished_cell",
]


def __getattr__(name: str) -> Any:
    """``finished_cell`` computes, so that it needs torch: it is imported when it is asked for."""
    if name == "finished_cell":
        from mia_bench.testing.reporter import finished_cell

        return finished_cell
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
