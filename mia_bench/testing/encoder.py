"""Checks of identity encoders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.api.encoder import Embed, Encoder
from mia_bench.errors import MiaBenchError, Unavailable
from mia_bench.plugins import describe_error
from mia_bench.testing.checks import CheckSkipped, Problem, check
from mia_bench.testing.dataset import steady
from mia_bench.testing.isolation import isolated
from mia_bench.testing.trial import Attempt, Run, Trial

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

    action = "embedding"
    contract = "mia_bench.Encoder"
    tolerance = 1e-5
    advice: ClassVar = {
        "repeatable": "Draw nothing: eval mode, fixed weights",
        "gpu": "Load the network onto device, or move images to where it is",
    }

    def compute(self, run: Run) -> Embedded:
        """Load it and embed the test images.

        Raises:
            CheckSkipped: its weights or a package are not here.
        """
        encoder: Encoder = self.make()
        try:
            encoder.fingerprint(self.weights)
        except Unavailable as reason:
            raise CheckSkipped(f"{reason} (or give weights=…, --weights)") from reason
        embed = encoder.load(self.weights, device=run.device)
        with torch.no_grad():
            return Embedded(embed, embed(run.world.enlarged(SIZE).to(run.device)).cpu())

    def outcome(self, made: Embedded) -> Mapping[str, Any]:
        """The embeddings."""
        return {"its embeddings": made.rows}

    def ask(self, images: Tensor) -> Attempt[Tensor]:
        """Embeddings ``(N, D)`` of images, on the CPU."""
        embed = self.base.made.embed
        with isolated(0), torch.no_grad():
            return Attempt.of(lambda: embed(images.to(self.device)).cpu())


@check("encoder")
def missing_files(trial: EncoderTrial) -> Iterator[Problem]:
    """In an empty folder, and without one, ``fingerprint`` gives a hash or raises Unavailable."""
    with tempfile.TemporaryDirectory() as folder, isolated(0):
        for weights, where in ((Path(folder), "in an empty folder"), (None, "without a folder")):
            error = Attempt.of(partial(trial.make().fingerprint, weights)).error
            if isinstance(error, Unavailable) and "\n" in str(error):
                yield f"{where} its reason has several lines", "Say it in one"
            elif error is not None and not isinstance(error, Unavailable):
                yield (
                    f"{where} fingerprint raised {describe_error(error)}",
                    "Raise mia_bench.errors.Unavailable, and say where the file is to be had",
                )


@check("encoder", name="runs")
def steady_fingerprint(trial: EncoderTrial) -> Iterator[Problem]:
    """Its fingerprint stays the same."""
    _ = trial.base.made
    yield from steady(lambda: trial.make().fingerprint(trial.weights))


@check("encoder")
def embeddings(trial: EncoderTrial) -> Iterator[Problem]:
    """Finite embeddings ``(N, D)`` in float32, of unit norm."""
    rows, count = trial.base.made.rows, len(toy.world().splits.test)
    if rows.dim() != 2 or len(rows) != count or rows.dtype != torch.float32:
        found = f"{rows.dtype} {tuple(rows.shape)}"
        yield f"its embeddings are {found}", f"Return float32 of shape ({count}, D) here"
    elif not bool(torch.isfinite(rows).all()):
        yield "its embeddings hold NaN or infinity", "Divide by max(norm, epsilon)"
    elif float((rows.norm(dim=1) - 1).abs().max()) > 1e-3:
        yield "its embeddings are not of unit norm", "Use torch.nn.functional.normalize"


@check("encoder")
def alone(trial: EncoderTrial) -> Iterator[Problem]:
    """An image on its own has the embedding that it has in a batch."""
    rows, attempt = trial.base.made.rows, trial.ask(toy.world().enlarged(SIZE)[:1])
    if attempt.error is not None:
        yield f"one image raised {describe_error(attempt.error)}", "Handle batches of one"
    elif not torch.allclose(attempt.made, rows[:1], atol=1e-4):
        yield (
            "an image's embedding depends on the others of its batch",
            "Put the network into eval mode, and normalise each row by itself",
        )


@check("encoder")
def sizes(trial: EncoderTrial) -> Iterator[Problem]:
    """Larger images have embeddings of as many dimensions, or are refused by a MiaBenchError."""
    wanted, attempt = trial.base.made.rows.shape, trial.ask(toy.world().enlarged(2 * SIZE))
    advice = "Resize to what the network takes: images come at the resolution of the track"
    if isinstance(attempt.error, MiaBenchError):
        return
    if attempt.error is not None:
        yield f"larger images raised {describe_error(attempt.error)}", advice
    elif attempt.made.shape != wanted:
        yield f"larger images give {tuple(attempt.made.shape)}, not {tuple(wanted)}", advice
