"""The image model behind a prior."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from mia_bench.api.images import to_uint8
from mia_bench.device import autocast
from mia_bench.errors import MiaBenchError


class GenerativeModel(nn.Module):
    """Maps latents to images; attacks optimise in the space that ``sample`` draws from.

    Attributes:
        latent_dim: dimension of a latent.
        resolution: height and width of the images.
    """

    latent_dim: int
    resolution: int

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator, *, truncation: float = 1.0) -> Tensor:
        """``(count, latent_dim)`` float32 latents on the CPU.

        ``truncation`` interpolates from the mean latent (0) to the sample (1). A model with a mapping
        network samples its input and returns the mapped latents.
        """

    @abstractmethod
    def forward(self, latents: Tensor) -> Tensor:
        """Differentiable ``(N, latent_dim) -> (N, 3, resolution, resolution)`` in [0, 1]."""

    def discriminate(self, images: Tensor) -> Tensor:
        """Realism scores ``(N,)``, for priors with a discriminator."""
        raise NotImplementedError(f"{type(self).__name__} has no discriminator")

    @torch.no_grad()
    def render(self, latents: Tensor, *, device: torch.device, batch_size: int = 512) -> Tensor:
        """Images of many latents ``(N, 3, R, R)``, in batches and in float32, on the CPU."""
        with autocast("float32", device):
            return torch.cat([self(chunk.to(device)).float().cpu() for chunk in latents.split(batch_size)])

    def pictures(self, latents: Tensor, *, device: torch.device, batch_size: int = 512) -> Tensor:
        """As :meth:`render`, in uint8, the format that images are stored in.

        Raises:
            Diverged: a pixel is NaN or infinite.
            MiaBenchError: a pixel is outside [0, 1].
        """
        made, done = torch.empty(0), 0
        for chunk in latents.split(batch_size):
            images = self.render(chunk, device=device, batch_size=batch_size)
            try:
                pictures = to_uint8(images)
            except MiaBenchError as error:
                raise type(error)(f"the prior makes {error}") from error
            if not done:  # one tensor for all: at paper scale there are gigabytes of them
                made = pictures.new_empty((len(latents), *pictures.shape[1:]))
            made[done : done + len(chunk)] = pictures
            done += len(chunk)
        return made
