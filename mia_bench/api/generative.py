"""The image model behind a prior."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mia_bench.api.images import to_uint8
from mia_bench.device import autocast
from mia_bench.errors import MiaBenchError
from mia_bench.memory import in_batches, upload


class GenerativeModel(nn.Module):
    """Maps latents to images; attacks optimise in the space that ``sample`` draws from.

    Attributes:
        latent_dim: dimension of a latent.
        resolution: height and width of the images.
        latent_slope: slope for negative numbers of the leaky ReLU that a mapping network ends in; 1 where
            latents are not the output of one.
    """

    latent_dim: int
    resolution: int
    latent_slope: float = 1.0

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

    def project(self, images: Tensor) -> Tensor | None:
        """Latents ``(N, latent_dim)`` of the model's images nearest in pixels to ``(N, 3, R, R)`` in [0, 1].

        Override it where there is a closed form; None says that there is none.
        """
        return None

    def final(self, latents: Tensor) -> Tensor:
        """The images to return for ``(N, latent_dim)``: those of ``forward``.

        Override it where ``forward`` saves work that only optimising can do without.
        """
        images: Tensor = self(latents)
        return images

    def render(self, latents: Tensor, *, device: torch.device, batch_size: int = 512) -> Tensor:
        """Images of many latents ``(N, 3, R, R)``, in batches and in float32, on the CPU.

        Out of memory, the batch is halved.
        """
        return self._in_batches(lambda images: images, latents, device, batch_size)

    def pictures(self, latents: Tensor, *, device: torch.device, batch_size: int = 512) -> Tensor:
        """As :meth:`render`, in uint8, the format that images are stored in.

        Raises:
            Diverged: a pixel is NaN or infinite.
            MiaBenchError: a pixel is outside [0, 1].
        """

        def checked(images: Tensor) -> Tensor:
            try:
                return to_uint8(images)
            except MiaBenchError as error:
                raise type(error)(f"the prior makes {error}") from error

        return self._in_batches(checked, latents, device, batch_size)

    @torch.no_grad()
    def _in_batches(
        self, finish: Callable[[Tensor], Tensor], latents: Tensor, device: torch.device, batch_size: int
    ) -> Tensor:
        """What ``finish`` makes of the images on the CPU."""
        with autocast("float32", device):
            return in_batches(
                lambda chunk: finish(self.final(upload(chunk, device)).float().cpu()),
                latents,
                batch_size,
                "a batch of the prior's images",
            )
