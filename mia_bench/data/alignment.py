"""Faces cut out by their landmarks: a similarity transform, sampled by cubic interpolation."""

from __future__ import annotations

from etils.epy import lazy_imports

with lazy_imports():
    import numpy as np
    from PIL import Image

CENTRE = 0.5 + 0.5j
"""Offset of coordinates: landmarks count from the centre of the first pixel, Pillow from its corner."""


def similarity(points: np.ndarray, images: np.ndarray) -> tuple[complex, complex]:
    """Rotation with scale ``a`` and shift ``b`` that minimise ``‖a * points + b - images‖²``.

    Points of the plane are complex numbers, so that a similarity without reflection is linear and
    the solution of Umeyama (PAMI 1991) is one quotient.

    Raises:
        ValueError: all points, or all images, coincide.
    """
    around, images_around = points - points.mean(), images - images.mean()
    turn = complex(np.vdot(around, images_around)) / (float(np.vdot(around, around).real) or 1.0)
    if turn == 0:
        raise ValueError("the landmarks are one point")
    return turn, complex(images.mean() - turn * points.mean())


def cut(image: Image.Image, landmarks: np.ndarray, standard: np.ndarray, side: int) -> Image.Image:
    """Align an image: the square of ``side`` pixels in which ``landmarks`` come closest to ``standard``.

    Both are complex, in pixels of the image and of the square. Border pixels are repeated beyond the
    image; an image that shrinks to half or less is averaged first.

    Raises:
        ValueError: all landmarks coincide.
    """
    turn, shift = similarity(standard + CENTRE, landmarks + CENTRE)
    if (factor := int(abs(turn))) > 1:
        image, turn, shift = image.reduce(factor), turn / factor, shift / factor
    corners = turn * side * np.array([0, 1, 1j, 1 + 1j]) + shift
    columns = np.arange(int(corners.real.min()) - 3, int(corners.real.max()) + 3)
    rows = np.arange(int(corners.imag.min()) - 3, int(corners.imag.max()) + 3)
    pixels = np.asarray(image)[rows.clip(0, image.height - 1)[:, None], columns.clip(0, image.width - 1)]
    shift -= complex(columns[0], rows[0])
    return Image.fromarray(pixels).transform(
        (side, side),
        Image.Transform.AFFINE,
        (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag),
        Image.Resampling.BICUBIC,
    )
