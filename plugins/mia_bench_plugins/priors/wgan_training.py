"""Training the networks of ``wgan-gp``."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mia_bench.api.prior import PriorTask
from mia_bench.augment import flip
from mia_bench.errors import DataError, Diverged
from mia_bench.models.classifier import to_float
from mia_bench_plugins.priors.wgan_gp import WassersteinGAN
from mia_bench_plugins.priors.wgan_networks import WGAN, Critic, Generator

LOOKS = 10
"""How often the host may look at the model while it trains."""

CHECKPOINTS = 40
"""How often the state is saved."""

log = logging.getLogger(__name__)


def build(state: Mapping[str, Tensor], options: WassersteinGAN.Options, resolution: int) -> WGAN:
    """The networks with their trained weights, in eval mode.

    Raises:
        DataError: the weights are for other networks.
    """
    model = _networks(options, resolution)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(
            f"these wgan-gp weights do not make {resolution}×{resolution} pixels at width "
            f"{options.width}"
        ) from error
    return model.eval()


def _networks(options: WassersteinGAN.Options, resolution: int) -> WGAN:
    generator = Generator(options.latent, options.width, resolution)
    critic = Critic(options.width, resolution)
    return WGAN(generator, critic, options.latent, resolution)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, where: Tensor) -> Tensor:
    """Mean over the batch of (norm of the critic's gradient − 1)², between real and fake images.

    Args:
        critic: images to scores ``(N,)``.
        real, fake: ``(N, C, H, W)``.
        where: ``(N, 1, 1, 1)`` in [0, 1], the place on the line from fake to real.
    """
    between = (where * real + (1 - where) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norms: Tensor = gradient.flatten(1).norm(dim=1)
    return (norms - 1).square().mean()


class Training:
    """Networks, optimisers and the step they are at; saved and restored as named tensors."""

    def __init__(self, options: WassersteinGAN.Options, task: PriorTask) -> None:
        self.options = options
        self.task = task
        self.model = _networks(options, task.resolution).to(task.device).train()
        self.average = copy.deepcopy(self.model.generator).eval().requires_grad_(False)
        self.step = 0
        parts = (self.model.generator, self.model.critic)
        self.optimizers = [
            torch.optim.Adam(p.parameters(), lr=options.learning_rate, betas=options.betas)
            for p in parts
        ]

    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        yield "generator", self.model.generator
        yield "critic", self.model.critic
        yield "average", self.average

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""
        state = {
            f"{name}.{key}": tensor
            for name, part in self._parts()
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
        for name, part in self._parts():
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

    def latents(self) -> Tensor:
        """A batch of latents."""
        shape = (self.options.batch_size, self.options.latent)
        return torch.randn(shape, generator=self.task.generator).to(self.task.device)

    def advance(self, images: Tensor) -> Tensor:
        """One step of the generator after those of the critic; the critic's last loss."""
        generator, critic = self.model.generator, self.model.critic
        draws, size = self.task.generator, self.options.batch_size
        for_generator, for_critic = self.optimizers
        for _ in range(self.options.critic_steps):
            index = torch.randint(len(images), (size,), generator=draws).to(images.device)
            real = to_float(images[index])
            real = flip(real, draws) if self.options.mirror else real
            with torch.no_grad():
                fake = generator(self.latents())
            where = torch.rand(size, 1, 1, 1, generator=draws).to(real.device)
            penalty = self.options.penalty * gradient_penalty(critic, real, fake, where)
            loss: Tensor = critic(fake).mean() - critic(real).mean() + penalty
            for_critic.zero_grad(set_to_none=True)
            loss.backward()
            for_critic.step()
        critic.requires_grad_(False)
        for_generator.zero_grad(set_to_none=True)
        (-critic(generator(self.latents())).mean()).backward()
        for_generator.step()
        critic.requires_grad_(True)
        self._follow()
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average; its batch statistics too. Early on it follows faster."""
        decay = min(self.options.average, (1 + self.step) / (10 + self.step))
        pairs = zip(
            self.average.state_dict().values(),
            self.model.generator.state_dict().values(),
            strict=True,
        )
        for mean, value in pairs:
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def result(self) -> WGAN:
        """The averaged generator and the critic, as they are now, in eval mode."""
        model = WGAN(
            copy.deepcopy(self.average),
            copy.deepcopy(self.model.critic),
            self.options.latent,
            self.task.resolution,
        )
        return model.eval().requires_grad_(False)


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    start = f"{name}."
    return {key.removeprefix(start): t for key, t in state.items() if key.startswith(start)}


def train(task: PriorTask, options: WassersteinGAN.Options) -> dict[str, Tensor]:
    """Train, or go on from the checkpoint; the state of :class:`WGAN`.

    Raises:
        Diverged: the critic's loss is no longer finite.
    """
    training = Training(options, task)
    if saved := task.checkpoint.load():
        training.restore(saved)
        log.info("wgan-gp goes on at step %d of %d", training.step, options.steps)
    images = task.public.images.to(task.device)
    look, save = (max(1, options.steps // times) for times in (LOOKS, CHECKPOINTS))
    while training.step < options.steps:
        loss = training.advance(images)
        step = training.step
        if step % save == 0 or step == options.steps:
            if not torch.isfinite(loss):
                raise Diverged(f"the critic's loss is not finite at step {step} of {options.steps}")
            task.checkpoint.save(training.state())
        if step % look == 0 or step == options.steps:
            task.watch(training.result(), step)
        task.progress(step, options.steps, "step")
    return dict(training.result().state_dict())


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of a shipped file, in float32."""
    tensors = load_file(path)
    return {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}
