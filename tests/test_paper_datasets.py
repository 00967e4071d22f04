"""FaceScrub, CelebA and Stanford Dogs on small made trees of the same layout."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from mia_bench.api.options import parse_options
from mia_bench.data.classes import Labelled, LabelledDataset, central_square
from mia_bench.errors import DataError
from mia_bench_plugins.datasets.celeba import STANDARD, CelebA
from mia_bench_plugins.datasets.facescrub import FaceScrub
from mia_bench_plugins.datasets.stanford_dogs import StanfordDogs


def picture(path: Path, shade: int, size: tuple[int, int] = (20, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, 255 - shade)).save(path)


def facescrub(root: Path) -> None:
    """Actors b and a, actress c; ten images each, the shade tells the class."""
    for folder, name, shade in (
        ("actors", "b", 60),
        ("actors", "a", 10),
        ("actresses", "c", 110),
    ):
        for number in range(10):
            path = root / "facescrub" / folder / "faces" / name / f"{number}.png"
            picture(path, shade + number, (20 + number, 20))


def celeba(root: Path) -> None:
    """Identity 7 has four images, 3 and 5 have three, 9 has one."""
    owners = [3, 7, 5, 7, 3, 5, 9, 7, 3, 5, 7]
    lines = []
    for number, owner in enumerate(owners):
        name = f"{number:06d}.jpg"
        lines.append(f"{name} {owner}")
        ending = ".png" if number % 2 else ".jpg"
        picture((root / "celeba/img_align_celeba" / name).with_suffix(ending), 20 * owner, (30, 30))
    (root / "celeba/identity_CelebA.txt").write_text("\n".join(lines) + "\n")


def dogs(root: Path) -> None:
    """Two breeds; a list of three images for training and one of two."""
    folder = root / "stanford_dogs"
    breeds = ("n01-Chihuahua", "n02-Old_dog")
    entries = [f"{breeds[i % 2]}/{breeds[i % 2].partition('-')[0]}_{i}" for i in range(20)]
    for number, entry in enumerate(entries):
        picture(folder / "Images" / f"{entry}.jpg", 100 * (number % 2) + number, (40, 20))
    for name, part in (("train_list.mat", entries[:12]), ("test_list.mat", entries[12:])):
        names = np.empty((len(part), 1), dtype=object)
        names[:, 0] = part
        labels = np.array([[1 + ("n02" in entry)] for entry in part])
        savemat(folder / name, {"annotation_list": names, "labels": labels})


Made = tuple[type[LabelledDataset], Callable[[Path], None]]
ALL: dict[str, Made] = {
    "facescrub": (FaceScrub, facescrub),
    "celeba": (CelebA, celeba),
    "stanford-dogs": (StanfordDogs, dogs),
}


def made(kind: str, root: Path, **options) -> LabelledDataset:
    cls, tree = ALL[kind]
    if not root.is_dir():
        tree(root)
    return cls(parse_options(kind, cls.Options, {"allow_partial": True, **options}))


class Given(LabelledDataset):
    """A data set of given images."""

    def __init__(self, what: Labelled, **options) -> None:
        super().__init__(self.Options(**options))
        self.what = what

    def fingerprint(self, root: Path | None) -> str:
        return "given"

    def labelled(self, root: Path | None) -> Labelled:
        return self.what


def load(dataset: LabelledDataset, root: Path, resolution: int = 8):
    return dataset.load(
        root,
        resolution=resolution,
        seed=2**40,
        progress=lambda *what: None,
        scratch=root / "scratch",
    )


def test_classes_are_actors_by_name_then_actresses(tmp_path: Path) -> None:
    splits = load(made("facescrub", tmp_path / "d"), tmp_path / "d")
    assert splits.class_names == ("a", "b", "c")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (27, 0, 3)
    for part in (splits.train, splits.test):
        shades = part.images[:, 0].float().mean((1, 2))
        expected = torch.tensor([10.0, 60, 110])[part.labels] + 4.5
        assert float((shades - expected).abs().max()) < 6


def test_celebrities_with_most_images_come_first(tmp_path: Path) -> None:
    dataset = made("celeba", tmp_path / "d", classes=2)
    what = dataset.labelled(tmp_path / "d")
    assert what.class_names == [f"celebrity {i}" for i in (7, 3, 5, 9)]
    splits = load(dataset, tmp_path / "d")
    assert splits.num_classes == 2
    assert len(splits.train) + len(splits.test) == 7  # of 7 and of 3, .jpg and .png


def test_breeds_are_those_of_the_lists_and_squeezed_not_cut(tmp_path: Path) -> None:
    splits = load(made("stanford-dogs", tmp_path / "d"), tmp_path / "d")
    assert splits.class_names == ("Chihuahua", "Old_dog")
    assert (len(splits.train), len(splits.test)) == (18, 2)
    shades = splits.train.images[:, 0].float().mean((1, 2))
    assert torch.equal(shades > 60, splits.train.labels == 1)
    wide = Image.new("RGB", (40, 20))
    what = made("stanford-dogs", tmp_path / "d").labelled(tmp_path / "d")
    assert what.crop(wide, what.paths[0]).size == (40, 20)
    assert central_square(wide).size == (20, 20)


def test_the_split_is_numpys_shuffle_of_all_images(tmp_path: Path) -> None:
    """As the authors draw it: ``np.random.seed(42)``, shuffle, the first nine tenths."""
    paths = []
    for number in range(30):
        picture(tmp_path / f"{number:02d}.png", 8 * number)
        paths.append(tmp_path / f"{number:02d}.png")
    what = Labelled(paths, [i % 2 for i in range(30)], ["even", "odd"])
    splits = load(Given(what), tmp_path)
    order = list(range(30))
    np.random.seed(42)  # noqa: NPY002
    np.random.shuffle(order)  # noqa: NPY002
    shades = [int(image[0, 0, 0]) for image in splits.train.images]
    assert shades == [8 * number for number in order[:27]]
    assert [int(i[0, 0, 0]) for i in splits.test.images] == [8 * number for number in order[27:]]
    tuning = load(Given(what, held_out=0.1), tmp_path)
    assert (len(tuning.train), len(tuning.validation)) == (24, 3)
    assert torch.equal(tuning.test.images, splits.test.images)
    together = torch.cat([tuning.train.images, tuning.validation.images])
    assert torch.equal(together, splits.train.images)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("facescrub", "3 identities, not 530 identities"),
        ("celeba", "4 identities with 11 images, not 10177 identities with 202599 images"),
        ("stanford-dogs", "2 breeds with 20 images, not 120 breeds with 20580 images"),
    ],
)
def test_incomplete_data_are_refused_with_counts(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"holds {message}.*--allow-partial"):
        made(kind, tmp_path / "d", allow_partial=False).fingerprint(tmp_path / "d")


# --- the cut of CelebA ---------------------------------------------------------------------------

FACE = np.array(STANDARD)
"""Eyes, nose and mouth of the standard face, without a size."""


@pytest.fixture
def counts(monkeypatch) -> None:
    """As if the made tree were all of CelebA."""
    monkeypatch.setattr("mia_bench_plugins.datasets.celeba.IDENTITIES", 4)
    monkeypatch.setattr("mia_bench_plugins.datasets.celeba.IMAGES", 11)


def photographs(root: Path, images: str, marks: str, size: tuple[int, int]) -> None:
    """Black photographs with a light dot at each of the landmarks, each face another way round."""
    folder = root / "celeba"
    lines = ["11", "lefteye_x lefteye_y righteye_x"]
    for number in range(11):
        turn = min(size) * 0.4 * (1 + 0.1 * number) * np.exp(0.1j * (number - 5))
        points = np.round(turn * FACE + (size[0] + 1j * size[1]) / 2)
        x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        light = sum(np.exp(-(np.abs(x + 1j * y - p) ** 2) / 8) for p in points)
        (folder / images).mkdir(parents=True, exist_ok=True)
        pixels = np.stack([255 * np.clip(light, 0, 1)] * 3, 2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / images / f"{number:06d}.jpg", quality=100)
        numbers = " ".join(f"{p.real:4.0f} {p.imag:4.0f}" for p in points)
        lines.append(f"{number:06d}.jpg {numbers}")
    (folder / marks).write_text("\n".join(lines) + "\n")


ORIGINAL = ("img_celeba", "list_landmarks_celeba.txt", (400, 300))
ALIGNED = ("img_align_celeba", "list_landmarks_align_celeba.txt", (178, 218))


def with_originals(root: Path) -> None:
    celeba(root)
    shutil.rmtree(root / "celeba/img_align_celeba")
    photographs(root, *ORIGINAL)


def with_aligned(root: Path) -> None:
    celeba(root)
    shutil.rmtree(root / "celeba/img_align_celeba")
    photographs(root, *ALIGNED)


@pytest.mark.parametrize("photographed", [with_originals, with_aligned])
def test_faces_of_celeba_are_cut_by_their_landmarks(tmp_path: Path, photographed) -> None:
    photographed(tmp_path)
    splits = load(made("celeba", tmp_path, classes=3), tmp_path, resolution=143)
    expected = (71.5 - 0.375) * (1 + 1j) + (FACE + 0.25j) * 0.65 * 143
    y, x = np.indices((143, 143))
    images = torch.cat([splits.train.images, splits.test.images])[:, 0].numpy().astype(float)
    assert len(images) == 10
    for image in images:
        for point in expected:
            weight = image * (np.abs(x + 1j * y - point) < 12)
            centre = (weight * (x + 1j * y)).sum() / weight.sum()
            assert abs(centre - point) < 1.2  # the landmarks are whole pixels
    note = splits.notes[0]
    assert "cut out by five landmarks, not by HD-CelebA-Cropper's 68" in note


def test_cut_images_come_before_originals_and_these_before_aligned_ones(tmp_path: Path, counts: None) -> None:
    celeba(tmp_path)
    dataset = made("celeba", tmp_path, allow_partial=False)
    before = dataset.fingerprint(tmp_path)
    digest = hashlib.sha256()
    what = dataset.labelled(tmp_path)
    for path, label in zip(what.paths, what.labels, strict=True):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{label}/{path.name}\0{content}\n".encode())
    assert digest.hexdigest()[:16] == before
    photographs(tmp_path, *ORIGINAL)
    assert dataset.fingerprint(tmp_path) == before
    assert dataset.labelled(tmp_path).crop is central_square
    assert dataset.labelled(tmp_path).notes == ()
    shutil.rmtree(tmp_path / "celeba/img_align_celeba")
    photographs(tmp_path, *ALIGNED)
    assert {path.parent.name for path in dataset.labelled(tmp_path).paths} == {"img_celeba"}
    shutil.rmtree(tmp_path / "celeba/img_celeba")
    with pytest.raises(DataError, match=r"178×218 pixels, not the original photographs or images"):
        dataset.fingerprint(tmp_path)
    partial = made("celeba", tmp_path).labelled(tmp_path)
    assert {path.parent.name for path in partial.paths} == {"img_align_celeba"}


def test_fingerprint_of_celeba_knows_the_landmarks_that_are_used(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("mia_bench_plugins.datasets.celeba.CLASSES", 3)
    with_originals(tmp_path)
    dataset = made("celeba", tmp_path)
    marks = tmp_path / "celeba" / ORIGINAL[1]
    lines = marks.read_text().splitlines()

    def changed(number: int) -> str:
        edited = [*lines]
        edited[2 + number] = f"{number:06d}.jpg 1 2 3 4 5 6 7 8 9 10"
        marks.write_text("\n".join(edited))
        return dataset.fingerprint(tmp_path)

    first = dataset.fingerprint(tmp_path)
    assert changed(6) == first  # of the identity with one image, which is not used
    assert changed(7) != first


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace(" ", "\t").encode(),
        lambda text: ("\n" + text.replace(" ", "  ") + "\n\n").encode(),
        lambda text: text.encode("utf-16"),
    ],
    ids=["mark", "CRLF", "tabs", "blanks", "UTF-16"],
)
def test_lists_of_celeba_from_any_editor(tmp_path: Path, rewrite) -> None:
    with_originals(tmp_path)
    dataset = made("celeba", tmp_path)
    before = dataset.labelled(tmp_path)
    for name in ("identity_CelebA.txt", ORIGINAL[1]):
        path = tmp_path / "celeba" / name
        path.write_bytes(rewrite(path.read_text()))
    assert dataset.labelled(tmp_path) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"list_landmarks_celeba\.txt can't be read: No such file"),
        ("cut between lines", r"list_landmarks_celeba\.txt has no landmarks of '000009\.jpg'"),
        ("cut in a line", r"list_landmarks_celeba\.txt is no list of five landmarks an image: "),
        ("not a number", "is no list of five landmarks an image: .*nan"),
        ("binary", r"list_landmarks_celeba\.txt is no text"),
    ],
)
def test_damaged_landmarks_of_celeba_are_one_line(tmp_path: Path, damage: str, message: str) -> None:
    with_originals(tmp_path)
    path = tmp_path / "celeba" / ORIGINAL[1]
    text = path.read_text()
    at = text.index("000009")
    if damage == "missing":
        path.unlink()
    else:
        wrong = {
            "cut between lines": text[:at],
            "cut in a line": text[: at + 24],
            "not a number": text[:at] + "000009.jpg nan 1 2 3 4 5 6 7 8 9\n",
            "binary": "\xff",
        }[damage]
        path.write_text(wrong, encoding="latin-1")
    with pytest.raises(DataError, match=message) as raised:
        made("celeba", tmp_path).fingerprint(tmp_path)
    assert "\n" not in str(raised.value)


# --- wrong data ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "gone", "message"),
    [
        ("facescrub", "facescrub/actresses", "there is no folder"),
        ("celeba", "celeba/identity_CelebA.txt", r"identity_CelebA\.txt can't be read"),
        ("celeba", "celeba/img_align_celeba/000001.png", r"there is no .*000001\.jpg"),
        ("stanford-dogs", "stanford_dogs/test_list.mat", r"there is no .*test_list\.mat"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, kind: str, gone: str, message: str) -> None:
    dataset = made(kind, tmp_path / "d")
    path = tmp_path / "d" / gone
    path.rename(tmp_path / "away")
    with pytest.raises(DataError, match=message):
        dataset.fingerprint(tmp_path / "d")


def test_lists_that_are_none_are_refused(tmp_path: Path) -> None:
    dataset = made("stanford-dogs", tmp_path / "d")
    (tmp_path / "d/stanford_dogs/train_list.mat").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"train_list\.mat is no list"):
        load(dataset, tmp_path / "d")
    dataset = made("celeba", tmp_path / "e")
    for text in ("one two three\n", ""):
        (tmp_path / "e/celeba/identity_CelebA.txt").write_text(text)
        with pytest.raises(DataError, match="no list of images and identities"):
            dataset.fingerprint(tmp_path / "e")


def test_grey_and_unreadable_images(tmp_path: Path) -> None:
    dataset = made("facescrub", tmp_path / "d")
    faces = tmp_path / "d/facescrub/actors/faces"
    for number in range(50):
        picture(faces / "a" / f"more{number}.png", 12)
    Image.new("L", (20, 20), 10).save(faces / "a" / "0.png")
    (faces / "a" / "1.png").write_bytes(b"no image")
    splits = load(dataset, tmp_path / "d")
    assert len(splits.train) + len(splits.test) == 79
    assert "a/1.png" in splits.notes[0]


def test_a_class_without_training_images_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", 1)
    what = Labelled([tmp_path / "0.png"] * 20, [0] * 20, ["there", "absent"])
    with pytest.raises(DataError, match="'absent' has no training image"):
        load(Given(what, split_seed=1), tmp_path)
