"""The picture of a cell: private examples beside reconstructions."""

from __future__ import annotations

import io
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.cell import FinishedCell
from mia_bench.record import Record
from mia_bench.store import write_whole

with lazy_imports():
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont


TILE = 80
"""Side of one image in the picture, in pixels."""

ROWS = 12
"""Number of classes shown at most, evenly spaced."""

_GAP = 6
_LABEL = 18
_HEADER = 58
_MARGIN = 12
_RIGHT, _WRONG, _INK, _SOFT = "#1a7f37", "#b42318", "#1f2328", "#59636e"


def cell_picture(cell: FinishedCell, rows: int = ROWS) -> Image.Image:
    """One row per class: private training images left, reconstructions right, best first.

    Below each reconstruction: the target's confidence and whether the evaluation model is right.
    """
    arrays = cell.arrays()
    info = cell.store.info("measure", cell.key)
    count = len(arrays["classes"])
    shown = np.unique(np.linspace(0, count - 1, min(rows, count)).round().astype(int))
    examples, reconstructions = arrays["examples"], arrays["reconstructions"][:, :6]
    left = examples.shape[1] * (TILE + _GAP)
    width = 2 * _MARGIN + left + 3 * _GAP + reconstructions.shape[1] * (TILE + _GAP)
    height = _HEADER + len(shown) * (TILE + 2 * _LABEL + _GAP) + _MARGIN
    picture = Image.new("RGB", (max(width, 640), height), "white")
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(15), ImageFont.load_default(11)
    draw.text((_MARGIN, 10), title(cell.record), _INK, font)
    x_reconstructions = _MARGIN + left + 3 * _GAP
    draw.text((_MARGIN, 34), "private training images", _SOFT, small)
    draw.text((x_reconstructions, 34), "reconstructions: target confidence, evaluation model", _SOFT, small)
    for number, index in enumerate(shown):
        y = _HEADER + number * (TILE + 2 * _LABEL + _GAP)
        draw.text((_MARGIN, y), info["class_names"][arrays["classes"][index]], _INK, small)
        for column, image in enumerate(examples[index]):
            picture.paste(_tile(image), (_MARGIN + column * (TILE + _GAP), y + _LABEL))
        for column, image in enumerate(reconstructions[index]):
            x = x_reconstructions + column * (TILE + _GAP)
            picture.paste(_tile(image), (x, y + _LABEL))
            right = arrays["judged"][index, column] == arrays["classes"][index]
            text = f"{arrays['target_confidence'][index, column]:.2f} {'right' if right else 'wrong'}"
            draw.text((x, y + _LABEL + TILE + 2), text, _RIGHT if right else _WRONG, small)
    return picture


def title(record: Record) -> str:
    """Track, defense, attack, prior and seed of a cell in one line."""
    return (
        f"{record.track.name}: {record.defense.name} under {record.attack.name} "
        f"({record.prior.name}), seed {record.seed}"
    )


def sheets_folder(store: Path, key: str) -> Path:
    """The folder for the sample sheets of a prior."""
    return store / "pictures" / "priors" / key


def save_sheet(images: np.ndarray, path: Path, columns: int = 8) -> Path:
    """Write a grid of uint8 images ``(N, 3, H, W)`` as PNG and return its path."""
    rows = -(-len(images) // columns)
    step = TILE + _GAP // 2
    sheet = Image.new("RGB", (columns * step, rows * step), "white")
    for number, image in enumerate(images):
        sheet.paste(_tile(image), ((number % columns) * step, (number // columns) * step))
    return write_png(sheet, path)


def _tile(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image.transpose(1, 2, 0)).resize((TILE, TILE), Image.Resampling.BICUBIC)


def save_picture(cell: FinishedCell, path: Path) -> Path:
    """Write the picture as PNG and return its path."""
    return write_png(cell_picture(cell), path)


def write_png(picture: Image.Image, path: Path) -> Path:
    """Write a picture, whole or not at all, and its folder if need be; return its path."""
    data = io.BytesIO()
    picture.save(data, format="PNG")
    if path.exists() and not path.is_file():  # a pipe, say
        path.write_bytes(data.getvalue())
    else:
        write_whole(path.resolve(), data.getvalue())
    return path


def is_whole(path: Path) -> bool:
    """Whether a PNG is there and every part of it has its checksum; it isn't decoded."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.verify()
    except Exception:  # Pillow raises many kinds
        return False
    return True
