"""What a defense costs: accuracy on the private classes, and calibration.

The expected calibration error bins predictions by confidence into 15 equal bins and averages the
gap between confidence and accuracy, weighted by the bins' shares (Guo et al., *On Calibration of
Modern Neural Networks*, ICML 2017). It is what the field reports, and it is biased upwards: chance gaps
of bins with few images count in full (Kumar et al., *Verified Uncertainty Calibration*, NeurIPS 2019). At
320 test images a classifier whose true error is .025 measures .059 on average. Resampling adds to the bias,
so that bootstrap intervals miss the truth far too often; it has no interval.
"""

from __future__ import annotations

from typing import ClassVar

from mia_bench import Measurement, Quantity, Register, TargetMetric, hookimpl, lazy_imports
from mia_bench.api.dataset import ImageSet
from mia_bench.api.metric import Array, TargetEvidence
from mia_bench.models.inference import predict_probabilities

with lazy_imports():
    import numpy as np

BINS = 15


def expected_calibration_error(samples: Array) -> float:
    """ECE of rows (confidence, correct) with :data:`BINS` equal bins; a confidence of 0 is in the first."""
    confidence, correct = samples[:, 0], samples[:, 1]
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(samples))


class Utility(TargetMetric):
    """Accuracy on the three parts of the private images, and calibration on the test images."""

    summary = "accuracy and calibration of the target"
    version = "2"
    quantities: ClassVar[dict[str, Quantity]] = {
        "test_accuracy": Quantity(
            "share of held-out private images that the target classifies correctly",
            better="higher",
            kind="share",
            role="utility",
            paired=True,
        ),
        "train_accuracy": Quantity(
            "share of the track's training images that the target classifies correctly, those that it was "
            "not trained on included",
            kind="share",
            role="utility",
        ),
        "ece": Quantity(
            "expected calibration error on the test images, 15 bins; biased upwards, "
            "the more the fewer images",
            better="lower",
            kind="share",
            role="utility",
            interval=False,
        ),
        "validation_accuracy": Quantity(
            "share of the validation images, kept for tuning, that the target classifies correctly",
            kind="share",
            role="selection",
        ),
    }

    def compute(self, evidence: TargetEvidence) -> dict[str, Measurement | str]:
        """One pass over each part."""
        found: dict[str, Measurement | str] = {}
        for name in ("test", "train", "validation"):
            part: ImageSet = getattr(evidence.splits, name)
            if not len(part):
                found[f"{name}_accuracy"] = f"the data set keeps no {name} images"
                continue
            samples, groups = self._samples(evidence, part)
            found[f"{name}_accuracy"] = Measurement(samples[:, 1], groups)
            if name == "test":
                found["ece"] = Measurement(samples, groups, expected_calibration_error)
        return found

    def _samples(self, evidence: TargetEvidence, part: ImageSet) -> tuple[Array, np.ndarray]:
        """Rows (confidence, correct) and each image's class."""
        probabilities = predict_probabilities(
            evidence.target, part.images, device=evidence.device, draws=evidence.draws
        )
        confidence, predicted = probabilities.max(1)
        correct = (predicted == part.labels).double()
        rows = np.stack([confidence.double().numpy(), correct.numpy()], axis=1)
        return rows, part.labels.numpy()


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``utility``."""
    register("utility", Utility)
