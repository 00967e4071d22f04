r"""MIDRE: random erasing of the training images.

Tran, Nguyen, Mai, Vandierendonck, Assent, Kot, Cheung, *Random Erasing vs. Model Inversion: A Promising
Defense or a False Hope?*, TMLR 2025 (arXiv 2409.01062). Each time a training image is drawn, with probability
``p`` a square at a random position is filled with one colour. Its share :math:`a` of the area is uniform in a
range; its side in an image of :math:`H \times W` pixels is :math:`\sqrt{a H W}`, rounded.

Defaults are the authors' for FaceScrub: ``p = 1``, areas from .1 to .4 (.8 protects more and costs more
accuracy), and the mean colour of ImageNet. Their published configuration erases after images were scaled to
[-1, 1] and writes the same three numbers there, which in [0, 1] are .7425, .728, .703: a lighter grey.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from mia_bench import Defense, Register, hookimpl, lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor


Share = Annotated[float, Field(ge=0, le=1)]
Colour = tuple[Share, Share, Share]


def erased(
    images: Tensor,
    generator: torch.Generator,
    *,
    probability: float,
    area: tuple[float, float],
    fill: Colour,
) -> Tensor:
    """A copy of ``(N, 3, H, W)`` with a square of each image filled.

    Args:
        images: in [0, 1], on any device.
        generator: CPU generator; four numbers per image are drawn.
        probability: of erasing an image.
        area: range of the square's share of the area; the square is within the image.
        fill: red, green and blue in [0, 1].
    """
    count, _, height, width = images.shape
    uniform = torch.rand(4, count, generator=generator, dtype=torch.float64)
    share = area[0] + (area[1] - area[0]) * uniform[0]
    side = (share * height * width).sqrt().round().clamp(max=min(height, width))
    top = (uniform[1] * (height - side + 1)).floor()
    left = (uniform[2] * (width - side + 1)).floor()
    side = torch.where(uniform[3] < probability, side, 0)
    box = torch.stack([top, left, side]).long().to(images.device)
    rows = _between(box[0], box[2], height)
    columns = _between(box[1], box[2], width)
    colour = images.new_tensor(fill)[:, None, None]
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], colour, images)


def _between(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Mask ``(N, size)`` of the positions from ``start`` to ``start + length``, both ``(N,)``."""
    places = torch.arange(size, device=start.device)
    return (places >= start[:, None]) & (places < (start + length)[:, None])


class RandomErasing(Defense):
    """Training with a random square of every image erased."""

    summary = "MIDRE: a random square of every training image is erased"
    paper = "Tran et al., TMLR 2025, arXiv 2409.01062"
    version = "1"

    class Options(Defense.Options):
        """Options of ``midre``."""

        probability: Share = Field(1.0, description="of a training image to be erased")
        area: tuple[Share, Share] = Field(
            (0.1, 0.4), description="range of the square's share of the area, each in [0, 1]"
        )
        fill: Colour = Field(
            (0.485, 0.456, 0.406), description="red, green and blue of the square, each in [0, 1]"
        )

        @model_validator(mode="after")
        def _require_ordered_area(self) -> RandomErasing.Options:
            low, high = self.area
            if low > high:
                raise ValueError(f"area runs from low to high, not from {low} to {high}")
            return self

    options: Options

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Erase, after the track's own augmentation."""
        options = self.options
        return erased(
            images, generator, probability=options.probability, area=options.area, fill=options.fill
        )


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    """Register ``midre``."""
    register("midre", RandomErasing)
