"""The image model of ``stylegan2``, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mia_bench.api.generative import GenerativeModel
from mia_bench.augment import resized
from mia_bench.errors import DataError, MiaBenchError
from mia_bench.fetch import file_hash
from mia_bench_plugins.priors.shipped_priors import in_float32
from mia_bench_plugins.priors.stylegan2_networks import SHAPE, SLOPE, Discriminator, Generator, Shape
from mia_bench_plugins.priors.stylegan2_pickle import read_pickle

FORMAT = "stylegan2"


class StyleGAN2(GenerativeModel):
    """A generator and its discriminator; latents are styles, one for all layers.

    Args:
        shape: sizes of the networks.
        resolution: of the images to return, any.
        crop: side of the central square of the networks' images to keep; None keeps all.
        partial: synthesise only up to the resolution that is needed, except in :meth:`final`.
    """

    latent_slope = SLOPE

    def __init__(
        self, shape: Shape, resolution: int, *, crop: int | None = None, partial: bool = False
    ) -> None:
        super().__init__()
        self.shape = shape
        self.crop = crop
        self.generator = Generator(shape)
        self.discriminator = Discriminator(shape)
        self.latent_dim = shape.style
        self.resolution = resolution
        needed = resolution * shape.resolution / (crop or shape.resolution)
        enough = [r for r in shape.resolutions if r >= needed]
        self._up_to = enough[0] if partial and enough else None

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator, *, truncation: float = 1.0) -> Tensor:
        """``(count, style)``: mapped normal latents, pulled towards the mean style."""
        z = torch.randn(count, self.shape.latent, generator=generator)
        mapping = self.generator.mapping
        # The mean style is float32 under autocast as well.
        return mapping.truncate(mapping(z.to(mapping.w_avg.device)).float(), truncation).cpu()

    def forward(self, latents: Tensor) -> Tensor:
        """``(N, style)`` to ``(N, 3, R, R)`` in [0, 1], with the networks' constant noise."""
        images: Tensor = self.generator.synthesis(latents, lambda noise: noise, up_to=self._up_to)
        side = images.shape[2]
        if self.crop is not None:
            kept = round(self.crop * side / self.shape.resolution)
            start = (side - kept) // 2
            images = images[:, :, start : start + kept, start : start + kept]
        return (resized(images, self.resolution) / 2 + 0.5).clamp(0, 1)

    def final(self, latents: Tensor) -> Tensor:
        kept, self._up_to = self._up_to, None
        try:
            return super().final(latents)
        finally:
            self._up_to = kept

    def discriminate(self, images: Tensor) -> Tensor:
        """Scores ``(N,)``, independent of the batch; raise MiaBenchError if the model crops its images."""
        if self.crop is not None:
            raise MiaBenchError("stylegan2's discriminator judges whole images, not crops of them")
        images = resized(images, self.shape.resolution)
        scores: Tensor = self.discriminator(2 * images - 1, alone=True)
        return scores


def build(state: Mapping[str, Tensor], resolution: int, *, crop: int | None, partial: bool) -> StyleGAN2:
    """The model with a state from :func:`read` or from training, in eval mode.

    Raises:
        DataError: the tensors do not fit the sizes, or the crop is larger than the images.
    """
    shape = Shape.from_tensor(state[SHAPE])
    if crop is not None and crop > shape.resolution:
        raise DataError(f"crop={crop} is larger than the images of {shape.resolution} pixels")
    weights = {name: tensor for name, tensor in state.items() if name != SHAPE}
    with torch.device("meta"):  # The weights are compared with the sizes before memory is taken for these.
        expected = StyleGAN2(shape, resolution).state_dict()
    if {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in expected.items()}:
        raise DataError("these stylegan2 weights do not fit the sizes they claim")
    model = StyleGAN2(shape, resolution, crop=crop, partial=partial)
    model.load_state_dict(weights)
    return model.eval()


def read(path: Path) -> dict[str, Tensor]:
    """The state in a published pickle, or in a safetensors file from :func:`convert`.

    Raises:
        DataError: the file is truncated or holds something else.
    """
    if path.suffix == ".pkl":
        return read_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise DataError(f"{path.name} holds no stylegan2 networks")
            return in_float32({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path.name} is truncated or no safetensors file: {error}") from error


def convert(path: Path, output: Path) -> None:
    """Write the networks of a published pickle as safetensors; raise DataError if it is refused."""
    state = read_pickle(path)
    metadata = {"format": FORMAT, "converted_from": path.name, "sha256": file_hash(path)}
    part = output.with_name(f".{output.name}.part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, part, metadata)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
