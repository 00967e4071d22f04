"""Batched inference with trained networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from etils.epy import lazy_imports

from mia_bench.api.encoder import Embed
from mia_bench.api.images import to_float
from mia_bench.errors import Diverged
from mia_bench.memory import in_batches, upload

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

    def compute(batch: Tensor) -> Tensor:
        return classifier.answers(model, batch, draws).softmax(2).mean(0)

    probabilities = _in_batches(compute, images, device, batch_size)
    if not bool(torch.isfinite(probabilities).all()):
        raise Diverged("a classifier answers with NaN or infinity")
    return probabilities


def extract_features(
    model: Classifier, images: Tensor, *, device: torch.device, batch_size: int = 512
) -> Tensor:
    """Penultimate features ``(N, F)`` on the CPU in float32."""
    return _in_batches(lambda batch: model.features(batch).float(), images, device, batch_size)


def embed_images(embed: Embed, images: Tensor, device: torch.device, batch_size: int = 256) -> Tensor:
    """Embeddings ``(N, D)`` on the CPU of images, uint8 or in [0, 1], computed in batches.

    Raises:
        Diverged: an embedding is NaN or infinite.
    """
    embeddings = _in_batches(embed, images, device, batch_size)
    if not bool(torch.isfinite(embeddings).all()):
        raise Diverged("the encoder answers with NaN or infinity")
    return embeddings


def _in_batches(
    compute: Callable[[Tensor], Tensor], images: Tensor, device: torch.device, batch_size: int
) -> Tensor:
    """What ``compute`` makes of images, as floats on the device, without gradients; on the CPU.

    Out of memory, the batch is halved.
    """
    with torch.no_grad():
        rows = in_batches(lambda chunk: compute(to_float(upload(chunk, device))), images, batch_size)
        return rows.cpu()
