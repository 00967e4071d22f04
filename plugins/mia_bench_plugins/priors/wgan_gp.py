r"""WGAN-GP: the image prior of the GMI attack.

Zhang et al., *The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural Networks*,
CVPR 2020 (arXiv 1911.07135) trains the generator and critic of Gulrajani et al., *Improved Training of
Wasserstein GANs*, NIPS 2017 (arXiv 1704.00028). The critic minimises

.. math:: D(G(z)) - D(x) + \lambda\,(\|\nabla_{\hat x} D(\hat x)\|_2 - 1)^2

with :math:`\hat x` on the line between a real and a generated image; the generator minimises
:math:`-D(G(z))` once every ``critic_steps`` steps of the critic. The generator kept is an exponential
moving average. Training goes on after it was stopped, to the same result.

For the embedded track a trained model is shipped; it is used where data and options are those it was
trained with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mia_bench import Prior, PriorTask, hookimpl
from mia_bench.api.options import Share
from mia_bench.hookspecs import Register
from mia_bench_plugins.priors import shipped_priors
from mia_bench_plugins.shipped import shipped_hash

if TYPE_CHECKING:
    from torch import Tensor

    from mia_bench.api.generative import GenerativeModel


class WassersteinGAN(Prior):
    """A generator and a critic trained against each other on the public images."""

    summary: ClassVar[str] = "WGAN-GP: generator and critic of the GMI attack"
    paper: ClassVar[str] = "Zhang et al., CVPR 2020; Gulrajani et al., NIPS 2017"
    version: ClassVar[str] = "1"

    class Options(Prior.Options):
        """Options of ``wgan-gp``; the networks and the optimiser are the paper's, tracks narrow them."""

        latent: int = Field(100, ge=1, description="dimensions of the latents")
        width: int = Field(64, ge=1, description="channels of the stage next to the image")
        steps: int = Field(20000, ge=1, description="steps of the generator")
        batch_size: int = Field(64, ge=2, description="images a step")
        critic_steps: int = Field(
            5, ge=1, description="steps of the critic for one of the generator"
        )
        penalty: float = Field(10.0, ge=0, description="weight of the gradient penalty")
        learning_rate: float = Field(2e-4, gt=0, description="of Adam, for both")
        betas: tuple[Share, Share] = Field(
            (0.5, 0.999), description="of Adam, for both, each below 1"
        )
        average: float = Field(
            0.999, ge=0, lt=1, description="decay of the generator's moving average"
        )
        mirror: bool = Field(True, description="mirror half of the images")

    options: Options

    @property
    def has_discriminator(self) -> bool:
        """The critic is kept."""
        return True

    def weights(self, source: str, folder: Path | None) -> str | None:
        """SHA-256 of the shipped file, where one was trained on these data with these options.

        Raises:
            MiaBenchError: it is not as it was shipped.
        """
        path = shipped_priors.find("wgan-gp", source, self.options)
        return shipped_hash(path) if path else None

    def fit(self, task: PriorTask) -> dict[str, Tensor]:
        """Weights of generator (averaged) and critic."""
        path = shipped_priors.find("wgan-gp", task.source, self.options)
        return shipped_priors.load(path) if path else self.train(task)

    def train(self, task: PriorTask) -> dict[str, Tensor]:
        """As :meth:`fit`, from nothing."""
        from mia_bench_plugins.priors.wgan_training import train

        return train(task, self.options)

    def build(self, state: dict[str, Tensor], *, resolution: int) -> GenerativeModel:
        """The two networks."""
        from mia_bench_plugins.priors.wgan_training import build

        return build(state, self.options, resolution)


@hookimpl
def mia_bench_register_priors(register: Register) -> None:
    """Register ``wgan-gp``."""
    register("wgan-gp", WassersteinGAN)
