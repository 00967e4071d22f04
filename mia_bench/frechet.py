r"""The Fréchet distance between Gaussians fitted to two sets of features.

Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, NIPS
2017 (arXiv 1706.08500):
:math:`\|\mu_1-\mu_2\|^2 + \operatorname{tr}(\Sigma_1 + \Sigma_2 - 2(\Sigma_1\Sigma_2)^{1/2})`.
"""

from __future__ import annotations

from etils.epy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance of features ``(N, D)`` and ``(M, D)``, in float64 on the CPU.

    The trace of the root is that of the symmetric :math:`(S \\Sigma_2 S)^{1/2}` with
    :math:`S = \\Sigma_1^{1/2}`, which needs no complex arithmetic and works for singular covariances.
    The estimate is biased upwards: compare only values from equal numbers of samples.

    Raises:
        ValueError: fewer than two samples on one side.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("the Fréchet distance needs two samples or more on each side")
    (mean1, covariance1), (mean2, covariance2) = _moments(first), _moments(second)
    values, vectors = torch.linalg.eigh(covariance1)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    inner = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp_min(0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * inner
    return max(float(distance), 0.0)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    rows = features.detach().cpu().double()
    return rows.mean(0), torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])
