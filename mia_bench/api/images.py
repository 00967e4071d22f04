"""Images as bytes and as numbers."""

from __future__ import annotations

import math

from etils.epy import lazy_imports

from mia_bench.errors import Diverged, MiaBenchError

with lazy_imports():
    import torch
    from torch import Tensor

ROUNDINGS = 1e-2
"""How far bfloat16 may leave [0, 1]."""


def to_float(images: Tensor) -> Tensor:
    """uint8 images to float32 in [0, 1]; float images pass."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, on the CPU; uint8 images pass.

    Raises:
        Diverged: a pixel is no number.
        MiaBenchError: a pixel is not in [0, 1], but for roundings.
    """
    if images.dtype == torch.uint8 or not images.numel():
        return images.cpu().to(torch.uint8)
    low, high = (float(limit) for limit in images.aminmax())  # NaN where there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Diverged("images with NaN or infinity")
    if low < -ROUNDINGS or high > 1 + ROUNDINGS:
        raise MiaBenchError(f"images from {low:.3g} to {high:.3g}, not in [0, 1]")
    return (images.float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
