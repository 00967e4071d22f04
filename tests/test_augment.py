"""Augmentations against torchvision, slicing and finite differences."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from mia_bench import augment


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 64, size: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=draws(9))


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_others() -> None:
    images = pictures(1000)
    flipped = augment.flip(images, draws())
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 0.45 < mirrored.float().mean() < 0.55


def test_shift_is_a_crop_of_the_padded_image() -> None:
    images = pictures(300)
    shifted = augment.shift(images, 2, draws())
    padded = torch.nn.functional.pad(images, (2,) * 4, mode="replicate")
    crops = torch.stack([padded[..., y : y + 8, x : x + 8] for y in range(5) for x in range(5)])
    hits = (crops == shifted).flatten(2).all(2)
    assert bool(hits.any(0).all())
    assert bool(hits.any(1).all())  # every offset occurs


@pytest.mark.parametrize("strength", [0.1, 0.4])
def test_jitter_equals_torchvision_brightness_then_contrast(strength: float) -> None:
    # Grey images, for which torchvision's contrast (towards the mean of the grey image) is ours.
    grey = pictures()[:, :1].expand(-1, 3, -1, -1) * 0.5 + 0.1
    jittered = augment.jitter(grey, strength, draws())
    factors = 1 + strength * (2 * torch.rand(2, len(grey), 1, 1, 1, generator=draws()) - 1)
    assert float((factors - 1).abs().max()) <= strength
    for image, ours, brightness, contrast in zip(grey, jittered, *factors.flatten(1), strict=True):
        bright = reference.adjust_brightness(image, float(brightness))
        expected = reference.adjust_contrast(bright, float(contrast))
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3)


def test_the_whole_image_as_crop_changes_nothing() -> None:
    images = pictures()
    whole = augment.random_resized_crop(images, draws(), scale=(1.0, 1.0))
    torch.testing.assert_close(whole, images, rtol=0, atol=1e-5)


def test_boxes_stay_inside_and_have_the_area_and_ratio_asked() -> None:
    # The channels are the coordinates, so a crop shows its own box.
    size = 64
    line = (torch.arange(size) + 0.5) / size
    image = torch.stack([line.expand(size, size), line[:, None].expand(size, size)])
    crops = augment.random_resized_crop(
        image.expand(500, 2, size, size), draws(), scale=(0.5, 0.9), ratio=(0.8, 1.2), flips=True
    )
    across, down = crops[:, 0, 32, 1:-1], crops[:, 1, 1:-1, 32]
    for lines in (across, down):  # bilinear interpolation of a linear image is linear
        assert float(lines.diff(dim=1).diff(dim=1).abs().max()) < 1e-5
    width = across.diff(dim=1).mean(1) * size
    height = down.diff(dim=1).mean(1) * size
    for lines, side in ((across, width), (down, height)):
        middle = lines.mean(1)
        assert float((middle - side.abs() / 2).min()) > -1e-4
        assert float((middle + side.abs() / 2).max()) < 1 + 1e-4
    area, ratio = width.abs() * height, width.abs() / height
    assert bool(((area > 0.4999) & (area < 0.9001)).all())
    assert bool(((ratio > 0.7999) & (ratio < 1.2001)).all())
    assert float(area.max() - area.min()) > 0.38
    assert float(ratio.max() - ratio.min()) > 0.35
    assert 0.4 < (width < 0).float().mean() < 0.6  # mirrored


def test_gradient_of_the_crop_by_finite_differences() -> None:
    images = pictures(2, 5).requires_grad_(True)
    weights = torch.rand(2, 3, 5, 5, generator=draws(4))

    def loss(x: torch.Tensor) -> torch.Tensor:
        crop = augment.random_resized_crop(x, draws(1), scale=(0.5, 0.9), ratio=(0.8, 1.2))
        return (crop * weights).sum()

    (gradient,) = torch.autograd.grad(loss(images), images)
    direction = torch.randn(images.shape, generator=draws(2))
    step = 0.1  # the crop is linear in the image: no curvature
    numeric = (loss(images + step * direction) - loss(images - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, g: augment.flip(x, g),
        lambda x, g: augment.shift(x, 2, g),
        lambda x, g: augment.jitter(x, 0.2, g),
        lambda x, g: augment.random_resized_crop(x, g, scale=(0.5, 0.9), flips=True),
    ],
)
def test_a_generator_fixes_the_result_and_nothing_else_is_drawn(change) -> None:
    images = pictures()
    before, copy = torch.get_rng_state(), images.clone()
    first, second, other = (
        change(images, draws()),
        change(images, draws()),
        change(images, draws(1)),
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, copy)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


def test_each_image_is_changed_by_draws_of_its_own() -> None:
    one = pictures(1).expand(50, -1, -1, -1)
    crops = augment.random_resized_crop(one, draws(), scale=(0.5, 0.9))
    assert len({tuple(c.flatten().tolist()) for c in crops}) == 50


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (augment.adjust_brightness, reference.adjust_brightness, [0.5, 0.8, 1.0, 1.2, 1.5]),
        (augment.adjust_contrast, reference.adjust_contrast, [0.5, 0.8, 1.0, 1.2, 1.5]),
        (augment.adjust_saturation, reference.adjust_saturation, [0.0, 0.9, 1.0, 1.1, 2.0]),
        (augment.adjust_hue, reference.adjust_hue, [-0.5, -0.1, 0.0, 0.03, 0.4]),
    ],
)
def test_colours_change_as_torchvisions_do(ours, theirs, factors: list[float]) -> None:
    """Each image by its own factor; grey, black and saturated pixels among them."""
    images = torch.rand(len(factors), 3, 9, 9, generator=draws(3))
    images[:, :, 0], images[:, :, 1, :3], images[:, 0, 2] = 0.4, 0.0, 1.0
    expected = torch.stack([theirs(one, factor) for one, factor in zip(images, factors, strict=True)])
    result = ours(images, torch.tensor(factors).view(-1, 1, 1, 1))
    torch.testing.assert_close(result, expected, atol=2e-6, rtol=0)


def test_colour_draws_for_each_image_within_its_bounds() -> None:
    images = torch.full((500, 3, 2, 2), 0.5)
    made = augment.colour(images, draws(), brightness=0.2)
    factors = made[:, 0, 0, 0] / 0.5
    assert 0.8 <= float(factors.min()) < 0.81
    assert 1.19 < float(factors.max()) <= 1.2
    same = augment.colour(images, draws(), brightness=0.2)
    assert torch.equal(made, same)
    untouched = augment.colour(torch.rand(4, 3, 5, 5), draws())
    assert 0 <= float(untouched.min()) <= float(untouched.max()) <= 1
