r"""WGAN-GP: the image prior of the GMI attack.

Zhang et al., *The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural Networks*,
CVPR 2020 (arXiv 1911.07135) trains the generator and critic of Gulrajani et al., *Improved Training of
Wasserstein GANs*, NIPS 2017 (arXiv 1704.00028). The critic minimises

.. math:: D(G(z)) - D(x) + \lambda\,(\|\nabla_{\hat x} D(\hat x)\|_2 - 1)^2

with :math:`\hat x` on the line between a real and a generated image; the generator minimises
:math:`-D(G(z))` after every ``critic_steps`` steps of the critic. The result is an exponential moving
average of the generator. Interrupted training is resumed, with the same result.

A trained model for the embedded track is shipped, and used if data and options are those of its training.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from mia_bench import Prior, PriorTask, Register, hookimpl, lazy_imports
from mia_bench.api.options import Share
from mia_bench.errors import DataError
from mia_bench.memory import upload
from mia_bench_plugins.priors import shipped_priors
from mia_bench_plugins.priors.adversarial import AdversarialTraining, real_batch, update

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from mia_bench_plugins.priors import wgan_networks


class WassersteinGAN(Prior):
    """A generator and a critic trained against each other on the public images."""

    summary = "WGAN-GP: generator and critic of the GMI attack"
    paper = "Zhang et al., CVPR 2020; Gulrajani et al., NIPS 2017"
    version = "1"
    trial_options: ClassVar = {"latent": 6, "width": 4, "steps": 4, "batch_size": 4}

    class Options(Prior.Options):
        """Options of ``wgan-gp``; the defaults are the paper's."""

        latent: int = Field(100, ge=1, description="dimensions of the latents")
        width: int = Field(64, ge=1, description="channels of the stage next to the image")
        steps: int = Field(20000, ge=1, description="steps of the generator")
        batch_size: int = Field(64, ge=2, description="images a step")
        critic_steps: int = Field(5, ge=1, description="steps of the critic for one of the generator")
        penalty: float = Field(10.0, ge=0, description="weight of the gradient penalty")
        learning_rate: float = Field(2e-4, gt=0, description="of Adam, for both")
        betas: tuple[Share, Share] = Field((0.5, 0.999), description="of Adam, for both, each below 1")
        average: float = Field(0.999, ge=0, lt=1, description="decay of the generator's moving average")
        mirror: bool = Field(True, description="mirror half of the images")

    options: Options
    has_discriminator = True

    def weights(self, source: str, folder: Path | None) -> str | None:
        return shipped_priors.find_hash("wgan-gp", source, self.options)

    def fit(self, task: PriorTask) -> dict[str, Tensor]:
        return shipped_priors.load("wgan-gp", task.source, self.options) or self.train(task)

    def train(self, task: PriorTask) -> dict[str, Tensor]:
        """Train, or resume; raise Diverged if the critic's loss is not finite."""
        return Training(self.options, task).run("wgan-gp", "critic")

    def build(self, state: dict[str, Tensor], *, resolution: int) -> wgan_networks.WGAN:
        model = wgan_networks.WGAN(self.options.latent, self.options.width, resolution)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            size = f"{resolution}×{resolution} pixels at width {self.options.width}"
            raise DataError(f"these wgan-gp weights do not make {size}") from error
        return model.eval()


class Training(AdversarialTraining):
    """Training of generator and critic."""

    model: wgan_networks.WGAN

    def __init__(self, options: WassersteinGAN.Options, task: PriorTask) -> None:
        self.options = options
        model = wgan_networks.WGAN(options.latent, options.width, task.resolution).to(task.device).train()
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(network.parameters(), lr=options.learning_rate, betas=options.betas)
            for network in (model.generator, model.critic)
        ]
        super().__init__(task, model, optimizers, steps=options.steps, decay=options.average)

    def train_step(self, images: Tensor) -> Tensor:
        """Steps of the critic, then one of the generator; the critic's last loss."""
        generator, critic = self.model.generator, self.model.critic
        rng, size = self.task.generator, self.options.batch_size
        generator_optimizer, critic_optimizer = self.optimizers
        for _ in range(self.options.critic_steps):
            real = real_batch(images, size, rng, mirror=self.options.mirror)
            with torch.no_grad():
                fake = generator(self._latents())
            share = upload(torch.rand(size, 1, 1, 1, generator=rng), real.device)
            penalty = self.options.penalty * gradient_penalty(critic, real, fake, share)
            loss: Tensor = critic(fake).mean() - critic(real).mean() + penalty
            update(critic_optimizer, loss)
        critic.requires_grad_(False)
        update(generator_optimizer, -critic(generator(self._latents())).mean())
        critic.requires_grad_(True)
        return loss

    def _latents(self) -> Tensor:
        shape = (self.options.batch_size, self.options.latent)
        return upload(torch.randn(shape, generator=self.task.generator), self.task.device)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Batch mean of (norm of the critic's gradient − 1)² at points between real and fake images.

    Args:
        critic: images to scores ``(N,)``.
        real, fake: ``(N, C, H, W)``.
        share: of the real image in each point, ``(N, 1, 1, 1)`` in [0, 1].
    """
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norms: Tensor = gradient.flatten(1).norm(dim=1)
    return (norms - 1).square().mean()


@hookimpl
def mia_bench_register_priors(register: Register) -> None:
    register("wgan-gp", WassersteinGAN)
