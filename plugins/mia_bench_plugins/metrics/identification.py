"""Identification by an identity encoder, which never saw the private data.

A classifier trained on the private images can accept what is no face at all (*Revisiting Model
Inversion Evaluation*, arXiv 2505.03519). Here a reconstruction is embedded by an independent encoder
and ranked against a gallery by cosine similarity: one centroid for each private identity, and
optionally one for each public decoy. Rank 1 is the best. The ceiling is what real held-out images of
the private people reach; the floor is the ``prior-sample`` attack.

``id_bits`` is the mean of log2(gallery size / rank): how many bits of the person's identity an image gives
away. An image that names the person gives log2(gallery size), one that says nothing (every rank equally
likely) log2(e) = 1.44 in the mean, slightly less in small galleries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.metric import Array, AttackEvidence, Gallery, Recorded, mean
from mia_bench.models.inference import embed_images
from mia_bench_plugins.metrics.evaluation_classifier import ceiling, leaked_share, reference

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor

LEAST_VERIFICATION = 0.9
"""Accuracy of verification below which the encoder is unfit to judge the track's images."""

_EQUAL = 1e-9
"""Standard deviation of cosine similarities below which they only differ by rounding."""


def ranks(embeddings: Tensor, labels: Tensor, gallery: Tensor) -> Tensor:
    """Rank ``(N,)`` of each row's own entry ``gallery[label]``, 1 for the most similar.

    Entries exactly as similar count as ahead, so that a constant embedding does not win.

    Args:
        embeddings: ``(N, D)`` unit-norm.
        labels: ``(N,)`` index into the gallery.
        gallery: ``(G, D)`` unit-norm.
    """
    own, others = own_and_others(embeddings, labels, gallery)
    return 1 + (others >= own[:, None]).sum(1)


def own_and_others(embeddings: Tensor, labels: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine similarity of each row to its own entry ``(N,)`` and to the others ``(N, G - 1)``, float64.

    Arguments as of :func:`ranks`.
    """
    similarity = embeddings.double() @ gallery.double().T
    mine = torch.arange(len(gallery)) == labels[:, None]
    return similarity[mine], similarity[~mine].view(len(labels), len(gallery) - 1)


def bits(rank: Tensor, gallery: int) -> Tensor:
    """log2(gallery size / rank) of each rank ``(N,)``, float64."""
    return math.log2(gallery) - rank.double().log2()


def z_scores(own: Tensor, others: Tensor) -> Tensor:
    """Each own similarity ``(N,)`` in standard deviations above the mean of the others ``(N, G - 1)``.

    NaN where the others are all equally similar.
    """
    mean = others.mean(1)
    spread = (others - mean[:, None]).square().mean(1).sqrt()
    return (own - mean) / spread.where(spread > _EQUAL, torch.nan)


def shares_below(own: Tensor, others: Tensor) -> Tensor:
    """Share of the others ``(N, G - 1)`` that are less similar than the own ``(N,)``; equals count half."""
    below, equal = others < own[:, None], others == own[:, None]
    return below.double().mean(1) + equal.double().mean(1) / 2


def median(values: Array) -> float:
    """The median."""
    return float(np.median(values))


def identify(embeddings: Tensor, labels: Tensor, gallery: Gallery) -> dict[str, Measurement | str]:
    """What the similarity of embeddings ``(N, D)`` to the gallery says of their identities ``labels``."""
    everybody = torch.cat([gallery.private, gallery.decoys])
    among_private = ranks(embeddings, labels, gallery.private)
    among_all = ranks(embeddings, labels, everybody)
    values: dict[str, Tensor | str] = {
        "id_bits": bits(among_all, len(everybody)),
        "id_acc1": among_private <= 1,
        "id_acc5": among_private <= 5,
        "id_gallery_acc1": among_all <= 1,
        "id_median_rank": among_all,
    }
    if len(everybody) > 1:
        own, others = own_and_others(embeddings, labels, everybody)
        values |= {"id_z": z_scores(own, others), "id_auc": shares_below(own, others)}
    else:
        values |= dict.fromkeys(("id_z", "id_auc"), "the gallery has one entry")
    if len(gallery.private) <= 5:
        values["id_acc5"] = f"top 5 of {len(gallery.private)} classes says nothing"
    if not len(gallery.decoys):
        values["id_gallery_acc1"] = "the data set keeps no decoys"
    groups = labels.numpy()
    return {
        name: one
        if isinstance(one, str)
        else Measurement(one.double().numpy(), groups, median if name == "id_median_rank" else mean)
        for name, one in values.items()
    }


class Identification(AttackMetric):
    """Rank of the true identity among the private people, and among them and the decoys."""

    summary = "rank of the true identity by the identity encoder"
    paper = "motivated by arXiv 2505.03519"
    version = "2"
    needs_gallery = True
    quantities: ClassVar[dict[str, Quantity]] = {
        "id_bits": Quantity(
            "bits of the true identity that a reconstruction gives away, 1.44 by chance: mean of "
            "log2(gallery size / rank), the gallery being the private ones and the decoys",
            better="lower",
            kind="bits",
            role="leakage",
            paired=True,
            ranks="id_rank",
            ceiling="id_bits_ceiling",
            oracle="id_bits_oracle",
        ),
        "id_acc1": leaked_share(
            "share of reconstructions whose identity ranks first among the private ones",
            paired=True,
            ceiling="id_acc1_ceiling",
            oracle="id_acc1_oracle",
        ),
        "id_acc5": leaked_share(
            "share of reconstructions whose identity ranks among the first five private ones",
            paired=True,
            ceiling="id_acc5_ceiling",
        ),
        "id_gallery_acc1": leaked_share(
            "share of reconstructions whose identity ranks first among the private ones and the decoys",
            paired=True,
            ceiling="id_gallery_acc1_ceiling",
        ),
        "id_median_rank": Quantity(
            "median rank of the true identity among the private ones and the decoys (1 is the best match)",
            better="higher",
            kind="rank",
            role="leakage",
            per_image="id_rank",
            ceiling="id_median_rank_ceiling",
        ),
        "id_z": Quantity(
            "mean z-score of the cosine similarity to the true identity among those to the others",
            better="lower",
            role="leakage",
            paired=True,
            ceiling="id_z_ceiling",
        ),
        "id_auc": leaked_share(
            "mean share of the gallery's others that are less similar than the true identity, 0.5 by chance",
            paired=True,
            ceiling="id_auc_ceiling",
        ),
        "id_bits_ceiling": Quantity("id_bits of real held-out images", kind="bits", role="reference"),
        "id_acc1_ceiling": ceiling("id_acc1 of real held-out images"),
        "id_acc5_ceiling": reference("id_acc5 of real held-out images"),
        "id_gallery_acc1_ceiling": ceiling("id_gallery_acc1 of real held-out images"),
        "id_median_rank_ceiling": Quantity(
            "id_median_rank of real held-out images", kind="rank", role="reference"
        ),
        "id_z_ceiling": Quantity("id_z of real held-out images", role="reference"),
        "id_auc_ceiling": reference("id_auc of real held-out images"),
        "verification_accuracy": reference(
            "the identity encoder's accuracy in telling pairs of the same unseen person from other pairs",
            unfit_below=LEAST_VERIFICATION,
        ),
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Embed the reconstructions and rank them."""
        gallery, embed = evidence.gallery, evidence.embed
        if gallery is None or embed is None:
            return dict.fromkeys(self.quantities, evidence.missing["gallery"])
        reconstructions = embed_images(embed, evidence.images, evidence.device)
        found = identify(reconstructions, evidence.labels, gallery)
        real = identify(gallery.test, evidence.splits.test.labels, gallery)
        found |= {f"{name}_ceiling": measured for name, measured in real.items()}
        pairs = gallery.verification
        found["verification_accuracy"] = (
            Measurement(pairs.double().numpy(), torch.arange(len(pairs)).numpy())
            if len(pairs)
            else "the decoys have too few images to form pairs"
        )
        return found

    @classmethod
    def contradictions(cls, recorded: Recorded) -> Iterator[str]:
        """Where numbers are not what follows from the rank of each image."""
        by_class = recorded.per_image.get("id_rank", ())
        if not by_class:
            return
        every, values = np.array([rank for ranks in by_class for rank in ranks], dtype=float), recorded.values
        if "id_bits" not in values or not (every >= 1).all():
            yield "id_rank must hold ranks from 1, and id_bits a value"
            return
        size = round(2 ** (values["id_bits"] + float(np.log2(every).mean())))
        alike = list(_by_size(by_class))
        for name, limits in _LIMITS.items():
            means = recorded.per_class.get(name, ())
            if means and len(means) != len(by_class):
                yield f"{name} has means of {len(means)} classes, id_rank of {len(by_class)}"
                continue
            blocks = [(np.array([values[name]]), every[None])] if name in values else []
            if means:
                blocks += [(np.array(means)[same], ranks) for same, ranks in alike]
            for found, ranks in blocks:
                low, high = limits(ranks, size)
                right = (low - _ROUNDING <= found) & (found <= high + _ROUNDING)
                if not right.all():
                    index = int(np.argmin(right))
                    least, most = (np.broadcast_to(limit, len(found))[index] for limit in (low, high))
                    yield f"{name} is {found[index]}, by the ranks in id_rank it is from {least} to {most}"
                    break


_ROUNDING = 1e-4
"""How far numbers may be off: less than one entry more in the gallery changes ``id_bits``."""

_LIMITS: dict[str, Callable[[Array, int], tuple[Array, Array | float]]] = {
    "id_bits": lambda ranks, size: _exactly(np.log2(size / ranks).mean(1)),
    "id_gallery_acc1": lambda ranks, size: _exactly((ranks <= 1).mean(1)),
    "id_median_rank": lambda ranks, size: _exactly(np.median(ranks, 1)),
    # Ranks among the private ones are at most those among all.
    "id_acc1": lambda ranks, size: ((ranks <= 1).mean(1), 1.0),
    "id_acc5": lambda ranks, size: ((ranks <= 5).mean(1), 1.0),
    # Of the entries ahead, those that are exactly as similar count half.
    "id_auc": lambda ranks, size: (
        1 - (ranks - 1).mean(1) / max(size - 1, 1),
        1 - (ranks - 1).mean(1) / 2 / max(size - 1, 1),
    ),
}
"""Least and largest value of a quantity in each class, by ranks ``(classes, images)`` and gallery size."""


def _exactly(values: Array) -> tuple[Array, Array]:
    return values, values


def _by_size(by_class: Sequence[Sequence[float]]) -> Iterator[tuple[list[int], Array]]:
    """The classes that have equally many images, with their ranks as one array ``(classes, images)``."""
    for size in sorted({len(ranks) for ranks in by_class}):
        same = [index for index, ranks in enumerate(by_class) if len(ranks) == size]
        yield same, np.array([by_class[index] for index in same], dtype=float)


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``identification``."""
    register("identification", Identification)
