"""Checks of identity encoders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from mia_bench.api.encoder import Embed, Encoder
from mia_bench.errors import MiaBenchError, Unavailable
from mia_bench.plugins import describe_error
from mia_bench.testing.common import steady
from mia_bench.testing.findings import Attempt, Check, NotMade, Problem, raises
from mia_bench.testing.isolation import TracedTrial, gpu_device, isolated
from mia_bench.testing.world import world

SIZE = 32
"""Height and width of the images."""


class EncoderTrial(TracedTrial):
    """An encoder that embeds images of the toy world."""

    @cached_property
    def base(self) -> Attempt[Tensor]:
        """The first embeddings ``(N, D)``, on the CPU."""
        return Attempt.of(lambda: self.ask(world().enlarged(SIZE)))

    @cached_property
    def embed(self) -> Embed:
        """The function that :attr:`base` asks."""
        return self.load(self.device)

    def load(self, device: torch.device) -> Embed:
        """Load it, as the host does.

        Raises:
            NotMade: its weights or a package are not here.
        """
        encoder: Encoder = self.make()
        try:
            encoder.fingerprint(self.weights)
        except Unavailable as reason:
            raise NotMade(f"{reason} (or give weights=…, --weights)") from reason
        return encoder.load(self.weights, device=device)

    def ask(self, images: Tensor, embed: Embed | None = None) -> Tensor:
        """Embeddings ``(N, D)`` of images, on the CPU."""
        with self.traced(0), torch.no_grad():
            return (embed or self.embed)(images.to(self.device)).cpu()


def missing_files(trial: EncoderTrial) -> Iterator[Problem]:
    """In an empty folder, and without one, ``fingerprint`` gives a hash or raises Unavailable."""
    with tempfile.TemporaryDirectory() as folder, isolated(0):
        for weights, where in ((Path(folder), "in an empty folder"), (None, "without a folder")):
            attempt = Attempt.of(partial(trial.make().fingerprint, weights))
            if isinstance(attempt.error, Unavailable) and "\n" in str(attempt.error):
                yield f"{where} its reason has several lines", "Say it in one"
            elif attempt.error is not None and not isinstance(attempt.error, Unavailable):
                yield (
                    f"{where} fingerprint raised {describe_error(attempt.error)}",
                    "Raise mia_bench.errors.Unavailable, and say where the file is to be had",
                )


def runs(trial: EncoderTrial) -> Iterator[Problem]:
    """It loads and embeds, and its fingerprint stays the same."""
    if trial.base.error is not None:
        yield f"embedding raised {describe_error(trial.base.error)}", "See the contract of Encoder"
        return
    yield from steady(lambda: trial.make().fingerprint(trial.weights), "Give a hash of its weights")


def embeddings(trial: EncoderTrial) -> Iterator[Problem]:
    """Finite embeddings ``(N, D)`` in float32, of unit norm."""
    made, count = trial.base.made, len(world().splits.test)
    if made.dim() != 2 or len(made) != count or made.dtype != torch.float32:
        found = f"{made.dtype} {tuple(made.shape)}"
        yield f"its embeddings are {found}", f"Return float32 of shape ({count}, D) here"
    elif not bool(torch.isfinite(made).all()):
        yield "its embeddings hold NaN or infinity", "Divide by max(norm, epsilon)"
    elif float((made.norm(dim=1) - 1).abs().max()) > 1e-3:
        yield "its embeddings are not of unit norm", "Use torch.nn.functional.normalize"


def alone(trial: EncoderTrial) -> Iterator[Problem]:
    """An image on its own has the embedding that it has in a batch."""
    _ = trial.base.made
    attempt = Attempt.of(lambda: trial.ask(world().enlarged(SIZE)[:1]))
    if attempt.error is not None:
        yield f"one image raised {describe_error(attempt.error)}", "Handle batches of one"
    elif not torch.allclose(attempt.made, trial.base.made[:1], atol=1e-4):
        yield (
            "an image's embedding depends on the others of its batch",
            "Put the network into eval mode, and normalise each row by itself",
        )


def sizes(trial: EncoderTrial) -> Iterator[Problem]:
    """Larger images have embeddings of as many dimensions, or are refused by a MiaBenchError."""
    wanted = trial.base.made.shape
    attempt = Attempt.of(lambda: trial.ask(world().enlarged(2 * SIZE)))
    advice = "Resize to what the network takes: images come at the resolution of the track"
    if isinstance(attempt.error, MiaBenchError):
        return
    if attempt.error is not None:
        yield f"larger images raised {describe_error(attempt.error)}", advice
    elif attempt.made.shape != wanted:
        yield f"larger images give {tuple(attempt.made.shape)}, not {tuple(wanted)}", advice


def repeatable(trial: EncoderTrial) -> Iterator[Problem]:
    """Loaded again it gives the same embeddings."""
    trial.to_the_bit()
    first, again = trial.base.made, trial.ask(world().enlarged(SIZE), trial.load(trial.device))
    if not torch.allclose(again, first, atol=1e-5, equal_nan=True):
        yield (
            "the same images have other embeddings",
            "A judge draws nothing: eval mode, fixed seed",
        )


def global_state(trial: EncoderTrial) -> Iterator[Problem]:
    """No global generator is seeded, and no setting of torch is changed."""
    yield from trial.traces.problems(draws=False)


def gpu(trial: EncoderTrial) -> Iterator[Problem]:
    """It embeds images that are on a GPU."""
    _ = trial.base.made
    images, device = world().enlarged(SIZE), gpu_device()
    yield from raises(
        lambda: trial.load(device)(images.to(device)),
        "images on a GPU",
        "Load the network onto device, or move images to where it is",
    )


TRIAL = EncoderTrial

CHECKS: dict[str, Check] = {
    "missing-files": missing_files,
    "runs": runs,
    "embeddings": embeddings,
    "alone": alone,
    "sizes": sizes,
    "repeatable": repeatable,
    "global-state": global_state,
    "gpu": gpu,
}
