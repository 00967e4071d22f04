"""Training of generative adversarial networks: state, moving average, training loop."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping

from mia_bench import PriorTask, lazy_imports
from mia_bench.api.images import to_float
from mia_bench.augment import flip
from mia_bench.errors import Diverged
from mia_bench.memory import explaining, upload

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.api.generative import GenerativeModel

SNAPSHOTS = 10
"""How often the host is shown the model while it trains."""

CHECKS = 40
"""How often the loss is checked, which waits for the device."""

log = logging.getLogger(__name__)


class AdversarialTraining(ABC):
    """Networks and optimisers in training, saved and restored as named tensors.

    Attributes:
        model: has the network ``generator``, whose moving average is the result.
        optimizers: saved and restored with the networks.
        average: the moving average of the generator.
        step: number of steps made.
    """

    def __init__(
        self,
        task: PriorTask,
        model: GenerativeModel,
        optimizers: list[torch.optim.Optimizer],
        *,
        steps: int,
        decay: float,
    ) -> None:
        self.task = task
        self.model = model
        self.optimizers = optimizers
        self.steps = steps
        self.decay = decay
        self.average = copy.deepcopy(model.get_submodule("generator")).eval().requires_grad_(False)
        self.step = 0

    @abstractmethod
    def train_step(self, images: Tensor) -> Tensor:
        """Update all networks once; return a loss that is not finite if training diverged.

        Args:
            images: the public images ``(P, 3, R, R)`` uint8.
        """

    def result(self) -> GenerativeModel:
        """The model with the averaged generator, in eval mode."""
        model = copy.deepcopy(self.model)
        model.generator = copy.deepcopy(self.average)
        return model.eval().requires_grad_(False)

    def advance(self, images: Tensor) -> Tensor:
        """Make one step, update the moving average and return the loss of :meth:`train_step`."""
        loss = self.train_step(images)
        self._update_average()
        self.step += 1
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""
        average = {f"average.{key}": tensor for key, tensor in self.average.state_dict().items()}
        state = {**self.model.state_dict(), **average}
        for number, optimizer in enumerate(self.optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                for key, tensor in moments.items():
                    state[f"optimizer{number}.{index}.{key}"] = tensor
        state["step"] = torch.tensor(self.step)
        state["draws"] = self.task.generator.get_state()
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Resume from :meth:`state`."""
        self.model.load_state_dict({name: state[name] for name in self.model.state_dict()})
        self.average.load_state_dict(with_prefix(state, "average"))
        for number, optimizer in enumerate(self.optimizers):
            saved = optimizer.state_dict()
            moments: dict[int, dict[str, Tensor]] = {}
            for key, tensor in with_prefix(state, f"optimizer{number}").items():
                index, _, which = key.partition(".")
                moments.setdefault(int(index), {})[which] = tensor
            optimizer.load_state_dict({**saved, "state": moments})
        self.step = int(state["step"])
        self.task.generator.set_state(state["draws"])

    def _update_average(self) -> None:
        """Update weights and batch statistics of the average, with a faster decay in early steps."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        generator = self.model.get_submodule("generator").state_dict()
        with torch.no_grad():
            for mean, value in zip(self.average.state_dict().values(), generator.values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)

    def run(self, prior: str, network: str) -> dict[str, Tensor]:
        """Make all steps, resuming from the checkpoint if there is one, and return the result's state.

        Args:
            prior: name of the prior, for the log.
            network: name of the network whose loss :meth:`train_step` returns, for the error.

        Raises:
            Diverged: the loss is not finite.
            OutOfMemory: a step does not fit into the device's memory.
        """
        task, steps = self.task, self.steps
        if saved := task.checkpoint.load():
            self.restore(saved)
            log.info("%s goes on at step %d of %d", prior, self.step, steps)
        images = task.training_images().to(task.device)
        show, check = (max(1, steps // times) for times in (SNAPSHOTS, CHECKS))
        while self.step < steps:
            with explaining(f"a training step of {prior}", f"lower {prior}.batch_size"):
                loss = self.advance(images)
            last = self.step == steps
            due = task.checkpoint.due() or last
            if (due or self.step % check == 0) and not torch.isfinite(loss):
                raise Diverged(f"the {network}'s loss is not finite at step {self.step} of {steps}")
            if due:
                task.checkpoint.save(self.state())
            if self.step % show == 0 or last:
                task.watch(self.result(), self.step)
            task.progress(self.step, steps, "step")
        return dict(self.result().state_dict())


def real_batch(images: Tensor, size: int, rng: torch.Generator, *, mirror: bool) -> Tensor:
    """``size`` images drawn from ``(P, 3, R, R)`` uint8, in [0, 1]; half of them mirrored if asked."""
    index = torch.randint(len(images), (size,), generator=rng)
    real = to_float(images[upload(index, images.device)])
    return flip(real, rng) if mirror else real


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take a step of the optimiser on a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def with_prefix(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors ``<name>.<key>`` by key."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
