"""How often the target is still right on test images that were changed a little against it.

Projected gradient descent (Madry et al., *Towards Deep Learning Models Resistant to Adversarial Attacks*,
ICLR 2018, arXiv 1706.06083) within an L-infinity ball, from a random start, on the margin between the class's
logit and the largest other (Carlini and Wagner, 2017). The margin has a gradient where softmax is saturated,
so that large logits, as negative label smoothing makes them, do not look like robustness. An image counts as
robust if it is classified correctly before and after every step. Of a target that answers at random, the
gradient is that of the mean of several answers.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mia_bench import Measurement, Quantity, Register, TargetMetric, hookimpl, lazy_imports
from mia_bench.api.images import to_float
from mia_bench.api.metric import TargetEvidence

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
        test = evidence.splits.test
        if not len(test):
            return dict.fromkeys(self.quantities, "the data set keeps no test images")
        found = []
        for images, labels in zip(
            test.images.split(self.options.batch_size),
            test.labels.split(self.options.batch_size),
            strict=True,
        ):
            clean, wanted = to_float(images.to(evidence.device)), labels.to(evidence.device)
            found.append(self._robust(evidence, clean, wanted).cpu())
        return {"robust_accuracy": Measurement(torch.cat(found).double().numpy(), test.labels.numpy())}

    def _robust(self, evidence: TargetEvidence, clean: Tensor, labels: Tensor) -> Tensor:
        """Whether each image ``(N, 3, H, W)`` stays correctly classified ``(N,)``."""
        epsilon, index = self.options.epsilon, labels[:, None]
        changed = (clean + epsilon * (2 * torch.rand_like(clean) - 1)).clamp(0, 1)
        with torch.no_grad():
            robust = _margins(evidence, clean, index) > 0
        for _ in range(self.options.steps):
            changed.requires_grad_(True)
            with torch.enable_grad():
                margins = _margins(evidence, changed, index)
                (gradient,) = torch.autograd.grad(margins.sum(), changed)
            robust &= margins.detach() > 0
            moved = changed.detach() - self.options.step_size * gradient.sign()
            changed = torch.minimum(torch.maximum(moved, clean - epsilon), clean + epsilon).clamp(0, 1)
        with torch.no_grad():
            return robust & (_margins(evidence, changed, index) > 0)


def _margins(evidence: TargetEvidence, images: Tensor, index: Tensor) -> Tensor:
    """The class's logit less the largest other ``(N,)``, the mean over answers of a random target."""
    logits = classifier.answers(evidence.target, images, evidence.draws).mean(0)
    others = logits.scatter(1, index, -torch.inf).amax(1)
    return logits.gather(1, index).squeeze(1) - others


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``adversarial-robustness``."""
    register("adversarial-robustness", AdversarialRobustness)
