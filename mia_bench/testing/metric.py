"""Checks of metrics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, get_args

from etils.epy import lazy_imports

from mia_bench.api.metric import (
    AttackEvidence,
    AttackMetric,
    Direction,
    Imitations,
    Kind,
    Measurement,
    Quantity,
    Role,
    TargetEvidence,
    mean,
)
from mia_bench.errors import MiaBenchError, Modified
from mia_bench.statistics import estimate
from mia_bench.testing.checks import Problem, check
from mia_bench.testing.isolation import isolated
from mia_bench.testing.trial import Run, Trial, attempt, differing

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor

    from mia_bench.models import snapshot
    from mia_bench.protocol import measurement as protocol
    from mia_bench.testing import world as toy

Evidence = TargetEvidence | AttackEvidence
Computed = dict[str, Measurement | str]


class MetricTrial(Trial[Computed]):
    """A metric that measures the toy world."""

    draws_globally = False
    advice: ClassVar = {
        "runs": "See mia_bench.TargetMetric and mia_bench.AttackMetric",
        "repeatable": "Seed what draws: mia_bench.seeds.generator",
        "no-encoder": "Give evidence.missing['gallery'] for each name where embed or gallery is None",
        "few-images": "Give the reason as a string where there are too few",
        "gpu": "Move batches to evidence.device, and values back to the CPU",
    }

    def compute(self, run: Run) -> Computed:
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
        """What a fresh instance computes.

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
        return {name: _values(given) for name, given in made.items()}

    def disturbed(self, change: Callable[[Tensor], Tensor]) -> Evidence:
        """Evidence whose networks and encoder compute something else."""
        evidence = self.evidence(self.first)
        networks: list[Any] = [evidence.target]
        if isinstance(evidence, AttackEvidence):
            networks += [evidence.evaluation_model, evidence.judge]
            evidence = replace(evidence, embed=lambda images: change(toy.embed(images)))
        for network in networks:
            network.blocks[0].register_forward_hook(lambda *passed: change(passed[2]))
        return evidence

    @check("metric")
    def names(self) -> Iterator[Problem]:
        """Every quantity has a description, and a known direction, kind, role, ceiling and ranks."""
        quantities: Mapping[str, Any] = self.component.quantities
        if not quantities:
            advice = "Set the class attribute quantities: {'my_quantity': Quantity('what it is')}"
            yield "it declares no quantity", advice
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
                problem = f"the ceiling of {name!r} is {quantity.ceiling!r}, which it does not declare"
                yield problem, "Name a quantity of the same metric"
            if quantity.ranks and quantity.ranks not in {one.per_image for one in quantities.values()}:
                problem = f"the ranks of {name!r} are {quantity.ranks!r}, which none of its quantities keeps"
                yield problem, "Name the per_image of a quantity of the same metric"

    @check("metric", name="runs")
    def promised(self) -> Iterator[Problem]:
        """It gives every quantity that it declares and no other."""
        given, promised = set(self.made), set(self.component.quantities)
        if given != promised:
            advice = "Give each, with the reason as a string where there is no number"
            yield f"it gives {sorted(given)}, but declares {sorted(promised)}", advice

    @check("metric")
    def measurements(self) -> Iterator[Problem]:
        """Values ``(N,)`` or ``(N, D)`` with a class each, and a finite statistic of them."""
        paired = {n for n, q in self.component.quantities.items() if getattr(q, "paired", False)}
        for name, given in self.made.items():
            if isinstance(given, str):
                continue
            if not isinstance(given, Measurement):
                advice = "Give a mia_bench.Measurement of the samples, the host averages"
                yield f"{name!r} is {type(given).__name__}", advice
                continue
            values, groups = np.asarray(given.values), np.asarray(given.groups)
            integers = np.issubdtype(groups.dtype, np.integer)
            if values.ndim not in (1, 2) or groups.shape != values.shape[:1] or not integers:
                found = f"values {values.shape}, groups {groups.shape} of {groups.dtype}"
                yield f"{name!r} has {found}", "Give a row of values a sample, and its class"
            elif not np.isfinite(given.statistic(values)):
                yield f"{name!r} is not finite", "Give the reason as a string instead"
            elif name in paired and (values.ndim != 1 or given.statistic is not mean):
                advice = "Set paired to False: boards would compare other numbers than tables show"
                yield f"{name!r} is paired, but not the mean of one value a sample", advice

    @check("metric")
    def nan(self) -> Iterator[Problem]:
        """Where every network answers NaN there is no number, unless it depends on no network."""
        made = self.outcome(self.made)
        with isolated(0):
            others = self.outcome(self.measure(self.disturbed(lambda rows: rows.flip(1))))
        evidence, depending = self.disturbed(lambda rows: rows * torch.nan), differing(made, others)
        yield from self._never_a_number(evidence, "where every network answers NaN", depending)

    def _never_a_number(self, evidence: Evidence, what: str, names: Collection[str]) -> Iterator[Problem]:
        """What is wrong where some names must have no number."""
        try:
            with isolated(0):
                computed = self.measure(evidence)
        except MiaBenchError:
            return
        advice = "Give the reason as a string, or values that are NaN"
        for name, value in _numbers(computed):
            if name in names:
                yield f"{what} {name!r} is {value:.4g}, as if it had been measured", advice

    @check("metric")
    def no_samples(self) -> Iterator[Problem]:
        """Without reconstructions or test images there is no number."""
        evidence, names = self.evidence(self.first), set(self.made)
        parts = ("test",) if isinstance(evidence, AttackEvidence) else ("train", "validation", "test")
        evidence = replace(evidence, splits=toy.emptied(evidence.splits, *parts))
        if isinstance(evidence, AttackEvidence) and evidence.gallery is not None:
            gallery, nothing = evidence.gallery, torch.empty(0)
            evidence = replace(
                evidence,
                images=evidence.images[:0],
                labels=evidence.labels[:0],
                gallery=replace(gallery, test=gallery.test[:0], verification=nothing),
                oracle=evidence.oracle and replace(evidence.oracle, **_nothing(evidence.oracle)),
            )
        yield from self._never_a_number(evidence, "without samples", names)

    @check("metric")
    def no_encoder(self) -> Iterator[Problem]:
        """Without encoder and judge there are reasons; what needs neither is measured."""
        _ = self.made
        evidence = self.evidence(self.first)
        if not isinstance(evidence, AttackEvidence):
            return
        missing = {"gallery": "no encoder"}
        with isolated(0):
            computed = self.measure(replace(evidence, gallery=None, embed=None, judge=None, missing=missing))
        if self.component.needs_gallery and any(_numbers(computed)):
            yield "needs_gallery is True, but it gives numbers without it", "Set needs_gallery to False"


def _nothing(imitations: Imitations) -> dict[str, Tensor]:
    return {name: tensor[:0] for name, tensor in vars(imitations).items()}


def _values(given: object) -> Any:
    values = getattr(given, "values", given)
    return torch.as_tensor(values) if isinstance(values, np.ndarray) else values


def _numbers(computed: Computed) -> Iterator[tuple[str, float]]:
    """Names that have a number, and the number."""
    for name, measurement in computed.items():
        if isinstance(measurement, Measurement):
            estimated, _ = attempt(partial(estimate, measurement))
            if estimated is not None:
                yield name, estimated.value
