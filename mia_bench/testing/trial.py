"""A component on trial: how it runs in the toy world, and what its runs did."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from etils.epy import lazy_imports

from mia_bench import interruption
from mia_bench.api.options import Options
from mia_bench.device import Precision
from mia_bench.errors import MiaBenchError, Modified
from mia_bench.plugins import describe_error
from mia_bench.testing.checks import CheckSkipped, Unsound
from mia_bench.testing.isolation import Traces, isolated

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.api import images as api_images
    from mia_bench.models import snapshot
    from mia_bench.protocol import context
    from mia_bench.testing import world as toy

T = TypeVar("T")
Made = TypeVar("Made")


def attempt(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """What a plugin makes, or what it raises instead.

    Raises:
        CheckSkipped: it can't be tried here.
    """
    try:
        return work(), None
    except CheckSkipped:
        raise
    except BaseException as error:  # a plugin may raise anything
        interruption.check(error)
        return None, error


@dataclass(frozen=True)
class Run:
    """How a component is run, and what that left behind.

    Attributes:
        device: where to compute.
        seed: of everything random.
        precision: of the networks.
        small: in a world of 2 classes with one training image each.
        random_target: an attack meets a target that answers at random.
        stored: an attack inverts as a fresh instance, from what it prepared as the store gives it.
        classes: that an attack inverts; all unless given.
        traces: filled while it runs.
    """

    device: torch.device
    seed: int = 0
    precision: Precision = "float32"
    small: bool = False
    random_target: bool = False
    stored: bool = False
    classes: tuple[int, ...] = ()
    traces: Traces = field(default_factory=Traces)

    @property
    def world(self) -> toy.World:
        """Where it runs."""
        return toy.world(2, 1) if self.small else toy.world()

    @property
    def context(self) -> context.Context:
        """What the protocol needs to know."""
        return toy.context(self.device, self.seed)


class Stopped(Exception):
    """Raised in a training by ``progress``, to stop it."""


@dataclass
class Trial(Generic[Made]):
    """A component on trial; a subclass for each kind of component says how to run it and what to compare.

    Attributes:
        component: the class; the module of a reporter.
        options: checked options.
        device: where to compute.
        module: what is imported when the plugin is discovered.
        data: root of data sets' files, None without.
        weights: folder of weight files, None without.
    """

    advice: ClassVar[Mapping[str, str]] = {}
    """What to change, by the name of a check that kinds share."""

    errors: ClassVar[Mapping[type[Exception], tuple[str, str]]] = {
        Modified: ("untouched", "Work on a copy (copy.deepcopy), in eval mode")
    }
    """Errors of a run that a check other than ``runs`` reports: its name, and what to change."""

    draws_globally: ClassVar[bool] = True
    """Whether it may draw from torch's global generator, which the host seeds."""

    follows_seed: ClassVar[bool] = True
    """Whether another seed must change what it makes, even if it draws nothing."""

    tolerance: ClassVar[float] = 0.0
    """How far two runs with one seed may differ on the CPU."""

    tolerance_saved: ClassVar[float] = 1e-5
    """How far answers may differ after storing and restoring."""

    component: Any
    options: Options
    device: torch.device
    module: str
    data: Path | None = None
    weights: Path | None = None

    def make(self) -> Any:
        """A fresh instance."""
        return self.component(self.options)

    def compute(self, run: Run) -> Made:
        """Run a fresh instance, as the host does."""
        raise NotImplementedError

    def outcome(self, made: Made) -> Mapping[str, Any]:
        """What two runs are compared by: tensors by name."""
        raise NotImplementedError

    def restored(self, made: Made) -> Mapping[str, Any]:
        """The part of the outcome that a fresh instance gives from what the host stored."""
        raise NotImplementedError

    def run(self, **conditions: Any) -> Made:
        """Run a fresh instance in the toy world, isolated, under the conditions of a :class:`Run`.

        Raises:
            Unsound: what it makes is wrong.
        """
        return self._perform(Run(**{"device": self.device, **conditions}))

    def rerun(self, **conditions: Any) -> Made:
        """As :meth:`run`, skipped where the first run failed already."""
        _ = self.made
        return self.run(**conditions)

    def _perform(self, run: Run) -> Made:
        with isolated(run.seed, run.traces):
            try:
                return self.compute(run)
            except tuple(self.errors) as error:
                check, advice = next(v for k, v in self.errors.items() if isinstance(error, k))
                raise Unsound(check, describe_error(error), advice) from error

    @cached_property
    def _first(self) -> tuple[Run, Any, BaseException | None]:
        run = Run(self.device)
        return run, *attempt(partial(self._perform, run))

    @property
    def first(self) -> Run:
        """Conditions and traces of the first run; later runs may skip work that the first one did."""
        return self._first[0]

    @property
    def made(self) -> Made:
        """What the first run made, which most checks look at.

        Raises:
            CheckSkipped: the run failed; another check says why.
        """
        _, made, error = self._first
        if error is not None:
            raise CheckSkipped(f"it does not run: {describe_error(error)}")
        return made  # type: ignore[no-any-return]

    @property
    def error(self) -> BaseException | None:
        """What ended the first run."""
        return self._first[2]

    def report(self, check: str) -> None:
        """Raise what ended the first run, if this check reports it."""
        error = self.error
        if error is not None and check == (error.check if isinstance(error, Unsound) else "runs"):
            raise error

    def require_exact(self) -> None:
        """For checks that compare two runs to the bit.

        Raises:
            CheckSkipped: on a GPU even a sound plugin may differ in the last bits.
        """
        if self.device.type != "cpu":
            raise CheckSkipped("runs are compared to the bit on the CPU only")


def stopped_and_resumed(compute: Callable[..., T]) -> T:
    """What ``compute(checkpoint=…, progress=…)`` makes, stopped at its first checkpoint, when it goes on.

    Raises:
        CheckSkipped: it ends before it has saved one.
        Unsound: it does not stop.
    """
    checkpoint, stops = toy.MemoryCheckpoint(), list[int]()

    def stop(done: int, total: int, unit: str) -> None:
        if checkpoint.state is not None and done < total:
            stops.append(done)
            raise Stopped

    with isolated(0):
        _, error = attempt(partial(compute, checkpoint=checkpoint, progress=stop))
    if not stops:
        raise CheckSkipped("it saves no checkpoint before it ends")
    if not isinstance(error, Stopped):
        problem, advice = "an exception in progress does not end it", "Don't catch what progress raises"
        raise Unsound("resumed", problem, advice)
    with isolated(0):
        return compute(checkpoint=checkpoint)


def observe(instance: Any, method: str, run: Run) -> None:
    """Note what a method of an instance draws from, from now on."""
    original = getattr(instance, method)

    def observed(*given: Any) -> Any:
        drawn_from = [getattr(one, "generator", one) for one in given]
        generators = [one for one in drawn_from if isinstance(one, torch.Generator)]
        with run.traces.drawing(method, *generators):
            return original(*given)

    vars(instance)[method] = observed


@contextlib.contextmanager
def reported_by(check: str, advice: str) -> Iterator[None]:
    """Let a check report the errors of the host that are raised within.

    Raises:
        Unsound: in their place.
    """
    try:
        yield
    except MiaBenchError as error:
        raise Unsound(check, str(error), advice) from error


def require_images(made: Tensor, shape: tuple[int, ...]) -> None:
    """Check images as the host does before it keeps them.

    Raises:
        MiaBenchError: they have another shape, or are no numbers in [0, 1].
    """
    if tuple(made.shape) != shape:
        raise MiaBenchError(f"images of shape {tuple(made.shape)}, not {shape}")
    api_images.to_uint8(made.detach())


def differing(first: Mapping[str, Any], second: Mapping[str, Any], tolerance: float = 0.0) -> list[str]:
    """Names whose values differ, or that one lacks; NaN equals NaN."""
    shared = first.keys() & second.keys()
    names = dict.fromkeys((*first, *second))
    return [n for n in names if n not in shared or not _same(first[n], second[n], tolerance)]


def _same(first: Any, second: Any, tolerance: float) -> bool:
    if not (isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)):
        return bool(first == second)
    if not tolerance:
        return snapshot.equal(first, second)
    return first.shape == second.shape and torch.allclose(first, second, atol=tolerance, equal_nan=True)
