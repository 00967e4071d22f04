"""Training the networks of ``wgan-gp``."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mia_bench.api.prior import PriorTask
from mia_bench.errors import DataError
from mia_bench_plugins.priors.adversarial import AdversarialTraining, real_batch
from mia_bench_plugins.priors.wgan_gp import WassersteinGAN
from mia_bench_plugins.priors.wgan_networks import WGAN, Critic, Generator


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


class Training(AdversarialTraining[Generator]):
    """Generator and critic, trained as :mod:`mia_bench_plugins.priors.wgan_gp` says."""

    def __init__(self, options: WassersteinGAN.Options, task: PriorTask) -> None:
        self.options = options
        self.model = _networks(options, task.resolution).to(task.device).train()
        generator, critic = self.model.generator, self.model.critic
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(part.parameters(), lr=options.learning_rate, betas=options.betas)
            for part in (generator, critic)
        ]
        super().__init__(
            task,
            generator,
            {"critic": critic},
            optimizers,
            steps=options.steps,
            decay=options.average,
        )

    def latents(self) -> Tensor:
        """A batch of latents."""
        shape = (self.options.batch_size, self.options.latent)
        return torch.randn(shape, generator=self.task.generator).to(self.task.device)

    def _train_once(self, images: Tensor) -> Tensor:
        """One step of the generator after those of the critic; the critic's last loss."""
        generator, critic = self.model.generator, self.model.critic
        draws, size = self.task.generator, self.options.batch_size
        for_generator, for_critic = self.optimizers
        for _ in range(self.options.critic_steps):
            real = real_batch(images, size, draws, mirror=self.options.mirror)
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
        return loss

    def result(self) -> WGAN:
        """The averaged generator and the critic, as they are now, in eval mode."""
        model = WGAN(
            copy.deepcopy(self.average),
            copy.deepcopy(self.model.critic),
            self.options.latent,
            self.task.resolution,
        )
        return model.eval().requires_grad_(False)


def train(task: PriorTask, options: WassersteinGAN.Options) -> dict[str, Tensor]:
    """Train, or go on from the checkpoint; the state of :class:`WGAN`.

    Raises:
        Diverged: the critic's loss is no longer finite.
    """
    return Training(options, task).run("wgan-gp", "critic")
