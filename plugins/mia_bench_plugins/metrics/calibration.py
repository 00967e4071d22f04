"""How well the target's confidence says how often it is right, in numbers that are means over images.

The expected calibration error of ``utility`` is biased where test images are few, and has no interval. These
are proper scores (Gneiting and Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*, JASA
2007), the mean of one value an image, and what confidence exceeds accuracy by.
"""

from __future__ import annotations

from typing import ClassVar

from mia_bench import Measurement, Quantity, Register, TargetMetric, hookimpl, lazy_imports
from mia_bench.api.metric import TargetEvidence
from mia_bench.models.inference import predict_probabilities

with lazy_imports():
    from torch.nn import functional as F

_LEAST = 1e-12


class Calibration(TargetMetric):
    """Overconfidence, Brier score and log loss on the test images."""

    summary = "overconfidence, Brier score and log loss of the target"
    version = "1"
    quantities: ClassVar[dict[str, Quantity]] = {
        "overconfidence": Quantity("mean confidence on the test images minus the accuracy", paired=True),
        "brier": Quantity(
            "mean squared distance on the test images between the probabilities and the one-hot class",
            better="lower",
            kind="amount",
            paired=True,
        ),
        "log_loss": Quantity(
            "mean of minus the logarithm of the class's probability on the test images, at most 27.6",
            better="lower",
            kind="amount",
            paired=True,
        ),
    }

    def compute(self, evidence: TargetEvidence) -> dict[str, Measurement | str]:
        """One pass over the test images."""
        test = evidence.splits.test
        if not len(test):
            return dict.fromkeys(self.quantities, "the data set keeps no test images")
        probabilities = predict_probabilities(
            evidence.target, test.images, device=evidence.device, draws=evidence.draws
        ).double()
        confidence, predicted = probabilities.max(1)
        right = (predicted == test.labels).double()
        wanted = F.one_hot(test.labels, probabilities.shape[1]).double()
        own = probabilities.gather(1, test.labels[:, None]).squeeze(1)
        found = {
            "overconfidence": confidence - right,
            "brier": ((probabilities - wanted) ** 2).sum(1),
            "log_loss": -own.clamp_min(_LEAST).log(),
        }
        return {name: Measurement(values.numpy(), test.labels.numpy()) for name, values in found.items()}


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``calibration``."""
    register("calibration", Calibration)
