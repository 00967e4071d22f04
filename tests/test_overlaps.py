"""Images that several identities share: exact and near copies, before anything is trained."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from mia_bench.data import overlaps
from mia_bench.data.overlaps import Photographs, describe_overlaps, find_overlaps, refuse_public_copies
from mia_bench.errors import DataError
from mia_bench_plugins.datasets.folder import Folder


def quiet(done: int, total: int, unit: str) -> None:
    pass


def photograph(seed: int, side: int = 64) -> Image.Image:
    """Soft blobs with some grain: no two look alike."""
    draws = np.random.default_rng(seed)
    coarse = Image.fromarray(draws.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((side, side))
    grain = draws.normal(0, 6, (side, side, 3))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def encode(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return encode


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 90": jpeg(90),
    "JPEG 40": jpeg(40),
    "half the size": lambda image: image.resize((32, 32), Image.Resampling.BOX),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


def photographs(images: list[Image.Image], owners: list[int], roles: dict[int, str]) -> Photographs:
    arrays = [np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)) for image in images]
    names = [f"{owner}/{number}.png" for number, owner in enumerate(owners)]
    stacked = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return Photographs(stacked, names, torch.tensor(owners), [roles[owner] for owner in owners])


ROLES = {0: "private", 1: "private", 2: "public", 3: "decoys"}


@pytest.mark.parametrize("kind", COPIES)
def test_near_copies_are_found_whatever_happened_to_them(kind: str) -> None:
    images = [photograph(i) for i in range(40)]
    owners = [i % 4 for i in range(40)]
    images[2] = COPIES[kind](images[0])
    known = photographs(images, owners, ROLES)
    (pair,) = find_overlaps(known, quiet)
    assert (pair.first, pair.second, pair.exact) == (0, 2, False)
    (line,) = describe_overlaps(known, [pair])
    assert line.startswith("nearly the same image of a private and of a public person or decoy, 1 pair: 0/0")
    refuse_public_copies(known, [pair])  # near copies are a warning


def test_exact_copies_are_told_by_the_roles() -> None:
    images = [photograph(i) for i in range(12)]
    owners = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    images[3] = images[0]  # two private people
    images[10] = images[7]  # a public person and a decoy
    images[2] = images[1]  # one person twice
    known = photographs(images, owners, ROLES)
    pairs = find_overlaps(known, quiet)
    assert [(pair.first, pair.second) for pair in pairs if pair.exact] == [(0, 3), (7, 10)]
    lines = list(describe_overlaps(known, pairs))
    assert lines == [
        "the same image of two private people, 1 pair: 0/0.png = 1/3.png",
        "the same image of two public people or decoys, 1 pair: 2/7.png = 3/10.png",
        "the same image twice of one private person, so that a training image may be a test image, "
        "1 pair: 0/1.png = 0/2.png",
    ]
    refuse_public_copies(known, pairs)
    images[11] = images[4]
    known = photographs(images, owners, ROLES)
    with pytest.raises(DataError, match=r"remove one of each two, 1 pair: 1/4.png = 3/11.png"):
        refuse_public_copies(known, find_overlaps(known, quiet))


def test_one_image_of_many_identities_gives_one_pair_each() -> None:
    images = [photograph(1)] * 200
    known = photographs(images, list(range(200)), dict.fromkeys(range(200), "public"))
    assert len(find_overlaps(known, quiet)) == 199


def test_images_of_one_colour_are_no_near_copies() -> None:
    images = [Image.new("RGB", (32, 32), (shade, shade, shade)) for shade in range(0, 200, 10)]
    known = photographs(images, list(range(20)), dict.fromkeys(range(20), "public"))
    assert find_overlaps(known, quiet) == []


def test_pairs_are_those_of_the_library(monkeypatch) -> None:
    """Blocks of a matrix product find what distances of ``imagehash`` say, pair by pair."""
    monkeypatch.setattr(overlaps, "ROWS", 7)
    monkeypatch.setattr(overlaps, "CORRELATION", -1.0)
    monkeypatch.setattr(overlaps, "NEAR", 110)
    images = [photograph(i) for i in range(30)]
    owners = [i % 10 for i in range(30)]
    known = photographs(images, owners, dict.fromkeys(range(10), "public"))
    greys = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in known.images]
    hashes = [imagehash.phash(grey, hash_size=16, highfreq_factor=2) for grey in greys]
    expected = {
        (i, j)
        for i in range(30)
        for j in range(i + 1, 30)
        if owners[i] != owners[j] and hashes[i] - hashes[j] <= 110
    }
    found = {(pair.first, pair.second) for pair in find_overlaps(known, quiet)}
    assert 3 < len(expected) < 400
    assert found == expected


# --- data sets -----------------------------------------------------------------------------------


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Eight people with six images each; the first four are private."""
    for person in range(8):
        folder = tmp_path / "data" / f"p{person}"
        folder.mkdir(parents=True)
        for number in range(7 if person < 4 else 6):
            photograph(100 * person + number).save(folder / f"{number}.png")
    return tmp_path / "data"


def load(root: Path):
    return Folder().load(root, resolution=32, seed=0, progress=quiet, scratch=root / "no")


def test_people_without_overlaps_have_no_notes(people: Path) -> None:
    assert load(people).inventory.overlaps == ()


def test_the_same_file_of_a_private_and_a_public_person_is_refused_before_decoding(
    people: Path, monkeypatch
) -> None:
    (people / "p7" / "other.png").write_bytes((people / "p0" / "3.png").read_bytes())
    monkeypatch.setattr("mia_bench.data.identities.decode", None)
    for refusing in (load, lambda root: Folder().outline(root, resolution=32)):
        with pytest.raises(DataError, match=r"private images; remove .*, 1 pair: p0/3.png = p7/other.png$"):
            refusing(people)


def test_the_same_pixels_in_another_format_are_refused(people: Path) -> None:
    with Image.open(people / "p0" / "3.png") as image:
        image.save(people / "p7" / "other.bmp")
    Folder().outline(people, resolution=32)  # it decodes nothing
    with pytest.raises(DataError, match=r"1 pair: p0/3.png = p7/other.bmp$"):
        load(people)


def test_near_copies_are_a_note(people: Path) -> None:
    with Image.open(people / "p0" / "3.png") as image:
        image.save(people / "p7" / "other.jpg", quality=80)
    (note,) = load(people).notes[1:]
    assert note.endswith("of a public person or decoy, 1 pair: p0/3.png = p7/other.jpg")


def test_overlaps_are_told_before_the_first_training_and_kept_in_the_record(cli, toy, people: Path) -> None:
    with Image.open(people / "p0" / "3.png") as image:
        image.save(people / "p7" / "other.jpg", quality=80)
    (people / "p1" / "more.png").write_bytes((people / "p2" / "0.png").read_bytes())
    (people / "p3" / "page.jpg").write_text("<html>")
    run = ("run", "--track", "toy-folder", "--defense", "none", "--attack", "prior-sample", "--device", "cpu",
           "--data", people, "--format", "json")  # fmt: skip
    done = cli(*run)
    assert done.code == 0, done.err
    before = done.err.partition("target under none")[0]
    (record,) = done.records
    for line in (
        "1 file left out, unreadable: p3/page.jpg",
        "nearly the same image of a private and of a public person or decoy, 1 pair: p0/3.png = p7/other.jpg",
        "the same image of two private people, 1 pair: p1/more.png = p2/0.png",
    ):
        assert line in before
        assert line in record["notes"]["data"]
    assert str(people) not in json.dumps(record)


def test_what_is_refused_is_refused_everywhere(cli, toy, people: Path) -> None:
    (people / "p7" / "0.png").write_bytes((people / "p0" / "0.png").read_bytes())
    run = ("run", "--track", "toy-folder", "--defense", "none", "--attack", "prior-sample", "--device", "cpu",
           "--data", people, "--format", "json")  # fmt: skip
    refused, check, plan = cli(*run), cli("data", "check", "folder", "--data", people), cli(*run, "--dry-run")
    assert (refused.code, check.code, plan.code) == (1, 1, 1)
    reason = "1 pair: p0/0.png = p7/0.png"
    assert reason in refused.records[0]["reason"]
    assert reason in check.out
    assert reason in plan.err
    assert "target under none" not in refused.err
