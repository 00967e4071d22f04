"""The conformance kit: from a component to the findings of its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from mia_bench.api.component import Component
from mia_bench.api.options import parse_options
from mia_bench.device import choose_device
from mia_bench.errors import UsageError
from mia_bench.plugins import host
from mia_bench.registry import BASES, Entry

# Checks run in the order of their registration: first what is quick and what all kinds share.
from mia_bench.testing import common, shared  # noqa: F401  # isort: skip
from mia_bench.testing.architecture import ArchitectureTrial
from mia_bench.testing.attack import AttackTrial
from mia_bench.testing.checks import CheckSkipped, Finding, examine, names_of
from mia_bench.testing.dataset import DatasetTrial
from mia_bench.testing.defense import DefenseTrial
from mia_bench.testing.encoder import EncoderTrial
from mia_bench.testing.metric import MetricTrial
from mia_bench.testing.prior import PriorTrial
from mia_bench.testing.reporter import ReporterTrial
from mia_bench.testing.track import check_track
from mia_bench.testing.trial import Trial

Checked = type[Component] | ModuleType
"""What is on trial: a component's class, or a reporter's module."""

TRIALS: dict[str, type[Trial[Any]]] = {
    "defense": DefenseTrial,
    "attack": AttackTrial,
    "prior": PriorTrial,
    "dataset": DatasetTrial,
    "model": ArchitectureTrial,
    "encoder": EncoderTrial,
    "metric": MetricTrial,
    "reporter": ReporterTrial,
}
"""How a component of each kind is run."""

REPORTS = "mia_bench_cell_finished"
"""The hook that makes a module a reporter."""


def kind_of(component: Checked) -> str:
    """The kind of a component's class; ``reporter`` for a module with that hook.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(component, ModuleType):
        if hasattr(component, REPORTS):
            return "reporter"
        raise UsageError(f"the module {component.__name__} has no hook {REPORTS}")
    for kind, base in BASES.items():
        if isinstance(component, type) and issubclass(component, base):
            return kind
    raise UsageError(f"{component!r} is not a subclass of a base class of mia_bench")


def checks_of(component: Checked) -> tuple[str, ...]:
    """The names of the checks that a component, or a reporter's module, gets."""
    return names_of(kind_of(component))


@dataclass
class Conformance:
    """The kit's checks of one component, as tests.

    At the top level of a test file, under a name that begins with ``test``, pytest makes a test of each
    check: ``test_conformance = Conformance(MyDefense)``.

    Attributes:
        component: a class, or the module of a reporter.
        options: by name, as ``-o`` takes them, over its ``trial_options``: choose small ones, every check
            runs the component.
        device: where to compute; the check ``gpu`` uses a GPU wherever there is one.
        data: root of the files that a data set reads; without it only what needs no files is checked.
        skip: checks to skip, each with the reason why.
        weights: folder of the weight files that an encoder or an architecture reads, likewise.
        kind: of the component.
        checks: names of the checks.
    """

    component: Checked
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    data: Path | None = None
    skip: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None

    def __post_init__(self) -> None:
        self.kind = kind_of(self.component)
        self.checks = names_of(self.kind)
        if unknown := set(self.skip) - set(self.checks):
            raise UsageError(f"no check is called {sorted(unknown)[0]!r}")

    @cached_property
    def _trial(self) -> Trial[Any]:
        component, known, small = self.component, Component.Options, Component.trial_options
        module = component.__name__
        if not isinstance(component, ModuleType):
            known, small = component.Options, component.trial_options
            module = _plugin_module(component, self.kind)
        options = parse_options(component.__name__, known, {**small, **self.options})
        device = choose_device(self.device)
        return TRIALS[self.kind](component, options, device, module, self.data, self.weights)

    def check(self, name: str) -> list[Finding]:
        """The findings of one check; what several checks need runs once.

        Raises:
            CheckSkipped: it could not run, or is in ``skip``.
            UsageError: an option is wrong, or the device is not available.
        """
        if name in self.skip:
            raise CheckSkipped(self.skip[name])
        return examine(self._trial, self.kind, name)

    def findings(self) -> tuple[list[Finding], dict[str, str]]:
        """All findings, and why some checks were skipped, by name."""
        found: list[Finding] = []
        skipped: dict[str, str] = {}
        for name in self.checks:
            try:
                found += self.check(name)
            except CheckSkipped as reason:
                skipped[name] = str(reason)
        return found, skipped


def _plugin_module(component: type[Component], kind: str) -> str:
    """The entry-point module that registers a class, else the module it is defined in."""
    names = (component, f"{component.__module__}:{component.__qualname__}")
    for entry in host().registry.entries(kind):
        if entry.component in names:
            return entry.plugin.module.partition(":")[0]
    return component.__module__


def check_component(component: Checked, **settings: Any) -> list[Finding]:
    """What is wrong with a component of any kind, or a reporter; nothing if it conforms.

    Arguments as of :class:`Conformance`.

    Raises:
        UsageError: an option is wrong, or the device is not available.
    """
    return Conformance(component, **settings).findings()[0]


def check_entry(entry: Entry, **settings: Any) -> tuple[list[Finding], dict[str, str]]:
    """As :meth:`Conformance.findings`, of a registered name.

    Raises:
        MiaBenchError: the component can't be loaded; the plugin is named.
    """
    if entry.kind == "track":
        return check_track(entry.name), {}
    return Conformance(entry.load(), **settings).findings()
