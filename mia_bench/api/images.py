"""Conversion of images between uint8 and float."""

from __future__ import annotations

import math

from etils.epy import lazy_imports

from mia_bench.errors import Diverged, MiaBenchError

with lazy_imports():
    import torch
    from torch import Tensor

TOLERANCE = 1e-2
"""How far rounding in bfloat16 may leave [0, 1]."""


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; float images unchanged."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8 on the CPU; uint8 images unchanged.

    Raises:
        Diverged: a pixel is NaN or infinite.
        MiaBenchError: a pixel is outside [0, 1] by more than :data:`TOLERANCE`.
    """
    if images.dtype == torch.uint8 or not images.numel():
        return images.cpu().to(torch.uint8)
    low, high = (float(limit) for limit in images.aminmax())  # NaN if any pixel is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Diverged("images with NaN or infinity")
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise MiaBenchError(f"images from {low:.3g} to {high:.3g}, not in [0, 1]")
    return images.float().cpu().clamp(0, 1).mul_(255).round_().to(torch.uint8)
