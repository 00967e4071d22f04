"""How files become images: recognised by content, converted by depth, composited, or left out."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from mia_bench.api.inventory import LeftOut
from mia_bench.data import reading
from mia_bench.data.classes import central_square
from mia_bench.data.reading import BACKGROUND, read_image
from mia_bench.data.trees import decode, scan_tree
from mia_bench.errors import DataError
from mia_bench_plugins.datasets.stanford_dogs import whole


def quiet(done: int, total: int, unit: str) -> None:
    pass


def pixels(path: Path, side: int = 8) -> np.ndarray:
    """The image ``(side, side, 3)``; fail if it is left out."""
    decoded = decode([path], whole, side, quiet)
    assert not decoded.left_out
    return decoded.images[0].permute(1, 2, 0).numpy()


def left_out(path: Path, smallest: int = 1) -> LeftOut:
    """Why a file is left out; it is one of 25, so that one unreadable file is no error."""
    good = path.parent / "good.png"
    Image.new("RGB", (64, 64), "red").save(good)
    decoded = decode([path, *[good] * 24], central_square, 8, quiet, smallest=smallest)
    (file,) = decoded.left_out
    assert len(decoded.images) == 24
    return file


RAMP = np.tile(np.arange(8) / 7, (8, 1))
"""Brightness from 0 to 1, (8, 8)."""


def expected(ramp: np.ndarray = RAMP) -> np.ndarray:
    return np.rint(ramp * 255).astype(int)[..., None].repeat(3, 2)


# --- depth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm", "jp2"])
def test_16_bit_grey_keeps_its_brightness(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    values = np.rint(RAMP * 65535).astype(np.uint16)
    if ending == "pgm":
        path.write_bytes(b"P5 8 8 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path, **({"irreversible": False} if ending == "jp2" else {}))
    assert np.abs(pixels(path) - expected()).max() <= 1


def test_16_bit_big_endian_and_inverted_tiff(tmp_path: Path) -> None:
    values = np.rint(RAMP * 65535).astype(np.uint16)
    Image.frombytes("I;16B", (8, 8), values.astype(">u2").tobytes()).save(tmp_path / "big.tiff")
    assert np.abs(pixels(tmp_path / "big.tiff") - expected()).max() <= 1
    white_is_zero = {TiffImagePlugin.PHOTOMETRIC_INTERPRETATION: 0}
    Image.fromarray(values).save(tmp_path / "inverted.tiff", tiffinfo=white_is_zero)
    with Image.open(tmp_path / "inverted.tiff") as image:
        inverted = image.tag_v2[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] == 0
    if not inverted:
        pytest.skip("this Pillow does not write the tag")
    assert np.abs(pixels(tmp_path / "inverted.tiff") - expected(1 - RAMP)).max() <= 1


def test_12_bits_of_a_pgm_are_scaled_by_its_largest_value(tmp_path: Path) -> None:
    values = np.rint(RAMP * 4095).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 4095\n" + values.tobytes())
    assert np.abs(pixels(tmp_path / "a.pgm") - expected()).max() <= 1


def test_full_range_of_a_noisy_16_bit_image_has_the_right_mean(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (64, 64), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert 120 < pixels(tmp_path / "a.png", 64).mean() < 135


def test_floats_from_0_to_1(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "a.tiff")
    assert np.abs(pixels(tmp_path / "a.tiff") - expected()).max() <= 1


def declared(low: float, high: float) -> TiffImagePlugin.ImageFileDirectory_v2:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in ((340, low), (341, high)):
        info.tagtype[tag] = 12  # double
        info[tag] = value
    return info


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_a_declared_range_is_used(tmp_path: Path, kind: type) -> None:
    values = (RAMP * 4000 - 1000).astype(kind)
    Image.fromarray(values).save(tmp_path / "a.tiff", tiffinfo=declared(-1000, 3000))
    assert np.abs(pixels(tmp_path / "a.tiff") - expected()).max() <= 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (RAMP.astype(np.float32) * 255, "values from 0 to 255"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "nan"),
        (np.where(RAMP > 0.5, np.inf, RAMP).astype(np.float32), "inf"),
        ((RAMP * 70000).astype(np.int32), "integers without a declared range"),
    ],
)
def test_brightness_that_nothing_tells_is_not_guessed(tmp_path: Path, values: np.ndarray, words: str) -> None:
    Image.fromarray(values).save(tmp_path / "a.tiff")
    file = left_out(tmp_path / "a.tiff")
    assert file.reason == "of unknown brightness"
    assert words in file.detail


def test_16_bit_colour_and_cmyk_and_lab(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    row = b"\0" + struct.pack(">3H", 0xFFFF, 0x8080, 0) * 8
    write_png(path, 8, 8, 16, 2, row * 8)
    assert pixels(path)[0, 0].tolist() == [255, 128, 0]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "b.tiff")
    assert pixels(tmp_path / "b.tiff")[0, 0].tolist() == [255, 0, 0]
    Image.new("LAB", (8, 8), (255, 128, 128)).save(tmp_path / "c.tiff")
    assert pixels(tmp_path / "c.tiff").min() > 250


def write_png(
    path: Path, width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]
) -> None:
    """A PNG from its raw parts, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    between = b"".join(chunk(*one) for one in chunks)
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + between + body)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_ordinary_images_are_what_pillow_decodes(tmp_path: Path, ending: str, mode: str) -> None:
    draws = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(draws).convert(mode).save(path)
    with Image.open(path) as image:
        plain = image.convert("RGB").crop((0, 5, 30, 35)).resize((8, 8), Image.Resampling.BICUBIC)
    read, several = read_image(path, central_square, 8)
    assert np.array_equal(read, np.asarray(plain))
    assert not several


# --- transparency --------------------------------------------------------------------------------


def hidden(mode: str, path: Path) -> None:
    """An image whose left half is transparent, with a colour hidden under it."""
    if mode in ("RGBA", "LA"):
        made = Image.new(mode, (8, 8), (255, 0, 255, 0) if mode == "RGBA" else (9, 0))
        made.paste((10, 20, 30, 255) if mode == "RGBA" else (20, 255), (4, 0, 8, 8))
        made.save(path)
    elif mode == "P":
        made = Image.new("P", (8, 8), 0)
        made.putpalette([255, 0, 255, 10, 20, 30])
        made.paste(1, (4, 0, 8, 8))
        made.save(path, transparency=0)
    elif mode in ("RGB", "L", "1"):
        under = {"RGB": (255, 0, 255), "L": 9, "1": 1}[mode]
        above = {"RGB": (10, 20, 30), "L": 20, "1": 0}[mode]
        made = Image.new(mode, (8, 8), under)
        made.paste(above, (4, 0, 8, 8))
        made.save(path, transparency=under)
    elif mode == "RGB 16":
        row = (
            b"\0" + struct.pack(">3H", 0xFF01, 0, 0xFF02) * 4 + struct.pack(">3H", 0x0A00, 0x1400, 0x1E00) * 4
        )
        write_png(path, 8, 8, 16, 2, row * 8, (b"tRNS", struct.pack(">3H", 0xFF01, 0, 0xFF02)))
    elif mode == "L 16":
        row = b"\0" + struct.pack(">8H", *[999] * 4, *[5140] * 4)
        write_png(path, 8, 8, 16, 0, row * 8, (b"tRNS", struct.pack(">H", 999)))
    else:  # grey of two bits: 1 is transparent, 3 is white
        write_png(path, 8, 8, 2, 0, bytes([0, 0b01010101, 0b00000000]) * 8, (b"tRNS", struct.pack(">H", 1)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "1", "L 16", "RGB 16", "L 2"])
def test_transparent_parts_show_the_background(tmp_path: Path, mode: str) -> None:
    hidden(mode, tmp_path / "a.png")
    read = pixels(tmp_path / "a.png")
    assert read[0, 0].tolist() == list(BACKGROUND)
    assert read[0, 7].max() <= 30


def test_half_transparent_colours_are_mixed_with_the_background(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0, 0].tolist() == [255, 127, 127]


# --- formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("GIF", "gif"), ("TIFF", "tif"), ("WEBP", "webp"), ("AVIF", "avif"), ("PPM", "ppm"), ("BMP", "dib"),
        ("TGA", "tga"), ("JPEG", "jfif"), ("JPEG", "JPG"), ("PNG", ""), ("PNG", "jpg"), ("JPEG", "backup"),
        ("PCX", "pcx"), ("SGI", "sgi"), ("QOI", "qoi"),
    ],
)  # fmt: skip
def test_images_are_recognised_by_content(tmp_path: Path, kind: str, ending: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    folder = tmp_path / "tree" / "Ann"
    folder.mkdir(parents=True)
    path = folder / f"a.{ending}".rstrip(".")
    Image.new("RGB", (16, 16), (200, 40, 40)).save(path, kind)
    tree = scan_tree(tmp_path / "tree", "t")
    assert tree.paths("Ann") == [path]
    assert abs(pixels(path).astype(int)[4, 4] - (200, 40, 40)).max() < 12


def test_an_animation_shows_its_first_image_and_is_counted(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for ending in ("gif", "webp", "tiff"):
        path = tmp_path / f"a.{ending}"
        more = {"lossless": True} if ending == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **more)
        decoded = decode([path], whole, 8, quiet, base=tmp_path)
        assert decoded.images[0, :, 0, 0].tolist() == [255, 0, 0]
        assert decoded.several == (f"a.{ending}",)


def test_a_damaged_second_image_does_not_harm_the_first(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(content[:-6])
    assert pixels(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


# --- left out ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "name", "reason", "detail"),
    [
        (b"<!DOCTYPE html>404", "a.jpg", "unreadable", "no image, though named .jpg"),
        (b"", "a.png", "unreadable", "empty"),
        (b"\x89PNG\r\n\x1a\n broken", "a.png", "unreadable", ""),
        (b"some words", "a.txt", "no image", ""),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a.eps", "no image", ""),
    ],
)
def test_what_is_no_image_is_left_out(
    tmp_path: Path, content: bytes, name: str, reason: str, detail: str
) -> None:
    (tmp_path / name).write_bytes(content)
    file = left_out(tmp_path / name)
    assert file.name.endswith(f"/{name}")
    assert file.reason == reason
    assert detail in file.detail
    assert str(tmp_path) not in str(file)


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "tiff", "webp", "bmp", "ppm", "tga"])
def test_truncated_files_are_unreadable(tmp_path: Path, ending: str) -> None:
    draws = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(draws).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    assert left_out(path).reason == "unreadable"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), struct.error("unpack"), zlib.error("incorrect header"), RecursionError("depth"),
        IndexError("range"), KeyError("x"), EOFError(), SystemError("tile cannot extend"), OverflowError(),
        ZeroDivisionError(), AssertionError(), NotImplementedError(), SyntaxError("not a PNG file"),
        OSError("decoder error -2 when reading <_io.BytesIO object at 0x7f00deadbeef>"),
        OSError(22, "Invalid argument"),
    ],
    ids=repr,
)  # fmt: skip
def test_any_error_of_a_decoder_is_the_files(tmp_path: Path, monkeypatch, error: Exception) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "bad.png")
    load = ImageFile.ImageFile.load

    def failing(image: ImageFile.ImageFile) -> object:
        if image.size == (8, 8):
            raise error
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", failing)
    file = left_out(tmp_path / "bad.png")
    assert file.reason == "unreadable"
    assert "0x" not in file.detail
    assert "\n" not in str(file)


def test_paths_in_the_message_of_a_decoder_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)

    def crop(image: Image.Image, where: Path) -> Image.Image:
        if image.size == (8, 8):
            raise ValueError(f"no face in {where}")
        return image

    good = tmp_path / "good.png"
    Image.new("RGB", (9, 9)).save(good)
    (file,) = decode([path, *[good] * 24], crop, 8, quiet).left_out
    assert file.detail == "no face in a.png"


@pytest.mark.parametrize("number", [5, 13, 116])
def test_errors_of_the_machine_are_no_faults_of_the_file(tmp_path: Path, monkeypatch, number: int) -> None:
    path = tmp_path / "Ann" / "a.png"
    path.parent.mkdir()
    Image.new("RGB", (8, 8)).save(path)

    def failing(_: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(DataError, match=f"^Ann/a.png can't be read: {os.strerror(number)}"):
        decode([path], whole, 8, quiet)


def test_too_small_images_are_left_out_by_their_header(tmp_path: Path, monkeypatch) -> None:
    Image.new("RGB", (40, 15)).save(tmp_path / "a.png")
    loaded: list[str] = []
    monkeypatch.setattr(reading, "to_rgb", lambda image: (loaded.append("x"), image.convert("RGB"))[1])
    file = left_out(tmp_path / "a.png", smallest=16)
    assert (file.reason, file.detail) == ("too small", "40×15 pixels, at least 16×16 are needed")
    assert len(loaded) == 24


def test_huge_images_are_left_out_before_they_are_decoded(tmp_path: Path) -> None:
    side = 13_000
    rows = zlib.compress(b"\0" * (side + 1) * 4)  # far too few: decoding would fail otherwise
    write_png(tmp_path / "a.png", side, side, 8, 0, rows)
    file = left_out(tmp_path / "a.png")
    assert file.reason == "too large"
    assert "13000×13000 pixels, at most 89 million" in file.detail
    write_png(tmp_path / "a.png", 60_000, 60_000, 8, 0, rows)
    assert left_out(tmp_path / "a.png").reason == "too large"


def test_huge_files_are_not_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "MOST_BYTES", 10_000)
    Image.new("RGB", (100, 100)).save(tmp_path / "a.bmp")
    assert left_out(tmp_path / "a.bmp").reason == "too large"


def test_large_images_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "LARGE_PIXELS", 30 * 30)
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for path in paths:
        Image.new("RGB", (40, 40), "red").save(path)
    inside, most = [0], [0]
    convert: Callable = reading.to_rgb

    def counting(image: Image.Image) -> Image.Image:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        try:
            return convert(image)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(reading, "to_rgb", counting)
    assert len(decode(paths, whole, 8, quiet).images) == 12
    assert most[0] == 1


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0"])
def test_a_damaged_exif_block_ends_nothing(tmp_path: Path, exif: bytes) -> None:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (16, 16)).save(tmp_path / "good.png")
    decoded = decode([tmp_path / "a.jpg", *[tmp_path / "good.png"] * 24], whole, 8, quiet)
    assert len(decoded.images) + len(decoded.left_out) == 25
