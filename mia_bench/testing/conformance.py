"""Which checks a component gets, and the functions that make them. Imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mia_bench.api.component import Component
from mia_bench.api.options import parse_options
from mia_bench.errors import UsageError
from mia_bench.registry import BASES
from mia_bench.testing import common
from mia_bench.testing.findings import Check, Finding, NotMade, Trial, examine

if TYPE_CHECKING:
    from mia_bench.api.architecture import Architecture
    from mia_bench.api.attack import Attack
    from mia_bench.api.dataset import Dataset
    from mia_bench.api.defense import Defense
    from mia_bench.api.encoder import Encoder
    from mia_bench.api.metric import Metric
    from mia_bench.api.prior import Prior
    from mia_bench.registry import Entry

Checked = type[Component] | ModuleType
"""What is on trial: a component's class, or a reporter's module."""

_CHECKS = {
    "defense": ("summary", "paper", "options", "overrides", "light-import", "runs", "loss", "augment",
                "gradients", "served", "saved", "repeatable", "seeded", "global-state",
                "private-data", "report", "few-images", "bfloat16", "gpu"),
    "attack": ("summary", "paper", "options", "overrides", "light-import", "runs", "images", "threat-model",
               "queries", "untouched", "private-data", "repeatable", "seeded", "global-state",
               "saved", "few-images", "random-target", "bfloat16", "gpu"),
    "prior": ("summary", "paper", "options", "overrides", "light-import", "runs", "model", "latents",
              "images", "gradients", "private-data", "repeatable", "seeded", "global-state", "resumed",
              "saved", "few-images", "bfloat16", "gpu"),
    "dataset": ("summary", "terms", "options", "overrides", "light-import", "missing-files", "runs", "parts",
                "disjoint", "repeatable", "global-state"),
    "metric": ("summary", "names", "options", "overrides", "light-import", "runs", "measurements",
               "untouched", "repeatable", "global-state", "nan", "no-samples", "no-encoder", "few-images",
               "gpu"),
    "model": ("summary", "options", "overrides", "light-import", "runs", "activations", "gradients", "hooks",
              "untouched", "repeatable", "seeded", "saved", "global-state", "bfloat16", "gpu"),
    "encoder": ("summary", "terms", "options", "overrides", "light-import", "missing-files", "runs",
                "embeddings", "alone", "sizes", "repeatable", "global-state", "gpu"),
    "reporter": ("light-import", "runs", "again", "unfinished", "untouched", "global-state"),
}  # fmt: skip
"""Names of the checks, so that they can be listed without torch; a test holds them to the modules."""


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
    raise UsageError(f"{component!r} is no subclass of a base class of mia_bench")


def checks_of(component: Checked) -> tuple[str, ...]:
    """The names of the checks that a component, or a reporter's module, gets."""
    return _CHECKS[kind_of(component)]


def _trial(
    component: Checked,
    options: Mapping[str, Any],
    device: str = "cpu",
    data: Path | None = None,
    weights: Path | None = None,
) -> tuple[Trial, dict[str, Check]]:
    """The component on trial, and its checks by name."""
    from mia_bench.device import choose_device

    kind = kind_of(component)
    module = importlib.import_module(f"mia_bench.testing.{kind}")
    if isinstance(component, ModuleType):
        none = parse_options(component.__name__, Component.Options, options)
        reporter: Trial = module.TRIAL(component, none, choose_device(device), component.__name__)
        return reporter, {"light-import": common.light_import, **module.CHECKS}
    checks: dict[str, Check] = {**common.CHECKS, **module.CHECKS}
    if kind in ("defense", "attack", "prior"):
        checks["paper"] = common.paper
    if kind in ("dataset", "encoder"):
        checks["terms"] = common.terms
    parsed = parse_options(component.__name__, component.Options, options)
    plugin = _plugin_module(component)
    trial: Trial = module.TRIAL(component, parsed, choose_device(device), plugin, data, weights)
    return trial, checks


def _plugin_module(component: type[Component]) -> str:
    """The entry-point module that registers a class, else the module it is defined in."""
    from mia_bench.plugins import host

    names = (component, f"{component.__module__}:{component.__qualname__}")
    for entry in host().registry.entries(kind_of(component)):
        if entry.component in names:
            return entry.plugin.module.partition(":")[0]
    return component.__module__


@dataclass
class Conformance:
    """The kit's checks of one component, as tests.

    At the top level of a test file, under a name that begins with ``test``, pytest makes a test of each
    check: ``test_conformance = Conformance(MyDefense)``.

    Attributes:
        component: a class, or the module of a reporter.
        options: by name, as ``-o`` takes them: choose small ones, every check runs the component.
        device: where to compute; the check ``gpu`` uses a GPU wherever there is one.
        data: root of the files that a data set reads; without it only what needs no files is checked.
        skip: checks not to make, each with the reason why.
        weights: folder of the weight files that an encoder or an architecture reads, as ``data``.
    """

    component: Checked
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    data: Path | None = None
    skip: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None
    _made: tuple[Trial, dict[str, Check]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if unknown := set(self.skip) - set(self.checks):
            raise UsageError(f"no check is called {sorted(unknown)[0]!r}")

    @property
    def checks(self) -> tuple[str, ...]:
        """Names of the checks."""
        return checks_of(self.component)

    def check(self, name: str) -> list[Finding]:
        """The findings of one check; what several checks need runs once.

        Raises:
            NotMade: it could not be made, or was not to be.
            UsageError: wrong options, or a device that is not here.
        """
        if name in self.skip:
            raise NotMade(self.skip[name])
        if self._made is None:
            self._made = _trial(self.component, self.options, self.device, self.data, self.weights)
        trial, checks = self._made
        return examine(trial, name, checks[name])

    def findings(self) -> tuple[list[Finding], dict[str, str]]:
        """All findings, and why some checks could not be made, by name."""
        found: list[Finding] = []
        left_out: dict[str, str] = {}
        for name in self.checks:
            try:
                found += self.check(name)
            except NotMade as reason:
                left_out[name] = str(reason)
        return found, left_out


def check_component(
    component: Checked,
    *,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    data: Path | None = None,
    weights: Path | None = None,
) -> list[Finding]:
    """What is wrong with a component of any kind, or a reporter; nothing if it conforms.

    Args:
        component: its class, or the module of a reporter.
        options: by name; choose small ones, a component runs several times.
        device: where to compute, ``cpu`` or ``cuda``.
        data: root of the files that a data set reads.
        weights: folder of weight files.

    Raises:
        UsageError: wrong options, or a device that is not here.
    """
    return Conformance(component, options or {}, device, data, weights=weights).findings()[0]


def check_defense(
    component: type[Defense], *, options: Mapping[str, Any] | None = None, device: str = "cpu"
) -> list[Finding]:
    """What is wrong with a defense: it is trained, saved, restored and asked in the toy world."""
    return check_component(component, options=options, device=device)


def check_attack(
    component: type[Attack], *, options: Mapping[str, Any] | None = None, device: str = "cpu"
) -> list[Finding]:
    """What is wrong with an attack: it attacks a target that records every pass."""
    return check_component(component, options=options, device=device)


def check_prior(
    component: type[Prior], *, options: Mapping[str, Any] | None = None, device: str = "cpu"
) -> list[Finding]:
    """What is wrong with a prior: it is made, stopped and resumed, saved, restored and sampled."""
    return check_component(component, options=options, device=device)


def check_metric(
    component: type[Metric], *, options: Mapping[str, Any] | None = None, device: str = "cpu"
) -> list[Finding]:
    """What is wrong with a metric: it measures evidence that is whole, broken, and empty."""
    return check_component(component, options=options, device=device)


def check_dataset(
    component: type[Dataset],
    *,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    data: Path | None = None,
) -> list[Finding]:
    """What is wrong with a data set; one that reads files is loaded only if ``data`` is given."""
    return check_component(component, options=options, device=device, data=data)


def check_encoder(
    component: type[Encoder],
    *,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    weights: Path | None = None,
) -> list[Finding]:
    """What is wrong with an encoder; one that reads weights is asked only if ``weights`` is given."""
    return check_component(component, options=options, device=device, weights=weights)


def check_model(
    component: type[Architecture],
    *,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    weights: Path | None = None,
) -> list[Finding]:
    """What is wrong with an architecture: its networks answer, are differentiated and restored."""
    return check_component(component, options=options, device=device, weights=weights)


def check_reporter(plugin: ModuleType) -> list[Finding]:
    """What is wrong with a reporter: it is told of cells that are finished, failed and skipped."""
    return check_component(plugin)


def check_track(name: str) -> list[Finding]:
    """What is wrong with a registered track: its file, and the components and options it names.

    Raises:
        UsageError: no track is called so.
    """
    from mia_bench.plugins import host
    from mia_bench.testing.track import findings

    registry = host().registry
    return findings(registry, registry.get("track", name))


def check_entry(
    entry: Entry,
    *,
    options: Mapping[str, Any],
    device: str,
    data: Path | None,
    weights: Path | None,
) -> tuple[list[Finding], dict[str, str]]:
    """As :meth:`Conformance.findings`, of a registered name.

    Raises:
        MiaBenchError: the component can't be loaded; the plugin is named.
    """
    if entry.kind == "track":
        return check_track(entry.name), {}
    return Conformance(entry.load(), options, device, data, weights=weights).findings()
