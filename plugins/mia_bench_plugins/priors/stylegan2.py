r"""StyleGAN2: the image prior of Plug & Play Attacks, trained here or read from a published file.

Karras et al., *Analyzing and Improving the Image Quality of StyleGAN*, CVPR 2020 (arXiv 1912.04958).
Both networks minimise the logistic loss, :math:`\log(1 + e^{-D(G(z))})` and
:math:`\log(1 + e^{D(G(z))}) + \log(1 + e^{-D(x)})`. Every few steps regularisers are added: for the
discriminator :math:`\tfrac{\gamma}{2}\|\nabla_x D(x)\|^2` on real images, for the generator
:math:`(\|J_w^T y\|_2 - a)^2`, which keeps the length of paths in the space of styles near its running
mean. Styles of two latents are mixed at a random layer. For few images both real and generated ones are
augmented differentiably before they are judged (Zhao et al., NeurIPS 2020, arXiv 2006.10738). The
generator kept is an exponential moving average.

Latents are styles *w*, one for all layers. With ``file`` the networks come from a file instead:
safetensors, as ``mia-bench prior convert`` writes it, or a pickle of ``stylegan2-ada-pytorch``, which is
read without running anything in it. Images of another size than the track's are cropped and resized.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from mia_bench import Prior, PriorTask, hookimpl
from mia_bench.api.options import Share
from mia_bench.api.prior import Published
from mia_bench.errors import Unavailable
from mia_bench.fetch import file_hash, find
from mia_bench.hookspecs import Register
from mia_bench_plugins.priors import shipped_priors
from mia_bench_plugins.shipped import shipped_hash

if TYPE_CHECKING:
    from torch import Tensor

    from mia_bench.api.generative import GenerativeModel


PUBLISHED_AT = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
"""The authors publish no hashes of these files; that of the file used is a part of the prior's key."""


class StyleGAN2Prior(Prior):
    """A style-based generator and its discriminator."""

    summary: ClassVar[str] = "StyleGAN2: trained on the public images, or a published file"
    paper: ClassVar[str] = "Karras et al., CVPR 2020, arXiv 1912.04958"
    version: ClassVar[str] = "1"
    converts: ClassVar[frozenset[str]] = frozenset({".pkl"})
    published: ClassVar[tuple[Published, ...]] = tuple(
        Published(f"{name}.pkl", f"{PUBLISHED_AT}/{name}.pkl")
        for name in ("ffhq", "metfaces", "afhqdog")
    )

    class Options(Prior.Options):
        """Options of ``stylegan2``; sizes and training do not matter where a file is given."""

        places: ClassVar[frozenset[str]] = frozenset({"file"})

        file: str = Field(
            "", description="networks to take: a path, or a name in the weights folder"
        )
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
        def _file_says_what_it_saw(self) -> StyleGAN2Prior.Options:
            if bool(self.file) != bool(self.trained_on):
                raise ValueError(
                    "file and trained_on go together: records say what a prior was trained on"
                )
            return self

    options: Options

    @property
    def has_discriminator(self) -> bool:
        """The discriminator judges whole images, no crops of them."""
        return self.options.crop is None

    @property
    def normal_latents(self) -> bool:
        """Latents are styles."""
        return False

    def weights(self, source: str, folder: Path | None) -> str | None:
        """SHA-256 of the file that is given, or shipped for these data and options.

        Raises:
            Unavailable: it was not found.
            MiaBenchError: it is not as it was shipped.
        """
        if self.options.file:
            return file_hash(self._path(folder))
        path = shipped_priors.find("stylegan2", source, self.options)
        return shipped_hash(path) if path else None

    def _path(self, folder: Path | None) -> Path:
        given = Path(self.options.file).expanduser()
        path = given if given.is_file() else find(given, folder)
        if path is not None:
            return path
        known = given.name in {file.name for file in self.published}
        how = f"mia-bench prior fetch {given.name}, or " if known else ""
        raise Unavailable(
            f"{given.name} was not found: {how}give a path, or put it into the folder that "
            "MIA_BENCH_WEIGHTS names"
        )

    def fit(self, task: PriorTask) -> dict[str, Tensor]:
        """Sizes and weights of both networks."""
        if not self.options.file:
            path = shipped_priors.find("stylegan2", task.source, self.options)
            return shipped_priors.load(path) if path else self.train(task)
        import torch

        from mia_bench_plugins.priors.stylegan2_model import read

        state = read(self._path(task.weights))
        # Of a file that is not ours none of the images is known.
        trained_on = state.pop("trained_on", torch.empty(0, dtype=torch.int64))
        task.watch(self.build(state, resolution=task.resolution).to(task.device), 0)
        return {**state, "trained_on": trained_on}

    def train(self, task: PriorTask) -> dict[str, Tensor]:
        """As :meth:`fit`, from nothing."""
        from mia_bench_plugins.priors.stylegan2_training import train

        return train(task, self.options)

    def build(self, state: dict[str, Tensor], *, resolution: int) -> GenerativeModel:
        """The two networks."""
        from mia_bench_plugins.priors.stylegan2_model import build

        return build(state, resolution, crop=self.options.crop, partial=self.options.partial)

    @classmethod
    def convert(cls, path: Path, output: Path) -> None:
        """Write the networks of a published pickle as safetensors."""
        from mia_bench_plugins.priors.stylegan2_model import convert

        convert(path, output)


@hookimpl
def mia_bench_register_priors(register: Register) -> None:
    """Register ``stylegan2``."""
    register("stylegan2", StyleGAN2Prior)
