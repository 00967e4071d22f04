"""Checks that run a component, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from etils.epy import lazy_imports

from mia_bench.errors import Modified
from mia_bench.plugins import describe_error
from mia_bench.testing.checks import CheckSkipped, Problem, check
from mia_bench.testing.isolation import DATA_VARIABLE
from mia_bench.testing.trial import Attempt, Trial, Unsound, differing

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from mia_bench.models import snapshot


@check()
def runs(trial: Trial[Any]) -> Iterator[Problem]:
    """It runs in a toy world."""
    error = trial.base.error
    if error is not None and not trial.explains(error):
        yield f"{trial.action} raised {describe_error(error)}", f"See {trial.contract}"


@check("defense", "attack", "prior", "dataset", "metric", "model", "encoder")
def repeatable(trial: Trial[Any]) -> Iterator[Problem]:
    """Two runs with one seed give the same."""
    trial.require_exact()
    first, again = trial.outcome(trial.base.made), trial.outcome(trial.run())
    if names := differing(first, again, trial.tolerance):
        yield (
            f"two runs with one seed differ in {_list(names)}",
            trial.advice.get("repeatable", "Draw everything from the generator that it is given"),
        )


@check("defense", "attack", "prior", "model")
def seeded(trial: Trial[Any]) -> Iterator[Problem]:
    """Another seed changes what is drawn."""
    trial.require_exact()
    made, traces = trial.base.made, trial.first.traces
    if not (trial.follows_seed or traces.used_generator or traces.drew):
        return
    if not differing(trial.outcome(made), trial.outcome(trial.run(seed=1))):
        yield (
            "it draws, but another seed changes nothing",
            "Use the numbers that were drawn, and seed nothing yourself",
        )


@check("defense", "attack", "prior", "model")
def saved(trial: Trial[Any]) -> Iterator[Problem]:
    """Stored and restored it does the same."""
    made = trial.base.made
    attempt = Attempt.of(partial(trial.restored, made))
    advice = trial.advice["saved"]
    if attempt.error is not None:
        yield f"restoring raised {describe_error(attempt.error)}", advice
        return
    expected = {name: trial.outcome(made)[name] for name in attempt.made}
    if names := differing(expected, attempt.made, trial.tolerance_saved):
        yield f"stored and restored it differs in {_list(names)}", advice


@check()
def global_state(trial: Trial[Any]) -> Iterator[Problem]:
    """Global random generators and torch's settings stay as they are.

    Layers and their initialisation may draw from torch's global generator, which the host seeds; attacks,
    metrics, data sets and reporters may not.
    """
    traces = trial.first.traces
    for name in dict.fromkeys(traces.seeded):
        yield (
            f"it uses the global generator of {name}",
            "Draw from the generator that the task brings",
        )
    for method in () if trial.draws_globally else sorted(traces.drew):
        yield (
            f"{method} draws from torch's global generator",
            "Pass generator= to torch's functions; wrap what can't take one, such as the "
            "initialisation of layers, in mia_bench.seeds.seeded",
        )
    for name in traces.settings:
        yield f"it changes {name} for the whole process", "Put it back, or leave it alone"


@check("defense", "attack", "prior")
def private_data(trial: Trial[Any]) -> Iterator[Problem]:
    """Nothing is read below the data root."""
    if read := trial.first.traces.read:
        yield (
            f"it reads files below {DATA_VARIABLE}: {read[0]}",
            "Private data are no part of the threat model: use what the task brings",
        )


@check("attack", "metric")
def untouched(trial: Trial[Any]) -> Iterator[Problem]:
    """Networks and images that it is given stay as they are."""
    if isinstance(trial.base.error, Modified):
        yield str(trial.base.error), "Work on a copy (copy.deepcopy), in eval mode"
    yield from reported(trial, "untouched")


@check("defense", "attack", "metric")
def few_images(trial: Trial[Any]) -> Iterator[Problem]:
    """Two classes with one image each are enough."""
    yield from another_run(trial, "few-images", "with 2 classes of 1 image", small=True)


@check("defense", "attack", "prior", "model")
def bfloat16(trial: Trial[Any]) -> Iterator[Problem]:
    """It works under autocast to bfloat16."""
    yield from another_run(trial, "bfloat16", "in bfloat16", precision="bfloat16")


@check("defense", "attack", "prior", "metric", "model", "encoder")
def gpu(trial: Trial[Any]) -> Iterator[Problem]:
    """It works on a GPU, where there is one."""
    _ = trial.base.made
    yield from another_run(trial, "gpu", "on a GPU", device=gpu_device())


def another_run(trial: Trial[Any], name: str, when: str, **conditions: Any) -> Iterator[Problem]:
    """What is wrong under some conditions of :class:`~mia_bench.testing.trial.Run`, if the base runs."""
    _ = trial.base.made
    error = Attempt.of(partial(trial.run, **conditions)).error
    if isinstance(error, Unsound):
        yield f"{when} {error}", error.advice
    elif error is not None:
        yield f"{when} {trial.action} raised {describe_error(error)}", trial.advice[name]


def reported(trial: Trial[Any], name: str) -> Iterator[Problem]:
    """The problem that ended the base run, if it is one of this check."""
    error = trial.base.error
    if isinstance(error, Unsound) and error.check == name:
        yield str(error), error.advice


def changes(before: snapshot.Snapshot, model: nn.Module, what: str) -> Iterator[Problem]:
    """How a network has changed since."""
    if changed := before.changed(model):
        yield (
            f"it changes {what}: {', '.join(changed[:3])}",
            "Work on a copy (copy.deepcopy), or keep to forward passes in eval mode",
        )
    if before.mode_changed(model):
        yield f"it leaves {what} in another mode", "Leave train() and eval() alone"


def check_images(images: Tensor, shape: tuple[int, ...], what: str, name: str) -> None:
    """Check that images have a shape, and are uint8 or finite numbers in [0, 1].

    Raises:
        Unsound: they are not; the check ``name`` reports it.
    """
    if tuple(images.shape) != shape:
        problem, advice = f"are {tuple(images.shape)}, not {shape}", "Return that shape"
    elif images.dtype == torch.uint8:
        return
    elif not images.is_floating_point():
        problem, advice = f"are {images.dtype}", "Return uint8, or floats in [0, 1]"
    elif not bool(torch.isfinite(images).all()):
        problem, advice = "hold NaN or infinity", "Keep losses and steps finite"
    elif float(images.min()) < 0 or float(images.max()) > 1:
        problem = f"run from {float(images.min()):.3g} to {float(images.max()):.3g}"
        advice = "Keep them in [0, 1], by clamp(0, 1) say"
    else:
        return
    raise Unsound(name, f"{what} {problem}", advice)


def gpu_device() -> torch.device:
    """The first GPU.

    Raises:
        CheckSkipped: there is none.
    """
    if not torch.cuda.is_available():
        raise CheckSkipped("no CUDA GPU is here")
    return torch.device("cuda")


def _list(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")
