"""The identity encoder ``plugin_name``: who trained it, on what.

It must not have seen the private images.
"""

from __future__ import annotations

from pathlib import Path

from mia_bench import Encoder, Register, hookimpl, lazy_imports
from mia_bench.api.encoder import Embed
from pydantic import Field

with lazy_imports():
    import torch
    from torch.nn import functional as F


class PluginClass(Encoder):
    """An example: small images as embeddings."""

    summary = "an example: small images as embeddings"
    terms = "no weights"

    class Options(Encoder.Options):
        """Options: ``-o plugin_name.size=16``."""

        size: int = Field(8, ge=2, le=64, description="height and width of the small images")

    options: Options

    def fingerprint(self, weights: Path | None) -> str:
        """A constant, as there is no weight file.

        For a weight file, return its hash; raise ``mia_bench.errors.Unavailable`` and say where to
        get it if ``weights`` is None or the file is missing.
        """
        return "no weights"

    def load(self, weights: Path | None, *, device: torch.device) -> Embed:
        """From ``(N, 3, H, W)`` in [0, 1] to embeddings ``(N, 3 * size * size)`` of unit norm."""

        def embed(images: torch.Tensor) -> torch.Tensor:
            small = F.adaptive_avg_pool2d(images.float(), self.options.size).flatten(1)
            return F.normalize(small - small.mean(1, keepdim=True), dim=1)

        return embed


@hookimpl
def mia_bench_register_encoders(register: Register) -> None:
    """Register ``plugin_name``."""
    register("plugin_name", PluginClass)
