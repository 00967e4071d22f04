r"""Where images and reconstructions lie in the target's embedding space.

Struppek, Hintersdorf and Kersting (*Be Careful What You Smooth For*, ICLR 2024, arXiv 2310.06549) explain
leakage by the penultimate features of the target: positive label smoothing is said to draw the images of a
class together, negative label smoothing to spread them. The numbers are those of neural collapse (Papyan, Han
and Donoho, *Prevalence of neural collapse during the terminal phase of deep learning training*, PNAS 2020)
and the silhouette (Rousseeuw, *Silhouettes*, JCAM 1987). With class means :math:`\mu_c` of the training
images, their mean :math:`\mu` and covariance :math:`\Sigma_B`, and a feature :math:`h` of class :math:`c`,

- the **spread** is the mean of :math:`\|h-\mu_c\|^2` in units of the mean of :math:`\|\mu_c-\mu\|^2`:
  directions in which classes are far apart count most;
- the **variability** is the mean of :math:`(h-\mu_c)^\top\Sigma_B^+(h-\mu_c)/C`: all directions in which
  classes differ count alike. It is the first measure of neural collapse,
  :math:`\mathrm{tr}(\Sigma_W\Sigma_B^+)/C`.

The **distance of classes** is that between two class means, in units of the root mean square length of the
features: near 0 where classes lie close together, however far from the origin.

None of these changes when all features are scaled.

For pictures, each image has two coordinates in the plane through the means of three classes, in the same
unit, as Müller, Kornblith and Hinton draw them (*When does label smoothing help?*, NeurIPS 2019): classes
0 to 2 share a plane, 3 to 5 the next one, and so on; the last plane holds the means of the last three.
"""

from __future__ import annotations

import math
from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.images import to_float
from mia_bench.api.metric import AttackEvidence

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from mia_bench.api import classifier

_BATCH = 256
_FLAT = 1e-8
"""Share of the largest variance of class means below which they do not differ in a direction."""


class Embedding(AttackMetric):
    """Spread of classes in the target's features, neural collapse, and where reconstructions lie."""

    summary = "spread of classes in the target's features, and where reconstructions lie there"
    paper = "Struppek et al., ICLR 2024, arXiv 2310.06549"
    version = "3"
    quantities: ClassVar[dict[str, Quantity]] = {
        "spread_train": Quantity(
            "mean squared distance of training images to the mean of their class, in units of that of the "
            "class means to their centre",
            kind="amount",
            paired=True,
        ),
        "spread_test": Quantity("the same of the test images", kind="amount", paired=True),
        "variability_train": Quantity(
            "mean squared distance of training images to the mean of their class, each direction in units of "
            "the class means' variance along it, divided by the number of classes: the first measure of "
            "neural collapse",
            kind="amount",
            paired=True,
        ),
        "variability_test": Quantity("the same of the test images", kind="amount", paired=True),
        "class_distance": Quantity(
            "mean distance between the means of two classes, in units of the root mean square length of the "
            "training images' features",
            kind="amount",
            paired=True,
        ),
        "silhouette": Quantity("mean silhouette of the test images, from -1 to 1", paired=True),
        "mean_angles": Quantity(
            "mean distance of the cosine between two class means from that of a simplex, seen from their "
            "centre: a part of the second measure of neural collapse",
            kind="amount",
            paired=True,
        ),
        "head_alignment": Quantity(
            "mean cosine between a class's weights in the last layer and its mean, seen from the centre: "
            "the third measure of neural collapse",
            paired=True,
        ),
        "reconstruction_spread": Quantity(
            "mean squared distance of reconstructions to the mean of their class, in the same unit",
            kind="amount",
            paired=True,
        ),
        "reconstruction_nearest": Quantity(
            "share of reconstructions whose nearest class mean is that of their class",
            kind="share",
            paired=True,
        ),
        "test_x": Quantity("first coordinate of the test images, for pictures", per_image="test_x"),
        "test_y": Quantity("second coordinate of the test images, for pictures", per_image="test_y"),
        "reconstruction_x": Quantity("of the reconstructions, likewise", per_image="reconstruction_x"),
        "reconstruction_y": Quantity("of the reconstructions, likewise", per_image="reconstruction_y"),
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """One pass over training images, test images and reconstructions."""
        network, splits = evidence.target, evidence.splits
        if not isinstance(network, classifier.Classifier):
            return dict.fromkeys(self.quantities, "the target shows no features")
        if not (len(splits.test) and len(evidence.images)):
            return dict.fromkeys(self.quantities, "there are no test images, or no reconstructions")
        train, test, made = (
            _features(network, images, evidence.device)
            for images in (splits.train.images, splits.test.images, evidence.images)
        )
        means = _class_means(train, splits.train.labels, splits.num_classes)
        centred = means - means.mean(0)
        unit = float((centred**2).sum(1).mean())
        if not 0 < unit < math.inf:
            return dict.fromkeys(self.quantities, "the means of all classes are one point, or not finite")

        def spread(features: Tensor, labels: Tensor) -> Measurement:
            return _measured(((features - means[labels]) ** 2).sum(1) / unit, labels)

        whitened = _whitening(centred)

        def variability(features: Tensor, labels: Tensor) -> Measurement:
            away = (features - means[labels]) @ whitened
            return _measured((away**2).sum(1) / splits.num_classes, labels)

        nearest = (torch.cdist(made, means).argmin(1) == evidence.labels).double()
        nearest[~made.isfinite().all(1)] = torch.nan
        found: dict[str, Measurement | str] = {
            "spread_train": spread(train, splits.train.labels),
            "spread_test": spread(test, splits.test.labels),
            "variability_train": variability(train, splits.train.labels),
            "variability_test": variability(test, splits.test.labels),
            "class_distance": _distances(means, train),
            "silhouette": _measured(silhouettes(test, splits.test.labels), splits.test.labels),
            "mean_angles": _angles(centred),
            "head_alignment": _alignment(network, centred),
            "reconstruction_spread": spread(made, evidence.labels),
            "reconstruction_nearest": _measured(nearest, evidence.labels),
        }
        for name, features, labels in (
            ("test", test, splits.test.labels),
            ("reconstruction", made, evidence.labels),
        ):
            for axis, values in zip("xy", coordinates(features, labels, means).T / unit**0.5, strict=True):
                found[f"{name}_{axis}"] = _measured(values, labels)
        return found


def _whitening(centred: Tensor) -> Tensor:
    """``(F, R)``, whose product with itself is the pseudo-inverse of the class means' covariance."""
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = values > _FLAT * values.max()
    found: Tensor = vectors[:, kept] / values[kept].sqrt()
    return found


def _features(network: classifier.Classifier, images: Tensor, device: torch.device) -> Tensor:
    """Penultimate features ``(N, F)`` in float64 on the CPU."""
    with torch.no_grad():
        found = [network.features(to_float(part.to(device))).double().cpu() for part in images.split(_BATCH)]
    return torch.cat(found) if found else torch.zeros(0, 1, dtype=torch.float64)


def _class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """``(C, F)``."""
    sums = torch.zeros(classes, features.shape[1], dtype=features.dtype).index_add_(0, labels, features)
    return sums / torch.bincount(labels, minlength=classes)[:, None]


def _measured(values: Tensor, labels: Tensor) -> Measurement:
    return Measurement(values.numpy(), labels.numpy().astype(np.int64))


def silhouettes(features: Tensor, labels: Tensor) -> Tensor:
    """Silhouette ``(N,)`` of each of ``features`` ``(N, F)``.

    0 where a class has no other image, and where its images and those of another class all coincide.
    """
    classes, members = labels.unique(return_inverse=True)
    distances = torch.cdist(features, features)
    one_hot = F.one_hot(members, len(classes)).to(distances.dtype)
    counts, own = one_hot.sum(0), members[:, None]
    sums = distances @ one_hot
    inside = sums.gather(1, own).squeeze(1) / (counts[members] - 1).clamp_min(1)
    outside = (sums / counts).scatter(1, own, torch.inf).amin(1)
    widest = torch.maximum(inside, outside)
    found = (outside - inside) / widest
    return torch.where((counts[members] > 1) & (widest > 0), found, 0.0)


def _distances(means: Tensor, features: Tensor) -> Measurement:
    """Of each class, the mean distance to the others in units of the features' length."""
    length = (features**2).sum(1).mean().sqrt()
    others = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist").sum(1) / (len(means) - 1)
    return _measured(others / length, torch.arange(len(means)))


def _angles(centred: Tensor) -> Measurement:
    """Of each class, the mean distance of its cosines to the others from ``-1 / (C - 1)``."""
    classes = len(centred)
    cosines = F.normalize(centred, dim=1) @ F.normalize(centred, dim=1).T
    away = (cosines + 1 / (classes - 1)).abs()
    mean = (away.sum(1) - away.diagonal()) / (classes - 1)
    return _measured(mean, torch.arange(classes))


def _alignment(network: classifier.Classifier, centred: Tensor) -> Measurement | str:
    """Of each class, the cosine between its weights and its mean."""
    head = network.head
    if not isinstance(head, nn.Linear) or head.weight.shape != centred.shape:
        return "the last layer is not linear in these features"
    weights = head.weight.detach().double().cpu()
    return _measured(F.cosine_similarity(weights - weights.mean(0), centred), torch.arange(len(centred)))


def coordinates(features: Tensor, labels: Tensor, means: Tensor) -> Tensor:
    """Coordinates ``(N, 2)`` of each of ``features`` ``(N, F)`` in the plane of its class's triple.

    The centre of the triple's means is the origin, and its first mean lies on the first axis.
    """
    found = torch.zeros(len(features), 2, dtype=features.dtype)
    last = len(means) - 3
    for first in range(0, len(means), 3):
        triple = means[max(0, min(first, last)) :][:3]
        inside = (labels >= first) & (labels < first + 3)
        centre = triple.mean(0)
        offsets = (triple - centre)[:2].T
        basis, _ = torch.linalg.qr(offsets)
        basis = basis * torch.where((offsets * basis).sum(0) < 0, -1.0, 1.0)  # the signs are LAPACK's
        found[inside, : basis.shape[1]] = (features[inside] - centre) @ basis
    return found


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``embedding``."""
    register("embedding", Embedding)
