"""What a judge makes of the reconstructions that shares no training image with the target.

For data without identities (digits, objects) it takes the place of identification: a classifier of
another architecture than the target, trained on images of the private classes that neither the target nor
the evaluation classifier saw.
"""

from __future__ import annotations

from typing import ClassVar

from mia_bench import AttackMetric, Measurement, hookimpl
from mia_bench.api.metric import AttackEvidence
from mia_bench.hookspecs import Register

TOP = {"id_acc1": 1, "id_acc5": 5}


class IndependentJudge(AttackMetric):
    """Shares of reconstructions that the judge gives their class."""

    summary: ClassVar[str] = "accuracy of reconstructions by a judge trained on other images"
    paper: ClassVar[str] = "motivated by arXiv 2505.03519"
    version: ClassVar[str] = "1"
    names = {"id_acc1": "lower", "id_acc5": "lower", "id_acc1_ceiling": "neutral"}  # noqa: RUF012
    descriptions: ClassVar[dict[str, str]] = {
        "id_acc1": "share of reconstructions the independent judge gives their class",
        "id_acc5": "share of reconstructions with their class among the judge's first five",
        "id_acc1_ceiling": "the independent judge's accuracy on real held-out images",
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """One pass over the reconstructions, one over the held-out images."""
        from mia_bench.models.inference import predict_probabilities

        judge, splits, device = evidence.judge, evidence.splits, evidence.device
        if judge is None:
            return dict.fromkeys(self.names, "the track has no independent judge")
        found: dict[str, Measurement | str] = {}
        probabilities = predict_probabilities(judge, evidence.images, device=device)
        for name, k in TOP.items():
            if k > 1 and k >= splits.num_classes:
                found[name] = f"top {k} of {splits.num_classes} classes says nothing"
                continue
            hits = (probabilities.topk(k, dim=1).indices == evidence.labels[:, None]).any(1)
            found[name] = Measurement(hits.double().numpy(), evidence.labels.numpy())
        real = predict_probabilities(judge, splits.test.images, device=device).argmax(1)
        found["id_acc1_ceiling"] = Measurement(
            (real == splits.test.labels).double().numpy(), splits.test.labels.numpy()
        )
        return found


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``independent-judge``."""
    register("independent-judge", IndependentJudge)
