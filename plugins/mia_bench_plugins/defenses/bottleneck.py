"""The network of ``mid``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mia_bench.api.classifier import Activations, Classifier
from mia_bench.errors import MiaBenchError


class Bottleneck(Classifier):
    """A classifier whose features pass through a Gaussian code before the last linear layer.

    Args:
        network: a network with a linear head, which is replaced.
        width: from the number of features to the dimension of the code.
        num_classes: classes of the new head.
        sample: draw noise in eval mode as in training mode, from torch's global generator.

    Raises:
        MiaBenchError: the network's head is not a linear layer.
    """

    def __init__(
        self, network: Classifier, width: Callable[[int], int], num_classes: int, *, sample: bool
    ) -> None:
        super().__init__()
        if not isinstance(network.head, nn.Linear):
            raise MiaBenchError(
                f"mid needs a linear head to replace, this network's is {type(network.head).__name__}"
            )
        features = network.head.in_features
        code = width(features)
        network.head = nn.Identity()
        self.network = network
        self.channels_last = network.channels_last
        self.encode = nn.Linear(features, 2 * code)
        self.head = nn.Linear(code, num_classes)
        self.sample = sample

    def activations(self, images: Tensor) -> Activations:
        """One pass; ``features`` is the mean of the code, ``extras`` holds ``mean`` and ``log_sigma``."""
        below = self.network.activations(images)
        mean, log_sigma = self._code(below.features)
        extras = {"mean": mean, "log_sigma": log_sigma}
        return Activations(self._classify(mean, log_sigma), mean, below.hidden, extras)

    def answers(self, images: Tensor, draws: int) -> Tensor:
        """Logits ``(draws, N, C)``: one pass through the network, then ``draws`` samples of the code."""
        mean, log_sigma = self._code(self.network.features(images))
        return self._classify(mean.expand(draws, -1, -1), log_sigma.expand(draws, -1, -1))

    def _code(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.encode(features).float().chunk(2, dim=1)
        return mean, _log_softplus(raw - 5)

    def _classify(self, mean: Tensor, log_sigma: Tensor) -> Tensor:
        code = mean
        if self.training or self.sample:
            code = mean + log_sigma.exp() * torch.randn_like(mean)
        logits: Tensor = self.head(code)
        return logits


def _log_softplus(x: Tensor) -> Tensor:
    """``log(softplus(x))`` without underflow, which is ``x`` far below zero."""
    return torch.where(x < -15, x, F.softplus(x).clamp_min(1e-7).log())
