"""Faces cut out by landmarks: the fit against lstsq, the sampling against what is drawn or computed."""

import numpy as np
import pytest
from PIL import Image

from mia_bench.data.alignment import cut, similarity

STANDARD = np.array([60 + 70j, 140 + 72j, 100 + 110j, 70 + 150j, 132 + 148j])


def moved(turn: complex, shift: complex) -> np.ndarray:
    return turn * STANDARD + shift


def drawn(landmarks: np.ndarray, size: tuple[int, int], width: float) -> Image.Image:
    """A black image with a soft dot at each landmark."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    light = sum(np.exp(-((x - p.real) ** 2 + (y - p.imag) ** 2) / (2 * width**2)) for p in landmarks)
    grey = (255 * light).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey] * 3, 2))


def dots(image: np.ndarray, near: np.ndarray, radius: int) -> np.ndarray:
    """The centres of the light around some points of a grey image."""
    y, x = np.indices(image.shape)
    found = []
    for point in near:
        weight = image * (np.abs(x + 1j * y - point) < radius)
        found.append(complex((weight * (x + 1j * y)).sum() / weight.sum()))
    return np.array(found)


@pytest.mark.parametrize("turn", [1, 0.2, 3 * np.exp(0.4j), -1.5j, 0.7 * np.exp(3j)])
def test_known_turn_and_shift_are_recovered(turn: complex) -> None:
    found = similarity(STANDARD, moved(turn, 31 - 8j))
    assert np.allclose(found, (turn, 31 - 8j), atol=1e-12)


def test_fit_is_that_of_linear_least_squares() -> None:
    draws = np.random.default_rng(0)
    for _ in range(20):
        points, images = draws.normal(size=(2, 5)) + 1j * draws.normal(size=(2, 5))
        one, nil = np.ones(5), np.zeros(5)
        rows = np.concatenate(
            [
                np.stack([points.real, -points.imag, one, nil], 1),
                np.stack([points.imag, points.real, nil, one], 1),
            ]
        )
        a, b, x, y = np.linalg.lstsq(rows, np.concatenate([images.real, images.imag]), rcond=None)[0]
        assert np.allclose(similarity(points, images), (a + 1j * b, x + 1j * y), atol=1e-12)


def test_one_point_is_no_face() -> None:
    for points in ((STANDARD, np.full(5, 3 + 4j)), (np.full(5, 1j), STANDARD)):
        with pytest.raises(ValueError, match="one point"):
            similarity(*points)


@pytest.mark.parametrize("turn", [0.4, 1.0, 1.3 * np.exp(0.5j), 0.8 * np.exp(-1.2j), 2.2, 3.7 * np.exp(0.3j)])
def test_landmarks_land_where_they_should(turn: complex) -> None:
    landmarks = moved(turn, 400 - turn * (100 + 100j) + 390j)
    image = drawn(landmarks, (800, 780), 4 * abs(turn))
    found = dots(np.asarray(cut(image, landmarks, STANDARD, 200))[..., 0].astype(float), STANDARD, 14)
    assert np.abs(found - STANDARD).max() < 0.05


def test_noisy_landmarks_land_where_the_fit_says() -> None:
    draws = np.random.default_rng(1)
    landmarks = moved(1.4 * np.exp(0.2j), 90 + 40j) + 6 * draws.normal(size=5)
    turn, shift = similarity(STANDARD, landmarks)
    expected = (landmarks - shift) / turn
    assert np.abs(expected - STANDARD).max() > 1
    image = drawn(landmarks, (500, 480), 5)
    found = dots(np.asarray(cut(image, landmarks, STANDARD, 200))[..., 0].astype(float), expected, 12)
    assert np.abs(found - expected).max() < 0.05


def test_pixels_stay_as_they_are_where_nothing_moves() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (210, 220, 3), dtype=np.uint8)
    same = cut(Image.fromarray(noise), STANDARD, STANDARD, 200)
    assert np.array_equal(np.asarray(same), noise[:200, :200])
    shifted = cut(Image.fromarray(noise), STANDARD + 7 + 5j, STANDARD, 200)
    assert np.array_equal(np.asarray(shifted), noise[5:205, 7:207])


@pytest.mark.parametrize("turn", [1, 2.5])
def test_edges_go_on(turn: float) -> None:
    pixels = np.zeros((120, 120, 3), np.uint8)
    pixels[:, :60], pixels[60:, :, 2] = (200, 50, 0), 90
    landmarks = moved(turn, 60 + 60j - turn * (100 + 100j))
    found = np.asarray(cut(Image.fromarray(pixels), landmarks, STANDARD, 200))
    for corner, colour in {
        (0, 0): (200, 50, 0),
        (0, 199): (0, 0, 0),
        (199, 0): (200, 50, 90),
        (199, 199): (0, 0, 90),
    }.items():
        assert found[corner].tolist() == list(colour)


def test_what_shrinks_is_averaged() -> None:
    """Stripes of one pixel become grey, not stripes."""
    stripes = np.zeros((900, 900, 3), np.uint8)
    stripes[:, ::2] = 254
    found = np.asarray(cut(Image.fromarray(stripes), moved(4, 3), STANDARD, 200))
    assert np.abs(found.astype(int) - 127).max() <= 1
