"""Batched augmentation on the device, with random numbers from a CPU generator."""

from __future__ import annotations

from etils.epy import lazy_imports

from mia_bench.memory import upload

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image with probability one half."""
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(upload(chosen, images.device), images.flip(3), images)


def shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to ``pixels`` in each direction, repeating the border."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, mode="replicate")
    offsets = upload(torch.randint(0, 2 * pixels + 1, (2, count), generator=generator), images.device)
    rows = offsets[0][:, None] + torch.arange(height, device=images.device)
    columns = offsets[1][:, None] + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    shifted: Tensor = padded[index, channel, rows[:, None, :, None], columns[:, None, None, :]]
    return shifted


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale brightness and contrast of each image by factors from ``1 ± strength``."""
    factors = 1 + strength * (2 * torch.rand(2, len(images), 1, 1, 1, generator=generator) - 1)
    brightness, contrast = upload(factors, images.device)
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    adjusted: Tensor = ((images - mean) * contrast + mean).clamp(0, 1)
    return adjusted


def colour(
    images: Tensor,
    generator: torch.Generator,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    order: str = "random",
) -> Tensor:
    """Change the colours of each image as torchvision's ``ColorJitter`` does.

    Args:
        images: ``(N, 3, H, W)`` in [0, 1].
        generator: CPU generator.
        brightness, contrast, saturation: factors are uniform in ``1 ± value``.
        hue: the shift is uniform in ``± hue``, in turns of the colour circle.
        order: ``random`` draws the order of the four changes for each image, as torchvision does; with
            ``fixed`` it is that of the arguments.
    """
    count = len(images)
    uniform = 2 * torch.rand(4, count, 1, 1, 1, generator=generator) - 1
    steps = torch.arange(4).repeat(count, 1)
    if order == "random":
        steps = torch.rand(count, 4, generator=generator).argsort(dim=1)
    amounts = uniform * torch.tensor([brightness, contrast, saturation, hue]).view(4, 1, 1, 1, 1)
    amounts[:3] += 1
    changes = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue if hue else None)
    # Of each step, the images by change; sizes are known here, so that nothing waits for the device.
    sizes = [torch.bincount(step, minlength=4).tolist() for step in steps.T]
    groups, amounts = (upload(t, images.device) for t in (steps.T.argsort(dim=1), amounts.to(images.dtype)))
    images = images.clone()
    for group, size in zip(groups, sizes, strict=True):
        for index, change, amount in zip(group.split(size), changes, amounts, strict=True):
            if len(index) and change is not None:
                images[index] = change(images[index], amount[index])
    return images


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply ``(N, 3, H, W)`` by ``(N, 1, 1, 1)``."""
    return (images * factor).clamp(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale differences to the mean grey of each image by ``(N, 1, 1, 1)``."""
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * factor + mean).clamp(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale differences to the grey of each pixel by ``(N, 1, 1, 1)``."""
    grey = _grey(images)
    return ((images - grey) * factor + grey).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = 0.2989 * red + 0.587 * green + 0.114 * blue
    return grey


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hues of each image by ``(N, 1, 1, 1)`` turns; value and saturation stay.

    A channel of a colour of hue h (in sixths of a turn), value v and chroma c is
    ``v − c · clamp(min(k, 4 − k), 0, 1)`` with ``k = (offset + h) mod 6`` and offsets 5, 3 and 1.
    """
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    red, green, blue = images.unbind(1)
    safe = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + 6 * turn[:, 0]
    channels = []
    for offset in (5, 3, 1):
        k = (offset + sixths) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1)


def resized(images: Tensor, size: int) -> Tensor:
    """Resize ``(N, C, H, W)`` to ``size`` × ``size``: bilinear, antialiased, differentiable.

    The same as torchvision's ``resize`` with ``antialias=True``.
    """
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def random_resized_crop(
    images: Tensor,
    generator: torch.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (1.0, 1.0),
    flips: bool = False,
) -> Tensor:
    """Crop a random box of each image and resize it back (bilinear); differentiable.

    A box is at most as large as the image, so that resizing enlarges it: antialiasing would change nothing.
    Unlike torchvision's, boxes have real coordinates, not whole pixels, and along their edges the pixels
    outside are interpolated too. Sides that the aspect ratio makes longer than the image are cut off.

    Args:
        images: ``(N, C, H, W)``.
        generator: CPU generator.
        scale: range of the box's share of the area.
        ratio: range of the box's aspect ratio (width to height), log-uniform.
        flips: mirror each image with probability one half.
    """
    count = len(images)
    uniform = torch.rand(5, count, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * uniform[0]
    low, high = (torch.tensor(float(r)).log() for r in ratio)
    aspect = (low + (high - low) * uniform[1]).exp()
    width = (area * aspect).sqrt().clamp(max=1)
    height = (area / aspect).sqrt().clamp(max=1)
    x = (2 * uniform[2] - 1) * (1 - width)
    y = (2 * uniform[3] - 1) * (1 - height)
    sign = torch.where(uniform[4] < 0.5, -1.0, 1.0) if flips else torch.ones(count)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * sign, x
    theta[:, 1, 1], theta[:, 1, 2] = height, y
    grid = F.affine_grid(upload(theta, images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
