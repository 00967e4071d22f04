"""The identity encoder ``plugin_name``: who trained it, on what.

An encoder is the second judge of reconstructions: it must not have seen the private images.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mia_bench import Encoder, hookimpl, lazy_imports
from mia_bench.hookspecs import Register
from pydantic import Field
from mia_bench.api.encoder import Embed

with lazy_imports():
    from torch import Tensor
    from torch.nn import functional as F
    import torch



class PluginClass(Encoder):
    """An example: small images as embeddings."""

    summary = "an example: small images as embeddings"
    terms = "no weights"

    class Options(Encoder.Options):
        """Options: ``-o plugin_name.size=16``."""

        size: int = Field(8, ge=2, le=64, description="height and width of the small images")

    options: Options

    def fingerprint(self, weights: Path | None) -> str:
        """There is no file here.

        Where one is: return a hash of it, and raise ``mia_bench.errors.Unavailable`` with the
        place to get it from if ``weights`` is None or the file is missing.
        """
        return "no weights"

    def load(self, weights: Path | None, *, device: torch.device) -> Embed:
        """From ``(N, 3, H, W)`` in [0, 1] to embeddings ``(N, 3 * size * size)`` of unit norm."""
        def embed(images: Tensor) -> Tensor:
            small = F.adaptive_avg_pool2d(images.float(), self.options.size).flatten(1)
            return F.normalize(small - small.mean(1, keepdim=True), dim=1)

        return embed


@hookimpl
def mia_bench_register_encoders(register: Register) -> None:
    """Register ``plugin_name``."""
    register("plugin_name", PluginClass)
