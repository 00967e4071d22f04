"""The conformance kit: a toy world in which a plugin runs in seconds, and what is found wrong with it.

In a test file, with pytest's plugin of this package::

    from mia_bench.testing import Conformance
    from mia_bench_my_defense import MyDefense

    test_conformance = Conformance(MyDefense)

Each check is a test of its own; a finding's text is its failure. The same from Python::

    findings = check_defense(MyDefense, options={"weight": 0.5}, device="cpu")

:mod:`mia_bench.testing.world` is the toy world, for tests of your own: ``world()`` gives data, a trained
target, a prior and the evidence that metrics get. Importing this module imports no torch.
"""

from __future__ import annotations

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
    check_track,
    checks_of,
)
from mia_bench.testing.findings import Finding, NotMade

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
    "check_track",
    "checks_of",
]
