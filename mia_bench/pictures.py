"""The picture of a cell, private examples beside reconstructions, and the strip of several defenses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etils.epy import lazy_imports

from mia_bench.api.dataset import Dataset
from mia_bench.cell import FinishedCell
from mia_bench.errors import MiaBenchError
from mia_bench.plugins import host
from mia_bench.record import Record
from mia_bench.store import PICTURES, write_whole
from mia_bench.track import load_track

with lazy_imports():
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont, PngImagePlugin


TILE = 80
"""Side of one image in the picture, in pixels."""

ROWS = 12
"""Number of classes shown at most, evenly spaced."""

PRIVATE = "private image"
"""The label of the row of a strip that shows private images."""

_THUMB = 64
"""Side of an image in a strip, in pixels."""

_GAP = 6
_LABEL = 18
_HEADER = 58
_MARGIN = 12
_RIGHT, _WRONG, _INK, _SOFT = "#1a7f37", "#b42318", "#1f2328", "#59636e"


def shows_people(record: Record) -> bool:
    """Whether the private images of its track show people who exist; True where that is not known."""
    registry = host().registry
    try:
        data: type[Dataset] = registry.get(
            "dataset", load_track(registry, record.track.name).data.dataset.name
        ).load()
    except MiaBenchError:
        return True
    return data.real_people


def cell_picture(cell: FinishedCell, rows: int = ROWS, *, private: bool | None = None) -> Image.Image:
    """One row per class: private training images left, reconstructions right, best first.

    Below each reconstruction: the target's confidence and whether the evaluation model is right.

    Args:
        rows: classes shown at most.
        private: show the private images; unless given, where they show nobody who exists.
    """
    private = not shows_people(cell.record) if private is None else private
    arrays = cell.arrays()
    info = cell.store.info("measure", cell.key)
    count = len(arrays["classes"])
    shown = strip_classes(count, rows)
    examples, reconstructions = arrays["examples"], arrays["reconstructions"][:, :6]
    left = examples.shape[1] * (TILE + _GAP) if private else 0
    width = 2 * _MARGIN + left + 3 * _GAP + reconstructions.shape[1] * (TILE + _GAP)
    height = _HEADER + len(shown) * (TILE + 2 * _LABEL + _GAP) + _MARGIN
    picture = Image.new("RGB", (max(width, 640), height), "white")
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(15), ImageFont.load_default(11)
    draw.text((_MARGIN, 10), title(cell.record), _INK, font)
    x_reconstructions = _MARGIN + left + 3 * _GAP
    if private:
        draw.text((_MARGIN, 34), "private training images", _SOFT, small)
    draw.text((x_reconstructions, 34), "reconstructions: target confidence, evaluation model", _SOFT, small)
    for number, index in enumerate(shown):
        y = _HEADER + number * (TILE + 2 * _LABEL + _GAP)
        draw.text((_MARGIN, y), info["class_names"][arrays["classes"][index]], _INK, small)
        for column, image in enumerate(examples[index] if private else ()):
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


@dataclass(frozen=True)
class StripRow:
    """Images under one defense, as :func:`strip_row` draws them."""

    label: str
    picture: Image.Image


def strip_row(images: np.ndarray, captions: Sequence[str]) -> Image.Image:
    """The picture of a row.

    Args:
        images: ``(K, 3, H, W)`` uint8, one of each class shown.
        captions: what stands below each.
    """
    small = ImageFont.load_default(11)
    picture = Image.new("RGB", (len(images) * (_THUMB + _GAP), _THUMB + _LABEL), "white")
    draw = ImageDraw.Draw(picture)
    for column, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x = column * (_THUMB + _GAP)
        picture.paste(_tile(image, _THUMB), (x, 0))
        draw.text((x + _THUMB // 2, _THUMB + 2), caption, _SOFT, small, anchor="ma")
    return picture


def strip_classes(count: int, shown: int = 8) -> list[int]:
    """The classes that a picture shows, evenly spaced: the same for every row."""
    shown = min(shown, count)
    return [round(number * (count - 1) / max(shown - 1, 1)) for number in range(shown)]


def strip(rows: Sequence[StripRow], heading: str) -> Image.Image:
    """One row a defense, one column a class."""
    labels = _labels([row.label for row in rows])
    width = labels + max(row.picture.width for row in rows) + _MARGIN
    picture = Image.new("RGB", (max(width, 480), _height(len(rows))), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN), heading, _SOFT, ImageFont.load_default(11))
    for number, row in enumerate(rows):
        y = _row_top(number)
        draw.text((_MARGIN, y + _THUMB // 2 - 8), row.label, _INK, ImageFont.load_default(13))
        picture.paste(row.picture, (labels, y))
    return picture


def strip_rows(picture: Image.Image, names: Sequence[str]) -> dict[str, Image.Image]:
    """The rows of a strip by their labels; empty if they are not where :func:`strip` puts them.

    Args:
        names: the labels without that of private images, which come first if there are some.
    """
    labels = [PRIVATE, *names] if picture.height == _height(len(names) + 1) else list(names)
    left = _labels(labels)
    columns = (picture.width - left - _MARGIN) // (_THUMB + _GAP)
    if picture.height != _height(len(labels)) or columns < 1:
        return {}
    right = left + columns * (_THUMB + _GAP)
    return {
        label: picture.crop((left, _row_top(number), right, _row_top(number) + _THUMB + _LABEL))
        for number, label in enumerate(labels)
    }


def _labels(labels: Sequence[str]) -> int:
    """The width of the column of labels."""
    font = ImageFont.load_default(13)
    return int(max((font.getlength(label) for label in labels), default=0)) + 2 * _MARGIN


def _height(rows: int) -> int:
    return 2 * _MARGIN + _LABEL + rows * (_THUMB + _LABEL + _GAP)


def _row_top(number: int) -> int:
    return _MARGIN + _LABEL + 4 + number * (_THUMB + _LABEL + _GAP)


def sheets_folder(store: Path, key: str) -> Path:
    """The folder for the sample sheets of a prior."""
    return store / PICTURES / "priors" / key


def save_sheet(images: np.ndarray, path: Path, columns: int = 8) -> Path:
    """Write a grid of uint8 images ``(N, 3, H, W)`` as PNG and return its path."""
    rows = -(-len(images) // columns)
    step = TILE + _GAP // 2
    sheet = Image.new("RGB", (columns * step, rows * step), "white")
    for number, image in enumerate(images):
        sheet.paste(_tile(image), ((number % columns) * step, (number // columns) * step))
    return write_png(sheet, path)


def _tile(image: np.ndarray, side: int = TILE) -> Image.Image:
    return Image.fromarray(image.transpose(1, 2, 0)).resize((side, side), Image.Resampling.BICUBIC)


def save_picture(cell: FinishedCell, path: Path) -> Path:
    """Write the picture as PNG and return its path."""
    return write_png(cell_picture(cell), path)


def write_png(picture: Image.Image, path: Path, **said: str) -> Path:
    """Write a picture, whole or not at all, and its folder if need be; return its path.

    Args:
        said: texts in the file, by their names.
    """
    data, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    for name, text in said.items():
        texts.add_text(name, text)
    picture.save(data, format="PNG", pnginfo=texts, compress_level=3)  # twice as fast as 6, 15 % larger
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
