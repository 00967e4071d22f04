"""Diagnostics of an attack that follows gradients: how large they are, and whether they keep their direction.

Struppek, Hintersdorf and Kersting (*Be Careful What You Smooth For*, ICLR 2024, arXiv 2310.06549) compare
consecutive gradients of the attack's optimisation: negative label smoothing is said to make them point
in changing directions. The numbers are those that an attack returns as its diagnostics; they tell nothing
of leakage.
"""

from __future__ import annotations

from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.metric import AttackEvidence

with lazy_imports():
    import torch
    from torch import Tensor

_NEEDED = ("loss", "gradient_norm", "gradient_cosine")
_LEAST = 1e-30


class Gradients(AttackMetric):
    """Size and direction of the attack's gradients, and what its loss does along the path."""

    summary = "size and direction of the attack's gradients, and its loss"
    paper = "Struppek et al., ICLR 2024, arXiv 2310.06549"
    version = "2"
    quantities: ClassVar[dict[str, Quantity]] = {
        "gradient_cosine": Quantity(
            "mean cosine between consecutive gradients of the attack, in the latent space",
            paired=True,
            per_image="gradient_cosine",
        ),
        "gradient_log_norm": Quantity(
            "mean common logarithm of the attack's gradient norm, itself a mean over a class's candidates",
            paired=True,
            per_image="gradient_log_norm",
        ),
        "attack_loss": Quantity(
            "mean of the attack's loss over its steps",
            paired=True,
            per_image="attack_loss",
        ),
        "loss_fall": Quantity(
            "what the attack's loss falls by from the first step to the last, as a share of the first",
            paired=True,
        ),
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """From the diagnostics alone."""
        if not len(evidence.images):
            return dict.fromkeys(self.quantities, "there are no reconstructions")
        if missing := [name for name in _NEEDED if name not in evidence.diagnostics]:
            return dict.fromkeys(self.quantities, f"the attack does not return its {missing[0]}")
        loss, norm, cosine = (evidence.diagnostics[name].double() for name in _NEEDED)
        first = loss[:, :1]
        fall: Measurement | str = "the loss of a class is 0 at the first step"
        if bool((first.abs() > _LEAST).all()):
            fall = _by_class((first - loss[:, -1:]) / first.abs())
        turns = cosine[:, 1:]  # the first step has no gradient before it
        turned: Measurement | str = "a class has no two consecutive gradients that are not 0"
        if bool((~turns.isnan()).any(1).all()):
            turned = _by_class(turns)
        return {
            "gradient_cosine": turned,
            "gradient_log_norm": _by_class(norm.clamp_min(_LEAST).log10()),
            "attack_loss": _by_class(loss),
            "loss_fall": fall,
        }


def _by_class(values: Tensor) -> Measurement:
    """Values ``(K, T)``, each of a class."""
    groups, flat = torch.arange(len(values)).repeat_interleave(values.shape[1]), values.flatten()
    there = ~flat.isnan()  # a gradient of 0 has no direction
    return Measurement(flat[there].numpy(), groups[there].numpy())


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``gradients``."""
    register("gradients", Gradients)
