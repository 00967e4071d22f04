"""The prior oracle: how well the private people can be shown with a prior at all.

Private *test* images are imitated by the prior, with the images and the identity encoder at hand, which no
attack has: what the encoder recognises of the imitations is out of the reach of attacks only because of the
prior, and what it does not recognise in reconstructions beyond that is not. Of each image there are several
imitations, and the one that the encoder finds most alike counts:

- the most alike of :data:`SAMPLES` samples of the prior;
- the image nearest in pixels, where the prior gives it in closed form (:meth:`GenerativeModel.project`);
- the best of these, fitted further by Adam: to the encoder's embedding if the encoder is differentiable, else
  to the pixels if there was no closed form.

Without a differentiable encoder the result is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mia_bench.api.dataset import ImageSet
from mia_bench.api.encoder import Embed
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_float
from mia_bench.device import autocast
from mia_bench.memory import in_batches, upload
from mia_bench.models.inference import embed_images
from mia_bench.protocol.context import Context
from mia_bench.seeds import generator

IMAGES = 4
"""Test images of a class that are imitated, at most."""

SAMPLES = 1000
"""Samples of the prior that the search begins with."""

STEPS = 20
"""Steps of Adam."""

RATE = 0.03
"""Learning rate of Adam, in standard deviations of the prior's latents; it falls to 0 along a cosine."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From made images and what they are fitted to, to a loss that sums over images."""


def first_of_each(images: ImageSet, count: int | None) -> ImageSet:
    """At most :data:`IMAGES` images of each of the first ``count`` classes, or of all."""
    labels = [label for label in images.labels.unique().tolist() if count is None or label < count]
    places = [(images.labels == label).nonzero().flatten()[:IMAGES] for label in labels]
    rows = torch.cat(places) if places else torch.zeros(0, dtype=torch.long)
    return ImageSet(images.images[rows], images.labels[rows])


def imitate(
    model: GenerativeModel, images: Tensor, embed: Embed, context: Context, *, batch_size: int
) -> tuple[Tensor, Tensor]:
    """The prior's best imitations of images.

    Args:
        model: of the prior, frozen.
        images: ``(N, 3, R, R)`` uint8.
        embed: the identity encoder.
        context: seed and device.
        batch_size: images a pass through the model.

    Returns:
        The imitations ``(N, 3, R, R)`` uint8, and their embeddings ``(N, D)``.
    """
    device, originals = context.device, to_float(images)
    wanted = embed_images(embed, images, device)

    def embedded(latents: Tensor) -> Tensor:
        return embed_images(embed, model.pictures(latents, device=device, batch_size=batch_size), device)

    samples = model.sample(SAMPLES, generator(context.seed, "oracle"))
    latents = samples[(wanted @ embedded(samples).T).argmax(1)]
    alike = F.cosine_similarity(embedded(latents), wanted)

    def take_better(found: Tensor) -> None:
        nonlocal latents, alike
        now = F.cosine_similarity(embedded(found), wanted)
        latents = found.where((now > alike)[:, None], latents)
        alike = now.maximum(alike)

    projected = model.project(originals.to(device))
    if projected is not None:
        take_better(projected.float().cpu())
    if _is_differentiable(embed, originals[:1].to(device)):
        take_better(_fit(model, latents, wanted, _embedding_loss(embed), context, batch_size, samples))
    elif projected is None:
        pixels = originals.flatten(1)
        take_better(_fit(model, latents, pixels, _pixel_loss, context, batch_size, samples))
    made = model.pictures(latents, device=device, batch_size=batch_size)
    return made, embed_images(embed, made, device)


def _is_differentiable(embed: Embed, image: Tensor) -> bool:
    with torch.enable_grad():
        return embed(image.clone().requires_grad_(True)).requires_grad


def _embedding_loss(embed: Embed) -> Loss:
    return lambda made, wanted: -(embed(made) * wanted).sum()


def _pixel_loss(made: Tensor, wanted: Tensor) -> Tensor:
    return (made.flatten(1) - wanted).square().sum()


def _fit(
    model: GenerativeModel,
    starts: Tensor,
    wanted: Tensor,
    loss: Loss,
    context: Context,
    batch_size: int,
    samples: Tensor,
) -> Tensor:
    """Latents ``(N, D)`` whose images have a small loss, by Adam from ``starts``."""
    rate, done = RATE * float(samples.std()), 0

    def fit(rows: Tensor) -> Tensor:
        nonlocal done
        latents = upload(starts[rows], context.device).requires_grad_(True)
        target = upload(wanted[rows], context.device)
        adam = torch.optim.Adam([latents], lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
        with torch.enable_grad(), autocast("float32", context.device):
            for _ in range(STEPS):
                adam.zero_grad(set_to_none=True)
                loss(model(latents), target).backward()
                adam.step()
                schedule.step()
        done += len(rows)
        context.progress(done, len(starts), "image")
        return latents.detach().cpu()

    return in_batches(fit, torch.arange(len(starts)), batch_size, "a batch of the prior oracle")
