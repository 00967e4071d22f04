r"""Kernel distance: how the features of all reconstructions differ from those of real images.

The squared maximum mean discrepancy with the kernel :math:`(x \cdot y / d + 1)^3` of *d* features, as in
Bińkowski et al., *Demystifying MMD GANs*, ICLR 2018 (arXiv 1801.01401), but in the penultimate features of
the evaluation model. Unlike the Fréchet distance its estimate is unbiased however few images there are, so
it can be below 0. It has no interval: a bootstrap draws images twice, and an image's kernel with itself
biases it.
"""

from __future__ import annotations

from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.metric import Array, AttackEvidence
from mia_bench.models.inference import extract_features

with lazy_imports():
    import numpy as np
    import torch


def squared_discrepancy(first: Array, second: Array) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy of ``(N, D)`` and ``(M, D)``, N and M > 1."""

    def kernel(a: Array, b: Array) -> Array:
        found: Array = (a @ b.T / a.shape[1] + 1) ** 3
        return found

    def within(a: Array) -> float:
        own = kernel(a, a)
        return float((own.sum() - np.trace(own)) / (len(a) * (len(a) - 1)))

    return within(first) + within(second) - 2 * float(kernel(first, second).mean())


def discrepancy_of_rows(rows: Array) -> float:
    """:func:`squared_discrepancy` of rows whose first column is 1 in the first set, 0 in the second."""
    chosen = rows[:, 0] == 1
    return squared_discrepancy(rows[chosen, 1:], rows[~chosen, 1:])


class KernelDistance(AttackMetric):
    """Squared maximum mean discrepancy to the training images of the attacked classes."""

    summary = "kernel distance of reconstructions to real images (KID), in the evaluation model's features"
    paper = "Bińkowski et al., ICLR 2018, arXiv 1801.01401"
    version = "1"
    quantities: ClassVar[dict[str, Quantity]] = {
        "kid": Quantity(
            "squared maximum mean discrepancy to the attacked classes' training images, cubic kernel, in the "
            "evaluation model's features; unbiased",
            better="higher",
            role="leakage",
            interval=False,
        )
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Features of both sets."""
        train, device = evidence.splits.train, evidence.device
        attacked = torch.isin(train.labels, evidence.labels)
        if min(len(evidence.images), int(attacked.sum())) < 2:
            return {"kid": "it needs two reconstructions and two training images"}
        images = train.images if bool(attacked.all()) else train.images[attacked]
        sets = [extract_features(evidence.evaluation_model, one, device=device).double() for one in
                (evidence.images, images)]  # fmt: skip
        rows = torch.cat([torch.cat([torch.full((len(one), 1), flag), one], 1) for one, flag in
                          zip(sets, (1.0, 0.0), strict=True)])  # fmt: skip
        groups = torch.cat([evidence.labels, train.labels[attacked]])
        return {"kid": Measurement(rows.numpy(), groups.numpy(), discrepancy_of_rows)}


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``kid``."""
    register("kid", KernelDistance)
