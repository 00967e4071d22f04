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

from mia_bench import AttackMetric, Measurement, Quantity, hookimpl, lazy_imports
from mia_bench.api.metric import AttackEvidence
from mia_bench.hookspecs import Register
from mia_bench.models.inference import extract_features, predict_probabilities

with lazy_imports():
    import torch
    from torch import Tensor


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


_leaked_share = partial(Quantity, better="lower", kind="share", role="leakage")
_reference = partial(Quantity, kind="share", role="reference")


class EvaluationClassifier(AttackMetric):
    """Attack accuracy and feature distance by the track's evaluation model."""

    summary = "attack accuracy and feature distance by the evaluation model"
    paper = "Zhang et al., CVPR 2020; Struppek et al., ICML 2022"
    version = "1"
    quantities: ClassVar[dict[str, Quantity]] = {
        "attack_acc1": _leaked_share(
            "share of reconstructions the evaluation model gives their class",
            paired=True,
            ceiling="attack_acc1_ceiling",
        ),
        "attack_acc5": _leaked_share(
            "share of reconstructions with their class among the first five",
        ),
        "delta_eval": Quantity(
            "mean squared feature distance to the nearest training image of the class",
            better="higher",
            kind="distance",
            role="leakage",
        ),
        "attack_acc1_ceiling": _reference(
            "the evaluation model's accuracy on real held-out images"
        ),
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Two passes: probabilities and features."""
        model, device, splits = evidence.evaluation_model, evidence.device, evidence.splits
        probabilities = predict_probabilities(model, evidence.images, device=device)
        groups = evidence.labels.numpy()
        found: dict[str, Measurement | str] = {}
        for name, k in (("attack_acc1", 1), ("attack_acc5", 5)):
            if k > 1 and k >= splits.num_classes:
                found[name] = f"top {k} of {splits.num_classes} classes says nothing"
                continue
            top = probabilities.topk(k, dim=1).indices
            hits = (top == evidence.labels[:, None]).any(1)
            found[name] = Measurement(hits.double().numpy(), groups)
        distances = nearest_squared_distances(
            extract_features(model, evidence.images, device=device),
            evidence.labels,
            extract_features(model, splits.train.images, device=device),
            splits.train.labels,
        )
        found["delta_eval"] = Measurement(distances.numpy(), groups)
        real = predict_probabilities(model, splits.test.images, device=device).argmax(1)
        found["attack_acc1_ceiling"] = Measurement(
            (real == splits.test.labels).double().numpy(), splits.test.labels.numpy()
        )
        return found


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``evaluation-classifier``."""
    register("evaluation-classifier", EvaluationClassifier)
