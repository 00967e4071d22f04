"""What an attack may see of the target, and how often it asked.

Each class exposes only what its threat model allows and keeps the network out of reach of accident;
in-process code can always cheat, so review and the conformance checks do the rest. Every image of
every forward pass counts as one query.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from etils.epy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from mia_bench.api import classifier
    from mia_bench.api.classifier import Activations, Classifier

AccessLevel = Literal["white-box", "black-box", "label-only"]


class Access:
    """Base of the access levels: says what is known to everybody and counts queries.

    Attributes:
        level: the threat model's name.
        num_classes: number of classes the target answers with.
        stochastic: True when asking twice may give two answers.
    """

    level: AccessLevel

    def __init__(self, num_classes: int, *, stochastic: bool = False) -> None:
        self.num_classes = num_classes
        self.stochastic = stochastic
        self._queries = 0

    @property
    def queries(self) -> int:
        """Images the target has answered so far."""
        return self._queries

    def labels(self, images: Tensor) -> Tensor:
        """Predicted classes ``(N,)`` of ``(N, 3, H, W)`` images in [0, 1]; no gradient."""
        raise NotImplementedError

    def _draws(self, wanted: int) -> int:
        """How often to ask for an average over ``wanted`` answers: once if they are all the same."""
        return wanted if self.stochastic else 1

    def probabilities(self, images: Tensor, *, draws: int = 1) -> Tensor:
        """Softmax probabilities ``(N, C)``; no gradient. A random target's mean over ``draws``."""
        raise PermissionError(f"a {self.level} attack sees no probabilities")

    def logits(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)``, differentiable in ``images``."""
        return self.answers(images)[0]

    def answers(self, images: Tensor, *, draws: int = 1) -> Tensor:
        """Logits ``(D, N, C)``, differentiable in ``images``.

        ``draws`` answers of a random target; one of a target that always answers the same.
        """
        raise PermissionError(f"a {self.level} attack sees no logits and no gradients")

    def activations(self, images: Tensor) -> Activations:
        """Logits, penultimate features and hidden outputs, differentiable in ``images``."""
        raise PermissionError(f"a {self.level} attack sees no hidden features")

    @property
    def model(self) -> nn.Module:
        """The deployed network itself, with its weights; passes through it are not counted."""
        raise PermissionError(f"a {self.level} attack sees no weights")


class LabelOnly(Access):
    """Only the arg max."""

    level: AccessLevel = "label-only"

    def __init__(self, model: nn.Module, num_classes: int, *, stochastic: bool = False) -> None:
        super().__init__(num_classes, stochastic=stochastic)
        self._ask = _asker(model)

    def labels(self, images: Tensor) -> Tensor:
        """Predicted classes ``(N,)``."""
        self._queries += len(images)
        return self._ask(images, 1)[0].argmax(1)


class BlackBox(LabelOnly):
    """Probabilities, no gradients."""

    level: AccessLevel = "black-box"

    def probabilities(self, images: Tensor, *, draws: int = 1) -> Tensor:
        """Softmax probabilities ``(N, C)``, for a random target the mean over ``draws`` answers."""
        times = self._draws(draws)
        self._queries += times * len(images)
        return self._ask(images, times).softmax(2).mean(0)


class WhiteBox(BlackBox):
    """Weights, features and gradients."""

    level: AccessLevel = "white-box"

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        network: Classifier | None = None,
        stochastic: bool = False,
    ) -> None:
        super().__init__(model, num_classes, stochastic=stochastic)
        self._model = model
        self._network = network

    def answers(self, images: Tensor, *, draws: int = 1) -> Tensor:
        """Logits ``(D, N, C)`` in float32, differentiable in ``images``."""
        times = self._draws(draws)
        self._queries += times * len(images)
        return classifier.answers(self._model, images, times)

    def activations(self, images: Tensor) -> Activations:
        """Logits, penultimate features and hidden outputs, differentiable in ``images``."""
        if self._network is None:
            raise PermissionError("this target exposes no hidden features")
        self._queries += len(images)
        return self._network.activations(images)

    @property
    def model(self) -> nn.Module:
        """The deployed network itself."""
        return self._model


def _asker(model: nn.Module) -> Callable[[Tensor, int], Tensor]:
    # A closure rather than an attribute: nothing on the access object leads to the network.
    def ask(images: Tensor, draws: int) -> Tensor:
        with torch.no_grad():
            return classifier.answers(model, images.detach(), draws)

    return ask


LEVELS: dict[AccessLevel, type[LabelOnly]] = {
    access.level: access for access in (LabelOnly, BlackBox, WhiteBox)
}


def open_access(
    level: AccessLevel,
    deployed: nn.Module,
    num_classes: int,
    *,
    network: Classifier | None = None,
    stochastic: bool = False,
) -> Access:
    """The access of one level to a deployed model; ``network`` adds hidden features for white-box."""
    deployed.requires_grad_(False)
    if level == "white-box":
        return WhiteBox(deployed, num_classes, network=network, stochastic=stochastic)
    return LEVELS[level](deployed, num_classes, stochastic=stochastic)
