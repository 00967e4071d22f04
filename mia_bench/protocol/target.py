"""The target: built, trained and deployed under a defense."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mia_bench.api import classifier
from mia_bench.api.architecture import Architecture, NetworkTask
from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import Splits
from mia_bench.api.defense import BuildContext, Defense
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.models.inference import ModuleT, move_model
from mia_bench.protocol.context import Context
from mia_bench.seeds import derive, generator, seeded
from mia_bench.track import Recipe
from mia_bench.training import TrainingResult, train_classifier

DRAWS = 16
"""How many answers of a random target are averaged into one."""


@dataclass(frozen=True)
class Target:
    """A trained target.

    Attributes:
        network: the classifier with its hidden features; None for a model that shows none.
        deployed: what answers, images ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C)``.
        stochastic: whether two answers to one image may differ.
    """

    network: Classifier | None
    deployed: nn.Module
    stochastic: bool

    @property
    def draws(self) -> int:
        """How many answers to average into one."""
        return DRAWS if self.stochastic else 1


@dataclass(frozen=True)
class TrainedTarget:
    """A finished training: the network, what restores it, and what the defense reports."""

    training: TrainingResult
    report: dict[str, float | str]

    @property
    def state(self) -> dict[str, Tensor]:
        """Weights and buffers by name."""
        return dict(self.training.model.state_dict())


def build_network(
    architecture: Architecture, splits: Splits, context: Context, *, restoring: bool = False
) -> Classifier:
    """A new network for the private classes, initialised from torch's global generator.

    ``restoring``: trained weights are loaded right after.

    Raises:
        TypeError: ``build`` returned no classifier.
    """
    task = NetworkTask(splits.num_classes, context.resolution, restoring, context.weights)
    return _classifier(architecture.build(task), "build")


def build_target(
    defense: Defense, architecture: Architecture, splits: Splits, context: Context, *, restoring: bool = False
) -> Classifier:
    """The network that the defense makes of the track's architecture.

    The defense sees the public images only. ``restoring``: trained weights are loaded right after.

    Raises:
        TypeError: ``build_model`` returned no classifier.
    """
    build_context = BuildContext(
        num_classes=splits.num_classes,
        resolution=context.resolution,
        public=splits.public,
        generator=generator(context.seed, "build"),
        restoring=restoring,
    )
    build = partial(build_network, architecture, splits, context, restoring=restoring)
    with seeded(context.seed, "init"):
        return _classifier(defense.build_model(build, build_context), "build_model")


def _classifier(made: Classifier, method: str) -> Classifier:
    """What a plugin's method made, if it is a classifier."""
    if not isinstance(made, Classifier):
        raise TypeError(f"{method} returned {type(made).__name__}, not a mia_bench.Classifier")
    return made


def train_target(
    defense: Defense, architecture: Architecture, splits: Splits, recipe: Recipe, context: Context
) -> TrainedTarget:
    """Build the target and train it on the private training images.

    Raises:
        Diverged: the loss is no longer finite.
        MiaBenchError: the defense's report is malformed.
    """
    training = train_classifier(
        build_target(defense, architecture, splits, context),
        splits.train,
        recipe,
        defense,
        seed=derive(context.seed, "train"),
        device=context.device,
        progress=context.progress,
        checkpoint=context.checkpoint,
    )
    return TrainedTarget(training, _checked_report(defense.report(training.setup)))


def restore_target(
    defense: Defense,
    architecture: Architecture,
    splits: Splits,
    state: Mapping[str, Tensor],
    context: Context,
    *,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Target:
    """The target with trained weights, deployed on the device, frozen and in eval mode.

    Args:
        normalization: mean and standard deviation of each channel, instead of the network's own.

    Raises:
        TypeError: ``deploy`` returned no module, or one that does not answer with logits of the classes.
        UsageError: the network's normalisation can't be replaced.
    """
    network = build_target(defense, architecture, splits, context, restoring=True)
    network.load_state_dict(dict(state))
    if normalization:
        normalize_by(network, *normalization, resolution=context.resolution)
    network = freeze(network, context.device)
    deployed = defense.deploy(network)
    if not isinstance(deployed, nn.Module):
        raise TypeError(f"deploy returned {type(deployed).__name__}, not a module")
    target = Target(network, freeze(deployed, context.device), defense.stochastic)
    if wrong := wrong_answers(target, splits.num_classes, context):
        raise TypeError(f"the model that deploy returned {wrong}")
    return target


def wrong_answers(target: Target, classes: int, context: Context) -> str:
    """What is wrong with the form of the answers, in words; empty if nothing is."""
    grey = torch.full((1, 3, context.resolution, context.resolution), 0.5, device=context.device)
    with seeded(0, "answers"), torch.no_grad():
        found = tuple(classifier.answers(target.deployed, grey, 1)[0].shape)
    expected = (1, classes)
    return "" if found == expected else f"answers one image with {found}, not with logits {expected}"


def normalize_by(
    network: Classifier, mean: Sequence[float], std: Sequence[float], *, resolution: int
) -> None:
    """Replace the normalisation of a network, and of those inside it.

    Raises:
        UsageError: its answers do not depend on it: it has one of its own that can't be replaced.
    """
    inner = [module for module in network.modules() if isinstance(module, Classifier)]
    image = torch.rand((1, 3, resolution, resolution), generator=generator(0, "normalisation"))
    answers = []
    network.eval()
    for shift in (1.0, 0.0):  # the values that hold come last
        for module in inner:
            module.normalize_by([value + shift for value in mean], std)
        with torch.no_grad():
            answers.append(network.activations(image).features)
    if torch.equal(*answers):
        raise UsageError(
            "mean and std can't be replaced in this network, which does not call Classifier.normalize"
        )


def freeze(model: ModuleT, device: torch.device) -> ModuleT:
    """The model on the device, in eval mode, its weights without gradients."""
    return move_model(model, device).eval().requires_grad_(False)


def _checked_report(report: dict[str, float | str]) -> dict[str, float | str]:
    """The report with a reason in place of each number that is not finite."""
    if wrong := [name for name in report if not isinstance(name, str) or not name]:
        raise MiaBenchError(f"its report has the name {wrong[0]!r}, not a non-empty string")
    checked = dict(report)
    for name, value in report.items():
        if not isinstance(value, str):
            checked[name] = float(value) if math.isfinite(value) else f"the value is {value}"
    return checked
