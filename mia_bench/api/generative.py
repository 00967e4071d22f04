"""The image model behind a prior."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from mia_bench.api.images import to_uint8
from mia_bench.errors import MiaBenchError


class GenerativeModel(nn.Module):
    """Maps latents to images; attacks optimise in the space that ``sample`` draws from.

    Attributes:
        latent_dim: width of a latent.
        resolution: height and width of the images.
    """

    latent_dim: int
    resolution: int

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator, *, truncation: float = 1.0) -> Tensor:
        """``(count, latent_dim)`` float32 latents on the CPU.

        ``truncation`` pulls them towards the mean latent: 1 leaves them, 0 gives the mean. A model
        with a mapping network samples its input and returns the mapped latents.
        """

    @abstractmethod
    def forward(self, latents: Tensor) -> Tensor:
        """Differentiable ``(N, latent_dim) -> (N, 3, resolution, resolution)`` in [0, 1]."""

    def discriminate(self, images: Tensor) -> Tensor:
        """Realness scores ``(N,)``, for priors that have a discriminator."""
        raise NotImplementedError(f"{type(self).__name__} has no discriminator")

    @torch.no_grad()
    def render(self, latents: Tensor, *, device: torch.device, batch_size: int = 512) -> Tensor:
        """Images of many latents ``(N, 3, R, R)``, in batches and in float32, on the CPU."""
        with torch.autocast(device.type, enabled=False):
            return torch.cat(
                [self(chunk.to(device)).float().cpu() for chunk in latents.split(batch_size)]
            )

    def pictures(self, latents: Tensor, *, device: torch.device, batch_size: int = 512) -> Tensor:
        """As :meth:`render`, in uint8: a quarter of the memory, and what is kept of an image anyway.

        Raises:
            Diverged: an image has a pixel that is no number.
            MiaBenchError: an image is not in [0, 1].
        """
        made = []
        for chunk in latents.split(batch_size):
            images = self.render(chunk, device=device, batch_size=batch_size)
            try:
                made.append(to_uint8(images))
            except MiaBenchError as error:
                raise type(error)(f"the prior makes {error}") from error
        return torch.cat(made)
