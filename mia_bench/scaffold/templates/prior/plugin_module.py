"""The prior ``plugin_name``: what it does, its formula, its paper."""

from __future__ import annotations

from mia_bench import Prior, PriorTask, Register, hookimpl, lazy_imports
from mia_bench.api.images import to_float
from pydantic import Field

with lazy_imports():
    import torch
    from mia_bench.api import generative


class PluginClass(Prior):
    """An example: an image is a softmax mixture of some of the public images."""

    summary = "an example: mixtures of public images"
    paper = "unpublished"

    class Options(Prior.Options):
        """Options: ``-o plugin_name.images=64``."""

        images: int = Field(32, ge=2, description="public images that are mixed")

    options: Options

    def fit(self, task: PriorTask) -> dict[str, torch.Tensor]:
        """Choose the images."""
        public = task.training_images()
        chosen = torch.randperm(len(public), generator=task.generator)[: self.options.images]
        return {"images": public[chosen]}

    def build(
        self, state: dict[str, torch.Tensor], *, resolution: int
    ) -> generative.GenerativeModel:
        """The mixture of the images in ``state``."""
        return mixture(state["images"], resolution)


def mixture(images: torch.Tensor, resolution: int) -> generative.GenerativeModel:
    """A model whose latents weigh ``(N, 3, R, R)`` uint8 images.

    Larger networks belong in a module of their own, imported lazily, with torch imported as usual.
    """

    class Mixture(generative.GenerativeModel):
        """Weights are the softmax of the latent."""

        images: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("images", to_float(images))
            self.latent_dim, self.resolution = len(images), resolution

        def sample(
            self, count: int, generator: torch.Generator, *, truncation: float = 1.0
        ) -> torch.Tensor:
            """``(count, latent_dim)`` normal latents times ``truncation``."""
            return truncation * torch.randn(count, self.latent_dim, generator=generator)

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            """``(N, latent_dim)`` to ``(N, 3, R, R)`` in [0, 1]."""
            weights = latents.float().softmax(1)
            return torch.einsum("nk,kchw->nchw", weights, self.images).clamp(0, 1)

    return Mixture().eval()


@hookimpl
def mia_bench_register_priors(register: Register) -> None:
    """Register ``plugin_name``."""
    register("plugin_name", PluginClass)
