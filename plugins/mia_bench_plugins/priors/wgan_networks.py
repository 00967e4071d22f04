"""Generator and critic of the GMI attack, for any resolution 4·2ⁿ.

At 64 pixels and width 64 they are the paper's; other resolutions have more or fewer stages.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mia_bench.api.generative import GenerativeModel
from mia_bench.errors import MiaBenchError


def stage_widths(resolution: int, width: int) -> list[int]:
    """Channels of the stages from 4×4 pixels to the last hidden one: 512, 256, 128, 64 at 64 pixels.

    Raises:
        MiaBenchError: the resolution is not 8, 16, 32, 64 …
    """
    stages = (resolution // 4).bit_length() - 1
    if stages < 1 or 4 * 2**stages != resolution:
        raise MiaBenchError(f"wgan-gp makes 8, 16, 32, 64 … pixels, not {resolution}")
    return [width * 2**number for number in reversed(range(stages))]


class Generator(nn.Module):
    """Latents ``(N, latent)`` to images ``(N, 3, R, R)`` in [0, 1]."""

    def __init__(self, latent: int, width: int, resolution: int) -> None:
        super().__init__()
        widths = stage_widths(resolution, width)
        self.top = widths[0]
        self.project = nn.Linear(latent, 16 * self.top, bias=False)
        self.start = nn.Sequential(nn.BatchNorm1d(16 * self.top), nn.ReLU())
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            up = nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, output_padding=1, bias=False)
            layers += [up, nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.ConvTranspose2d(widths[-1], 3, 5, 2, 2, output_padding=1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        start: Tensor = self.start(self.project(latents))
        images: Tensor = self.layers(start.view(-1, self.top, 4, 4))
        return images


class Critic(nn.Module):
    """Images ``(N, 3, R, R)`` in [0, 1] to scores ``(N,)``, higher for real images."""

    def __init__(self, width: int, resolution: int) -> None:
        super().__init__()
        widths = stage_widths(resolution, width)[::-1]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 5, 2, 2), nn.LeakyReLU(0.2)]
        for inputs, outputs in pairwise(widths):
            layers += [
                nn.Conv2d(inputs, outputs, 5, 2, 2),
                nn.InstanceNorm2d(outputs, affine=True),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images).flatten()
        return scores


class WGAN(GenerativeModel):
    """A generator and its critic; latents are standard normal."""

    def __init__(self, latent: int, width: int, resolution: int) -> None:
        super().__init__()
        self.generator = Generator(latent, width, resolution)
        self.critic = Critic(width, resolution)
        self.latent_dim = latent
        self.resolution = resolution

    def sample(self, count: int, generator: torch.Generator, *, truncation: float = 1.0) -> Tensor:
        return truncation * torch.randn(count, self.latent_dim, generator=generator)

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.generator(latents)
        return images

    def discriminate(self, images: Tensor) -> Tensor:
        scores: Tensor = self.critic(images)
        return scores
