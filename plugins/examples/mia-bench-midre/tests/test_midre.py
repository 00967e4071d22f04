"""Random erasing against a plain loop and torchvision's."""

import pytest
import torch
from torchvision.transforms import RandomErasing as Torchvision

from mia_bench.api.options import describe_options, parse_options
from mia_bench.errors import UsageError
from mia_bench_midre import RandomErasing, erased

FILL = (0.25, 0.5, 0.75)


def images(count: int = 64, height: int = 12, width: int = 17) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 0.2


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_erasing_equals_a_plain_loop() -> None:
    given = images()
    found = erased(given, draws(), probability=0.6, area=(0.05, 0.9), fill=FILL)
    numbers = torch.rand(4, 64, generator=draws(), dtype=torch.float64).tolist()
    expected = given.clone()
    for index, (area, down, right, chance) in enumerate(zip(*numbers, strict=True)):
        if chance < 0.6:
            side = min(round(((0.05 + 0.85 * area) * 12 * 17) ** 0.5), 12)
            top, left = int(down * (13 - side)), int(right * (18 - side))
            for channel in range(3):
                expected[index, channel, top : top + side, left : left + side] = FILL[channel]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    untouched = (found == given).flatten(1).all(1).float().mean()
    assert 0.2 < untouched < 0.6


def test_share_and_place_are_as_torchvisions() -> None:
    """Means over many images: the erased share, and how often each pixel is erased."""
    given = torch.zeros(4000, 1, 20, 20)
    ours = erased(given.expand(-1, 3, -1, -1), draws(), probability=1.0, area=(0.1, 0.4), fill=FILL)
    torch.manual_seed(0)
    theirs = Torchvision(1.0, (0.1, 0.4), (1.0, 1.0), value=1.0)
    often = torch.stack([theirs(image) for image in given]).mean(0)[0]
    mask = ours[:, 0] != 0
    torch.testing.assert_close(mask.float().mean(0), often, rtol=0, atol=0.04)
    assert mask.float().mean() == pytest.approx(0.25, abs=0.01)
    shares = mask.flatten(1).float().mean(1)
    assert shares.min() == pytest.approx(0.09, abs=1e-6)  # 6 of 20 pixels; √.1 · 20 is 6.3
    assert shares.max() == pytest.approx(0.4225, abs=1e-6)  # 13 of 20; √.4 · 20 is 12.6


def test_never_erasing_is_the_identity_and_images_are_left_alone() -> None:
    given = images()
    kept = given.clone()
    assert torch.equal(erased(given, draws(), probability=0.0, area=(0.1, 0.4), fill=FILL), given)
    erased(given, draws(), probability=1.0, area=(0.1, 0.4), fill=FILL)
    assert torch.equal(given, kept)


def test_everything_can_be_erased() -> None:
    whole = erased(images(3, 8, 8), draws(), probability=1.0, area=(1.0, 1.0), fill=FILL)
    assert torch.equal(whole, torch.tensor(FILL)[:, None, None].expand(3, 3, 8, 8))


def test_the_defense_erases_with_its_options_and_its_generator() -> None:
    given = images()
    defense = RandomErasing(RandomErasing.Options(area=(0.2, 0.3), fill=FILL))
    first, again, other = (defense.augment(given, draws(seed)) for seed in (0, 0, 1))
    expected = erased(given, draws(), probability=1.0, area=(0.2, 0.3), fill=FILL)
    assert torch.equal(first, expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "options",
    [
        {"probability": 1.1},
        {"area": [0.4, 0.1]},
        {"area": [-0.1, 0.1]},
        {"fill": [0.1, 0.2]},
        {"fill": [0.1, 0.2, 2]},
    ],
)
def test_bad_options_are_one_line(options: dict) -> None:
    with pytest.raises(UsageError) as error:
        parse_options("midre", RandomErasing.Options, options)
    assert "\n" not in str(error.value)


def test_options_are_described() -> None:
    assert all(row["help"] for row in describe_options(RandomErasing.Options))
