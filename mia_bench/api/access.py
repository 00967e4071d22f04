"""What an attack may see of the target, and how many queries it has made.

Each class exposes only what its threat model allows, which guards against accidents: in-process code can
always cheat, so conformance checks and review do the rest. Every image of every forward pass is one query.
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
    """Base of the access levels: what every attacker knows, and the count of queries.

    Attributes:
        level: the threat model's name.
        num_classes: number of the target's classes.
        stochastic: whether the target's answers are random.
    """

    level: AccessLevel

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        network: Classifier | None = None,
        stochastic: bool = False,
    ) -> None:
        self.num_classes = num_classes
        self.stochastic = stochastic
        self._queries = 0
        self._ask = _asker(model)
        self._keep(model, network)

    def _keep(self, model: nn.Module, network: Classifier | None) -> None:
        """Keep what the level shows of the networks: nothing."""

    @property
    def queries(self) -> int:
        """Number of images the target has answered."""
        return self._queries

    def labels(self, images: Tensor) -> Tensor:
        """Predicted classes ``(N,)`` of ``(N, 3, H, W)`` images in [0, 1]; no gradient."""
        self._queries += len(images)
        return self._ask(images, 1)[0].argmax(1)

    def _draws(self, wanted: int) -> int:
        """Number of passes for an average over ``wanted`` answers: one if the target is deterministic."""
        return wanted if self.stochastic else 1

    def probabilities(self, images: Tensor, *, draws: int = 1) -> Tensor:
        """Softmax probabilities ``(N, C)``, averaged over ``draws`` answers if stochastic; no gradient."""
        raise PermissionError(f"a {self.level} attack sees no probabilities")

    def logits(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)``, differentiable in ``images``."""
        return self.answers(images)[0]

    def answers(self, images: Tensor, *, draws: int = 1) -> Tensor:
        """Logits ``(D, N, C)``, differentiable in ``images``.

        ``D`` is ``draws`` for a stochastic target, else 1.
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


class BlackBox(LabelOnly):
    """Probabilities, no gradients."""

    level: AccessLevel = "black-box"

    def probabilities(self, images: Tensor, *, draws: int = 1) -> Tensor:
        """Softmax probabilities ``(N, C)``, averaged over ``draws`` answers if stochastic."""
        times = self._draws(draws)
        self._queries += times * len(images)
        return self._ask(images, times).softmax(2).mean(0)


class WhiteBox(BlackBox):
    """Weights, features and gradients."""

    level: AccessLevel = "white-box"

    def _keep(self, model: nn.Module, network: Classifier | None) -> None:
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
    # A closure rather than an attribute: the network is not reachable from the access object.
    def ask(images: Tensor, draws: int) -> Tensor:
        with torch.no_grad():
            return classifier.answers(model, images.detach(), draws)

    return ask


LEVELS: dict[AccessLevel, type[Access]] = {access.level: access for access in (LabelOnly, BlackBox, WhiteBox)}


def open_access(
    level: AccessLevel,
    deployed: nn.Module,
    num_classes: int,
    *,
    network: Classifier | None = None,
    stochastic: bool = False,
) -> Access:
    """Wrap a deployed model in the access of one level; ``network`` adds hidden features to white-box."""
    deployed.requires_grad_(False)
    return LEVELS[level](deployed, num_classes, network=network, stochastic=stochastic)
