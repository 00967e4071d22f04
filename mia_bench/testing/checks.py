"""The registry of checks. Importing it imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from mia_bench import interruption
from mia_bench.errors import MiaBenchError
from mia_bench.plugins import describe_error
from mia_bench.registry import BASES

KINDS = (*BASES, "reporter")
"""Kinds of components, and plugins with the hook that makes them reporters."""

Problem = tuple[str, str]
"""What is wrong, and what to change."""

Find = Callable[[Any], Iterable[Problem] | None]
"""From a :class:`~mia_bench.testing.trial.Trial` to what is wrong with its component."""

FindT = TypeVar("FindT", bound=Find)


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


class CheckSkipped(Exception):
    """A check could not run; the message says why. pytest reports a skipped test."""


class Unsound(Exception):
    """What a component makes is wrong; it ends the run.

    Attributes:
        check: name of the check that reports it.
        advice: what to change.
    """

    def __init__(self, check: str, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.check, self.advice = check, advice


@dataclass(frozen=True)
class Check:
    """A check, or a part of one: the parts share the name. ``words`` say what it asks for."""

    name: str
    kinds: tuple[str, ...]
    words: str
    find: Find


CHECKS: list[Check] = []
"""All checks, in the order in which they run."""


def check(*kinds: str, name: str = "") -> Callable[[FindT], FindT]:
    """Register a function of a trial as a check; the first paragraph of its docstring says what it asks for.

    An exception in it is a finding too.

    Args:
        kinds: of the components that get it; all kinds if none is given.
        name: of the check, else the function's; the name of an existing check adds to that check.
    """

    def register(find: FindT) -> FindT:
        words = " ".join((find.__doc__ or "").partition("\n\n")[0].split())
        shown = name or find.__name__.replace("_", "-")
        CHECKS.append(Check(shown, kinds or KINDS, words, find))
        return find

    return register


def check_run(name: str, words: str, *kinds: str, **conditions: Any) -> None:
    """Register a check of a run: a plugin fails it by an error.

    Args:
        name: of the check.
        words: what it asks for.
        kinds: of the components that get it; all kinds if none is given.
        conditions: run once more under these, see :class:`~mia_bench.testing.trial.Run`. Without any, report
            what ended the first run, if that is for this check to report.
    """

    def find(trial: Any) -> None:
        if conditions:
            trial.rerun(**conditions)
        else:
            trial.report(name)

    CHECKS.append(Check(name, kinds or KINDS, words, find))


def names_of(kind: str) -> tuple[str, ...]:
    """The names of the checks of a kind."""
    return tuple(dict.fromkeys(part.name for part in CHECKS if kind in part.kinds))


def examine(trial: Any, kind: str, name: str) -> list[Finding]:
    """The findings of one check.

    Raises:
        CheckSkipped: it could not run.
    """
    found: list[Finding] = []
    skipped = None
    for part in CHECKS:
        if part.name != name or kind not in part.kinds:
            continue
        try:
            for problem, advice in part.find(trial) or ():
                found.append(Finding(name, problem, advice))
        except CheckSkipped as reason:
            skipped = reason
        except Unsound as error:
            found.append(Finding(name, str(error), error.advice))
        except BaseException as error:  # a plugin may raise anything
            interruption.check(error)
            advice = trial.advice.get(name) or f"The check asks: {part.words.rstrip('.')}"
            raised = "" if isinstance(error, MiaBenchError) else "it raised "
            found.append(Finding(name, raised + describe_error(error), advice))
    if skipped is not None and not found:
        raise skipped
    return found
