"""Checks that run nothing: words, options, names of methods, a light import."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from mia_bench.api.options import parse_options
from mia_bench.errors import MiaBenchError
from mia_bench.plugins import host
from mia_bench.registry import BASES
from mia_bench.testing.checks import CheckSkipped, Problem, check
from mia_bench.testing.trial import Trial

HEAVY = ("torch", "torchvision", "tensorflow", "jax")
"""What importing a plugin must not import."""

_LIMITS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})


@check(*BASES)
def summary(trial: Trial[Any]) -> Iterator[Problem]:
    """A summary of one line with at most 100 characters."""
    text = trial.component.summary
    if not text.strip():
        yield "it has no summary", "Set the class attribute summary to one line"
    elif "\n" in text or len(text) > 100:
        yield "its summary is too long for a list", "Keep it to one line of at most 100 characters"


@check("defense", "attack", "prior")
def paper(trial: Trial[Any]) -> Iterator[Problem]:
    """It names the paper that it implements; baselines and references have none."""
    component = trial.component
    exempt = getattr(component, "baseline", False) or getattr(component, "reference", "")
    if not component.paper.strip() and not exempt:
        advice = "Set the class attribute paper: authors, venue and arXiv number, or 'unpublished'"
        yield "it names no paper", advice


@check("defense")
def baselines(trial: Trial[Any]) -> Iterator[Problem]:
    """``front_options`` are options of a baseline; ``matched`` is an installed baseline, or the defense."""
    component = trial.component
    if component.front_options and not component.baseline:
        yield "it has front_options and is no baseline", "Set baseline to True, or leave front_options out"
    for name in component.front_options:
        if name not in component.Options.model_fields:
            advice = "Name options that make the target less accurate, such as fewer epochs"
            yield f"front_options names {name!r}, which is no option", advice
    if component.matched is None:
        return
    name, options = component.matched
    try:
        other = host().registry.get("defense", name).load()
        parse_options(name, other.Options, options)
    except MiaBenchError as error:
        yield (
            f"matched: {error}",
            "Name an installed baseline, or the defense itself, and options that it has",
        )
    else:
        if not other.baseline and other is not component:
            advice = "Name a defense with baseline = True, or the defense itself"
            yield f"matched names {name!r}, which is no baseline", advice


@check("defense")
def strengths(trial: Trial[Any]) -> Iterator[Problem]:
    """``strengths`` are options with values that they accept."""
    component = trial.component
    for name, values in component.strengths.items():
        for value in values:
            try:
                parse_options(component.__name__, component.Options, {name: value})
            except MiaBenchError as error:
                yield f"strengths: {error}", "Name options, each with the values for `mia-bench sweep`"
                break


@check("dataset", "encoder")
def terms(trial: Trial[Any]) -> Iterator[Problem]:
    """It states its terms of use; a data set also where its files lie and where to get them."""
    files = ("layout", "origin") if getattr(trial.component, "needs_root", False) else ()
    for name in ("terms", *files):
        if not getattr(trial.component, name, "").strip():
            yield f"it does not state its {name}", f"Set the class attribute {name} to one line"


@check(*BASES)
def options(trial: Trial[Any]) -> Iterator[Problem]:
    """Every option has a description, and every number a limit."""
    for name, entry in trial.component.Options.model_json_schema().get("properties", {}).items():
        if not entry.get("description", "").strip():
            advice = f"Write {name} = Field(…, description=…): `mia-bench describe` shows it"
            yield f"the option {name!r} has no description", advice
        if any(_unlimited(part) for part in _parts(entry)):
            advice = f"Set limits (ge, gt, le, lt) in its Field, so that a wrong {name} is refused"
            yield f"the option {name!r} takes any number", advice


def _parts(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A schema, its alternatives, and the entries of tuples of a fixed length."""
    yield entry
    for part in (*entry.get("anyOf", ()), *entry.get("prefixItems", ())):
        yield from _parts(part)


def _unlimited(entry: Mapping[str, Any]) -> bool:
    number = entry.get("type") in ("integer", "number")
    return number and not ({"enum", "const"} | _LIMITS) & entry.keys()


@check(*BASES)
def overrides(trial: Trial[Any]) -> Iterator[Problem]:
    """It overrides a method of the base class, and no other method's name is nearly that of one."""
    component = trial.component
    hosts = [base for base in component.__mro__ if base.__module__.startswith("mia_bench.")]
    own = [base for base in component.__mro__[:-1] if base not in hosts]
    methods = {name for base in hosts for name, value in vars(base).items() if _is_method(name, value)}
    overridden = {name for base in own for name in vars(base)} & methods
    if not overridden and not getattr(component, "baseline", False):
        problem = f"it overrides no method of {hosts[0].__name__}, so it changes nothing"
        yield problem, f"Override one of {', '.join(sorted(methods))}"
    for name, value in vars(component).items():
        if not _is_method(name, value) or name in methods:
            continue
        free = sorted(methods - overridden)
        near = difflib.get_close_matches(name.lower(), free, 1, 0.75)
        if near := near or [word for word in name.lower().split("_") if word in free]:
            advice = f"Rename it to {near[0]!r} if it is meant to be that; else let its name begin with '_'"
            yield f"it has a method {name!r}", advice


def _is_method(name: str, value: object) -> bool:
    return (callable(value) or isinstance(value, property)) and not (
        name.startswith("_") or isinstance(value, type)
    )


@check()
def light_import(trial: Trial[Any]) -> Iterator[Problem]:
    """Importing the plugin's module imports no torch, so that listing and cached runs stay fast."""
    if heavy := _heavy_imports(trial.module):
        yield (
            f"importing {trial.module} imports {heavy}",
            "Import it in a `with lazy_imports():` block (from mia_bench import lazy_imports), or register "
            "'package.module:Class'",
        )


@cache
def _heavy_imports(module: str) -> str:
    """Names of the heavy modules that importing ``module`` imports in a fresh process.

    Raises:
        CheckSkipped: the module can't be imported there.
    """
    code = f"import sys, {module}; print(*({set(HEAVY)!r} & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if run.returncode:
        raise CheckSkipped(f"{module} can't be imported on its own: {run.stderr.splitlines()[-1]}")
    return ", ".join(sorted(run.stdout.split()))
