"""A component on trial: how it runs in the toy world, and what its runs did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from etils.epy import lazy_imports

from mia_bench.api.options import Options
from mia_bench.device import Precision
from mia_bench.errors import Modified
from mia_bench.plugins import describe_error
from mia_bench.testing.checks import CheckSkipped
from mia_bench.testing.isolation import Traces, isolated

with lazy_imports():
    import torch

    from mia_bench.models import snapshot
    from mia_bench.protocol import context
    from mia_bench.testing import world as toy

T = TypeVar("T")
Made = TypeVar("Made")


class Unsound(Exception):
    """What a component made is wrong, so that its run ended there.

    Attributes:
        check: name of the check that reports it.
        advice: what to change.
    """

    def __init__(self, check: str, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.check, self.advice = check, advice


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """What a plugin made, or what it raised instead."""

    value: T | None = None
    error: BaseException | None = None

    @classmethod
    def of(cls, work: Callable[[], T]) -> Attempt[T]:
        """Try it."""
        try:
            return cls(value=work())
        except CheckSkipped:
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            return cls(error=error)

    @property
    def made(self) -> T:
        """The value.

        Raises:
            CheckSkipped: there is none; another check says why.
        """
        if self.error is not None:
            raise CheckSkipped(f"it does not run: {describe_error(self.error)}")
        assert self.value is not None
        return self.value


@dataclass(frozen=True)
class Run:
    """How a component is run, and what that left behind.

    Attributes:
        device: where to compute.
        seed: of everything random.
        precision: of the networks.
        small: in a world of 2 classes with one training image each.
        random_target: an attack meets a target that answers at random.
        stored: what an attack prepared goes through the store before it is used.
        traces: filled while it runs.
    """

    device: torch.device
    seed: int = 0
    precision: Precision = "float32"
    small: bool = False
    random_target: bool = False
    stored: bool = False
    traces: Traces = field(default_factory=Traces)

    @property
    def world(self) -> toy.World:
        """Where it runs."""
        return toy.world(2, 1) if self.small else toy.world()

    @property
    def context(self) -> context.Context:
        """What the protocol needs to know."""
        return toy.context(self.device, self.seed)


@dataclass
class Trial(Generic[Made]):
    """A component on trial. A subclass for each kind says how to run it and what to compare.

    Attributes:
        component: the class; the module of a reporter.
        options: checked options.
        device: where to compute.
        module: what is imported when the plugin is discovered.
        data: root of data sets' files, None without.
        weights: folder of weight files, None without.
    """

    action: ClassVar[str] = "it"
    """What a message says has raised."""

    contract: ClassVar[str]
    """Where authors read how a component of the kind works."""

    advice: ClassVar[Mapping[str, str]] = {}
    """What to change, by the name of a check that all kinds share."""

    draws_globally: ClassVar[bool] = True
    """Whether it may draw from torch's global generator, which the host seeds."""

    follows_seed: ClassVar[bool] = True
    """Whether another seed must change what it makes, even if it draws nothing."""

    tolerance: ClassVar[float] = 0.0
    """How far two runs with one seed may differ on the CPU."""

    tolerance_saved: ClassVar[float] = 1e-5
    """How far what was stored and restored may differ."""

    component: Any
    options: Options
    device: torch.device
    module: str
    data: Path | None = None
    weights: Path | None = None
    _first: Run | None = field(default=None, init=False, repr=False)

    def make(self) -> Any:
        """A fresh instance."""
        return self.component(self.options)

    def compute(self, run: Run) -> Made:
        """Run a fresh instance, as the host does.

        Raises:
            Unsound: what it makes is wrong.
        """
        raise NotImplementedError

    def outcome(self, made: Made) -> Mapping[str, Any]:
        """What two runs are compared by: tensors by name."""
        raise NotImplementedError

    def restored(self, made: Made) -> Mapping[str, Any]:
        """The part of the outcome that a fresh instance gives from what the host stored."""
        raise NotImplementedError

    def explains(self, error: BaseException) -> bool:
        """Whether a check reports the error, so that ``runs`` need not."""
        return isinstance(error, (Unsound, Modified))

    def run(self, **conditions: Any) -> Made:
        """Run a fresh instance in the toy world, isolated, under some conditions of :class:`Run`."""
        run = replace(Run(self.device), traces=Traces(), **conditions)
        self._first = self._first or run
        with isolated(run.seed, run.traces):
            return self.compute(run)

    @cached_property
    def base(self) -> Attempt[Made]:
        """The first run, which most checks look at."""
        return Attempt.of(self.run)

    @property
    def first(self) -> Run:
        """Conditions and traces of :attr:`base`: later runs may find done what the first did.

        Raises:
            CheckSkipped: it could not begin.
        """
        _ = self.base
        assert self._first is not None
        return self._first

    def require_exact(self) -> None:
        """For checks that compare two runs to the bit.

        Raises:
            CheckSkipped: on a GPU even a sound plugin may differ in the last bits.
        """
        if self.device.type != "cpu":
            raise CheckSkipped("runs are compared to the bit on the CPU only")


def differing(
    first: Mapping[str, Any], second: Mapping[str, Any], tolerance: float = 0.0
) -> list[str]:
    """Names whose values differ or that one lacks; NaN equals NaN."""
    names = [name for name in first if name in second]
    others = [name for name in (*first, *second) if name not in names]
    return others + [n for n in names if not _same(first[n], second[n], tolerance)]


def _same(first: Any, second: Any, tolerance: float) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        if not tolerance:
            return snapshot.equal(first, second)
        return first.shape == second.shape and torch.allclose(
            first, second, atol=tolerance, equal_nan=True
        )
    return bool(first == second)
