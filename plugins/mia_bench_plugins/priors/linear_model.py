"""The image model of ``eigenfaces``."""

from __future__ import annotations

import torch
from torch import Tensor

from mia_bench.api.generative import GenerativeModel


class LinearModel(GenerativeModel):
    """Mean plus a weighted sum of basis images, clipped to [0, 1]; latents are standard normal."""

    mean: Tensor
    basis: Tensor

    def __init__(self, mean: Tensor, basis: Tensor, resolution: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.latent_dim = basis.shape[0]
        self.resolution = resolution

    def sample(self, count: int, generator: torch.Generator, *, truncation: float = 1.0) -> Tensor:
        return truncation * torch.randn(count, self.latent_dim, generator=generator)

    def project(self, images: Tensor) -> Tensor:
        """The coordinates of images on the basis, whose rows are orthogonal, before pixels are clipped."""
        squares = self.basis.square().sum(1).clamp_min(torch.finfo(self.basis.dtype).tiny)
        return (images.flatten(1) - self.mean) @ self.basis.T / squares

    def forward(self, latents: Tensor) -> Tensor:
        flat = torch.addmm(self.mean, latents, self.basis)
        return flat.view(-1, 3, self.resolution, self.resolution).clamp(0, 1)
