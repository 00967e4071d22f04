"""The prior oracle: what identification says of private test images that the prior imitates.

No attack knows these images. What the encoder recognises in the best imitations is how far an attack could
come with the prior: what is missing up to the ceiling is missing in the prior, and not withheld by a defense.
How images are imitated: :mod:`mia_bench.protocol.oracle`.
"""

from __future__ import annotations

from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl
from mia_bench.api.metric import AttackEvidence
from mia_bench_plugins.metrics.evaluation_classifier import reference
from mia_bench_plugins.metrics.identification import identify


class PriorOracle(AttackMetric):
    """Identification of imitated test images."""

    summary = "what the prior can show at best: identification of test images that it imitates"
    version = "1"
    needs_gallery = True
    needs_oracle = True
    quantities: ClassVar[dict[str, Quantity]] = {
        "id_bits_oracle": Quantity(
            "id_bits of real held-out images as the prior imitates them", kind="bits", role="reference"
        ),
        "id_acc1_oracle": reference("id_acc1 of real held-out images as the prior imitates them"),
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Rank the imitations."""
        if evidence.gallery is None:
            return dict.fromkeys(self.quantities, evidence.missing["gallery"])
        if evidence.oracle is None:
            return dict.fromkeys(self.quantities, "no imitations of test images were made")
        found = identify(evidence.oracle.embeddings, evidence.oracle.labels, evidence.gallery)
        return {name: found[name.removesuffix("_oracle")] for name in self.quantities}


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``prior-oracle``."""
    register("prior-oracle", PriorOracle)
