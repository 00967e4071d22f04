"""The prior: the attacker's image model, from public images only, monitored while it trains."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mia_bench import jsonfile
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.encoder import Embed
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_float, to_uint8
from mia_bench.api.prior import Prior, PriorTask
from mia_bench.data.fingerprints import image_fingerprints
from mia_bench.errors import DataError
from mia_bench.frechet import frechet_distance
from mia_bench.models.inference import embed_images
from mia_bench.pictures import save_sheet
from mia_bench.protocol.context import Context
from mia_bench.protocol.data import PUBLIC_PARTS, present_parts
from mia_bench.seeds import generator, seeded
from mia_bench.store import write_whole

TRAINED_ON = "trained_on"
"""Name of the tensor in a prior's state that holds the fingerprints of its training images."""

MONITORED_IMAGES = 1000
"""Images on each side of the Fréchet distance that is computed while a prior trains."""

_LOG = "looks.json"
"""Fréchet distances so far, beside the sample sheets."""

log = logging.getLogger(__name__)

NamedEncoder = tuple[str, Callable[[], Embed]]
"""Name of an identity encoder, and what loads it."""


class TrainingMonitor:
    """Watches a prior while it trains: sample sheets, and Fréchet distances to the public images.

    Attributes:
        observations: of each step at which it was called the step, the distance, and the features
            that the distance was computed in.
    """

    def __init__(
        self,
        public: ImageSet,
        folder: Path,
        context: Context,
        encoder: NamedEncoder | None = None,
        *,
        batch_size: int,
    ) -> None:
        """Go on with the observations of a stopped training in ``folder``, if there are some.

        Args:
            public: the images to compare with.
            folder: for sample sheets.
            context: seed and device.
            encoder: computes the features; pixels without.
            batch_size: images a pass through the model.
        """
        self._public = public
        self._folder = folder
        self._context = context
        self._encoder = encoder
        self._batch_size = batch_size
        self._embed: Embed | None = None
        self._reference: Tensor | None = None
        self.observations: list[dict[str, Any]] = self._stored()

    def __call__(self, model: GenerativeModel, step: int) -> None:
        """Observe the model after ``step`` steps."""
        rng = generator(self._context.seed, "watch")
        latents = model.sample(MONITORED_IMAGES, rng)
        images = model.render(latents, device=self._context.device, batch_size=self._batch_size)
        save_sheet(to_uint8(images[:64]).numpy(), self._folder / f"{step:07d}.png")
        distance = self._distance(images, rng) if len(self._public) > 1 else None
        features = self._encoder[0] if self._encoder else "pixels"
        observed = {"step": step, "frechet_distance": distance, "features": features}
        self.observations = [*(o for o in self.observations if o["step"] < step), observed]
        sealed = jsonfile.seal({"observations": self.observations})
        write_whole(self._folder / _LOG, jsonfile.file_text(sealed).encode())

    def _distance(self, images: Tensor, rng: torch.Generator) -> float:
        if self._reference is None:
            chosen = torch.randperm(len(self._public), generator=rng)[:MONITORED_IMAGES]
            self._reference = self._features(to_float(self._public.images[chosen]))
        return frechet_distance(self._reference, self._features(images))

    def _features(self, images: Tensor) -> Tensor:
        if self._encoder is None:
            return nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)
        self._embed = self._embed or self._encoder[1]()
        return embed_images(self._embed, images, self._context.device)

    def _stored(self) -> list[dict[str, Any]]:
        path = self._folder / _LOG
        try:
            found = jsonfile.read_object(path)
            if not jsonfile.seal_holds(found):
                raise ValueError("its hash differs")
        except (FileNotFoundError, NotADirectoryError):
            return []
        except ValueError as error:
            log.warning("%s is damaged (%s); the observations begin anew", path, error)
            return []
        observations: list[dict[str, Any]] = found["observations"]
        return observations


@dataclass(frozen=True)
class FittedPrior:
    """A prior's state, and how many public images it was made from (None: it was trained elsewhere)."""

    state: dict[str, Tensor]
    public_images: int | None


def fit_prior(
    fit: Callable[[PriorTask], dict[str, Tensor]],
    public: ImageSet,
    context: Context,
    *,
    source: str,
    watch: Callable[[GenerativeModel, int], None],
) -> FittedPrior:
    """Make the attacker's image model from the public images, and from nothing else.

    Args:
        fit: a prior's method of that name.
        context: resolution, seed, device, progress, weights, checkpoint.
        source: key of the data they are from.
        watch: called with the model so far and the step.
    """
    task = PriorTask(
        public=public,
        source=source,
        resolution=context.resolution,
        generator=generator(context.seed, "prior"),
        device=context.device,
        progress=context.progress,
        checkpoint=context.checkpoint,
        weights=context.weights,
        watch=watch,
    )
    with seeded(context.seed, "prior"):
        state = fit(task)
    if TRAINED_ON in state:
        return FittedPrior(state, None)
    return FittedPrior({**state, TRAINED_ON: image_fingerprints(public.images)}, len(public))


def restore_prior(
    prior: Prior, state: Mapping[str, Tensor], splits: Splits, context: Context, *, name: str
) -> GenerativeModel:
    """The image model on the device, frozen and in eval mode.

    Raises:
        DataError: it was trained on an image that is private here.
    """
    check_prior_is_public(name, state[TRAINED_ON], splits)
    own = {key: tensor for key, tensor in state.items() if key != TRAINED_ON}
    model = prior.build(own, resolution=context.resolution)
    return model.to(context.device).eval().requires_grad_(False)


def check_prior_is_public(name: str, trained_on: Tensor, splits: Splits) -> None:
    """Check that a prior saw no private image.

    Args:
        name: of the prior, for the message.
        trained_on: ``(N,)`` fingerprints of its training images.

    Raises:
        DataError: it saw some; says how many.
    """
    parts = {k: part for k, part in present_parts(splits).items() if k not in PUBLIC_PARTS}
    private = torch.cat([image_fingerprints(part.images) for part in parts.values()])
    if seen := int(torch.isin(private, trained_on).sum()):
        raise DataError(
            f"prior {name!r} was trained on {seen} of the {len(private)} private images: an attack "
            "with it would say nothing"
        )
