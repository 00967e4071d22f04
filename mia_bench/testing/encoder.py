"""Checks of identity encoders."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.api.encoder import Embed, Encoder
from mia_bench.errors import MiaBenchError, Unavailable
from mia_bench.testing.checks import CheckSkipped, Problem, check
from mia_bench.testing.isolation import isolated
from mia_bench.testing.trial import Run, Trial

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.testing import world as toy

SIZE = 32
"""Height and width of the images."""


@dataclass(frozen=True)
class Embedded:
    """A loaded encoder, and its embeddings ``(N, D)`` of the test images, on the CPU."""

    embed: Embed
    rows: Tensor


class EncoderTrial(Trial[Embedded]):
    """An encoder that embeds images of the toy world."""

    tolerance = 1e-5
    advice: ClassVar = {
        "runs": "See mia_bench.Encoder",
        "repeatable": "Draw nothing: eval mode, fixed weights",
        "alone": "Handle batches of one",
        "sizes": "Resize to what the network takes: images come at the resolution of the track",
        "gpu": "Load the network onto device, or move images to where it is",
    }

    def compute(self, run: Run) -> Embedded:
        encoder: Encoder = self.make()
        try:
            encoder.fingerprint(self.weights)
        except Unavailable as reason:
            raise CheckSkipped(f"{reason} (or give weights=…, --weights)") from reason
        embed = encoder.load(self.weights, device=run.device)
        with torch.no_grad():
            return Embedded(embed, embed(run.world.enlarged(SIZE).to(run.device)).cpu())

    def outcome(self, made: Embedded) -> Mapping[str, Any]:
        return {"its embeddings": made.rows}

    def ask(self, images: Tensor) -> Tensor:
        """Embeddings ``(N, D)``, on the CPU."""
        embed = self.made.embed
        with isolated(0), torch.no_grad():
            return embed(images.to(self.device)).cpu()

    @check("encoder")
    def embeddings(self) -> Iterator[Problem]:
        """Finite embeddings ``(N, D)`` in float32, of unit norm."""
        rows, count = self.made.rows, len(toy.world().splits.test)
        if rows.dim() != 2 or len(rows) != count or rows.dtype != torch.float32:
            yield (
                f"its embeddings are {rows.dtype} {tuple(rows.shape)}",
                f"Return float32 of shape ({count}, D)",
            )
        elif not bool(torch.isfinite(rows).all()):
            yield "its embeddings contain NaN or infinity", "Divide by max(norm, epsilon)"
        elif float((rows.norm(dim=1) - 1).abs().max()) > 1e-3:
            yield "its embeddings are not of unit norm", "Use torch.nn.functional.normalize"

    @check("encoder")
    def alone(self) -> Iterator[Problem]:
        """An image on its own has the embedding that it has in a batch."""
        rows, row = self.made.rows, self.ask(toy.world().enlarged(SIZE)[:1])
        if not torch.allclose(row, rows[:1], atol=1e-4):
            advice = "Put the network into eval mode, and normalise each row by itself"
            yield "an image's embedding depends on the rest of its batch", advice

    @check("encoder")
    def sizes(self) -> Iterator[Problem]:
        """Larger images have embeddings of as many dimensions, or are refused by a MiaBenchError."""
        wanted = tuple(self.made.rows.shape)
        with contextlib.suppress(MiaBenchError):
            found = tuple(self.ask(toy.world().enlarged(2 * SIZE)).shape)
            if found != wanted:
                yield f"larger images give {found}, not {wanted}", self.advice["sizes"]
