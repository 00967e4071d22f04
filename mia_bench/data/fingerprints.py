"""Fingerprints of images, to check whether a prior saw a private one."""

from __future__ import annotations

import hashlib

from etils.epy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor


def image_fingerprints(images: Tensor) -> Tensor:
    """Hashes ``(N,)`` int64 of the pixels of uint8 images ``(N, C, H, W)``."""
    rows = images.cpu().contiguous().flatten(1).numpy()
    hashes = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return torch.tensor([int.from_bytes(h, "big", signed=True) for h in hashes], dtype=torch.int64)
