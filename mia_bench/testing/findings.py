"""What the kit finds, and what all trials share. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mia_bench.plugins import describe_error

if TYPE_CHECKING:
    import torch

    from mia_bench.api.options import Options

T = TypeVar("T")

Problem = tuple[str, str]
"""What is wrong, and what to change."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with a plugin.

    Attributes:
        check: name of the check that found it.
        problem: what is wrong, in one sentence.
        advice: what to change.
    """

    check: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.check}: {self.problem}. {self.advice}."


class NotMade(Exception):
    """A check could not be made; the message says why. No finding: pytest shows it as skipped."""


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
        except NotMade:
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            return cls(error=error)

    @property
    def made(self) -> T:
        """The value.

        Raises:
            NotMade: there is none; another check says why.
        """
        if self.error is not None:
            raise NotMade(f"it does not run: {describe_error(self.error)}")
        assert self.value is not None
        return self.value


@dataclass
class Trial:
    """A component on trial. The kinds' subclasses run it in the toy world and keep what it made.

    Attributes:
        component: the class; the module of a reporter.
        options: checked options.
        device: where to compute.
        module: what is imported when the plugin is discovered.
        data: root of data sets' files, None without.
        weights: folder of weight files, None without.
    """

    component: Any
    options: Options
    device: torch.device
    module: str
    data: Path | None = None
    weights: Path | None = None

    def make(self) -> Any:
        """A fresh instance."""
        return self.component(self.options)

    def to_the_bit(self) -> None:
        """For checks that compare two runs exactly.

        Raises:
            NotMade: on a GPU even a sound plugin may differ in the last bits.
        """
        if self.device.type != "cpu":
            raise NotMade("runs are compared to the bit on the CPU only")


Check = Callable[[Any], Iterator[Problem]]
"""A check of a trial; its docstring's first line says what it asks for."""


def raises(work: Callable[[], object], when: str, advice: str) -> Iterator[Problem]:
    """The problem of work that raises: ``when`` it did so, and what to change."""
    error = Attempt.of(work).error
    if error is not None:
        yield f"{when} raised {describe_error(error)}", advice


def examine(trial: Trial, name: str, check: Check) -> list[Finding]:
    """The findings of one check.

    Raises:
        NotMade: it could not be made.
    """
    try:
        return [Finding(name, problem, advice) for problem, advice in check(trial)]
    except NotMade:
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        return [Finding(name, f"it raised {describe_error(error)}", "See what the check asks for")]
