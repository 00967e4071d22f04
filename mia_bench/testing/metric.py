"""Checks of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, get_args

from etils.epy import lazy_imports

from mia_bench.api.metric import (
    AttackEvidence,
    AttackMetric,
    Direction,
    Measurement,
    TargetEvidence,
)
from mia_bench.errors import MiaBenchError, Modified
from mia_bench.plugins import describe_error
from mia_bench.statistics import estimate
from mia_bench.testing.checks import Problem, check
from mia_bench.testing.isolation import isolated
from mia_bench.testing.trial import Attempt, Run, Trial, differing

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor, nn

    from mia_bench.models import snapshot
    from mia_bench.protocol import measurement as protocol
    from mia_bench.testing import world as toy

Evidence = TargetEvidence | AttackEvidence
Computed = dict[str, Measurement | str]


class MetricTrial(Trial[Computed]):
    """A metric that measures the toy world."""

    action = "compute"
    contract = "mia_bench.TargetMetric and mia_bench.AttackMetric"
    draws_globally = False
    advice: ClassVar = {
        "repeatable": "Seed what draws: mia_bench.seeds.generator",
        "few-images": "Give the reason as a string where there are too few",
        "gpu": "Move batches to evidence.device, and values back to the CPU",
    }

    def compute(self, run: Run) -> Computed:
        """Measure fresh evidence."""
        return self.measure(self.evidence(run))

    def evidence(self, run: Run) -> Evidence:
        """What it measures; of a small world one reconstruction a class, and no validation images."""
        evidence: Evidence = run.world.target_evidence(run.device)
        if issubclass(self.component, AttackMetric):
            evidence = run.world.attack_evidence(run.device, 1 if run.small else 2)
        if run.small:
            evidence = replace(evidence, splits=toy.emptied(evidence.splits, "validation"))
        return evidence

    def measure(self, evidence: Evidence) -> Computed:
        """What a fresh instance gives.

        Raises:
            Modified: it changed the evidence.
        """
        splits, models, own = evidence.splits, {"target": evidence.target}, None
        if isinstance(evidence, AttackEvidence):
            models["evaluation model"], own = evidence.evaluation_model, evidence.images
        images = [splits.train.images, splits.validation.images, splits.test.images]
        images += [] if own is None else [own]
        before = [tensor.clone() for tensor in images]
        with protocol.assert_evidence_unmodified(models, splits, own):
            computed: Computed = self.make().compute(evidence)
        if not all(map(snapshot.equal, images, before)):  # through a view of NumPy, say
            raise Modified("it changes images")
        return computed

    def outcome(self, made: Computed) -> Mapping[str, Any]:
        """The values by name."""
        return {name: _values(given) for name, given in made.items()}

    def other_evidence(self, **changes: Any) -> Evidence:
        """Evidence in which something is replaced; what only metrics of attacks see is left out."""
        evidence = self.evidence(self.first)
        known = {name: value for name, value in changes.items() if hasattr(evidence, name)}
        return replace(evidence, **known)


def _values(given: object) -> Any:
    values = getattr(given, "values", given)
    return torch.as_tensor(values) if isinstance(values, np.ndarray) else values


@check("metric")
def names(trial: MetricTrial) -> Iterator[Problem]:
    """Every name has a direction and a description."""
    metric: Any = trial.component
    if not metric.names:
        yield "it names no metric", "Set the class attribute names: {'my_metric': 'lower'}"
    for name, direction in metric.names.items():
        if direction not in get_args(Direction):
            yield (
                f"the direction of {name!r} is {direction!r}",
                "Say what is better for the defender: higher, lower or neutral",
            )
        if not metric.descriptions.get(name, "").strip():
            yield f"{name!r} has no description", "Add one line to the attribute descriptions"


@check("metric", name="runs")
def promised(trial: MetricTrial) -> Iterator[Problem]:
    """It gives every name and no other."""
    given, promised = set(trial.base.made), set(trial.make().names)
    if given != promised:
        yield (
            f"it gives {sorted(given)}, its names are {sorted(promised)}",
            "Give each name, with the reason as a string where there is no number",
        )


@check("metric")
def measurements(trial: MetricTrial) -> Iterator[Problem]:
    """Values ``(N,)`` or ``(N, D)`` with a class each, and a finite statistic of them."""
    for name, measurement in trial.base.made.items():
        if isinstance(measurement, str):
            continue
        if not isinstance(measurement, Measurement):
            yield (
                f"{name!r} is {type(measurement).__name__}",
                "Give a mia_bench.Measurement of the samples, the host averages",
            )
        elif problem := _shape_problem(measurement):
            yield f"{name!r}: {problem}", "Give arrays: a row of values a sample, and its class"
        elif not np.isfinite(measurement.statistic(measurement.values)):
            yield f"{name!r} is not finite", "Give the reason as a string instead"


def _shape_problem(measurement: Measurement) -> str:
    values, groups = measurement.values, measurement.groups
    if not (isinstance(values, np.ndarray) and isinstance(groups, np.ndarray)):
        return "values and groups are no arrays of NumPy"
    if values.ndim not in (1, 2) or groups.shape != values.shape[:1]:
        return f"values are {values.shape}, groups {groups.shape}"
    if not np.issubdtype(groups.dtype, np.integer):
        return f"groups are {groups.dtype}, not integers"
    return ""


@check("metric")
def nan(trial: MetricTrial) -> Iterator[Problem]:
    """Where every network answers NaN there is no number, unless it depends on no network."""
    made, device = trial.base.made, trial.device
    broken = toy.NotANumber(toy.world().target(device)).eval()
    evidence = trial.other_evidence(
        target=broken, evaluation_model=broken, judge=broken, embed=_nan_embed
    )
    with isolated(9):
        other = toy.ToyNetwork(toy.world().classes).to(device).eval()
    untrained = trial.other_evidence(
        target=other, evaluation_model=other, judge=other, embed=_other_embed
    )

    def ignores_networks(name: str) -> bool:
        with isolated(0):
            changed = trial.measure(untrained)
        return name not in differing(trial.outcome(made), trial.outcome(changed))

    yield from _never_a_number(trial, evidence, "where every network answers NaN", ignores_networks)


def _nan_embed(images: Tensor) -> Tensor:
    return torch.full((len(images), toy.EMBEDDING), torch.nan, device=images.device)


def _other_embed(images: Tensor) -> Tensor:
    return nn.functional.normalize(images.flatten(1)[:, 100 : 100 + toy.EMBEDDING], dim=1)


def _numbers(computed: Computed) -> Iterator[tuple[str, float]]:
    """Names that have a number, and the number."""
    for name, measurement in computed.items():
        if isinstance(measurement, Measurement):
            attempt = Attempt.of(partial(estimate, measurement))
            if attempt.value is not None:
                yield name, attempt.value.value


def _never_a_number(
    trial: MetricTrial, evidence: Evidence, what: str, allowed: Callable[[str], bool]
) -> Iterator[Problem]:
    """Whether there is a number where there must be none."""
    with isolated(0):
        attempt = Attempt.of(lambda: trial.measure(evidence))
    if attempt.error is not None:
        if not isinstance(attempt.error, MiaBenchError):
            yield (
                f"{what} it raised {describe_error(attempt.error)}",
                "Give the reason as a string for each name, or raise a MiaBenchError",
            )
        return
    for name, value in _numbers(attempt.made):
        if not allowed(name):
            yield (
                f"{what} {name!r} is {value:.4g}, as if it had been measured",
                "Give the reason as a string, or values that are NaN",
            )


@check("metric")
def no_samples(trial: MetricTrial) -> Iterator[Problem]:
    """Without reconstructions or test images there is no number."""
    _ = trial.base.made
    evidence = trial.other_evidence()
    parts = ("test",) if isinstance(evidence, AttackEvidence) else ("train", "validation", "test")
    evidence = replace(evidence, splits=toy.emptied(evidence.splits, *parts))
    if isinstance(evidence, AttackEvidence) and evidence.gallery is not None:
        gallery, nothing = evidence.gallery, torch.empty(0)
        evidence = replace(
            evidence,
            images=evidence.images[:0],
            labels=evidence.labels[:0],
            gallery=replace(gallery, test=gallery.test[:0], verification=nothing),
        )
    yield from _never_a_number(trial, evidence, "without samples", lambda name: False)


@check("metric")
def no_encoder(trial: MetricTrial) -> Iterator[Problem]:
    """Without encoder and judge there are reasons; what needs neither is measured."""
    _ = trial.base.made
    if not issubclass(trial.component, AttackMetric):
        return
    missing = {"gallery": "no encoder"}
    evidence = trial.other_evidence(gallery=None, embed=None, judge=None, missing=missing)
    with isolated(0):
        attempt = Attempt.of(lambda: trial.measure(evidence))
    if attempt.error is not None:
        yield (
            f"without encoder and judge it raised {describe_error(attempt.error)}",
            "Give evidence.missing['gallery'] for each name where embed or gallery is None",
        )
    elif trial.component.needs_gallery and any(_numbers(attempt.made)):
        yield "it has needs_gallery, and numbers without an encoder", "Let needs_gallery be False"
