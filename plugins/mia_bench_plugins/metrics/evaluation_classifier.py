"""Attack accuracy and feature distance by the evaluation model.

It has another architecture than the target and was trained on the same private images. ``attack_acc1``
and ``attack_acc5`` are the shares of reconstructions with their class first, or among the first five
(Zhang et al., CVPR 2020).
``delta_eval`` is the *squared* L2 distance from a reconstruction to the nearest training image of its
class, in its penultimate features (Struppek et al., ICML 2022).
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.metric import AttackEvidence
from mia_bench.models.inference import extract_features, predict_probabilities

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.api.classifier import Classifier

LEAST_CEILING = 0.75
"""Share of real held-out images below which what recognises them is unfit to judge reconstructions."""


def nearest_squared_distances(
    features: Tensor, labels: Tensor, references: Tensor, reference_labels: Tensor
) -> Tensor:
    """Squared L2 distance ``(N,)`` from each row to the nearest reference of the same label.

    Args:
        features: ``(N, F)``.
        labels: ``(N,)``.
        references: ``(R, F)``.
        reference_labels: ``(R,)``; every label occurs.
    """
    nearest = torch.empty(len(features), dtype=torch.float64)
    for label in labels.unique():
        chosen = labels == label
        near = references[reference_labels == label].double()
        differences = features[chosen].double()[:, None] - near[None]
        nearest[chosen] = differences.square().sum(2).min(1).values
    return nearest


def attack_accuracies(
    prefix: str, model: Classifier, evidence: AttackEvidence
) -> dict[str, Measurement | str]:
    """``PREFIX_acc1`` and ``PREFIX_acc5`` of reconstructions, ``PREFIX_acc1_ceiling`` of test images."""
    test, labels = evidence.splits.test, evidence.labels
    probabilities = predict_probabilities(model, evidence.images, device=evidence.device)
    found: dict[str, Measurement | str] = {}
    for k in (1, 5):
        if k > 1 and k >= evidence.splits.num_classes:
            reason = f"top {k} of {evidence.splits.num_classes} classes says nothing"
            found[f"{prefix}_acc{k}"] = reason
            continue
        hits = (probabilities.topk(k, dim=1).indices == labels[:, None]).any(1)
        found[f"{prefix}_acc{k}"] = Measurement(hits.double().numpy(), labels.numpy())
    real = predict_probabilities(model, test.images, device=evidence.device).argmax(1)
    right = (real == test.labels).double()
    found[f"{prefix}_acc1_ceiling"] = Measurement(right.numpy(), test.labels.numpy())
    return found


leaked_share = partial(Quantity, better="lower", kind="share", role="leakage")
reference = partial(Quantity, kind="share", role="reference")
ceiling = partial(reference, unfit_below=LEAST_CEILING)


class EvaluationClassifier(AttackMetric):
    """Attack accuracy and feature distance by the track's evaluation model."""

    summary = "attack accuracy and feature distance by the evaluation model"
    paper = "Zhang et al., CVPR 2020; Struppek et al., ICML 2022"
    version = "1"
    quantities: ClassVar[dict[str, Quantity]] = {
        "attack_acc1": leaked_share(
            "share of reconstructions that the evaluation model assigns to their class",
            paired=True,
            ceiling="attack_acc1_ceiling",
        ),
        "attack_acc5": leaked_share(
            "share of reconstructions with their class among the evaluation model's first five",
            paired=True,
        ),
        "delta_eval": Quantity(
            "mean squared distance to the class's nearest training image, in the evaluation model's features",
            better="higher",
            kind="distance",
            role="leakage",
            paired=True,
        ),
        "attack_acc1_ceiling": ceiling("the evaluation model's accuracy on real held-out images"),
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Accuracies, and distances of features."""
        model, train, device = evidence.evaluation_model, evidence.splits.train, evidence.device
        distances = nearest_squared_distances(
            extract_features(model, evidence.images, device=device),
            evidence.labels,
            extract_features(model, train.images, device=device),
            train.labels,
        )
        return {
            **attack_accuracies("attack", model, evidence),
            "delta_eval": Measurement(distances.numpy(), evidence.labels.numpy()),
        }


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``evaluation-classifier``."""
    register("evaluation-classifier", EvaluationClassifier)
