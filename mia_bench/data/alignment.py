"""Faces cut out by their landmarks: a similarity transform, sampled by cubic interpolation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

CENTRE = 0.5 + 0.5j
"""Landmarks count from the centre of the first pixel, Pillow from its corner."""


def similarity(points: np.ndarray, images: np.ndarray) -> tuple[complex, complex]:
    """The turn ``a`` and shift ``b`` with the least squares of ``a * points + b - images``.

    Points of the plane are complex numbers, so that a similarity without reflection is linear and
    the solution of Umeyama (PAMI 1991) is one quotient.

    Raises:
        ValueError: all points, or all images, are one.
    """
    import numpy as np

    around, images_around = points - points.mean(), images - images.mean()
    turn = complex(np.vdot(around, images_around)) / (float(np.vdot(around, around).real) or 1.0)
    if turn == 0:
        raise ValueError("the landmarks are one point")
    return turn, complex(images.mean() - turn * points.mean())


def cut(image: Image, landmarks: np.ndarray, standard: np.ndarray, side: int) -> Image:
    """The square of ``side`` pixels in which the ``landmarks`` come closest to ``standard``.

    Both are complex numbers, in pixels of the image and of the square. Beyond its edges an image goes
    on as they are; one that shrinks to half or less is averaged first.

    Raises:
        ValueError: all landmarks are one point.
    """
    import numpy as np
    from PIL import Image

    turn, shift = similarity(standard + CENTRE, landmarks + CENTRE)
    if (factor := int(abs(turn))) > 1:
        image, turn, shift = image.reduce(factor), turn / factor, shift / factor
    corners = turn * side * np.array([0, 1, 1j, 1 + 1j]) + shift
    columns = np.arange(int(corners.real.min()) - 3, int(corners.real.max()) + 3)
    rows = np.arange(int(corners.imag.min()) - 3, int(corners.imag.max()) + 3)
    pixels = np.asarray(image)[
        rows.clip(0, image.height - 1)[:, None], columns.clip(0, image.width - 1)
    ]
    shift -= complex(columns[0], rows[0])
    return Image.fromarray(pixels).transform(
        (side, side),
        Image.Transform.AFFINE,
        (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag),
        Image.Resampling.BICUBIC,
    )
