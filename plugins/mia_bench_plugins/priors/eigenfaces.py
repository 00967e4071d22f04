r"""Eigenfaces: a linear Gaussian image model in closed form.

Turk, Pentland, *Eigenfaces for Recognition*, Journal of Cognitive Neuroscience 3(1), 1991. With the
mean :math:`\mu` and the principal components :math:`v_i` of the public images (unit vectors,
standard deviations :math:`s_i`), a latent :math:`z \sim N(0, I)` gives the image
:math:`\mu + \sum_i z_i s_i v_i`, clipped to [0, 1].
"""

from __future__ import annotations

from pydantic import Field

from mia_bench import Prior, PriorTask, Register, hookimpl, lazy_imports
from mia_bench.errors import DataError

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench_plugins.priors import linear_model


class Eigenfaces(Prior):
    """Principal components of the public images."""

    summary = "mean and principal components of the public images (closed form)"
    paper = "Turk and Pentland, J. Cognitive Neuroscience 3(1), 1991"
    version = "1"

    class Options(Prior.Options):
        components: int = Field(256, ge=1, description="latent dimensions (fewer if few images)")
        mirror: bool = Field(True, description="fit the mirrored images too")

    options: Options

    def fit(self, task: PriorTask) -> dict[str, Tensor]:
        """Mean ``(P,)``, and principal components times their standard deviations ``(K, P)``."""
        return principal_components(
            task.training_images(), self.options.components, mirror=self.options.mirror, device=task.device
        )

    def build(self, state: dict[str, Tensor], *, resolution: int) -> linear_model.LinearModel:
        if state["mean"].shape != (3 * resolution**2,):
            raise DataError(
                f"this prior makes images of {state['mean'].shape[0]} values, "
                f"the track needs {resolution}×{resolution} pixels"
            )
        return linear_model.LinearModel(state["mean"], state["basis"], resolution).eval()


def principal_components(
    images: Tensor, components: int, *, mirror: bool, device: torch.device
) -> dict[str, Tensor]:
    """Mean and scaled principal axes of uint8 images ``(N, 3, H, W)``, from the covariance in float64.

    Returns float32 ``mean`` ``(P,)`` and ``basis`` ``(K, P)`` for pixels in [0, 1]; row ``i`` is the unit
    axis ``i`` times the standard deviation along it, largest first.
    """
    if device.type == "mps":  # without float64
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
    register("eigenfaces", Eigenfaces)
