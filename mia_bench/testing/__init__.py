"""The conformance kit: it runs a plugin in a toy world and reports what is wrong with it.

In a test file, with pytest's plugin of this package::

    from mia_bench.testing import Conformance
    from mia_bench_my_defense import MyDefense

    test_conformance = Conformance(MyDefense)

Each check is a test of its own, which fails with the text of the findings. The same from Python::

    findings = check_component(MyDefense, options={"weight": 0.5}, device="cpu")

:mod:`mia_bench.testing.world` is the toy world, for tests of your own: ``world()`` has data, a trained
target, a prior and the evidence that metrics get; ``finished_cell(folder)`` is what reporters get.
Importing this package imports no torch. A check is a method with the decorator
:func:`mia_bench.testing.checks.check` of the trial of its kind; what kinds share is in ``common`` (checks
that run nothing) and ``shared``.
"""

from mia_bench.testing.checks import CheckSkipped, Finding
from mia_bench.testing.conformance import Conformance, check_component, checks_of
from mia_bench.testing.reporter import finished_cell
from mia_bench.testing.track import check_track

__all__ = [
    "CheckSkipped",
    "Conformance",
    "Finding",
    "check_component",
    "check_track",
    "checks_of",
    "finished_cell",
]
