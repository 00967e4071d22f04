"""Private training steps with Opacus: Poisson sampling, clipping, noise and accounting."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from mia_bench.api.classifier import Classifier
from mia_bench.api.defense import TrainingSetup
from mia_bench.errors import MiaBenchError
from mia_bench.seeds import derive, generator

# Rényi orders. With little noise the best one is close to 1 (1.009 at noise 0.09), with much noise in the
# hundreds. Those below 12 are refined. Whole orders are not, as Opacus has a quicker formula for them; its
# binomial coefficients overflow above 1024.
ORDERS = np.concatenate(
    [1 + np.geomspace(1e-6, 10, 71), np.arange(12, 128), np.geomspace(128, 1024, 30).round()]
)

# Noise multiplier, sampling rate and number of steps of each part, as Opacus's accountants keep them.
History: TypeAlias = Sequence[tuple[float, float, int]]


def poisson_schedule(setup: TrainingSetup) -> tuple[float, int]:
    """Sampling rate and steps per epoch, for the recipe's expected batch size."""
    rate = min(1.0, setup.batch_size / setup.train_size)
    return rate, round(1 / rate)


def poisson_batch(size: int, rate: float, rng: torch.Generator) -> Tensor:
    """Indices ``(B,)`` of a batch that holds each of ``size`` images with probability ``rate``."""
    return (torch.rand(size, generator=rng, dtype=torch.float64) < rate).nonzero().flatten()


@contextlib.contextmanager
def per_sample_gradients(network: nn.Module) -> Iterator[None]:
    """Within the block, a backward pass sets ``grad_sample`` ``(B, *shape)`` of each parameter.

    The loss must be a mean over the batch. Opacus's hooks are on the layers, so any method of the network
    may be called. They are removed after the block.
    """
    hooked = GradSampleModule(network)
    try:
        yield
    finally:
        hooked.to_standard_module()
        for module in network.modules():  # lists that Opacus's hooks leave on each layer
            if isinstance(module.__dict__.get("activations"), list):
                del module.activations


class PrivateSteps:
    """The optimiser, the sampler and the privacy accountant of a private training run.

    Attributes:
        optimizer: clips gradients and adds noise, then steps the optimiser of the setup.
        noise_multiplier: standard deviation of the noise over the clipping norm.
    """

    def __init__(
        self, setup: TrainingSetup, *, noise_multiplier: float, max_grad_norm: float, physical_batch_size: int
    ) -> None:
        self.noise_multiplier = noise_multiplier
        self._network = setup.model
        self._size = setup.train_size
        self._rate, self._steps = poisson_schedule(setup)
        self._physical = physical_batch_size
        self._seed = derive(setup.seed, "poisson")
        self._last_batch: int | None = None
        self._accountant = RDPAccountant()
        # On the device: drawing the noise on the CPU would take longer than the step.
        device = next(setup.model.parameters()).device
        self._noise = torch.Generator(device).manual_seed(derive(setup.seed, "noise"))
        self.optimizer = DPOptimizer(
            setup.optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=self._rate * self._size,
            generator=self._noise,
        )
        self.optimizer.attach_step_hook(self._accountant.get_optimizer_hook_fn(self._rate))

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Yield index tensors ``(B,)`` of one epoch on the CPU, with the gradient hooks in place.

        A batch larger than the physical batch size is split, and the optimiser steps at its last part. For
        an empty batch, the step with noise alone is made here.
        """
        rng = generator(self._seed, epoch)
        with per_sample_gradients(self._network):
            for _ in range(self._steps):
                batch = poisson_batch(self._size, self._rate, rng)
                if not len(batch):
                    self._step_without_images()
                    continue
                parts = batch.tensor_split(math.ceil(len(batch) / self._physical))
                for number, part in enumerate(parts, 1):
                    self.optimizer.signal_skip_step(number < len(parts))
                    self._last_batch = len(part)
                    yield part
            self.optimizer.zero_grad()

    def confirm_batch(self, count: int) -> bool:
        """Whether the batch yielded last has ``count`` images; it can be confirmed once."""
        size, self._last_batch = self._last_batch, None
        return size == count

    def state_dict(self) -> dict[str, Any]:
        """What the next steps and the accounting depend on, beside the optimiser's state."""
        return {"noise": self._noise.get_state(), "accountant": self._accountant.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self._noise.set_state(state["noise"])
        self._accountant.load_state_dict(state["accountant"])

    def epsilon(self, delta: float) -> float:
        """The epsilon spent so far.

        Raises:
            MiaBenchError: no order tried is the best one.
        """
        return epsilon_spent(self._accountant.history, delta)

    def _step_without_images(self) -> None:
        self.optimizer.zero_grad()
        for parameter in self.optimizer.params:
            parameter.grad_sample = parameter.new_zeros(0, *parameter.shape)
        self.optimizer.step()


def epsilon_spent(history: History, delta: float) -> float:
    """The epsilon that these steps spend at ``delta``.

    Raises:
        MiaBenchError: the best Rényi order is the lowest or the highest of those tried, so that the true
            epsilon may be much smaller.
    """
    if not history:
        return 0.0
    epsilon, order = _spent(history, delta)
    if epsilon > 0 and order in (ORDERS[0], ORDERS[-1]):
        which, change = ("lowest", "more") if order == ORDERS[0] else ("highest", "less")
        raise MiaBenchError(
            f"dp-sgd can't account for noise_multiplier={history[0][0]:.3g}: the best Rényi order is the "
            f"{which} of those tried, {order:.7g}, so epsilon would be overstated; use {change} noise"
        )
    return epsilon


def find_noise_multiplier(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The smallest noise multiplier, to 0.1 % of epsilon, for ``steps`` steps within (epsilon, delta).

    Raises:
        MiaBenchError: no noise reaches epsilon, or no order tried is the best one.
    """

    def spend(noise: float) -> float:
        return _spent([(noise, rate, steps)], delta)[0]

    def excess(log_noise: float) -> float:
        return math.log(max(spend(math.exp(log_noise)), 1e-12) / (0.9995 * epsilon))

    least, most = 1e-4, 1e6
    if spend(most) > epsilon:
        raise MiaBenchError(
            f"dp-sgd.epsilon={epsilon:g} can't be reached with delta={delta:.3g}: "
            f"the accountant gives {spend(most):.3g} however large the noise"
        )
    noise = math.exp(brentq(excess, math.log(least), math.log(most), xtol=1e-4))
    epsilon_spent([(noise, rate, steps)], delta)
    return noise


def _spent(history: History, delta: float) -> tuple[float, float]:
    """Epsilon and the Rényi order that bounds it best, between the first and the last of :data:`ORDERS`."""

    def bounds(orders: NDArray[np.float64]) -> NDArray[np.float64]:
        """Conversion from Rényi differential privacy by Balle et al. (arXiv 1905.09982), theorem 21."""
        spent: NDArray[np.float64] = -(math.log(delta) + np.log(orders)) / (orders - 1) + np.log1p(
            -1 / orders
        )
        for noise, rate, steps in history:
            spent += compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
        return spent

    def bound(log_excess: float) -> float:
        return float(bounds(np.array([1 + math.exp(log_excess)]))[0])

    of_orders = bounds(ORDERS)
    best = int(np.argmin(of_orders))
    epsilon, order = float(of_orders[best]), float(ORDERS[best])
    # The bound has no other local minimum, for order - 1 times it is convex.
    if 0 < best < len(ORDERS) - 1 and ORDERS[best + 1] <= 12:
        nearby = np.log(ORDERS[[best - 1, best + 1]] - 1)
        refined = minimize_scalar(bound, bounds=nearby, method="bounded", options={"xatol": 1e-3})
        if refined.fun < epsilon:
            epsilon, order = float(refined.fun), 1 + math.exp(refined.x)
    return max(0.0, epsilon), order


def check_network(network: Classifier, resolution: int, seed: int) -> None:
    """Raise unless the network, in training mode, satisfies the assumptions of the accounting.

    After Opacus's own validation, one pass over noise images, drawn by ``seed``, checks that the output for
    an image does not depend on the rest of the batch, that no buffer changes, and that the per-sample
    gradients of each parameter average to its gradient.

    Raises:
        MiaBenchError: one line with the violated assumption.
    """
    for error in ModuleValidator.validate(network):
        raise _refusal(str(error).split(". ")[0])
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    noise = torch.rand(3, 3, resolution, resolution, generator=generator(seed, "check"))
    images = noise.to(next(network.parameters()).device).requires_grad_()
    (gradient_of_first,) = torch.autograd.grad(network.activations(images).logits[0].sum(), images)
    if gradient_of_first[1:].count_nonzero():
        raise _refusal("its answer for one image depends on the others of the batch")
    for name, buffer in network.named_buffers():
        if not torch.equal(buffer, before[name]):
            raise _refusal(f"{name} keeps statistics of the images")
    try:
        with per_sample_gradients(network):
            logits = network.activations(images).logits
            F.cross_entropy(logits, torch.zeros(3, dtype=torch.int64, device=logits.device)).backward()
            _check_gradients(network)
    except (RuntimeError, ValueError, AttributeError) as error:
        first = str(error).splitlines()[0]
        raise MiaBenchError(f"dp-sgd can't take per-sample gradients here: {first}") from error
    network.zero_grad(set_to_none=True)


def _check_gradients(network: nn.Module) -> None:
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    gradients = [p.grad.norm() for p in trained.values() if p.grad is not None]
    tolerance = 0.01 * torch.stack(gradients).norm()
    for name, parameter in trained.items():
        each: Tensor | None = getattr(parameter, "grad_sample", None)
        if parameter.grad is None or each is None:
            raise ValueError(f"{name} has no per-sample gradient")
        if (each.mean(0) - parameter.grad).norm() > tolerance:
            raise ValueError(f"the per-sample gradients of {name} don't add up to its gradient")


def _refusal(reason: str) -> MiaBenchError:
    return MiaBenchError(f"dp-sgd can't account for this network: {reason}")
