"""Checks of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from mia_bench.api.classifier import Activations, Classifier
from mia_bench.api.metric import (
    AttackEvidence,
    AttackMetric,
    Direction,
    Kind,
    Measurement,
    Quantity,
    Role,
    TargetEvidence,
    mean,
)
from mia_bench.errors import MiaBenchError
from mia_bench.models.snapshot import Snapshot, equal
from mia_bench.plugins import describe_error
from mia_bench.statistics import estimate
from mia_bench.testing.findings import Attempt, Check, Problem, raises
from mia_bench.testing.isolation import TracedTrial, changes, gpu_device, isolated
from mia_bench.testing.world import World, emptied, without, world

Evidence = TargetEvidence | AttackEvidence
Computed = dict[str, Measurement | str]

_PARTS = ("train", "validation", "test")


class NotANumber(Classifier):
    """A network whose every answer is NaN."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def activations(self, images: Tensor) -> Activations:
        """What the network says, times NaN."""
        made = self.network.activations(images)
        return Activations(made.logits * torch.nan, made.features * torch.nan, ())


def _nan_embed(images: Tensor) -> Tensor:
    return torch.full((len(images), 12), torch.nan, device=images.device)


class MetricTrial(TracedTrial):
    """A metric that measures the toy world."""

    @property
    def of_attacks(self) -> bool:
        """Whether it measures reconstructions."""
        return issubclass(self.component, AttackMetric)

    @cached_property
    def evidence(self) -> Evidence:
        """Of :attr:`base`."""
        return self.see(world(), self.device)

    @cached_property
    def before(self) -> dict[str, Snapshot]:
        """The networks of :attr:`evidence` as they were."""
        return {name: Snapshot.of(network) for name, network in _networks(self.evidence).items()}

    @cached_property
    def base(self) -> Attempt[Computed]:
        """The first measurement."""
        _ = self.before
        return Attempt.of(lambda: self.compute(self.evidence))

    def see(self, where: World, device: torch.device, each: int = 2) -> Evidence:
        """Evidence of the kind that it asks for."""
        if self.of_attacks:
            return where.attack_evidence(device, each)
        return where.target_evidence(device)

    def compute(self, evidence: Evidence) -> Computed:
        """Measure, as the host does."""
        with self.traced(0):
            computed: Computed = self.make().compute(evidence)
        return computed


def _networks(evidence: Evidence) -> dict[str, nn.Module]:
    found = {"the target": evidence.target}
    if isinstance(evidence, AttackEvidence):
        found["the evaluation model"] = evidence.evaluation_model
    return found


def names(trial: MetricTrial) -> Iterator[Problem]:
    """Every quantity has a description, a direction, a kind and a role that are known."""
    quantities: Any = trial.component.quantities
    if not quantities:
        yield (
            "it declares no quantity",
            "Set the class attribute quantities: {'my_quantity': Quantity('what it is')}",
        )
    for name, quantity in quantities.items():
        if not isinstance(quantity, Quantity):
            yield f"{name!r} is {quantity!r}", "Declare it as a mia_bench.Quantity"
            continue
        if not quantity.description.strip():
            yield f"{name!r} has no description", "Add one line of words"
        for word, known in (("better", Direction), ("kind", Kind), ("role", Role)):
            if (value := getattr(quantity, word)) not in get_args(known):
                yield f"{word} of {name!r} is {value!r}", f"Use one of {', '.join(get_args(known))}"
        if quantity.ceiling and quantity.ceiling not in quantities:
            yield (
                f"the ceiling of {name!r} is {quantity.ceiling!r}, which it does not declare",
                "Name a quantity of the same metric",
            )


def runs(trial: MetricTrial) -> Iterator[Problem]:
    """It gives every quantity that it declares and no other."""
    if trial.base.error is not None:
        yield f"compute raised {describe_error(trial.base.error)}", "See the contract of Metric"
        return
    given, promised = set(trial.base.made), set(trial.make().quantities)
    if given != promised:
        yield (
            f"it gives {sorted(given)}, its quantities are {sorted(promised)}",
            "Give each name, with the reason as a string where there is no number",
        )


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
        elif _paired(trial, name) and not _is_mean(measurement):
            yield (
                f"{name!r} is paired, but not the mean of one value a sample",
                "Let paired be False: boards would compare other numbers than the tables show",
            )


def _paired(trial: MetricTrial, name: str) -> bool:
    quantity: Quantity | None = trial.component.quantities.get(name)
    return quantity is not None and quantity.paired


def _is_mean(measurement: Measurement) -> bool:
    return measurement.values.ndim == 1 and measurement.statistic is mean


def _shape_problem(measurement: Measurement) -> str:
    values, groups = measurement.values, measurement.groups
    if not (isinstance(values, np.ndarray) and isinstance(groups, np.ndarray)):
        return "values and groups are no arrays of NumPy"
    if values.ndim not in (1, 2) or groups.shape != values.shape[:1]:
        return f"values are {values.shape}, groups {groups.shape}"
    if not np.issubdtype(groups.dtype, np.integer):
        return f"groups are {groups.dtype}, not integers"
    return ""


def untouched(trial: MetricTrial) -> Iterator[Problem]:
    """Networks and images stay as they are."""
    _ = trial.base
    for name, network in _networks(trial.evidence).items():
        yield from changes(trial.before[name], network, name)
    fresh = trial.see(world(), trial.device)
    pairs = [(getattr(trial.evidence.splits, p), getattr(fresh.splits, p)) for p in _PARTS]
    changed = any(not equal(seen.images, new.images) for seen, new in pairs)
    if isinstance(trial.evidence, AttackEvidence) and isinstance(fresh, AttackEvidence):
        changed |= not equal(trial.evidence.images, fresh.images)
    if changed:
        yield "it changes the images it is given", "Work on a copy"


def repeatable(trial: MetricTrial) -> Iterator[Problem]:
    """The same evidence gives the same numbers."""
    trial.to_the_bit()
    first, again = trial.base.made, trial.compute(trial.see(world(), trial.device))
    for name, measurement in first.items():
        if not _same(measurement, again.get(name)):
            yield f"{name!r} differs the second time", "Seed what draws: mia_bench.seeds.generator"


def _same(first: object, second: object) -> bool:
    if isinstance(first, Measurement) and isinstance(second, Measurement):
        return np.array_equal(first.values, second.values, equal_nan=True)
    return first == second


def global_state(trial: MetricTrial) -> Iterator[Problem]:
    """No global generator is drawn from or seeded, and no setting of torch is changed."""
    yield from trial.traces.problems(draws=True)


def _scores(computed: Computed) -> Iterator[tuple[str, float]]:
    """Names that have a number, and the number."""
    for name, measurement in computed.items():
        if isinstance(measurement, Measurement):
            attempt = Attempt.of(partial(estimate, measurement))
            if attempt.value is not None:
                yield name, attempt.value.value


def _never_a_score(
    trial: MetricTrial, evidence: Evidence, what: str, allowed: Callable[[str], bool]
) -> Iterator[Problem]:
    """Whether there is a number where there must be none."""
    attempt = Attempt.of(lambda: trial.compute(evidence))
    if attempt.error is not None:
        if not isinstance(attempt.error, MiaBenchError):
            yield (
                f"{what} it raised {describe_error(attempt.error)}",
                "Give the reason as a string for each name, or raise a MiaBenchError",
            )
        return
    for name, value in _scores(attempt.made):
        if not allowed(name):
            yield (
                f"{what} {name!r} is {value:.4g}, as if it had been measured",
                "Give the reason as a string, or values that are NaN",
            )


def nan(trial: MetricTrial) -> Iterator[Problem]:
    """Where every network answers NaN there is no number, unless it depends on no network."""
    _ = trial.base.made
    evidence = trial.see(world(), trial.device)
    broken: dict[str, Any] = {"target": _broken(evidence.target)}
    if isinstance(evidence, AttackEvidence):
        judge = _broken(evidence.evaluation_model)
        broken |= {"evaluation_model": judge, "judge": judge, "embed": _nan_embed}
    yield from _never_a_score(
        trial,
        replace(evidence, **broken),
        "where every network answers NaN",
        lambda name: _ignores_networks(trial, name),
    )


def _broken(network: nn.Module) -> NotANumber:
    assert isinstance(network, Classifier)
    return NotANumber(network).eval()


def _ignores_networks(trial: MetricTrial, name: str) -> bool:
    """Whether a number stays when the networks are untrained ones: it does not depend on them."""
    evidence = trial.see(world(), trial.device)
    with isolated(9):
        other: Any = world().network().to(trial.device).eval()
    changes: dict[str, Any] = {"target": other}
    if isinstance(evidence, AttackEvidence):
        changes |= {"evaluation_model": other, "judge": other, "embed": _other_embed}
    changed = trial.compute(replace(evidence, **changes))
    return _same(trial.base.made[name], changed.get(name))


def _other_embed(images: Tensor) -> Tensor:
    return nn.functional.normalize(images.flatten(1)[:, 100:112], dim=1)


def no_samples(trial: MetricTrial) -> Iterator[Problem]:
    """Without reconstructions or test images there is no number."""
    _ = trial.base.made
    evidence = trial.see(world(), trial.device)
    if isinstance(evidence, AttackEvidence):
        assert evidence.gallery is not None
        nothing = torch.empty(0)
        evidence = replace(
            evidence,
            images=evidence.images[:0],
            labels=evidence.labels[:0],
            splits=emptied(evidence.splits, "test"),
            gallery=replace(evidence.gallery, test=evidence.gallery.test[:0], verification=nothing),
        )
    else:
        evidence = replace(evidence, splits=emptied(evidence.splits, *_PARTS))
    yield from _never_a_score(trial, evidence, "without samples", lambda name: False)


def no_encoder(trial: MetricTrial) -> Iterator[Problem]:
    """Without encoder and judge there are reasons; what needs neither is measured."""
    _ = trial.base.made
    evidence = trial.see(world(), trial.device)
    if not isinstance(evidence, AttackEvidence):
        return
    reason = "no encoder"
    without_both = replace(
        evidence, gallery=None, embed=None, judge=None, missing={"gallery": reason}
    )
    attempt = Attempt.of(lambda: trial.compute(without_both))
    metric: Any = trial.component
    if attempt.error is not None:
        yield (
            f"without encoder and judge it raised {describe_error(attempt.error)}",
            "Give evidence.missing['gallery'] for each name where embed or gallery is None",
        )
    elif metric.needs_gallery and any(_scores(attempt.made)):
        yield "it has needs_gallery, and numbers without an encoder", "Let needs_gallery be False"


def few_images(trial: MetricTrial) -> Iterator[Problem]:
    """Two classes with one image each are measured."""
    _ = trial.base.made
    where = world(2, 1)
    evidence = trial.see(where, trial.device, each=1)
    evidence = replace(
        evidence, splits=replace(evidence.splits, validation=without(evidence.splits.validation))
    )
    yield from raises(
        lambda: trial.compute(evidence),
        "with 2 classes of 1 image it",
        "Give the reason as a string where there are too few",
    )


def gpu(trial: MetricTrial) -> Iterator[Problem]:
    """It measures networks on a GPU; images come and values go on the CPU."""
    _ = trial.base.made
    device = gpu_device()
    yield from raises(
        lambda: trial.compute(trial.see(world(), device)),
        "on a GPU it",
        "Move batches to evidence.device, and values back to the CPU",
    )


TRIAL = MetricTrial

CHECKS: dict[str, Check] = {
    "names": names,
    "runs": runs,
    "measurements": measurements,
    "untouched": untouched,
    "repeatable": repeatable,
    "global-state": global_state,
    "nan": nan,
    "no-samples": no_samples,
    "no-encoder": no_encoder,
    "few-images": few_images,
    "gpu": gpu,
}
