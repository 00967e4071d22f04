"""What an evaluation classifier makes of the reconstructions.

Another architecture, trained on the same private images. ``attack_acc1`` and ``attack_acc5`` are the
shares of reconstructions with their class first, or among the first five (Zhang et al., CVPR 2020).
``delta_eval`` is the *squared* L2 distance from a reconstruction to the nearest training image of its
class, in the classifier's penultimate features (Struppek et al., ICML 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mia_bench import AttackMetric, Measurement, hookimpl
from mia_bench.api.metric import AttackEvidence
from mia_bench.hookspecs import Register

if TYPE_CHECKING:
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
    import torch

    nearest = torch.empty(len(features), dtype=torch.float64)
    for label in labels.unique():
        chosen = labels == label
        near = references[reference_labels == label].double()
        differences = features[chosen].double()[:, None] - near[None]
        nearest[chosen] = differences.square().sum(2).min(1).values
    return nearest


class EvaluationClassifier(AttackMetric):
    """Attack accuracy and feature distance by the track's evaluation model."""

    summary: ClassVar[str] = "attack accuracy and feature distance by the evaluation classifier"
    paper: ClassVar[str] = "Zhang et al., CVPR 2020; Struppek et al., ICML 2022"
    version: ClassVar[str] = "1"
    names = {  # noqa: RUF012
        "attack_acc1": "lower",
        "attack_acc5": "lower",
        "delta_eval": "higher",
        "attack_acc1_ceiling": "neutral",
    }
    descriptions: ClassVar[dict[str, str]] = {
        "attack_acc1": "share of reconstructions the evaluation classifier gives their class",
        "attack_acc5": "share of reconstructions with their class among the first five",
        "delta_eval": "mean squared feature distance to the nearest training image of the class",
        "attack_acc1_ceiling": "the evaluation classifier's accuracy on real held-out images",
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Two passes: probabilities and features."""
        from mia_bench.models.inference import extract_features, predict_probabilities

        judge, device, splits = evidence.evaluation_model, evidence.device, evidence.splits
        probabilities = predict_probabilities(judge, evidence.images, device=device)
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
            extract_features(judge, evidence.images, device=device),
            evidence.labels,
            extract_features(judge, splits.train.images, device=device),
            splits.train.labels,
        )
        found["delta_eval"] = Measurement(distances.numpy(), groups)
        real = predict_probabilities(judge, splits.test.images, device=device).argmax(1)
        found["attack_acc1_ceiling"] = Measurement(
            (real == splits.test.labels).double().numpy(), splits.test.labels.numpy()
        )
        return found


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``evaluation-classifier``."""
    register("evaluation-classifier", EvaluationClassifier)
