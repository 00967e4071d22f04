r"""Bilateral dependency optimisation (BiDO).

Peng, Liu, Zhang, Lan, Ye, Liu, Han, *Bilateral Dependency Optimization: Defending Against
Model-inversion Attacks*, KDD 2022 (arXiv 2206.05483).

The loss makes hidden features :math:`Z_j` depend little on the images :math:`X` and much on the labels
:math:`Y`:

.. math:: CE + \sum_j \left[\lambda_x\, d(X, Z_j) - \lambda_y\, d(Z_j, Y)\right].

A batch of :math:`m` samples has the kernel matrices :math:`K`: Gaussian,
:math:`\exp(-\|a-b\|^2 / (2\sigma^2 \dim))`, for flattened images and features; linear for one-hot labels.
With :math:`H = I - \frac1m \mathbf 1 \mathbf 1^\top` the measure :math:`d` is one of

- normalised HSIC: :math:`\sum R_a \circ R_b^\top` with
  :math:`R = KH\,(KH + \epsilon I)^{-1}`, :math:`\epsilon = 10^{-5} m`;
- COCO: :math:`\sqrt{\|HK_aH\,HK_bH\|_F}\,/\,m`.

Normalised HSIC is computed without inverting the unsymmetric :math:`KH`: with the positive semidefinite
:math:`S = HKH` it equals :math:`\operatorname{tr} T_a T_b`,
:math:`T = S(S+\epsilon I)^{-1} = I - \epsilon (S+\epsilon I)^{-1}`, by a Cholesky factor.

The layers are the blocks of the network, the images are in [0, 1], as for the authors' VGG16. Defaults are
pairs from their code, :math:`\lambda_x, \lambda_y` = 0.05, 0.5 for HSIC (VGG16 on CelebA; 0.1, 2 for a
ResNet-34) and 1, 50 for COCO (MNIST), with :math:`\sigma = 5`. They depend on the architecture and the data.
Their batches of CelebA hold 4 images of each of 16 people; here batches are the track's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mia_bench import Defense, Register, TrainingStep, hookimpl, lazy_imports
from mia_bench.errors import MiaBenchError

with lazy_imports():
    import torch
    from torch import Tensor

Measure = Literal["hsic", "coco"]

PUBLISHED: dict[Measure, tuple[float, float]] = {"hsic": (0.05, 0.5), "coco": (1.0, 50.0)}
"""``lambda_x`` and ``lambda_y`` of the authors, by measure."""

NEGLIGIBLE = 1e-12
"""Frobenius norms below this are rounding errors: COCO and its gradient are 0 there."""


def gaussian_kernel(samples: Tensor, sigma: float) -> Tensor:
    """``(m, m)`` in float64: ``exp(-‖a-b‖²/(2σ²·dim))`` for samples ``(m, ...)`` of ``dim`` numbers.

    Products are computed in float32, or in float64 if the samples are.
    """
    flat = samples.flatten(1)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    # A shift does not change distances, but reduces their rounding errors; it needs no gradient.
    flat = flat - flat.detach().mean(0)
    products = flat @ flat.detach().T
    if products.requires_grad:  # one multiplication for the gradients of both factors
        products.register_hook(lambda gradient: gradient + gradient.T)
    gram = _double(products)
    squares = gram.diagonal()
    distances = (squares[:, None] + squares - 2 * gram).clamp_min(0)
    return (distances / (-2 * sigma * sigma * flat.shape[1])).exp()


def label_kernel(labels: Tensor) -> Tensor:
    """``(m, m)`` in float64: the linear kernel of the one-hot rows of ``labels`` ``(m,)``."""
    return _double(labels[:, None] == labels)


def centred(kernels: Tensor) -> Tensor:
    """``HKH`` of each matrix of ``(..., m, m)``."""
    kernels = kernels - kernels.mean(-1, keepdim=True)
    return kernels - kernels.mean(-2, keepdim=True)


def regularised(kernels: Tensor) -> Tensor:
    """``S(S+εI)⁻¹``, ``S = HKH``, of each positive semidefinite matrix of ``(..., m, m)``.

    NaN if rounding errors made a matrix indefinite, as for float32 features that span hundreds of sigma
    while some coincide.
    """
    size = kernels.shape[-1]
    epsilon = 1e-5 * size
    identity = torch.eye(size, dtype=kernels.dtype, device=kernels.device)
    # cholesky() would synchronise to raise. An exact kernel has no pivot below epsilon.
    factor, failed = torch.linalg.cholesky_ex(centred(kernels) + epsilon * identity)
    pivots = factor.diagonal(dim1=-2, dim2=-1).square()
    sound = (failed == 0) & (pivots.amin(-1) > epsilon / 2)
    factor = torch.where(sound[..., None, None], factor, torch.nan)
    root: Tensor = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return identity - epsilon * root.mT @ root


def hsic(first: Tensor, second: Tensor) -> Tensor:
    """Normalised HSIC ``(...)`` of matrices ``(..., m, m)`` from :func:`regularised`."""
    return (first * second).sum((-2, -1))


def coco(first: Tensor, second: Tensor) -> Tensor:
    """COCO ``(...)`` of matrices ``(..., m, m)`` from :func:`centred`."""
    square = (first @ second).square().sum((-2, -1))
    positive = square > NEGLIGIBLE**2
    root = torch.where(positive, square, 1.0) ** 0.25  # its slope at 0 is infinite
    return torch.where(positive, root, 0.0) / first.shape[-1]


def dependencies(
    images: Tensor, labels: Tensor, hidden: Sequence[Tensor], measure: Measure, sigma: float
) -> tuple[Tensor, Tensor]:
    """``d(X, Z_j)`` and ``d(Z_j, Y)`` of each layer, two float64 tensors ``(layers,)``.

    Args:
        images: ``(m, ...)``.
        labels: ``(m,)`` int64.
        hidden: outputs of the layers, ``(m, ...)`` each.
        measure: ``hsic`` or ``coco``.
        sigma: width of the Gaussian kernels.
    """
    prepare, compare = (regularised, hsic) if measure == "hsic" else (centred, coco)
    with torch.autocast(images.device.type, enabled=False):
        x, y = prepare(torch.stack([gaussian_kernel(images, sigma), label_kernel(labels)]))
        z = prepare(torch.stack([gaussian_kernel(layer, sigma) for layer in hidden]))
        return compare(z, x), compare(z, y)


def _double(values: Tensor) -> Tensor:
    # Apple GPUs have no float64.
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


class BilateralDependency(Defense):
    """Cross-entropy plus the dependency of hidden features on images, minus that on labels."""

    summary = "bilateral dependency optimisation, with HSIC or COCO"
    paper = "Peng et al., KDD 2022, arXiv 2206.05483"
    version = "1"
    strengths: ClassVar[dict[str, tuple[float, ...]]] = {"lambda_x": (0.05, 0.2, 1.0), "lambda_y": (0.5, 2.0)}

    class Options(Defense.Options):
        measure: Measure = Field("hsic", description="hsic: normalised HSIC; coco: constrained covariance")
        lambda_x: float | None = Field(
            None,
            ge=0,
            description="weight of the dependency on the image; null: the authors' (hsic 0.05, coco 1)",
        )
        lambda_y: float | None = Field(
            None,
            ge=0,
            description="weight of the dependency on the label; null: the authors' (hsic 0.5, coco 50)",
        )
        sigma: float = Field(5.0, gt=0, description="width of the Gaussian kernels")
        layers: Annotated[tuple[int, ...], Field(min_length=1)] | None = Field(
            None, description="hidden blocks by index, negative ones from the last; null: all of them"
        )

    options: Options

    def loss(self, step: TrainingStep) -> Tensor:
        entropy = super().loss(step)
        images, labels, options = step.images, step.labels, self.options
        hidden = self._select(step.outputs.hidden)
        of_x, of_y = dependencies(images, labels, hidden, options.measure, options.sigma)
        lambda_x, lambda_y = self.weights
        return entropy + (lambda_x * of_x - lambda_y * of_y).sum().to(entropy.dtype)

    @property
    def weights(self) -> tuple[float, float]:
        """``lambda_x`` and ``lambda_y``; the published values if the option is null."""
        x, y = PUBLISHED[self.options.measure]
        options = self.options
        return (
            x if options.lambda_x is None else options.lambda_x,
            y if options.lambda_y is None else options.lambda_y,
        )

    def _select(self, hidden: Sequence[Tensor]) -> list[Tensor]:
        count, layers = len(hidden), self.options.layers
        if not count:
            raise MiaBenchError("bido: this architecture shows no hidden blocks")
        if layers is None:
            return list(hidden)
        for index in layers:
            if not -count <= index < count:
                raise MiaBenchError(
                    f"bido.layers: no hidden block {index}; this architecture has {count}, "
                    f"0 to {count - 1} or -{count} to -1"
                )
        if len({index % count for index in layers}) < len(layers):
            raise MiaBenchError(f"bido.layers={list(layers)}: names one of {count} blocks twice")
        return [hidden[index] for index in layers]


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    register("bido", BilateralDependency)
