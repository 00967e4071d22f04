"""The Fréchet distance against SciPy's matrix root and closed forms."""

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from mia_bench.frechet import frechet_distance


def draws(seed: int, rows: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mix + seed


@pytest.mark.parametrize(("rows", "width"), [(200, 1), (50, 8), (300, 24)])
def test_equals_scipy(rows: int, width: int) -> None:
    first, second = draws(1, rows, width), draws(2, rows + 5, width)
    covariances = [np.atleast_2d(np.cov(x.numpy(), rowvar=False)) for x in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum().item() + np.trace(
        covariances[0] + covariances[1] - 2 * root
    )
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-6)


class Pixels(nn.Module):
    """Features are the pixels."""

    num_features = 12

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).double()


def test_equals_torchmetrics_for_random_and_degenerate_sets() -> None:
    spread, wide = draws(1, 40, 12), draws(2, 30, 12)
    point, few = torch.ones(20, 12, dtype=torch.float64), draws(3, 5, 12)
    twice = torch.cat([spread[:10], spread[:10]])
    for first, second in [(spread, wide), (spread, point), (point, point), (few, spread), (twice, spread)]:
        theirs = FrechetInceptionDistance(Pixels(), normalize=True, input_img_size=(3, 2, 2)).set_dtype(
            torch.float64
        )
        theirs.update(first.view(-1, 3, 2, 2), real=True)
        theirs.update(second.view(-1, 3, 2, 2), real=False)
        assert frechet_distance(first, second) == pytest.approx(float(theirs.compute()), rel=1e-6, abs=1e-6)


def test_shift_of_the_same_sample_is_its_squared_length() -> None:
    sample = draws(3, 100, 5)
    assert frechet_distance(sample, sample) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(sample, sample + 2.0) == pytest.approx(5 * 4.0, rel=1e-6)


def test_scaling_one_dimension_by_hand() -> None:
    sample = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)  # variance 2
    # (sqrt 18 - sqrt 2)^2 = 8
    assert frechet_distance(sample, 3 * sample) == pytest.approx(8.0)


def test_fewer_samples_than_dimensions() -> None:
    first, second = draws(1, 6, 20), draws(2, 7, 20)
    value = frechet_distance(first.float(), second.float())
    assert np.isfinite(value)
    assert value > 0
    with pytest.raises(ValueError, match="two samples"):
        frechet_distance(first[:1], second)
