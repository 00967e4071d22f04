"""How often the target is still right on test images that were changed a little against it.

Projected gradient descent (Madry et al., *Towards Deep Learning Models Resistant to Adversarial Attacks*,
ICLR 2018, arXiv 1706.06083) within an L-infinity ball, from a random start, on the margin between the class's
logit and the largest other (Carlini and Wagner, 2017). The margin has a gradient where softmax is saturated,
so that large logits, as negative label smoothing makes them, do not look like robustness. An image counts as
robust if it is classified correctly before and after every step. Of a target that answers at random, the
gradient is that of the mean of several answers; what noise is left makes it look less robust than it is.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mia_bench import Measurement, Quantity, Register, TargetMetric, hookimpl, lazy_imports
from mia_bench.api.images import to_float
from mia_bench.api.metric import TargetEvidence
from mia_bench.memory import upload
from mia_bench.seeds import generator

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.api import classifier


class AdversarialRobustness(TargetMetric):
    """Accuracy on test images under projected gradient descent."""

    summary = "accuracy under projected gradient descent on the test images"
    paper = "Madry et al., ICLR 2018, arXiv 1706.06083"
    version = "1"
    trial_options: ClassVar = {"steps": 2}
    quantities: ClassVar[dict[str, Quantity]] = {
        "robust_accuracy": Quantity(
            "share of test images that stay correctly classified under projected gradient descent",
            better="higher",
            kind="share",
            paired=True,
        ),
    }

    class Options(TargetMetric.Options):
        """Options of ``adversarial-robustness``."""

        epsilon: float = Field(2 / 255, gt=0, lt=1, description="largest change of a value in [0, 1]")
        steps: int = Field(10, ge=1, description="steps of projected gradient descent")
        step_size: float = Field(0.5 / 255, gt=0, lt=1, description="size of a step")
        batch_size: int = Field(256, ge=1, description="images a pass")

    options: Options

    def compute(self, evidence: TargetEvidence) -> dict[str, Measurement | str]:
        """Attack every test image once."""
        test, place = evidence.splits.test, evidence.device
        if not len(test):
            return dict.fromkeys(self.quantities, "the data set keeps no test images")
        found, draws = [], generator(0, "adversarial-robustness")
        for images, labels in zip(
            test.images.split(self.options.batch_size),
            test.labels.split(self.options.batch_size),
            strict=True,
        ):
            clean, wanted = to_float(images.to(place)), labels.to(place)
            start = clean + self.options.epsilon * upload(
                2 * torch.rand(images.shape, generator=draws) - 1, place
            )
            found.append(self._robust(evidence, clean, start.clamp(0, 1), wanted).cpu())
        return {"robust_accuracy": Measurement(torch.cat(found).numpy(), test.labels.numpy())}

    def _robust(self, evidence: TargetEvidence, clean: Tensor, start: Tensor, labels: Tensor) -> Tensor:
        """The share, 0 or 1, of each image ``(N, 3, H, W)`` that stays correctly classified ``(N,)``.

        NaN where the target answers NaN.
        """
        epsilon, index, changed = self.options.epsilon, labels[:, None], start
        with torch.no_grad():
            least = _margins(evidence, clean, index)
        for _ in range(self.options.steps):
            changed.requires_grad_(True)
            with torch.enable_grad():
                margins = _margins(evidence, changed, index)
                (gradient,) = torch.autograd.grad(margins.sum(), changed)
            least = torch.minimum(least, margins.detach())
            moved = changed.detach() - self.options.step_size * gradient.sign()
            changed = torch.minimum(torch.maximum(moved, clean - epsilon), clean + epsilon).clamp(0, 1)
        with torch.no_grad():
            least = torch.minimum(least, _margins(evidence, changed, index))
        return torch.where(least.isnan(), torch.nan, (least > 0).double())


def _margins(evidence: TargetEvidence, images: Tensor, index: Tensor) -> Tensor:
    """The class's logit less the largest other ``(N,)``, the mean over answers of a random target."""
    logits = classifier.answers(evidence.target, images, evidence.draws).mean(0)
    others = logits.scatter(1, index, -torch.inf).amax(1)
    return logits.gather(1, index).squeeze(1) - others


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``adversarial-robustness``."""
    register("adversarial-robustness", AdversarialRobustness)
