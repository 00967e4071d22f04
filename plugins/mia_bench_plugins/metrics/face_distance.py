"""Distance of reconstructions to real faces of their class, by the identity encoder.

``delta_face`` is the *squared* L2 distance from a reconstruction to the nearest training image of its class,
in the track's identity encoder, FaceNet in Struppek et al., *Plug & Play Attacks*, ICML 2022. Embeddings have
unit norm: 0 is the same image, 2 an unrelated one.
"""

from __future__ import annotations

from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.metric import AttackEvidence
from mia_bench.models.inference import embed_images
from mia_bench_plugins.metrics.evaluation_classifier import nearest_squared_distances

with lazy_imports():
    import torch


class FaceDistance(AttackMetric):
    """Squared distance to the nearest training image of the class, by the identity encoder."""

    summary = "distance to real faces of the class by the identity encoder"
    paper = "Struppek et al., ICML 2022"
    version = "1"
    needs_gallery = True
    quantities: ClassVar[dict[str, Quantity]] = {
        "delta_face": Quantity(
            "mean squared distance to the class's nearest training image, by the identity encoder",
            better="higher",
            kind="distance",
            role="leakage",
            paired=True,
        )
    }

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Embed the reconstructions and the training images of the attacked classes."""
        embed = evidence.embed
        if embed is None:
            return {"delta_face": evidence.missing["gallery"]}
        train = evidence.splits.train
        attacked = torch.isin(train.labels, evidence.labels)
        images = train.images if bool(attacked.all()) else train.images[attacked]  # a copy may be gigabytes
        distances = nearest_squared_distances(
            embed_images(embed, evidence.images, evidence.device),
            evidence.labels,
            embed_images(embed, images, evidence.device),
            train.labels[attacked],
        )
        return {"delta_face": Measurement(distances.numpy(), evidence.labels.numpy())}


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``face-distance``."""
    register("face-distance", FaceDistance)
