"""The gallery: private identities and decoys embedded by an encoder that never saw them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mia_bench.api.dataset import Splits
from mia_bench.api.encoder import Embed
from mia_bench.api.metric import Gallery
from mia_bench.models.inference import embed_images
from mia_bench.protocol.context import Context
from mia_bench.seeds import generator

_FEWEST_PAIRS = 20
"""Pairs of one identity below which the accuracy of verification says nothing."""

FEWEST_DECOYS = 100
"""Decoys below which the rank among them says little."""

FEWEST_PUBLIC = 100
"""Public people below which a prior made from them is weak."""


def build_gallery(splits: Splits, embed: Embed, context: Context) -> Gallery:
    """Embed the private identities and the decoys once, and measure the encoder on the decoys.

    Raises:
        Diverged: an embedding is NaN or infinite.
    """
    parts = (splits.train, splits.test, splits.decoys)
    total, done = sum(map(len, parts)), 0
    embedded: list[Tensor] = []

    def told(images: Tensor) -> Tensor:
        nonlocal done
        rows = embed(images)
        done += len(images)
        context.progress(done, total, "image")
        return rows

    for part in parts:
        # An encoder need not take an empty batch.
        embedded.append(embed_images(told, part.images, context.device) if len(part) else embedded[0][:0])
    train, test, decoys = embedded
    rng = generator(context.seed, "verification")
    return Gallery(
        private=_centroids(train, splits.train.labels),
        decoys=_centroids(decoys, splits.decoys.labels),
        test=test,
        verification=verify_pairs(decoys, splits.decoys.labels, rng),
    )


def doubts(splits: Splits) -> list[str]:
    """Why identification may say little on these data: lines that runs and pages show as warnings."""
    decoys, public = (len(part.labels.unique()) for part in (splits.decoys, splits.public))
    lines = []
    if 0 < decoys < FEWEST_DECOYS:
        lines.append(
            f"{decoys} decoys, fewer than {FEWEST_DECOYS}: being first in so small a gallery says little"
        )
    if 0 < public < FEWEST_PUBLIC:
        lines.append(
            f"{public} public people, fewer than {FEWEST_PUBLIC}: a prior made from so few is weak, and "
            "attacks that use it understate the leakage"
        )
    return lines


def _centroids(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Unit-norm mean embedding ``(L, D)`` of each label, in the labels' order."""
    _, index = labels.unique(return_inverse=True)
    sums = torch.zeros(int(index.max()) + 1 if len(index) else 0, embeddings.shape[1])
    return nn.functional.normalize(sums.index_add(0, index, embeddings), dim=1)


def verify_pairs(embeddings: Tensor, labels: Tensor, rng: torch.Generator, pairs: int = 3000) -> Tensor:
    """Whether the encoder tells same from different, on pairs of people it never saw.

    As many pairs of one identity as of two, up to ``pairs`` in all. The threshold is chosen on one half
    of the pairs and scored on the other.

    Args:
        embeddings: ``(N, D)``, unit-norm.
        labels: ``(N,)``, the identity of each.
        rng: draws pairs and halves.
        pairs: at most so many.

    Returns:
        ``(P,)`` 0 or 1 for each scored pair; empty when fewer than 20 pairs of one identity exist.
    """
    order = torch.randperm(len(labels), generator=rng)
    order = order[labels[order].argsort(stable=True)]
    same = (labels[order][1:] == labels[order][:-1]).nonzero().flatten()
    same = same[torch.randperm(len(same), generator=rng)][: pairs // 2]
    if len(same) < _FEWEST_PAIRS:
        return torch.zeros(0)
    left, right = order[same], order[same + 1]
    other = right[torch.randperm(len(right), generator=rng)]
    different = labels[left] != labels[other]
    same_scores = (embeddings[left] * embeddings[right]).sum(1)
    different_scores = (embeddings[left] * embeddings[other]).sum(1)[different]
    scores = torch.cat([same_scores, different_scores])
    truth = torch.cat([torch.ones_like(same_scores), torch.zeros_like(different_scores)]).bool()
    order = torch.randperm(len(scores), generator=rng)
    tuning, scored = order[: len(order) // 2], order[len(order) // 2 :]
    correct = (scores[tuning] >= scores[tuning][:, None]) == truth[tuning]
    threshold = scores[tuning][correct.float().mean(1).argmax()]
    return ((scores[scored] >= threshold) == truth[scored]).float()
