r"""StyleGAN2: the image prior of Plug & Play Attacks, trained or loaded from a published file.

Karras et al., *Analyzing and Improving the Image Quality of StyleGAN*, CVPR 2020 (arXiv 1912.04958).
Both networks minimise the logistic loss, :math:`\log(1 + e^{-D(G(z))})` and
:math:`\log(1 + e^{D(G(z))}) + \log(1 + e^{-D(x)})`. Regularisers are added every few steps: for the
discriminator :math:`\tfrac{\gamma}{2}\|\nabla_x D(x)\|^2` on real images, for the generator
:math:`(\|J_w^T y\|_2 - a)^2`, which keeps path lengths in the style space near their running mean. Styles of
two latents are mixed at a random layer. Real and generated images are augmented differentiably before they
reach the discriminator (Zhao et al., NeurIPS 2020, arXiv 2006.10738). The result is an exponential moving
average of the generator.

Latents are styles *w*, one for all layers. With ``file`` the networks are loaded from a file: safetensors
written by ``mia-bench prior convert``, or a pickle of ``stylegan2-ada-pytorch`` or ``stylegan3``, which is
read without executing its code. Images of another size than the track's are cropped and resized.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from mia_bench import Prior, PriorTask, Register, hookimpl, lazy_imports
from mia_bench.api.component import Published
from mia_bench.api.options import Share
from mia_bench.errors import Unavailable
from mia_bench.fetch import file_hash, find
from mia_bench.memory import upload
from mia_bench_plugins.priors import shipped_priors
from mia_bench_plugins.priors.adversarial import AdversarialTraining, real_batch, update

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from mia_bench_plugins.priors import stylegan2_model, stylegan2_networks

PUBLISHED_AT = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
"""The authors publish no hashes of these files; the hash of the file in use is part of the prior's key."""


class StyleGAN2Prior(Prior):
    """A style-based generator and its discriminator."""

    summary = "StyleGAN2: trained on the public images, or a published file"
    paper = "Karras et al., CVPR 2020, arXiv 1912.04958"
    version = "1"
    trial_options: ClassVar = {
        "latent": 8, "style": 8, "layers": 2, "channel_base": 128, "channel_max": 8, "steps": 4,
        "batch_size": 4,
    }  # fmt: skip
    converts = frozenset({".pkl"})
    published = tuple(
        Published(f"{name}.pkl", f"{PUBLISHED_AT}/{name}.pkl") for name in ("ffhq", "metfaces", "afhqdog")
    )

    class Options(Prior.Options):
        """Options of ``stylegan2``; with a file, those of sizes and training have no effect."""

        places = frozenset({"file"})

        file: str = Field("", description="networks to take: a path, or a name in the weights folder")
        trained_on: str = Field("", description="images the file's networks saw, by its publisher")
        crop: int | None = Field(
            None, ge=4, description="central square kept of the networks' images, in pixels"
        )
        partial: bool = Field(
            False, description="while optimising, synthesise no more pixels than the target needs"
        )
        latent: int = Field(512, ge=1, description="dimensions of z")
        style: int = Field(512, ge=1, description="dimensions of w, the latents of attacks")
        layers: int = Field(8, ge=1, description="of the mapping network")
        channel_base: int = Field(32768, ge=4, description="channels of a layer × its resolution …")
        channel_max: int = Field(512, ge=1, description="… but no more channels than this")
        steps: int = Field(20000, ge=1, description="training steps")
        batch_size: int = Field(32, ge=2, description="images a step")
        learning_rate: float = Field(0.002, gt=0, description="of Adam, for both networks")
        betas: tuple[Share, Share] = Field(
            (0.0, 0.99), description="of Adam, for both networks, each below 1"
        )
        r1: float = Field(10.0, ge=0, description="weight γ of the discriminator's regulariser …")
        r1_every: int = Field(16, ge=1, description="… which is added every so many steps")
        path_length: float = Field(2.0, ge=0, description="weight of the generator's regulariser …")
        path_every: int = Field(4, ge=1, description="… which is added every so many steps")
        mixing: float = Field(0.9, ge=0, le=1, description="share of steps that mix two styles")
        augment: bool = Field(True, description="augment images differentiably")
        average: float = Field(0.999, ge=0, lt=1, description="decay of the generator's average")
        mirror: bool = Field(True, description="mirror half of the images")

        @model_validator(mode="after")
        def _require_file_and_trained_on_together(self) -> StyleGAN2Prior.Options:
            if bool(self.file) != bool(self.trained_on):
                raise ValueError("file and trained_on go together: records say what a prior was trained on")
            return self

    options: Options
    normal_latents = False

    @property
    def has_discriminator(self) -> bool:
        """Whether ``crop`` is null: the discriminator takes whole images."""
        return self.options.crop is None

    def weights(self, source: str, folder: Path | None) -> str | None:
        if self.options.file:
            return file_hash(self._path(folder))
        return shipped_priors.find_hash("stylegan2", source, self.options)

    def weight_files(self) -> tuple[Published, ...]:
        given = self.options.file
        if not given or Path(given).expanduser().is_file():
            return ()
        known = [file for file in self.published if file.name == given]
        return (replace(known[0], how=f"mia-bench prior fetch {given}") if known else Published(given, ""),)

    def _path(self, folder: Path | None) -> Path:
        given = Path(self.options.file).expanduser()
        path = given if given.is_file() else find(given, folder)
        if path is not None:
            return path
        published = any(given.name == file.name for file in self.published)
        how = f"mia-bench prior fetch {given.name}, or " if published else ""
        raise Unavailable(
            f"{given.name} was not found: {how}give a path, or put it into the folder that "
            "MIA_BENCH_WEIGHTS names"
        )

    def fit(self, task: PriorTask) -> dict[str, Tensor]:
        """Load the given or the shipped file, or train; sizes and weights of both networks."""
        if not self.options.file:
            return shipped_priors.load("stylegan2", task.source, self.options) or self.train(task)
        state = stylegan2_model.read(self._path(task.weights))
        # The training images of a published file are unknown.
        trained_on = state.pop("trained_on", torch.empty(0, dtype=torch.int64))
        task.watch(self.build(state, resolution=task.resolution).to(task.device), 0)
        return {**state, "trained_on": trained_on}

    def train(self, task: PriorTask) -> dict[str, Tensor]:
        """Train, or resume; raise Diverged if the discriminator's loss is not finite."""
        training = Training(self.options, task)
        state = training.run("stylegan2", "discriminator")
        return {stylegan2_networks.SHAPE: training.model.shape.as_tensor(), **state}

    def build(self, state: dict[str, Tensor], *, resolution: int) -> stylegan2_model.StyleGAN2:
        return stylegan2_model.build(state, resolution, crop=self.options.crop, partial=self.options.partial)

    @classmethod
    def convert(cls, path: Path, output: Path) -> None:
        stylegan2_model.convert(path, output)


class Training(AdversarialTraining):
    """Training of generator and discriminator."""

    model: stylegan2_model.StyleGAN2

    def __init__(self, options: StyleGAN2Prior.Options, task: PriorTask) -> None:
        self.options = options
        sizes = options.model_dump(include={"latent", "style", "layers", "channel_base", "channel_max"})
        shape = stylegan2_networks.Shape(task.resolution, **sizes)
        model = stylegan2_model.StyleGAN2(shape, task.resolution).to(task.device).train()
        optimizers: list[torch.optim.Optimizer] = []
        for network, every in (
            (model.generator, options.path_every),
            (model.discriminator, options.r1_every),
        ):
            # The paper's correction: with the regulariser, k steps become k + 1. Made without it, too.
            share = every / (every + 1)
            beta1, beta2 = (beta**share for beta in options.betas)
            rate = options.learning_rate * share
            optimizers.append(torch.optim.Adam(network.parameters(), rate, (beta1, beta2), eps=1e-8))
        self.mean_length = torch.zeros((), device=task.device)
        super().__init__(task, model, optimizers, steps=options.steps, decay=options.average)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "mean_length": self.mean_length}

    def restore(self, state: dict[str, Tensor]) -> None:
        super().restore(state)
        self.mean_length = state["mean_length"].to(self.task.device)

    def _normal(self, *size: int) -> Tensor:
        return upload(torch.randn(size, generator=self.task.generator), self.task.device)

    def _styles(self, count: int) -> Tensor:
        """Styles ``(N, depth, style)``; if mixed, those from a random layer on belong to another latent."""
        mapping, depth = self.model.generator.mapping, self.model.generator.synthesis.depth
        rng = self.task.generator
        w: Tensor = mapping(self._normal(count, self.options.latent))
        mapping.update_average(w)
        styles = w[:, None].expand(-1, depth, -1)
        if torch.rand((), generator=rng) < self.options.mixing:
            layer = int(torch.randint(1, depth, (), generator=rng))
            other = mapping(self._normal(count, self.options.latent))
            rest = other[:, None].expand(-1, depth - layer, -1)
            styles = torch.cat([styles[:, :layer], rest], dim=1)
        return styles

    def _images(self, styles: Tensor) -> Tensor:
        def noise(constant: Tensor) -> Tensor:
            return self._normal(len(styles), 1, *constant.shape)

        images: Tensor = self.model.generator.synthesis(styles, noise)
        return images

    def _scores(self, images: Tensor) -> Tensor:
        if self.options.augment:
            images = differentiable_augmentation(images, self.task.generator)
        scores: Tensor = self.model.discriminator(images)
        return scores

    def train_step(self, images: Tensor) -> Tensor:
        """A step of both networks, and of the regularisers that are due; the discriminator's loss."""
        options, rng, size = self.options, self.task.generator, self.options.batch_size
        generator_optimizer, discriminator_optimizer = self.optimizers
        self.model.discriminator.requires_grad_(False)
        loss = F.softplus(-self._scores(self._images(self._styles(size)))).mean()
        update(generator_optimizer, loss)
        if options.path_length and self.step % options.path_every == 0:
            styles = self._styles(max(1, size // 2))
            made = self._images(styles)
            lengths = path_lengths(made, styles, self._normal(*made.shape))
            self.mean_length = self.mean_length.lerp(lengths.detach().mean(), 0.01)
            penalty = (lengths - self.mean_length).square().mean()
            update(generator_optimizer, options.path_length * options.path_every * penalty)
        self.model.discriminator.requires_grad_(True)
        self.model.generator.requires_grad_(False)
        real = 2 * real_batch(images, size, rng, mirror=options.mirror) - 1
        with torch.no_grad():
            fake = self._images(self._styles(size))
        loss = F.softplus(self._scores(fake)).mean() + F.softplus(-self._scores(real)).mean()
        update(discriminator_optimizer, loss)
        if options.r1 and self.step % options.r1_every == 0:
            penalty = r1_penalty(self._scores, real)
            update(discriminator_optimizer, options.r1 / 2 * options.r1_every * penalty)
        self.model.generator.requires_grad_(True)
        return loss


def r1_penalty(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean squared norm of the gradient of the scores at real images (Mescheder et al., ICML 2018).

    Args:
        discriminator: images to scores ``(N,)``.
        images: ``(N, C, H, W)``.
    """
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def path_lengths(images: Tensor, styles: Tensor, noise: Tensor) -> Tensor:
    """Path lengths ``(N,)``, ‖Jᵀ y‖ with y = noise / √(H·W): how much images change with their styles.

    Args:
        images: ``(N, C, H, W)``, generated from the styles.
        styles: ``(N, layers, D)``; squared norms over D are averaged over layers.
        noise: standard normal, in the shape of the images.
    """
    size = images.shape[2] * images.shape[3]
    along = (images * noise).sum() / math.sqrt(size)
    (gradient,) = torch.autograd.grad(along, styles, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def differentiable_augmentation(images: Tensor, rng: torch.Generator) -> Tensor:
    """Colour, shift and cutout (Zhao et al., NeurIPS 2020, arXiv 2006.10738) of images within ±1.

    Brightness ±½, saturation × 0–2, contrast × ½–1½, a shift by up to ⅛ of the size, and a square of half
    the size set to zero. Pixels shifted in from outside are zero.
    """
    count, _, size, _ = images.shape
    factors = torch.rand(3, count, 1, 1, 1, generator=rng)
    brightness, saturation, contrast = upload(factors, images.device)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * (contrast + 0.5) + mean
    reach = max(1, round(size / 8))
    moves = upload(torch.randint(-reach, reach + 1, (2, count), generator=rng), images.device)
    pixels = torch.arange(size, device=images.device)
    padded = F.pad(images, [1, 1, 1, 1])
    # Pixels outside the image are those of the border of zeros.
    rows, columns = (pixels + moves[:, :, None] + 1).clamp(0, size + 1)
    index = torch.arange(count, device=images.device)[:, None, None]
    images = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    images = images.permute(0, 3, 1, 2)
    half = size // 2
    centres = upload(torch.randint(0, size + 1 - half % 2, (2, count), generator=rng), images.device)
    places = pixels - centres[:, :, None] + half // 2
    in_rows, in_columns = (places >= 0) & (places < half)
    hidden = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill(hidden, 0.0)


@hookimpl
def mia_bench_register_priors(register: Register) -> None:
    register("stylegan2", StyleGAN2Prior)
