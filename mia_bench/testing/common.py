"""What is asked of every component: words, options, a light import. Imports no torch."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from mia_bench.testing.findings import Check, NotMade, Problem, Trial

HEAVY = ("torch", "torchvision", "tensorflow", "jax")
"""What importing a plugin must not import."""

_LIMITS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})


def summary(trial: Trial) -> Iterator[Problem]:
    """A summary of one line, at most 100 characters."""
    text = trial.component.summary
    if not text.strip():
        yield "it has no summary", "Set the class attribute summary to one line"
    elif "\n" in text or len(text) > 100:
        yield "its summary is too long to be listed", "Keep it to one line of 100 characters"


def paper(trial: Trial) -> Iterator[Problem]:
    """The paper it implements; a baseline and a reference have none."""
    component = trial.component
    exempt = getattr(component, "baseline", False) or getattr(component, "reference", "")
    if not component.paper.strip() and not exempt:
        yield (
            "it names no paper",
            "Set the class attribute paper: authors, venue and arXiv number, or 'unpublished'",
        )


def terms(trial: Trial) -> Iterator[Problem]:
    """Terms of use; of a data set that reads files also where they lie and where to get them."""
    needed = ["terms"]
    if getattr(trial.component, "needs_root", False):
        needed += ["layout", "origin"]
    for name in needed:
        if not getattr(trial.component, name, "").strip():
            yield f"it says nothing about its {name}", f"Set the class attribute {name} to one line"


def options(trial: Trial) -> Iterator[Problem]:
    """Every option has a description, and every number a limit."""
    for name, entry in trial.component.Options.model_json_schema().get("properties", {}).items():
        if not entry.get("description", "").strip():
            yield (
                f"the option {name!r} has no description",
                f"Write {name} = Field(…, description=…): describe and the docs show it",
            )
        if any(_unlimited(part) for part in _parts(entry)):
            yield (
                f"the option {name!r} takes any number",
                f"Give it limits (ge, gt, le, lt) in its Field: a wrong {name} is refused then",
            )


def _parts(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A schema, its alternatives, and the entries of tuples of one length."""
    yield entry
    for part in (*entry.get("anyOf", ()), *entry.get("prefixItems", ())):
        yield from _parts(part)


def _unlimited(entry: Mapping[str, Any]) -> bool:
    number = entry.get("type") in ("integer", "number")
    return number and not ({"enum", "const"} | _LIMITS) & entry.keys()


def steady(fingerprint: Callable[[], object], advice: str) -> Iterator[Problem]:
    """Whether a fingerprint is a text, and the same when it is asked for again."""
    first, second = fingerprint(), fingerprint()
    if first != second or not isinstance(first, str) or not first:
        yield f"its fingerprint is {first!r}, then {second!r}", advice


def overrides(trial: Trial) -> Iterator[Problem]:
    """It overrides a method of the base class, and none of its own is nearly called as one."""
    component = trial.component
    hosts = [base for base in component.__mro__ if base.__module__.startswith("mia_bench.")]
    own = [base for base in component.__mro__[:-1] if base not in hosts]
    methods = {
        name for base in hosts for name, value in vars(base).items() if _is_method(name, value)
    }
    overridden = {name for base in own for name in vars(base)} & methods
    if not overridden and not getattr(component, "baseline", False):
        yield (
            f"it overrides no method of {hosts[0].__name__}, so that it changes nothing",
            f"Override one of {', '.join(sorted(methods))}",
        )
    for name, value in vars(component).items():
        if not _is_method(name, value) or name in methods:
            continue
        free = sorted(methods - overridden)
        near = difflib.get_close_matches(name.lower(), free, 1, 0.75)
        if near := near or [word for word in name.lower().split("_") if word in free]:
            yield (
                f"it has a method {name!r}",
                f"If that is meant to be {near[0]!r}, rename it; if not, begin its name with '_'",
            )


def _is_method(name: str, value: object) -> bool:
    return (callable(value) or isinstance(value, property)) and not (
        name.startswith("_") or isinstance(value, type)
    )


def light_import(trial: Trial) -> Iterator[Problem]:
    """Importing the plugin's module imports no torch: listing and cached runs stay fast."""
    if heavy := _heavy_imports(trial.module):
        yield (
            f"importing {trial.module} imports {heavy}",
            "Import it inside the functions that compute, or register 'package.module:Class'",
        )


@cache
def _heavy_imports(module: str) -> str:
    """Heavy modules that a fresh process has after it imported ``module``.

    Raises:
        NotMade: the module can't be imported there.
    """
    code = f"import sys, {module}; print(*({set(HEAVY)!r} & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if run.returncode:
        raise NotMade(f"{module} can't be imported on its own: {run.stderr.splitlines()[-1]}")
    return ", ".join(sorted(run.stdout.split()))


CHECKS: dict[str, Check] = {
    "summary": summary,
    "options": options,
    "overrides": overrides,
    "light-import": light_import,
}
"""Of every kind."""
