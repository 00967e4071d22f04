"""Augmentations against torchvision, slicing and finite differences."""

import pytest
import torch
from torchvision.transforms.v2 import ColorJitter
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


@pytest.mark.parametrize("order", ["random", "fixed"])
def test_colours_are_jittered_as_by_torchvision_in_the_order_drawn(order: str) -> None:
    """Each image against torchvision's functions, one after the other, with its own factors and order."""
    images = torch.rand(40, 3, 9, 9, generator=draws(3), dtype=torch.float64)
    strengths = {"brightness": 0.2, "contrast": 0.3, "saturation": 0.1, "hue": 0.1}
    made = augment.colour(images, draws(5), order=order, **strengths)
    again = draws(5)
    uniform = 2 * torch.rand(4, 40, 1, 1, 1, generator=again)[..., 0, 0, 0] - 1
    orders = torch.rand(40, 4, generator=again).argsort(dim=1).tolist()
    if order == "fixed":
        orders = 40 * [[0, 1, 2, 3]]
    assert len({tuple(one) for one in orders}) > (15 if order == "random" else 0)
    functions = [getattr(reference, f"adjust_{name}") for name in strengths]
    for number, (image, steps) in enumerate(zip(images, orders, strict=True)):
        for step in steps:
            amount = float(uniform[step, number]) * list(strengths.values())[step]
            image = functions[step](image, amount if step == 3 else 1 + amount)
        torch.testing.assert_close(made[number], image, atol=1e-6, rtol=0)


def test_orders_of_colour_changes_are_as_frequent_as_torchvisions() -> None:
    """Of two changes that don't commute, half of the images get the one first, half the other."""
    image = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64).view(3, 1, 1).expand(3, 2, 2)
    made = augment.colour(image.expand(4000, 3, 2, 2), draws(), brightness=0.5, saturation=0.9)
    jitter = ColorJitter(brightness=0.5, saturation=0.9)
    torch.manual_seed(0)
    theirs = torch.stack([jitter(image) for _ in range(2000)])
    for quantile in (0.1, 0.3, 0.5, 0.7, 0.9):
        ours, expected = (x[:, :, 0, 0].quantile(quantile, dim=0) for x in (made, theirs))
        torch.testing.assert_close(ours, expected, atol=0.04, rtol=0)


@pytest.mark.parametrize("size", [3, 8, 20, 33])
def test_images_are_resized_as_by_torchvision_with_antialiasing(size: int) -> None:
    images = torch.rand(3, 3, 20, 20, generator=draws(), dtype=torch.float64)
    expected = reference.resize(images, [size, size], antialias=True)
    torch.testing.assert_close(augment.resized(images, size), expected, atol=1e-6, rtol=0)
    if size < 20:
        assert not torch.allclose(expected, reference.resize(images, [size, size], antialias=False))


@pytest.mark.parametrize("box", [(0, 0, 20, 20), (3, 1, 16, 18), (4, 6, 10, 14)])
def test_antialiasing_changes_no_crop(monkeypatch, box: tuple[int, int, int, int]) -> None:
    """A crop is enlarged. Inside, it is torchvision's crop of the same box of whole pixels."""
    top, left, height, width = box
    image = torch.rand(1, 3, 20, 20, generator=draws())
    smooth, plain = (
        reference.resized_crop(image, top, left, height, width, [20, 20], antialias=antialias)
        for antialias in (True, False)
    )
    torch.testing.assert_close(smooth, plain, atol=1e-6, rtol=0)
    area, aspect = height * width / 400, width / height
    x, y = left / max(20 - width, 1), top / max(20 - height, 1)
    uniform = torch.tensor([0.0, 0.0, x, y, 1.0])[:, None]
    monkeypatch.setattr(torch, "rand", lambda *size, generator: uniform)
    crop = augment.random_resized_crop(image, draws(), scale=(area, area), ratio=(aspect, aspect))
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(crop[inner], plain[inner], atol=1e-5, rtol=0)


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
