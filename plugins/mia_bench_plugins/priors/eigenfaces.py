r"""Eigenfaces: a linear Gaussian image model in closed form.

Turk, Pentland, *Eigenfaces for Recognition*, Journal of Cognitive Neuroscience 3(1), 1991. With the
mean :math:`\mu` and the principal components :math:`v_i` of the public images (unit vectors,
standard deviations :math:`s_i`), a latent :math:`z \sim N(0, I)` gives the image
:math:`\mu + \sum_i z_i s_i v_i`, clipped to [0, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mia_bench import Prior, PriorTask, hookimpl
from mia_bench.errors import DataError
from mia_bench.hookspecs import Register

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mia_bench.api.generative import GenerativeModel


class Eigenfaces(Prior):
    """Principal components of the public images."""

    summary: ClassVar[str] = "mean and principal components of the public images (closed form)"
    paper: ClassVar[str] = "Turk and Pentland, J. Cognitive Neuroscience 3(1), 1991"
    version: ClassVar[str] = "1"

    class Options(Prior.Options):
        """Options of ``eigenfaces``."""

        components: int = Field(256, ge=1, description="latent dimensions (fewer if few images)")
        mirror: bool = Field(True, description="fit the mirrored images too")

    options: Options

    def fit(self, task: PriorTask) -> dict[str, Tensor]:
        """Mean ``(P,)`` and components scaled by their standard deviations ``(K, P)``."""
        return principal_components(
            task.training_images(),
            self.options.components,
            mirror=self.options.mirror,
            device=task.device,
        )

    def build(self, state: dict[str, Tensor], *, resolution: int) -> GenerativeModel:
        """The linear model."""
        from mia_bench_plugins.priors.linear_model import LinearModel

        if state["mean"].shape != (3 * resolution**2,):
            raise DataError(
                f"this prior makes images of {state['mean'].shape[0]} values, "
                f"the track needs {resolution}×{resolution} pixels"
            )
        return LinearModel(state["mean"], state["basis"], resolution).eval()


def principal_components(
    images: Tensor, components: int, *, mirror: bool, device: torch.device
) -> dict[str, Tensor]:
    """Mean and scaled principal axes of uint8 images ``(N, 3, H, W)``, by the covariance in float64.

    Returns ``mean`` ``(P,)`` and ``basis`` ``(K, P)``, float32, in units of [0, 1] pixels; row ``i`` is
    the unit axis ``i`` times the standard deviation along it, largest first.
    """
    import torch

    if device.type == "mps":  # no float64 there
        device = torch.device("cpu")
    size = images[0].numel()
    count = len(images) * (2 if mirror else 1)
    components = min(components, count - 1, size)
    total = torch.zeros(size, dtype=torch.float64, device=device)
    squares = torch.zeros(size, size, dtype=torch.float64, device=device)
    for chunk in images.split(2048):
        rows = chunk.to(device)
        if mirror:
            rows = torch.cat([rows, rows.flip(3)])
        flat = rows.flatten(1).double() / 255
        total += flat.sum(0)
        squares.addmm_(flat.T, flat)
    mean = total / count
    covariance = (squares - count * torch.outer(mean, mean)) / (count - 1)
    variances, axes = torch.linalg.eigh(covariance)
    top = torch.arange(size - 1, size - 1 - components, -1, device=device)
    scale = variances[top].clamp_min(0).sqrt()
    return {"mean": mean.float().cpu(), "basis": (axes[:, top] * scale).T.float().cpu()}


@hookimpl
def mia_bench_register_priors(register: Register) -> None:
    """Register ``eigenfaces``."""
    register("eigenfaces", Eigenfaces)
