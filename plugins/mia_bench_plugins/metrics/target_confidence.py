"""How sure the target itself is: a diagnostic of the optimisation, never a measure of leakage."""

from __future__ import annotations

from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl
from mia_bench.api.metric import AttackEvidence
from mia_bench.models.inference import predict_probabilities


class TargetConfidence(AttackMetric):
    """The target's probability of the class each reconstruction was made for."""

    summary = "the target's own confidence (diagnostic only)"
    version = "1"
    quantities: ClassVar[dict[str, Quantity]] = {
        "target_confidence": Quantity(
            "mean probability that the target gives the class (diagnostic, not leakage)", kind="share"
        )
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """One pass over the reconstructions."""
        probabilities = predict_probabilities(
            evidence.target, evidence.images, device=evidence.device, draws=evidence.draws
        )
        chosen = probabilities.gather(1, evidence.labels[:, None]).squeeze(1)
        return {"target_confidence": Measurement(chosen.double().numpy(), evidence.labels.numpy())}


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``target-confidence``."""
    register("target-confidence", TargetConfidence)
