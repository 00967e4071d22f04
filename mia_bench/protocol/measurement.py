"""The measurement: utility of a target, leakage of reconstructions, each number with its interval."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.encoder import Embed
from mia_bench.api.metric import (
    AttackEvidence,
    AttackMetric,
    Gallery,
    Imitations,
    Measurement,
    Quantity,
    TargetEvidence,
    TargetMetric,
)
from mia_bench.errors import MiaBenchError, Modified
from mia_bench.models.inference import predict_probabilities
from mia_bench.models.snapshot import Snapshot
from mia_bench.plugins import attribute_errors
from mia_bench.protocol import gallery
from mia_bench.protocol.context import Context
from mia_bench.protocol.data import present_parts
from mia_bench.protocol.target import Target
from mia_bench.seeds import seeded
from mia_bench.statistics import Estimate, class_means, estimate, point_estimate

EXAMPLES = 4
"""Private training images of each class kept beside the reconstructions, for pictures."""


@dataclass
class Measured:
    """Numbers of a target or a cell.

    Attributes:
        values: each quantity by its name, None where it could not be computed.
        notes: by quantity, the reason why it is None or in doubt; what else is in doubt.
        per_class: class means of the quantities that boards compare class by class.
        class_counts: samples of each class, of those of them whose classes have not equally many.
        per_image: the value of each sample, class by class, by the name that a quantity gives them.
        sources: by quantity, what gave it.
    """

    values: dict[str, Estimate | None] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    per_class: dict[str, list[float]] = field(default_factory=dict)
    class_counts: dict[str, list[int]] = field(default_factory=dict)
    per_image: dict[str, list[list[float]]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def add(self, source: str, name: str, value: Estimate | str) -> None:
        """Add a quantity, or the reason why there is none.

        Raises:
            MiaBenchError: another source gave it; names both.
        """
        if name in self.sources:
            raise MiaBenchError(f"{name!r} is given twice: by {self.sources[name]} and by {source}")
        self.sources[name] = source
        if isinstance(value, Estimate) and not value.is_sound:
            value = f"not a number with an interval: {value.value} [{value.low}, {value.high}], n = {value.n}"
        if isinstance(value, str):
            self.values[name], self.notes[name] = None, value
        else:
            self.values[name] = value

    def keep_classes(self, name: str, quantity: Quantity, measurement: Measurement) -> None:
        """Keep of each class what the quantity says that records keep; nothing where it has no value."""
        if self.values[name] is None or not (quantity.paired or quantity.per_image):
            return
        samples = _by_class(measurement)
        if quantity.paired:
            self.per_class[name] = [round(value, 6) for value in class_means(measurement)]
            if len(set(map(len, samples))) > 1:
                self.class_counts[name] = list(map(len, samples))
        if quantity.per_image:
            self.per_image[quantity.per_image] = samples


def measure_target(
    metrics: Mapping[str, TargetMetric], target: Target, splits: Splits, context: Context
) -> Measured:
    """The target's utility.

    Args:
        metrics: by the words that name each in errors.
        context: seed of the track, device.

    Raises:
        MiaBenchError: a metric fails, modifies what it is shown, or gives what it does not declare.
    """
    measured = Measured()
    evidence = TargetEvidence(target.deployed, splits, target.draws, context.device)
    for source, metric in metrics.items():
        with seeded(context.seed, "assess"):
            _compute(measured, source, metric, evidence, {"target": target.deployed})
    return measured


def measure_reconstructions(
    metrics: Mapping[str, AttackMetric], evidence: AttackEvidence, measured: Measured, *, seed: int
) -> None:
    """Add the leakage that reconstructions show to what was measured of the target.

    Arguments and errors as of :func:`measure_target`.
    """
    models = {"target": evidence.target, "evaluation model": evidence.evaluation_model}
    for source, metric in metrics.items():
        with seeded(seed, "measure"):
            _compute(measured, source, metric, evidence, models, evidence.images)
        for name, quantity in metric.quantities.items():
            if (value := measured.values[name]) and (doubt := quantity.doubt(name, value.value)):
                measured.notes[name] = doubt
    if evidence.gallery is not None and (lines := gallery.doubts(evidence.splits)):
        measured.notes["gallery"] = "; ".join(lines)


def add_report(measured: Measured, report: Mapping[str, float | str], source: str) -> None:
    """Add what a defense reports of its training: numbers without an interval, or reasons.

    Raises:
        MiaBenchError: a metric gave one of them; names both.
    """
    for name, value in report.items():
        known = value if isinstance(value, str) else Estimate(value, value, value, 1)
        measured.add(source, name, known)


@dataclass(frozen=True)
class Instruments:
    """What reconstructions are measured with; none of it knows the target.

    Attributes:
        evaluation_model: classifier of the private classes.
        judge: classifier trained on images of its own; None where the data set keeps none.
        gallery, embed: the gallery and the identity encoder that made it; None where it is missing.
        missing: by instrument, the reason why it is missing.
        oracle: imitations of test images by the prior, for the metrics that need them.
        weights: folder of weight files, if one is configured.
    """

    evaluation_model: Classifier
    judge: Classifier | None = None
    gallery: Gallery | None = None
    embed: Embed | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    oracle: Imitations | None = None
    weights: Path | None = None


def attack_evidence(
    reconstructions: Tensor,
    target: Target,
    splits: Splits,
    instruments: Instruments,
    device: torch.device,
    diagnostics: Mapping[str, Tensor] | None = None,
) -> AttackEvidence:
    """What metrics of an attack see of reconstructions ``(K, M, 3, H, W)`` of the first K classes.

    ``diagnostics``: what the attack says of its steps.
    """
    classes, each = reconstructions.shape[:2]
    return AttackEvidence(
        images=reconstructions.flatten(0, 1),
        labels=torch.arange(classes).repeat_interleave(each),
        target=target.deployed,
        draws=target.draws,
        splits=splits,
        device=device,
        diagnostics=diagnostics or {},
        **vars(instruments),
    )


def picture_tensors(evidence: AttackEvidence, shape: torch.Size, *, seed: int) -> dict[str, Tensor]:
    """What the picture of a cell shows beside the reconstructions: examples, and what the models say.

    See :meth:`mia_bench.cell.FinishedCell.arrays`.

    Args:
        shape: of the reconstructions, ``(K, M, …)``.
        seed: of the track.
    """
    images, labels, device = evidence.images, evidence.labels, evidence.device
    classes, each = shape[:2]
    with seeded(seed, "answers"):
        probabilities = predict_probabilities(evidence.target, images, device=device, draws=evidence.draws)
    predicted = predict_probabilities(evidence.evaluation_model, images, device=device).argmax(1)
    return {
        "classes": torch.arange(classes),
        "examples": _examples(evidence.splits.train, classes),
        "target_confidence": probabilities[torch.arange(len(labels)), labels].view(classes, each),
        "judged": predicted.view(classes, each),
    }


def _compute(
    measured: Measured,
    source: str,
    metric: TargetMetric | AttackMetric,
    evidence: Any,
    models: Mapping[str, nn.Module],
    images: Tensor | None = None,
) -> None:
    """Compute one metric, which must modify neither models nor images, and add what it gives."""
    with attribute_errors(source, all_errors=True):
        with assert_evidence_unmodified(models, evidence.splits, images):
            computed: dict[str, Measurement | str] = metric.compute(evidence)
        for name in computed:
            if name not in metric.quantities:
                raise MiaBenchError(f"it gives {name!r}, which is not among its quantities")
        for name, quantity in metric.quantities.items():
            value = computed.get(name, "the metric did not give it")
            compute = (
                partial(estimate, share=quantity.kind == "share") if quantity.interval else point_estimate
            )
            try:
                measured.add(source, name, value if isinstance(value, str) else compute(value))
            except ValueError as error:  # no samples, NaN: never a number
                measured.add(source, name, str(error))
            if isinstance(value, Measurement):
                measured.keep_classes(name, quantity, value)


def _by_class(measurement: Measurement) -> list[list[float]]:
    """The values of each class's samples, in the order of the classes; whole numbers as integers."""
    _, members = np.unique(measurement.groups, return_inverse=True)
    samples: list[list[float]] = [[] for _ in range(int(members.max()) + 1)]
    for member, value in zip(members, np.round(measurement.values, 6).tolist(), strict=True):
        samples[member].append(int(value) if value.is_integer() else value)
    return samples


@contextlib.contextmanager
def assert_evidence_unmodified(
    models: Mapping[str, nn.Module], splits: Splits, images: Tensor | None = None
) -> Iterator[None]:
    """Check that networks and images are the same afterwards.

    Raises:
        Modified: names what is not.
    """
    before = {name: Snapshot.of(model) for name, model in models.items()}
    tensors = [part.images for part in present_parts(splits).values()]
    tensors += [images] if images is not None else []
    versions = [tensor._version for tensor in tensors]  # torch counts changes in place
    yield
    changed = [f"{what} of the {n}" for n, model in models.items() for what in before[n].changed(model)]
    if [tensor._version for tensor in tensors] != versions:
        changed.append("images")
    if changed:
        raise Modified(f"it changes {changed[0]}")


def _examples(train: ImageSet, classes: int) -> Tensor:
    """The first :data:`EXAMPLES` training images of each class, repeated where there are fewer."""
    rows = []
    for label in range(classes):
        index = (train.labels == label).nonzero().flatten()
        rows.append(train.images[index[torch.arange(EXAMPLES) % len(index)]])
    return torch.stack(rows)
