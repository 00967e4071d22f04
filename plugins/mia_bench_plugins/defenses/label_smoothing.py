r"""Positive and negative label smoothing.

Struppek, Hintersdorf, Kersting, *Be Careful What You Smooth For: Label Smoothing Can Be a Privacy
Shield but Also a Catalyst for Model Inversion Attacks*, ICLR 2024 (arXiv 2310.06549).

The smoothed label is :math:`y_{LS} = (1-\alpha)\,y + \frac{\alpha}{C}\mathbf 1` with
:math:`\alpha \le 1`, so the loss is

.. math:: (1-\alpha)\,(-\log p_y) + \alpha \cdot \frac1C \sum_k (-\log p_k).

For :math:`\alpha < 0` it has no lower bound: logits keep growing, so the schedule and the
learning-rate decay matter. ``torch.nn.CrossEntropyLoss`` must not be used for it: below zero it
silently falls back to plain cross-entropy.

Schedule of the authors' training with negative smoothing (epoch ``e`` from 0 of ``E``): 0 before
``E/2``, ``alpha·(e+1-E/2)/(E/2)`` before ``3E/4``, then ``alpha`` (the ramp ends at half of alpha
and jumps where the learning rate drops). Positive smoothing is constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mia_bench import Defense, TrainingStep, hookimpl
from mia_bench.hookspecs import Register

if TYPE_CHECKING:
    from torch import Tensor


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Batch mean of the label-smoothing loss, for any ``alpha`` ≤ 1; computed in float32 or better.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)`` int64.
        alpha: share of the uniform distribution; negative for negative smoothing.
    """
    import torch

    precise = logits if logits.dtype == torch.float64 else logits.float()
    negative_log = -precise.log_softmax(1)
    true_class = negative_log.gather(1, labels[:, None]).squeeze(1)
    return ((1 - alpha) * true_class + alpha * negative_log.mean(1)).mean()


def scheduled_alpha(alpha: float, epoch: int, epochs: int) -> float:
    """Alpha in an epoch (from 0) under the authors' schedule, scaled to ``epochs``."""
    half = epochs / 2
    if epoch < half:
        return 0.0
    if epoch < 0.75 * epochs:
        return alpha * (epoch + 1 - half) / half
    return alpha


class _LabelSmoothing(Defense):
    """What both signs share: the loss, and alpha as the epoch has it."""

    paper: ClassVar[str] = "Struppek et al., ICLR 2024, arXiv 2310.06549"
    version: ClassVar[str] = "1"

    def alpha(self, epoch: int, epochs: int) -> float:
        """Alpha in an epoch (from 0)."""
        raise NotImplementedError

    def loss(self, step: TrainingStep) -> Tensor:
        """The smoothed cross-entropy of the batch."""
        return smoothed_cross_entropy(
            step.outputs.logits, step.labels, self.alpha(step.epoch, step.epochs)
        )


class PositiveLabelSmoothing(_LabelSmoothing):
    """Label smoothing with a positive alpha: the paper finds that it makes a model leak more."""

    summary: ClassVar[str] = "label smoothing with alpha > 0"

    class Options(Defense.Options):
        """Options of ``pos-ls``."""

        alpha: float = Field(0.1, gt=0, le=1, description="share of the uniform distribution")

    options: Options

    def alpha(self, epoch: int, epochs: int) -> float:
        """Constant."""
        return self.options.alpha


class NegativeLabelSmoothing(_LabelSmoothing):
    """Label smoothing with a negative alpha: the paper finds that it makes a model leak less."""

    summary: ClassVar[str] = "label smoothing with alpha < 0"

    class Options(Defense.Options):
        """Options of ``neg-ls``."""

        alpha: float = Field(-0.05, lt=0, description="share of the uniform distribution, negative")
        schedule: Literal["ramp", "constant"] = Field(
            "ramp", description="ramp: 0, then rising, then alpha; constant: alpha from the start"
        )

    options: Options

    def alpha(self, epoch: int, epochs: int) -> float:
        """By the schedule."""
        if self.options.schedule == "constant":
            return self.options.alpha
        return scheduled_alpha(self.options.alpha, epoch, epochs)


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    """Register ``pos-ls`` and ``neg-ls``."""
    register("pos-ls", PositiveLabelSmoothing)
    register("neg-ls", NegativeLabelSmoothing)
