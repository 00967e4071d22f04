"""Attack accuracy by the independent judge.

For data without identities (digits, objects) it takes the place of identification: a classifier of another
architecture than the target, trained on images of the private classes that neither the target nor the
evaluation model was trained on.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, hookimpl
from mia_bench.api.metric import AttackEvidence
from mia_bench.hookspecs import Register
from mia_bench.models.inference import predict_probabilities

TOP = {"id_acc1": 1, "id_acc5": 5}

_leaked_share = partial(Quantity, better="lower", kind="share", role="leakage")
_reference = partial(Quantity, kind="share", role="reference")


class IndependentJudge(AttackMetric):
    """Shares of reconstructions that the judge gives their class."""

    summary = "accuracy of reconstructions by a judge trained on other images"
    paper = "motivated by arXiv 2505.03519"
    version = "1"
    quantities: ClassVar[dict[str, Quantity]] = {
        "id_acc1": _leaked_share(
            "share of reconstructions the independent judge gives their class",
            paired=True,
            ceiling="id_acc1_ceiling",
        ),
        "id_acc5": _leaked_share(
            "share of reconstructions with their class among the judge's first five",
        ),
        "id_acc1_ceiling": _reference("the independent judge's accuracy on real held-out images"),
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """One pass over the reconstructions, one over the held-out images."""
        judge, splits, device = evidence.judge, evidence.splits, evidence.device
        if judge is None:
            return dict.fromkeys(self.quantities, "the track has no independent judge")
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
