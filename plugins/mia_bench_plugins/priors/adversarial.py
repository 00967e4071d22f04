"""What the training of every generative adversarial network needs: state, average, loop."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_float
from mia_bench.api.prior import PriorTask
from mia_bench.augment import flip
from mia_bench.errors import Diverged

LOOKS = 10
"""How often the host may look at the model while it trains."""

CHECKPOINTS = 40
"""How often the state is saved."""

log = logging.getLogger(__name__)


GeneratorT = TypeVar("GeneratorT", bound=nn.Module)


class AdversarialTraining(ABC, Generic[GeneratorT]):
    """Networks, optimisers and the step they are at; saved and restored as named tensors.

    Attributes:
        generator: the network that is kept, as a moving average.
        others: networks by name.
        optimizers: each saved and restored.
        average: the moving average of the generator.
        step: steps made.
    """

    def __init__(
        self,
        task: PriorTask,
        generator: GeneratorT,
        others: Mapping[str, nn.Module],
        optimizers: list[torch.optim.Optimizer],
        *,
        steps: int,
        decay: float,
    ) -> None:
        self.task = task
        self.generator = generator
        self.others = dict(others)
        self.optimizers = optimizers
        self.steps = steps
        self.decay = decay
        self.average = copy.deepcopy(generator).eval().requires_grad_(False)
        self.step = 0

    @abstractmethod
    def _train_once(self, images: Tensor) -> Tensor:
        """Train all networks for one step on the public images; a loss that says if it diverged."""

    def advance(self, images: Tensor) -> Tensor:
        """One step on the public images ``(P, 3, R, R)`` uint8; the loss watched."""
        loss = self._train_once(images)
        self._follow()
        self.step += 1
        return loss.detach()

    @abstractmethod
    def result(self) -> GenerativeModel:
        """The averaged generator and what goes with it, in eval mode."""

    def _parts(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, **self.others, "average": self.average}

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""
        state = {
            f"{name}.{key}": tensor
            for name, part in self._parts().items()
            for key, tensor in part.state_dict().items()
        }
        for number, optimizer in enumerate(self.optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                for key, tensor in moments.items():
                    state[f"optimizer{number}.{index}.{key}"] = tensor
        state["step"] = torch.tensor(self.step)
        state["draws"] = self.task.generator.get_state()
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        for name, part in self._parts().items():
            part.load_state_dict(_below(state, name))
        for number, optimizer in enumerate(self.optimizers):
            saved = optimizer.state_dict()
            moments: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _below(state, f"optimizer{number}").items():
                index, _, which = key.partition(".")
                moments.setdefault(int(index), {})[which] = tensor
            optimizer.load_state_dict({**saved, "state": moments})
        self.step = int(state["step"])
        self.task.generator.set_state(state["draws"])

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average; its batch statistics too. Early on it follows faster."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        pairs = zip(
            self.average.state_dict().values(),
            self.generator.state_dict().values(),
            strict=True,
        )
        for mean, value in pairs:
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def run(self, name: str, saw: str) -> dict[str, Tensor]:
        """All steps, or those that are left after the checkpoint; the state of the result.

        Args:
            name: of the prior, for the log.
            saw: whose loss :meth:`advance` returns.

        Raises:
            Diverged: the loss is no longer finite.
        """
        task, steps = self.task, self.steps
        if saved := task.checkpoint.load():
            self.restore(saved)
            log.info("%s goes on at step %d of %d", name, self.step, steps)
        images = task.training_images().to(task.device)
        look, save = (max(1, steps // times) for times in (LOOKS, CHECKPOINTS))
        while self.step < steps:
            loss = self.advance(images)
            last = self.step == steps
            if self.step % save == 0 or last:
                if not torch.isfinite(loss):
                    raise Diverged(f"the {saw}'s loss is not finite at step {self.step} of {steps}")
                task.checkpoint.save(self.state())
            if self.step % look == 0 or last:
                task.watch(self.result(), self.step)
            task.progress(self.step, steps, "step")
        return dict(self.result().state_dict())


def real_batch(images: Tensor, size: int, draws: torch.Generator, *, mirror: bool) -> Tensor:
    """``size`` images drawn from ``(P, 3, R, R)`` uint8, in [0, 1]; half of them mirrored if asked."""
    index = torch.randint(len(images), (size,), generator=draws).to(images.device)
    real = to_float(images[index])
    return flip(real, draws) if mirror else real


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    start = f"{name}."
    return {key.removeprefix(start): t for key, t in state.items() if key.startswith(start)}
