"""Descent on pixels, on a target that is known exactly."""

import pytest
import torch
from torch import nn

from mia_bench.api.access import open_access
from mia_bench.api.attack import AttackTask
from mia_bench.api.dataset import ImageSet
from mia_bench.api.options import describe_options, parse_options
from mia_bench.errors import UsageError
from mia_bench_mi_face import PixelDescent, total_variation

SIZE = 6


class MeanColour(nn.Module):
    """Three logits: the mean colours."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 10 * images.mean(dim=(2, 3))


def task(seed: int = 0, *, batch_size: int = 4, stochastic: bool = False) -> AttackTask:
    public = torch.full((2, 3, SIZE, SIZE), 102, dtype=torch.uint8)
    return AttackTask(
        access=open_access("white-box", MeanColour(), 3, stochastic=stochastic),
        prior=None,
        public=ImageSet(public, torch.zeros(2).long()),
        classes=torch.tensor([2, 0]),
        images_per_class=3,
        generator=torch.Generator().manual_seed(seed),
        device=torch.device("cpu"),
        batch_size=batch_size,
        progress=lambda done, total, unit: None,
    )


def attack(**options: float) -> PixelDescent:
    return PixelDescent(PixelDescent.Options(**{"steps": 40, **options}))


def test_the_variation_of_a_ramp_is_its_slope() -> None:
    columns = torch.arange(SIZE, dtype=torch.float64) / 10
    ramp = columns.expand(2, 3, SIZE, SIZE).clone()
    ramp[1] *= 3
    expected = torch.tensor([0.1, 0.3], dtype=torch.float64)
    torch.testing.assert_close(total_variation(ramp), expected)
    torch.testing.assert_close(total_variation(ramp.transpose(2, 3)), expected)


def test_gradients_of_the_variation_by_finite_differences() -> None:
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 4, 4, generator=draws, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total_variation, images)


def test_each_image_turns_to_the_colour_of_its_class() -> None:
    found = attack(steps=80, variation=1).invert(task()).images
    assert found.shape == (2, 3, 3, SIZE, SIZE)
    assert 0 <= found.min() <= found.max() <= 1
    means = found.mean((3, 4))
    for row, label in enumerate((2, 0)):
        others = [c for c in range(3) if c != label]
        assert (means[row, :, label] > 0.7).all()
        assert (means[row, :, others] < 0.3).all()


def test_the_penalty_makes_images_smooth() -> None:
    rough, smooth = (attack(variation=v, noise=0.2).invert(task()).images.flatten(0, 1) for v in (0, 20))
    assert total_variation(smooth).max() < 0.5 * total_variation(rough).min()


def test_the_lowest_loss_comes_first_and_the_best_step_is_kept() -> None:
    given, descent = task(), attack(learning_rate=0.5)  # leaps back and forth
    found = descent.invert(given).images
    losses = descent._losses(given, found.flatten(0, 1), torch.tensor([2, 0]).repeat_interleave(3))
    assert (losses.view(2, 3).diff(dim=1) >= 0).all()
    short = attack(learning_rate=0.5, steps=1).invert(task()).images
    start = descent._losses(given, short.flatten(0, 1), torch.tensor([2, 0]).repeat_interleave(3))
    assert (losses.view(2, 3)[:, -1] <= start.view(2, 3)[:, -1]).all()


@pytest.mark.parametrize(("stochastic", "times"), [(False, 1), (True, 5)])
def test_queries_are_exact(stochastic: bool, times: int) -> None:
    given = task(stochastic=stochastic)
    attack(steps=7, eot=5).invert(given)
    assert given.access.queries == times * 7 * 6


def test_a_seed_fixes_the_images_and_the_batch_size_does_not_matter() -> None:
    first, again, other = (attack().invert(task(seed)).images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first, attack().invert(task(batch_size=5)).images)


@pytest.mark.parametrize("options", [{"steps": 0}, {"learning_rate": 0}, {"variation": -1}, {"noise": -1}])
def test_bad_options_are_one_line(options: dict) -> None:
    with pytest.raises(UsageError) as error:
        parse_options("mi-face", PixelDescent.Options, options)
    assert "\n" not in str(error.value)


def test_options_are_described() -> None:
    assert all(row["help"] for row in describe_options(PixelDescent.Options))
