r"""Mutual information regularisation based defense: a variational bottleneck before the classifier.

Wang, Zhang, Jia, *Improving Robustness to Model Inversion Attacks via Mutual Information
Regularization*, AAAI 2021 (arXiv 2009.05241), in the variational form of Alemi et al., *Deep
Variational Information Bottleneck*, ICLR 2017. The penultimate features ``f`` become a Gaussian code,

.. math:: (\mu, s) = W f + b, \quad \sigma = \operatorname{softplus}(s - 5), \quad
          z = \mu + \sigma \varepsilon, \quad \varepsilon \sim N(0, I),

a linear layer classifies ``z``, and the loss is cross-entropy plus :math:`\beta` times the batch mean of

.. math:: \mathrm{KL} = -\tfrac12 \sum (1 + 2\log\sigma - \mu^2 - \sigma^2).

With ``sample`` the deployed model draws noise for every answer, as in the authors' code; attacks then
average over draws. Without it the code is its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import Field, field_validator

from mia_bench import BuildContext, Defense, Register, TrainingStep, hookimpl, lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.api.classifier import Classifier
    from mia_bench_plugins.defenses import bottleneck


def divergence(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Batch mean of KL(N(mean, sigma²) ‖ N(0, 1)) summed over dimensions, in float32 or better.

    Args:
        mean: ``(N, K)``.
        log_sigma: logarithm of the standard deviations, ``(N, K)``.
    """
    precise = torch.float64 if mean.dtype == torch.float64 else torch.float32
    mean, log_sigma = mean.to(precise), log_sigma.to(precise)
    return -0.5 * (1 + 2 * log_sigma - mean.square() - (2 * log_sigma).exp()).sum(1).mean()


class MutualInformation(Defense):
    """Cross-entropy plus an upper bound on the mutual information of image and code."""

    summary = "mutual information regularisation: a stochastic bottleneck before the classifier"
    paper = "Wang et al., AAAI 2021, arXiv 2009.05241"
    version = "1"
    strengths: ClassVar[dict[str, tuple[float, ...]]] = {
        "beta": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    }
    matched: ClassVar[tuple[str, dict[str, Any]]] = ("mid", {"beta": 0.0, "sample": False})

    class Options(Defense.Options):
        beta: float = Field(0.01, ge=0, description="weight of the KL divergence")
        bottleneck: float = Field(
            0.5, gt=0, description="below 1: share of the features; from 1: width of the code"
        )
        sample: bool = Field(True, description="the deployed model draws noise for every answer")

        @field_validator("bottleneck")
        @classmethod
        def _whole_width(cls, value: float) -> float:
            if value >= 1 and value != int(value):
                raise ValueError("a width is a whole number")
            return value

        def width(self, features: int) -> int:
            """Dimension of the code for a number of features."""
            share = self.bottleneck
            return int(share) if share >= 1 else max(1, round(share * features))

    options: Options

    def build_model(self, build: Callable[[], Classifier], context: BuildContext) -> Classifier:
        return bottleneck.Bottleneck(
            build(), self.options.width, context.num_classes, sample=self.options.sample
        )

    def loss(self, step: TrainingStep) -> Tensor:
        extras = step.outputs.extras
        penalty = divergence(extras["mean"], extras["log_sigma"])
        return super().loss(step) + self.options.beta * penalty

    @property
    def stochastic(self) -> bool:
        return self.options.sample


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    register("mid", MutualInformation)
