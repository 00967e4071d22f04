"""FaceScrub, CelebA and Stanford Dogs on small made trees of the same layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from mia_bench.api.options import parse_options
from mia_bench.data.classes import Labelled, LabelledDataset, central_square, random_splits
from mia_bench.errors import DataError
from mia_bench_plugins.datasets.celeba import CelebA
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
    assert made("stanford-dogs", tmp_path / "d").crop(wide).size == (40, 20)
    assert central_square(wide).size == (20, 20)


def test_the_split_is_numpys_shuffle_of_all_images(tmp_path: Path) -> None:
    """As the authors draw it: ``np.random.seed(42)``, shuffle, the first nine tenths."""
    paths = []
    for number in range(30):
        picture(tmp_path / f"{number:02d}.png", 8 * number)
        paths.append(tmp_path / f"{number:02d}.png")
    what = Labelled(paths, [i % 2 for i in range(30)], ["even", "odd"])
    settings = {"resolution": 8, "seed": 42, "progress": lambda *what: None}
    settings["scratch"] = tmp_path / "scratch"
    splits = random_splits(what, central_square, held_out=0.0, **settings)
    order = list(range(30))
    np.random.seed(42)  # noqa: NPY002
    np.random.shuffle(order)  # noqa: NPY002
    shades = [int(image[0, 0, 0]) for image in splits.train.images]
    assert shades == [8 * number for number in order[:27]]
    assert [int(i[0, 0, 0]) for i in splits.test.images] == [8 * number for number in order[27:]]
    tuning = random_splits(what, central_square, held_out=0.1, **settings)
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


def test_the_published_cut_of_celeba_is_not_the_papers(tmp_path: Path, monkeypatch) -> None:
    celeba(tmp_path)
    for path in (tmp_path / "celeba/img_align_celeba").iterdir():
        picture(path, 5, (178, 218))
    module = "mia_bench_plugins.datasets.celeba"
    monkeypatch.setattr(f"{module}.IDENTITIES", 4)
    monkeypatch.setattr(f"{module}.IMAGES", 11)
    with pytest.raises(DataError, match="178×218 pixels, not images cut by HD-CelebA-Cropper"):
        made("celeba", tmp_path, allow_partial=False).fingerprint(tmp_path)
    assert made("celeba", tmp_path).fingerprint(tmp_path)


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
    (tmp_path / "e/celeba/identity_CelebA.txt").write_text("one two three\n")
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
        random_splits(
            what,
            central_square,
            resolution=8,
            seed=1,
            held_out=0,
            progress=lambda *what: None,
            scratch=tmp_path / "scratch",
        )
