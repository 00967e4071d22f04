"""Identification by an identity encoder, which never saw the private data.

A classifier trained on the private images can accept what is no face at all (*Revisiting Model
Inversion Evaluation*, arXiv 2505.03519). Here a reconstruction is embedded by an independent encoder
and ranked against a gallery by cosine similarity: one centroid for each private identity, and
optionally one for each public decoy. Rank 1 is the best. The ceiling is what real held-out images of
the private people reach; the floor is the ``prior-sample`` attack.
"""

from __future__ import annotations

from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.metric import Array, AttackEvidence
from mia_bench.models.inference import embed_images
from mia_bench_plugins.metrics.evaluation_classifier import ceiling, leaked_share, reference

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor

LEAST_VERIFICATION = 0.9
"""Accuracy of verification below which the encoder is unfit to judge the track's images."""


def ranks(embeddings: Tensor, labels: Tensor, gallery: Tensor) -> Tensor:
    """Rank ``(N,)`` of each row's own entry ``gallery[label]``, 1 for the most similar.

    Entries exactly as similar count as ahead, so that a constant embedding does not win.

    Args:
        embeddings: ``(N, D)`` unit-norm.
        labels: ``(N,)`` index into the gallery.
        gallery: ``(G, D)`` unit-norm.
    """
    similarity = embeddings.double() @ gallery.double().T
    own = similarity.gather(1, labels[:, None])
    return (similarity >= own).sum(1)


def median(values: Array) -> float:
    """The median."""
    return float(np.median(values))


class Identification(AttackMetric):
    """Rank of the true identity among the private people, and among them and the decoys."""

    summary = "rank of the true identity by the identity encoder"
    paper = "motivated by arXiv 2505.03519"
    version = "1"
    needs_gallery = True
    quantities: ClassVar[dict[str, Quantity]] = {
        "id_acc1": leaked_share(
            "share of reconstructions whose identity ranks first among the private ones",
            paired=True,
            ceiling="id_acc1_ceiling",
        ),
        "id_acc5": leaked_share(
            "share of reconstructions whose identity ranks among the first five private ones",
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
            ceiling="id_median_rank_ceiling",
        ),
        "id_acc1_ceiling": ceiling("id_acc1 of real held-out images"),
        "id_acc5_ceiling": reference("id_acc5 of real held-out images"),
        "id_gallery_acc1_ceiling": ceiling("id_gallery_acc1 of real held-out images"),
        "id_median_rank_ceiling": Quantity(
            "id_median_rank of real held-out images", kind="rank", role="reference"
        ),
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
        everybody = torch.cat([gallery.private, gallery.decoys])
        found: dict[str, Measurement | str] = {}
        for suffix, embeddings, labels in (
            ("", reconstructions, evidence.labels),
            ("_ceiling", gallery.test, evidence.splits.test.labels),
        ):
            groups = labels.numpy()
            among_private = ranks(embeddings, labels, gallery.private)
            among_all = ranks(embeddings, labels, everybody)
            found["id_acc1" + suffix] = Measurement(_share(among_private <= 1), groups)
            found["id_acc5" + suffix] = (
                Measurement(_share(among_private <= 5), groups)
                if len(gallery.private) > 5
                else f"top 5 of {len(gallery.private)} classes says nothing"
            )
            found["id_gallery_acc1" + suffix] = (
                Measurement(_share(among_all <= 1), groups)
                if len(gallery.decoys)
                else "the data set keeps no decoys"
            )
            found["id_median_rank" + suffix] = Measurement(among_all.double().numpy(), groups, median)
        pairs = gallery.verification
        found["verification_accuracy"] = (
            Measurement(pairs.double().numpy(), torch.arange(len(pairs)).numpy())
            if len(pairs)
            else "the decoys have too few images to form pairs"
        )
        return found


def _share(hits: Tensor) -> Array:
    return hits.double().numpy()


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``identification``."""
    register("identification", Identification)
