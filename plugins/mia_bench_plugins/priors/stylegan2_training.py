"""Training the networks of ``stylegan2``."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mia_bench.api.prior import PriorTask
from mia_bench_plugins.priors.adversarial import AdversarialTraining, real_batch
from mia_bench_plugins.priors.stylegan2 import StyleGAN2Prior
from mia_bench_plugins.priors.stylegan2_model import StyleGAN2, shape_state
from mia_bench_plugins.priors.stylegan2_networks import Discriminator, Generator, Shape


def r1_penalty(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean squared norm of the gradient of the scores in real images (Mescheder et al., ICML 2018).

    Args:
        discriminator: images to scores ``(N,)``.
        images: ``(N, C, H, W)``.
    """
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def path_lengths(images: Tensor, styles: Tensor, noise: Tensor) -> Tensor:
    """How far images move with their styles ``(N,)``: ‖Jᵀ y‖, y normal noise over √(H·W).

    Args:
        images: ``(N, C, H, W)``, made of the styles.
        styles: ``(N, layers, D)``; the norm is over D, its square the mean over the layers.
        noise: standard normal, as the images.
    """
    size = images.shape[2] * images.shape[3]
    along = (images * noise).sum() / math.sqrt(size)
    (gradient,) = torch.autograd.grad(along, styles, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def differentiable_augmentation(images: Tensor, draws: torch.Generator) -> Tensor:
    """Colour, shift and cutout (Zhao et al., NeurIPS 2020, arXiv 2006.10738) of images within ±1.

    Brightness by ±½, saturation by 0–2, contrast by ½–1½, a shift of up to ⅛ of the size into zeros, a
    square of zeros of half the size anywhere.
    """
    count, _, size, _ = images.shape
    brightness, saturation, contrast = torch.rand(3, count, 1, 1, 1, generator=draws).to(
        images.device
    )
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * (contrast + 0.5) + mean
    reach = max(1, round(size / 8))
    moves = torch.randint(-reach, reach + 1, (2, count), generator=draws).to(images.device)
    pixels = torch.arange(size, device=images.device)
    rows, columns = ((pixels + move[:, None]) for move in moves)
    padded = F.pad(images, [1, 1, 1, 1])
    # Pixels from outside of the image are those of the border of zeros.
    rows, columns = ((line + 1).clamp(0, size + 1) for line in (rows, columns))
    index = torch.arange(count, device=images.device)[:, None, None]
    images = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    images = images.permute(0, 3, 1, 2)
    half = size // 2
    centres = torch.randint(0, size + 1 - half % 2, (2, count), generator=draws).to(images.device)
    in_rows, in_columns = ((pixels - c[:, None] + half // 2) for c in centres)
    inside = [(line >= 0) & (line < half) for line in (in_rows, in_columns)]
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hidden, 0.0)


class Training(AdversarialTraining[Generator]):
    """Generator and discriminator, trained as :mod:`mia_bench_plugins.priors.stylegan2` says."""

    def __init__(self, options: StyleGAN2Prior.Options, task: PriorTask) -> None:
        self.options = options
        self.shape = Shape(
            resolution=task.resolution,
            latent=options.latent,
            style=options.style,
            layers=options.layers,
            channel_base=options.channel_base,
            channel_max=options.channel_max,
        )
        generator = Generator(self.shape).to(task.device).train()
        self.discriminator = Discriminator(self.shape).to(task.device).train()
        lazy = ((generator, options.path_every), (self.discriminator, options.r1_every))
        optimizers: list[torch.optim.Optimizer] = []
        for network, every in lazy:
            # A regulariser every k steps makes k + 1 of k: the paper's correction of the optimiser.
            share = every / (every + 1)
            beta1, beta2 = options.betas
            optimizers.append(
                torch.optim.Adam(
                    network.parameters(),
                    lr=options.learning_rate * share,
                    betas=(beta1**share, beta2**share),
                    eps=1e-8,
                )
            )
        self.mean_length = torch.zeros((), device=task.device)
        super().__init__(
            task,
            generator,
            {"discriminator": self.discriminator},
            optimizers,
            steps=options.steps,
            decay=options.average,
        )

    def state(self) -> dict[str, Tensor]:
        """Networks, optimisers, draws, and the mean path length."""
        return {**super().state(), "mean_length": self.mean_length}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        super().restore(state)
        self.mean_length = state["mean_length"].to(self.task.device)

    def _normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.task.generator).to(self.task.device)

    def _styles(self, count: int) -> Tensor:
        """``(N, depth, style)``: from some layer on of another latent, where styles are mixed."""
        mapping, depth = self.generator.mapping, self.generator.synthesis.depth
        draws = self.task.generator
        w: Tensor = mapping(self._normal(count, self.options.latent))
        mapping.follow(w)
        styles = w[:, None].expand(-1, depth, -1)
        if torch.rand((), generator=draws) < self.options.mixing:
            layer = int(torch.randint(1, depth, (), generator=draws))
            other = mapping(self._normal(count, self.options.latent))
            rest = other[:, None].expand(-1, depth - layer, -1)
            styles = torch.cat([styles[:, :layer], rest], dim=1)
        return styles

    def _images(self, styles: Tensor) -> Tensor:
        count = len(styles)
        images: Tensor = self.generator.synthesis(
            styles, lambda constant: self._normal(count, 1, *constant.shape)
        )
        return images

    def _scores(self, images: Tensor) -> Tensor:
        if self.options.augment:
            images = differentiable_augmentation(images, self.task.generator)
        scores: Tensor = self.discriminator(images)
        return scores

    def _train_once(self, images: Tensor) -> Tensor:
        """A step of both networks, and of the regularisers when it is their turn; D's loss."""
        options, draws, size = self.options, self.task.generator, self.options.batch_size
        for_generator, for_discriminator = self.optimizers
        self.discriminator.requires_grad_(False)
        loss = F.softplus(-self._scores(self._images(self._styles(size)))).mean()
        _step(for_generator, loss)
        if options.path_length and self.step % options.path_every == 0:
            styles = self._styles(max(1, size // 2))
            made = self._images(styles)
            lengths = path_lengths(made, styles, self._normal(*made.shape))
            self.mean_length = self.mean_length.lerp(lengths.detach().mean(), 0.01)
            penalty = (lengths - self.mean_length).square().mean()
            _step(for_generator, options.path_length * options.path_every * penalty)
        self.discriminator.requires_grad_(True)
        self.generator.requires_grad_(False)
        real = 2 * real_batch(images, size, draws, mirror=options.mirror) - 1
        with torch.no_grad():
            fake = self._images(self._styles(size))
        judged = F.softplus(self._scores(fake)).mean() + F.softplus(-self._scores(real)).mean()
        _step(for_discriminator, judged)
        if options.r1 and self.step % options.r1_every == 0:
            penalty = r1_penalty(self._scores, real)
            _step(for_discriminator, options.r1 / 2 * options.r1_every * penalty)
        self.generator.requires_grad_(True)
        return judged

    def result(self) -> StyleGAN2:
        """The averaged generator and the discriminator, as they are now, in eval mode."""
        model = StyleGAN2(self.shape, self.task.resolution)
        model.generator = copy.deepcopy(self.average)
        model.discriminator = copy.deepcopy(self.discriminator)
        return model.eval().requires_grad_(False)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def train(task: PriorTask, options: StyleGAN2Prior.Options) -> dict[str, Tensor]:
    """Train, or go on from the checkpoint; the state that the model is built of.

    Raises:
        Diverged: the discriminator's loss is no longer finite.
    """
    training = Training(options, task)
    return {**shape_state(training.shape), **training.run("stylegan2", "discriminator")}
