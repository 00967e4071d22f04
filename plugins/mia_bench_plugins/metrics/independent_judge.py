"""Attack accuracy by the independent judge.

For data without identities (digits, objects) it takes the place of identification: a classifier of another
architecture than the target, trained on images of the private classes that neither the target nor the
evaluation model was trained on.
"""

from __future__ import annotations

from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl
from mia_bench.api.metric import AttackEvidence
from mia_bench_plugins.metrics.evaluation_classifier import attack_accuracies, ceiling, leaked_share


class IndependentJudge(AttackMetric):
    """Shares of reconstructions that the judge gives their class."""

    summary = "accuracy of reconstructions by a judge trained on other images"
    paper = "motivated by arXiv 2505.03519"
    version = "1"
    quantities: ClassVar[dict[str, Quantity]] = {
        "id_acc1": leaked_share(
            "share of reconstructions that the independent judge assigns to their class",
            paired=True,
            ceiling="id_acc1_ceiling",
        ),
        "id_acc5": leaked_share(
            "share of reconstructions with their class among the independent judge's first five",
            paired=True,
        ),
        "id_acc1_ceiling": ceiling("the independent judge's accuracy on real held-out images"),
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Classify the reconstructions and the held-out images."""
        if evidence.judge is None:
            return dict.fromkeys(self.quantities, "the track has no independent judge")
        return attack_accuracies("id", evidence.judge, evidence)


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``independent-judge``."""
    register("independent-judge", IndependentJudge)
