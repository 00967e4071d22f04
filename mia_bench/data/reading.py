"""One file to one image: recognised by its content, checked by its header, decoded to 8-bit RGB.

Ordinary 8-bit images are converted by Pillow. Beyond them:

- Grey values of 9 to 16 bits are scaled by the depth that the format declares, so that its largest value
  becomes 255. Integers of 32 bits need a declared range (TIFF's ``SMinSampleValue`` and ``SMaxSampleValue``).
- Floating-point values are scaled by such a range, or are taken as they are if all are in [0, 1]. Anything
  else is left out: its brightness would be a guess.
- Transparent images are composited on white.
- Rotation and mirroring by EXIF are undone. Of animations and files of several pages the first image is read.
"""

from __future__ import annotations

import errno
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

from etils.epy import lazy_imports

from mia_bench.api.inventory import LeftOut, Reason, printable

with lazy_imports():
    import numpy as np
    import PIL
    from PIL import Image, ImageOps

Crop = Callable[["Image.Image", Path], "Image.Image"]
"""``crop(image, path)`` gives the part of an image that is resized to the track's resolution.

Raises ValueError if the image can't be used.
"""

BACKGROUND = (255, 255, 255)
"""What transparent images are composited on."""
TOLERANCE = 1 / 510
"""How far floating-point values may leave [0, 1], half a step of 8 bits."""
MOST_BYTES = 2**28
"""Size of the largest file that is read."""
LARGE_BYTES, LARGE_PIXELS = 2**24, 2**22
"""Files and images above these are decoded one at a time, so that memory stays bounded."""
BAND = 256
"""Rows that are scaled at once."""

NOT_READ = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow recognises and can't decode without other programs."""

_LARGE = threading.Lock()
_SEVERAL_VIEWS = frozenset({"MPO", "PSD", "ICO", "ICNS", "CUR"})
"""Formats whose first image is the picture, and whose others are views or layers of it."""
_OF_CONTENT = frozenset({None, errno.EINVAL, errno.EOVERFLOW})
"""``errno`` of errors that a file's content causes, such as a seek to a place that can't be."""
_S_MIN, _S_MAX, _BITS, _PHOTOMETRIC = 340, 341, 258, 262
"""Tags of TIFF."""


class Unusable(Exception):
    """An image that is left out."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def named(self, name: str) -> LeftOut:
        """The entry of the file ``name`` in an inventory."""
        return LeftOut(name=name, reason=self.reason, detail=self.detail)


def read_image(
    path: Path, crop: Crop, resolution: int, smallest: int = 1, large: Executor | None = None
) -> tuple[np.ndarray, bool]:
    """The image ``(R, R, 3)`` uint8, and whether the file holds further ones.

    Args:
        path, crop, resolution: the file, its part to read, and the size that this gets.
        smallest: what width and height of image and crop must be at least, in pixels.
        large: decodes large images, one at a time in a thread of its own, as the memory that a thread frees
            may stay with it.

    Raises:
        Unusable: the file holds no image, a damaged one, or one that can't be used.
        OSError: the machine can't read the file.
    """
    size = path.stat().st_size
    _check_bytes(size)
    with _LARGE if size > LARGE_BYTES else nullcontext():
        content = path.read_bytes()
        with _blaming_the_file(path), _opened(io.BytesIO(content), path, smallest) as image:

            def decode() -> tuple[np.ndarray, bool]:
                several = _has_several(image)
                part = crop(to_rgb(image), path)
                _check_size(part.size, smallest)
                small = part.resize((resolution, resolution), Image.Resampling.BICUBIC, reducing_gap=None)
                return np.asarray(small), several

            if large is not None and image.width * image.height > LARGE_PIXELS:
                return large.submit(decode).result()
            return decode()


def read_header(path: Path, smallest: int = 1) -> tuple[int, int]:
    """Width and height of an image, which is not decoded.

    Raises:
        Unusable: the file holds no image, or one that can't be used.
        OSError: the machine can't read the file.
    """
    _check_bytes(path.stat().st_size)
    with path.open("rb") as file, _blaming_the_file(path), _opened(file, path, smallest) as image:
        return image.size


def prepare_pillow() -> None:
    """Load all of Pillow's formats, once, before threads use them."""
    Image.init()


@contextmanager
def silent_pillow() -> Iterator[None]:
    """No warnings of decoders, which know no file names; call it in the main thread."""
    prepare_pillow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode an open image to upright 8-bit RGB.

    Raises:
        Unusable: its brightness is unknown.
    """
    deep = image.mode == "F" or image.mode.startswith("I")
    scale = _scale(image) if deep else None
    key = _transparent_colour(image)
    image.load()
    _check_pixels(image.size)
    ImageOps.exif_transpose(image, in_place=True)  # a copy of a large image costs much memory
    upright: Image.Image = image
    if scale is not None:
        upright = _to_8_bits(image, *scale, key)
    elif key is not None:
        upright.info["transparency"] = key
    if not upright.has_transparency_data:
        return upright if upright.mode == "RGB" else upright.convert("RGB")
    canvas = Image.new("RGBA", upright.size, (*BACKGROUND, 255))
    canvas.alpha_composite(upright.convert("RGBA"))
    return canvas.convert("RGB")


def _scale(image: Image.Image) -> tuple[float, float]:
    """The values of a deep grey image that are black and white; raise Unusable if nothing says so."""
    tags = getattr(image, "tag_v2", {})  # of TIFF
    black, white = _first(tags.get(_S_MIN)), _first(tags.get(_S_MAX))
    bits = _first(tags.get(_BITS)) or 16
    if image.mode.startswith("I;16"):
        declared = (0.0, 2.0**bits - 1)
    elif black is not None and white is not None and black < white:
        declared = (black, white)
    elif image.mode == "F":
        declared = (0.0, 1.0)
    elif image.format in ("PNG", "PPM", "JPEG2000"):  # Pillow gives these as 16 bits
        declared = (0.0, 65535.0)
    else:
        raise Unusable("of unknown brightness", f"{image.format}, integers without a declared range")
    return declared[::-1] if _first(tags.get(_PHOTOMETRIC)) == 0 else declared


def _first(value: object) -> float | None:
    """A tag's value, or the first of several; None if it is no number."""
    single = value[0] if isinstance(value, tuple) and value else value
    try:
        return float(single)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _to_8_bits(image: Image.Image, black: float, white: float, key: object) -> Image.Image:
    """A deep grey image, scaled; transparent where its value is ``key``."""
    values = np.asarray(image)
    grey = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), BAND):
        band = values[start : start + BAND]
        shades = (band.astype(np.float32) - black) / (white - black)
        low, high = float(shades.min()), float(shades.max())
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also what is not a number
            extent = f"{values.min():g} to {values.max():g}"
            raise Unusable("of unknown brightness", f"values from {extent}, not from {black:g} to {white:g}")
        grey[start : start + BAND] = np.rint(shades.clip(0, 1) * 255)
    made = Image.fromarray(grey)
    if key is not None:
        made.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return made


def _transparent_colour(image: Image.Image) -> object:
    """What an image that is not loaded yet declares transparent, in the units of its decoded pixels."""
    key = image.info.get("transparency")
    tiles = getattr(image, "tile", ())
    rawmode = str(tiles[0][3]) if image.format == "PNG" and tiles else ""
    if isinstance(key, tuple) and rawmode.endswith(";16B"):  # decoded to its upper 8 bits
        return tuple(value >> 8 for value in key)
    if isinstance(key, int) and rawmode in ("L;2", "L;4"):  # decoded to 8 bits
        return key * {"L;2": 85, "L;4": 17}[rawmode]
    return key


def _opened(file: IO[bytes], path: Path, smallest: int) -> Image.Image:
    formats = [name for name in Image.OPEN if name not in NOT_READ]
    try:
        image = Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise Unusable("too large", "more pixels than Pillow allows") from error
    except PIL.UnidentifiedImageError as error:
        kind = Image.registered_extensions().get(path.suffix.lower(), "")
        if not kind or kind in NOT_READ:
            raise Unusable("no image", "") from error
        empty = not path.stat().st_size
        raise Unusable("unreadable", "empty" if empty else f"no image, though named {path.suffix}") from error
    try:
        _check_pixels(image.size)
        _check_size(image.size, smallest)
    except Unusable:
        image.close()
        raise
    return image


def _check_bytes(size: int) -> None:
    if size > MOST_BYTES:
        raise Unusable("too large", f"{size / 2**20:,.0f} MiB, at most {MOST_BYTES / 2**20:,.0f} are read")


def _check_pixels(size: tuple[int, int]) -> None:
    """Refuse what exceeds Pillow's own limit, at which it only warns."""
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and size[0] * size[1] > most:
        raise Unusable("too large", f"{size[0]}×{size[1]} pixels, at most {most / 1e6:.0f} million are read")


def _check_size(size: tuple[int, int], smallest: int) -> None:
    if min(size) < smallest:
        raise Unusable("too small", f"{size[0]}×{size[1]} pixels, at least {smallest}×{smallest} are needed")


def _has_several(image: Image.Image) -> bool:
    if image.format in _SEVERAL_VIEWS:
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second image is none of ours
        return False


@contextmanager
def _blaming_the_file(path: Path) -> Iterator[None]:
    """Whatever a decoder raises means that the file is unreadable, except for errors of the machine."""
    try:
        yield
    except Unusable:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _OF_CONTENT:
            raise
        raise Unusable("unreadable", _words(error, path)) from error


def _words(error: Exception, path: Path) -> str:
    """A decoder's message without paths and addresses."""
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "the file", str(error).replace(str(path), path.name))
    text = " ".join(printable(text.replace("\n", " ")).split())[:120]
    plain = isinstance(error, (OSError, ValueError, SyntaxError))
    return text if plain and text else f"{type(error).__name__}: {text}".removesuffix(": ")
