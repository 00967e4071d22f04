"""How near reconstructions come to the manifold of a class's real images, and how much of it they cover.

Spheres round the points of one set, in the penultimate features of the evaluation model, reach to the k-th
nearest neighbour within the set; a point counts as near where it lies within, not on, a sphere.

- ``precision``: share of reconstructions within a sphere of a real image; ``recall``: share of real images
  within a sphere of a reconstruction; k = 3 (Kynkäänniemi et al., NeurIPS 2019, arXiv 1904.06991).
- ``density``: spheres of real images that a reconstruction lies in, divided by k; ``coverage``: share of
  real images whose sphere holds a reconstruction; k = 5 (Naeem et al., ICML 2020, arXiv 2002.09797).
  Density can exceed 1; it is about 1, and coverage near 1, where both sets are from one distribution.

All are computed within each class, against its training images, and averaged over classes. Fewer than
:data:`LEAST` images of a class say nothing about its manifold.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.metric import AttackEvidence
from mia_bench.models.inference import extract_features

with lazy_imports():
    import torch
    from torch import Tensor

LEAST = 16
"""Reconstructions, and training images, that every class must have."""

K_PRECISION = 3
K_DENSITY = 5

leaked = partial(Quantity, better="lower", role="leakage")


def radii(points: Tensor, k: int) -> Tensor:
    """Distance ``(N,)`` of each point ``(N, F)`` to its k-th nearest neighbour among the others; N > k."""
    return distances(points, points).kthvalue(k + 1, dim=1).values  # the nearest is the point itself


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances ``(N, M)``; exactly 0 between equal points."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def precision_recall(real: Tensor, made: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Whether each made point ``(M,)`` is near the real ones, and each real point ``(N,)`` near the made."""
    apart = distances(real, made)
    return (apart < radii(real, k)[:, None]).any(0), (apart < radii(made, k)).any(1)


def density_coverage(real: Tensor, made: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Density of each made point ``(M,)``, and whether each real point's sphere is covered ``(N,)``."""
    within = distances(real, made) < radii(real, k)[:, None]
    return within.double().sum(0) / k, within.any(1)


class DensityCoverage(AttackMetric):
    """Density, coverage, precision and recall within each class."""

    summary = "density, coverage, precision and recall of reconstructions, class by class"
    paper = "Naeem et al., ICML 2020, arXiv 2002.09797; Kynkäänniemi et al., NeurIPS 2019, arXiv 1904.06991"
    version = "1"
    quantities: ClassVar[dict[str, Quantity]] = {
        "density": leaked(
            "mean number of spheres of the class's real images that a reconstruction lies in, divided by 5",
            kind="amount",
            paired=True,
        ),
        "coverage": leaked(
            "share of real images with a reconstruction in their sphere", kind="share", paired=True
        ),
        "precision": leaked(
            "share of reconstructions in a sphere of a real image of their class", kind="share", paired=True
        ),
        "recall": leaked(
            "share of real images in a sphere of a reconstruction of their class", kind="share", paired=True
        ),
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Features of the reconstructions and of the attacked classes' training images, class by class."""
        train, classes = evidence.splits.train, evidence.labels.unique()
        for what, labels in (("reconstructions", evidence.labels), ("training images", train.labels)):
            fewest = min((int((labels == label).sum()) for label in classes), default=0)
            if fewest < LEAST:
                reason = f"a class has {fewest} {what}: fewer than {LEAST} say nothing about its manifold"
                return dict.fromkeys(self.quantities, reason)
        attacked = torch.isin(train.labels, classes)
        made = extract_features(evidence.evaluation_model, evidence.images, device=evidence.device).double()
        images = train.images if bool(attacked.all()) else train.images[attacked]
        real = extract_features(evidence.evaluation_model, images, device=evidence.device).double()
        if not bool(torch.isfinite(made).all() and torch.isfinite(real).all()):
            return dict.fromkeys(self.quantities, "the evaluation model's features are not finite")
        values: dict[str, list[Tensor]] = {name: [] for name in self.quantities}
        for label in classes:
            own, theirs = made[evidence.labels == label], real[train.labels[attacked] == label]
            precision, recall = precision_recall(theirs, own, K_PRECISION)
            density, coverage = density_coverage(theirs, own, K_DENSITY)
            values["precision"].append(precision.double())
            values["density"].append(density)
            # Classes differ in real images; each counts once.
            values["recall"].append(recall.double().mean()[None])
            values["coverage"].append(coverage.double().mean()[None])
        return {name: _measurement(parts, classes) for name, parts in values.items()}


def _measurement(parts: list[Tensor], classes: Tensor) -> Measurement:
    groups = torch.cat([label.repeat(len(part)) for label, part in zip(classes, parts, strict=True)])
    return Measurement(torch.cat(parts).numpy(), groups.numpy())


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``density-coverage``."""
    register("density-coverage", DensityCoverage)
