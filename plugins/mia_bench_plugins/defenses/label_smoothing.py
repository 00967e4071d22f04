r"""Positive and negative label smoothing.

Struppek, Hintersdorf, Kersting, *Be Careful What You Smooth For: Label Smoothing Can Be a Privacy
Shield but Also a Catalyst for Model Inversion Attacks*, ICLR 2024 (arXiv 2310.06549).

The smoothed label is :math:`y_{LS} = (1-\alpha)\,y + \frac{\alpha}{C}\mathbf 1` with
:math:`\alpha \le 1`, so the loss is

.. math:: (1-\alpha)\,(-\log p_y) + \alpha \cdot \frac1C \sum_k (-\log p_k).

For :math:`\alpha < 0` it has no lower bound: logits keep growing, so the schedule and the
learning-rate decay matter. ``torch.nn.CrossEntropyLoss`` silently ignores negative smoothing.

The authors' schedule for negative smoothing (epoch ``e`` from 0 of ``E``): 0 before ``E/2``,
``alpha·(e+1-E/2)/(E/2)`` before ``3E/4``, then ``alpha``: the ramp ends at half of alpha and jumps where
their learning rate drops (a milestone of 0.75 is rounded to an epoch here, so that the drop can come one
epoch earlier). With one epoch there is no smoothing. Positive smoothing is constant.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mia_bench import Defense, Register, TrainingStep, hookimpl, lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor

PAPER = "Struppek et al., ICLR 2024, arXiv 2310.06549"


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Batch mean of the label-smoothing loss for any ``alpha`` ≤ 1, in float32 or better.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)`` int64.
        alpha: share of the uniform distribution; negative for negative smoothing.
    """
    precise = logits if logits.dtype == torch.float64 else logits.float()
    negative_log = -precise.log_softmax(1)
    true_class = negative_log.gather(1, labels[:, None]).squeeze(1)
    return ((1 - alpha) * true_class + alpha * negative_log.mean(1)).mean()


def scheduled_alpha(alpha: float, epoch: int, epochs: int) -> float:
    """Alpha in an epoch (from 0) by the authors' schedule, scaled to ``epochs``."""
    half = epochs / 2
    if epoch < half:
        return 0.0
    if epoch < 0.75 * epochs:
        return alpha * (epoch + 1 - half) / half
    return alpha


class PositiveLabelSmoothing(Defense):
    """Label smoothing with a positive alpha, which increases leakage according to the paper."""

    summary = "positive label smoothing (alpha > 0)"
    paper = PAPER
    version = "1"
    strengths: ClassVar[dict[str, tuple[float, ...]]] = {"alpha": (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)}

    class Options(Defense.Options):
        alpha: float = Field(0.1, gt=0, le=1, description="share of the uniform distribution")

    options: Options

    def loss(self, step: TrainingStep) -> Tensor:
        return smoothed_cross_entropy(step.outputs.logits, step.labels, self.options.alpha)


class NegativeLabelSmoothing(Defense):
    """Label smoothing with a negative alpha, which reduces leakage according to the paper."""

    summary = "negative label smoothing (alpha < 0)"
    paper = PAPER
    version = "1"
    strengths: ClassVar[dict[str, tuple[float, ...]]] = {
        "alpha": (-0.01, -0.05, -0.1, -0.3, -1.0, -3.0, -10.0)
    }

    class Options(Defense.Options):
        alpha: float = Field(-0.05, lt=0, description="share of the uniform distribution, negative")
        schedule: Literal["ramp", "constant"] = Field(
            "ramp", description="ramp: 0, then rising, then alpha; constant: alpha from the start"
        )

    options: Options

    def loss(self, step: TrainingStep) -> Tensor:
        alpha = self.options.alpha
        if self.options.schedule == "ramp":
            alpha = scheduled_alpha(alpha, step.epoch, step.epochs)
        return smoothed_cross_entropy(step.outputs.logits, step.labels, alpha)


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    register("pos-ls", PositiveLabelSmoothing)
    register("neg-ls", NegativeLabelSmoothing)
