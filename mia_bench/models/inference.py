"""Batched inference with trained networks."""

from __future__ import annotations

from typing import TypeVar

from etils.epy import lazy_imports

from mia_bench.api.encoder import Embed
from mia_bench.api.images import to_float
from mia_bench.errors import Diverged

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from mia_bench.api import classifier
    from mia_bench.api.classifier import Classifier

ModuleT = TypeVar("ModuleT", bound="nn.Module")


def move_model(model: ModuleT, device: torch.device) -> ModuleT:
    """Move the model to the device; convert it to channels-last if it allows that and it is faster."""
    model.to(device)
    fast = device.type == "cuda" or (device.type == "cpu" and not any(map(_narrow, model.modules())))
    if getattr(model, "channels_last", False) and fast:
        model.to(memory_format=torch.channels_last)
    return model


def _narrow(layer: nn.Module) -> bool:
    """Whether the layer's channels-last gradient writes out of bounds on CPUs with AVX2.

    A bug of oneDNN (uxlfoundation/oneDNN#6035) in 1×1 convolutions with a stride and few channels.
    """
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels < 8
    )


def predict_probabilities(
    model: nn.Module, images: Tensor, *, device: torch.device, batch_size: int = 512, draws: int = 1
) -> Tensor:
    """Softmax probabilities ``(N, C)`` on the CPU in float32, averaged over ``draws`` passes.

    Raises:
        Diverged: a probability is NaN or infinite.
    """
    rows = []
    with torch.no_grad():
        for chunk in images.split(batch_size):
            batch = to_float(chunk.to(device))
            rows.append(classifier.answers(model, batch, draws).softmax(2).mean(0))
    probabilities = torch.cat(rows).cpu()
    if not bool(torch.isfinite(probabilities).all()):
        raise Diverged("a classifier answers with NaN or infinity")
    return probabilities


def extract_features(
    model: Classifier, images: Tensor, *, device: torch.device, batch_size: int = 512
) -> Tensor:
    """Penultimate features ``(N, F)`` on the CPU in float32."""
    with torch.no_grad():
        return torch.cat(
            [model.features(to_float(chunk.to(device))).float() for chunk in images.split(batch_size)]
        ).cpu()


def embed_images(embed: Embed, images: Tensor, device: torch.device, batch_size: int = 256) -> Tensor:
    """Embeddings ``(N, D)`` on the CPU of images, uint8 or in [0, 1], computed in batches.

    Raises:
        Diverged: an embedding is NaN or infinite.
    """
    with torch.no_grad():
        chunks = images.split(batch_size)
        embeddings = torch.cat([embed(to_float(chunk.to(device))).cpu() for chunk in chunks])
    if not bool(torch.isfinite(embeddings).all()):
        raise Diverged("the encoder answers with NaN or infinity")
    return embeddings
