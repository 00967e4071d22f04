"""The evaluation model and the independent judge: classifiers that no defense touches."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mia_bench.api.architecture import Architecture
from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.defense import Defense
from mia_bench.errors import DataError
from mia_bench.protocol.context import Context
from mia_bench.protocol.target import build_network, freeze
from mia_bench.seeds import derive, seeded
from mia_bench.track import Recipe
from mia_bench.training import TrainingResult, train_classifier


def judging_images(splits: Splits) -> ImageSet:
    """The images that the independent judge is trained on, and nothing else.

    Raises:
        DataError: the data set keeps none.
    """
    if splits.judging is None:
        raise DataError("the data set keeps no images for an independent judge")
    return splits.judging


def train_evaluation_model(
    architecture: Architecture,
    splits: Splits,
    images: ImageSet,
    recipe: Recipe,
    context: Context,
    *,
    role: str,
) -> TrainingResult:
    """Train a classifier of the private classes plainly on ``images``.

    ``role`` names the stream of random numbers, so that two models of one seed differ.
    """
    with seeded(context.seed, role):
        model = build_network(architecture, splits, context)
    return train_classifier(
        model,
        images,
        recipe,
        Defense(),
        seed=derive(context.seed, role),
        device=context.device,
        progress=context.progress,
        checkpoint=context.checkpoint,
    )


def restore_evaluation_model(
    architecture: Architecture, splits: Splits, state: Mapping[str, Tensor], context: Context, *, role: str
) -> Classifier:
    """The trained classifier on the device, frozen and in eval mode."""
    with seeded(context.seed, role):
        model = build_network(architecture, splits, context, restoring=True)
    model.load_state_dict(dict(state))
    return freeze(model, context.device)
