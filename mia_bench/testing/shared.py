"""Checks that run a component, whatever its kind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from etils.epy import lazy_imports

from mia_bench.errors import DataError, Unavailable
from mia_bench.plugins import describe_error
from mia_bench.testing.checks import CheckSkipped, Problem, check, check_run
from mia_bench.testing.isolation import DATA_VARIABLE, isolated
from mia_bench.testing.trial import Trial, attempt, differing

with lazy_imports():
    import torch

NETWORKS = ("defense", "attack", "prior", "model")
"""Kinds that compute with networks."""


@check("dataset", "encoder")
def missing_files(trial: Trial[Any]) -> Iterator[Problem]:
    """Where its files are missing, ``fingerprint`` raises an error of one line that says so.

    A data set raises a DataError, an encoder whose weights are missing Unavailable.
    """
    reads_root = getattr(trial.component, "needs_root", None)
    if reads_root is False:
        return
    wanted = DataError if reads_root else Unavailable
    with tempfile.TemporaryDirectory() as empty, isolated(0):
        for folder in (Path(empty),) if reads_root else (Path(empty), None):
            _, error = attempt(partial(trial.make().fingerprint, folder))
            if isinstance(error, wanted) and "\n" in str(error):
                yield "its error has several lines", "Write it as one line"
            elif not isinstance(error, wanted) and (error or reads_root):
                what = describe_error(error) if error else "nothing"
                advice = f"Raise mia_bench.errors.{wanted.__name__}, and say where files must lie"
                yield f"without files fingerprint raises {what}", advice


check_run("runs", "It runs in a toy world.")


@check("dataset", "encoder", name="runs")
def fingerprint(trial: Trial[Any]) -> Iterator[Problem]:
    """Its fingerprint is a string, and always the same."""
    _ = trial.made
    folder = trial.data if hasattr(trial.component, "needs_root") else trial.weights
    first, second = (trial.make().fingerprint(folder) for _ in range(2))
    if first != second or not isinstance(first, str) or not first:
        yield f"its fingerprint is {first!r}, then {second!r}", "Return a hash of what is read"


@check("defense", "attack", "prior", "dataset", "metric", "model", "encoder")
def repeatable(trial: Trial[Any]) -> Iterator[Problem]:
    """Two runs with one seed give the same."""
    trial.require_exact()
    first, again = trial.outcome(trial.made), trial.outcome(trial.run())
    if names := differing(first, again, trial.tolerance):
        yield f"two runs with one seed differ in {_list(names)}", trial.advice["repeatable"]


@check(*NETWORKS)
def seeded(trial: Trial[Any]) -> Iterator[Problem]:
    """Another seed changes what is drawn."""
    trial.require_exact()
    made, traces = trial.outcome(trial.made), trial.first.traces
    draws = trial.follows_seed or traces.used_generator or traces.drew
    if draws and not differing(made, trial.outcome(trial.run(seed=1))):
        advice = "Use the numbers that it draws, and seed nothing yourself"
        yield "it draws, but another seed changes nothing", advice


@check(*NETWORKS)
def saved(trial: Trial[Any]) -> Iterator[Problem]:
    """Stored and restored it does the same."""
    made = trial.made
    restored = trial.restored(made)
    expected = {name: trial.outcome(made)[name] for name in restored}
    if names := differing(expected, restored, trial.tolerance_saved):
        yield f"stored and restored it differs in {_list(names)}", trial.advice["saved"]


@check()
def global_state(trial: Trial[Any]) -> Iterator[Problem]:
    """Global random generators and torch's settings stay as they are.

    Layers and their initialisation may draw from torch's global generator, which the host seeds; attacks,
    metrics, data sets and reporters may not.
    """
    traces = trial.first.traces
    advice = (
        "Draw from the generator that the task brings; wrap what takes none, such as the initialisation of "
        "layers, in mia_bench.seeds.seeded"
    )
    for name in dict.fromkeys(traces.seeded):
        yield f"it uses the global generator of {name}", advice
    for method in () if trial.draws_globally else sorted(traces.drew):
        yield f"{method} draws from torch's global generator", advice
    for name in traces.settings:
        yield f"it changes {name} for the whole process", "Restore it, or leave it alone"


@check("defense", "attack", "prior")
def private_data(trial: Trial[Any]) -> Iterator[Problem]:
    """Nothing is read below the data root."""
    if read := trial.first.traces.read:
        advice = "Private data are outside the threat model: use what the task brings"
        yield f"it reads files below {DATA_VARIABLE}: {read[0]}", advice


check_run("untouched", "Networks and images that it is given stay as they are.", "attack", "metric")

check_run(
    "few-images", "Two classes with one image each are enough.", "defense", "attack", "metric", small=True
)

check_run("bfloat16", "It works under autocast to bfloat16.", *NETWORKS, precision="bfloat16")


@check("defense", "attack", "prior", "metric", "model", "encoder")
def gpu(trial: Trial[Any]) -> None:
    """It works on a GPU, where there is one."""
    trial.rerun(device=gpu_device())


def gpu_device() -> torch.device:
    """The first GPU.

    Raises:
        CheckSkipped: there is none.
    """
    if not torch.cuda.is_available():
        raise CheckSkipped("there is no CUDA GPU")
    return torch.device("cuda")


def _list(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")
