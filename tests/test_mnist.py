"""MNIST: its split, made files of its layout, the real ones, and the independent judge."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mia_bench.api.classifier import Activations, Classifier
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.metric import AttackEvidence
from mia_bench.engine.stages import compute_evaluation_model
from mia_bench.errors import DataError
from mia_bench.protocol.evaluation import judging_images
from mia_bench_plugins.datasets.mnist import FILES, MNIST
from mia_bench_plugins.metrics.independent_judge import IndependentJudge

CPU = torch.device("cpu")


def write_half(folder: Path, name: str, images: np.ndarray, labels: np.ndarray) -> None:
    count, height, width = images.shape
    header = struct.pack(">IIII", 0x803, count, height, width)
    (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">II", 0x801, count)
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Digits whose pixels say which one they are: digit d has d rows of white in its noise."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, each in (("train", 12), ("t10k", 6)):
        labels = np.random.default_rng(len(name)).permutation(np.repeat(np.arange(10), each))
        draws = np.random.default_rng(each)
        images = draws.integers(0, 100, (len(labels), 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[: 2 * label] = 255
        write_half(folder, name, images, labels.astype(np.uint8))
    return tmp_path


def load(root: Path, *, seed: int = 1, resolution: int = 32, **options: int) -> Splits:
    dataset = MNIST(MNIST.Options(**{"per_class": 10, "public_per_class": 8, **options}))
    return dataset.load(root, resolution=resolution, seed=seed, progress=lambda *_: None, scratch=root)


def digits(part: ImageSet) -> list[int]:
    """What the pixels of 32-pixel images say."""
    rows = (part.images[:, 0, 2:30, 16] == 255).sum(1)
    return (rows // 2).tolist()


def test_low_digits_are_private_high_ones_public(made: Path) -> None:
    splits = load(made)
    assert splits.class_names == ("0", "1", "2", "3", "4")
    private = [splits.train, splits.validation, splits.test]
    assert sum(map(len, private)) == 50
    assert splits.judging is not None
    for part in (*private, splits.judging, splits.public):
        assert digits(part) == part.labels.tolist()
    assert set(splits.public.labels.tolist()) == {5, 6, 7, 8, 9}
    assert len(splits.public) == 40
    assert len(splits.decoys) == 0


def test_the_judges_images_are_the_official_test_half(made: Path) -> None:
    splits = load(made)
    assert splits.judging is not None
    assert splits.judging.labels.bincount().tolist() == [6] * 5
    others = torch.cat([splits.train.images, splits.validation.images, splits.test.images])
    seen = {image.numpy().tobytes() for image in others}
    assert all(image.numpy().tobytes() not in seen for image in splits.judging.images)


def test_images_are_padded_and_have_three_equal_channels(made: Path) -> None:
    images = load(made).train.images
    assert images.shape[1:] == (3, 32, 32)
    assert images.dtype == torch.uint8
    assert torch.equal(images[:, 0], images[:, 2])
    assert int(images[:, :, :2].max()) == int(images[:, :, :, -2:].max()) == 0
    assert load(made, resolution=16).train.images.shape[1:] == (3, 16, 16)


def test_a_seed_fixes_the_choice(made: Path) -> None:
    one, again, other = (load(made, seed=seed).train.images for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(made: Path, name: str) -> None:
    (made / "MNIST" / "raw" / name).unlink()
    with pytest.raises(DataError, match=f"there is no file .*{name}"):
        MNIST().fingerprint(made)


def test_a_truncated_file_is_one_line(made: Path) -> None:
    path = made / "MNIST" / "raw" / FILES[0]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="can't be read") as error:
        load(made)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("packed", [FILES[:1], FILES])
def test_packed_files_are_the_same_data(made: Path, packed: tuple[str, ...]) -> None:
    plain, fingerprint = load(made), MNIST().fingerprint(made)
    for name in packed:
        path = made / "MNIST" / "raw" / name
        path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert MNIST().fingerprint(made) == fingerprint
    again = load(made)
    assert torch.equal(again.train.images, plain.train.images)
    assert torch.equal(again.public.labels, plain.public.labels)


def test_processed_files_are_never_read(made: Path) -> None:
    plain = load(made)
    processed = made / "MNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(120, 28, 28, dtype=torch.uint8), torch.arange(120) % 10), processed / name)
    assert torch.equal(load(made).train.images, plain.train.images)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-5], "bytes, not"),
        (lambda data: data + b"more", "bytes, not"),
        (lambda data: b"\0\0\r" + data[3:], "no IDX file of bytes in 3 dimensions"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "bytes, not"),
        (lambda data: b"", "no IDX file"),
    ],
)
def test_damaged_files_are_one_line(made: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path = made / "MNIST" / "raw" / FILES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as error:
        load(made)
    assert FILES[0] in str(error.value)
    assert str(made) not in str(error.value)


def test_damaged_packed_files_are_one_line(made: Path) -> None:
    path = made / "MNIST" / "raw" / FILES[0]
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    for content in (packed[:-20], b"no gzip", packed[:40] + b"\xff" * 40 + packed[80:]):
        path.with_name(f"{path.name}.gz").write_bytes(content)
        with pytest.raises(DataError, match=f"{path.name}.gz can't be read"):
            load(made)


def test_labels_of_other_images_are_refused(made: Path) -> None:
    path = made / "MNIST" / "raw" / FILES[1]
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack(">I", 100) + data[8:108])
    with pytest.raises(DataError, match=r"120 images, .* 100 labels"):
        load(made)


def test_outline_counts_what_is_loaded(made: Path) -> None:
    dataset = MNIST(MNIST.Options(per_class=10, public_per_class=8))
    splits = load(made)
    assert splits.judging is not None
    names = ("train", "validation", "test", "public", "judging")
    expected = {name: len(getattr(splits, name)) for name in names}
    assert dataset.outline(made, resolution=32).parts == expected


def test_a_digit_that_is_not_there_is_named(made: Path) -> None:
    images = np.zeros((4, 28, 28), dtype=np.uint8)
    write_half(made / "MNIST" / "raw", "train", images, np.array([0, 1, 2, 4], dtype=np.uint8))
    with pytest.raises(DataError, match="there is no 3"):
        load(made)


def test_the_official_files(real_data: Path) -> None:
    splits = MNIST().load(real_data, resolution=32, seed=2024, progress=lambda *_: None, scratch=real_data)
    assert splits.judging is not None
    assert len(splits.judging) == 5139
    assert splits.train.labels.bincount().tolist() == [750] * 5
    assert splits.validation.labels.bincount().tolist() == [100] * 5
    assert splits.test.labels.bincount().tolist() == [150] * 5
    assert len(splits.public) == 10_000


# --- the judge -----------------------------------------------------------------------------------


class Pixels(Classifier):
    """Logits are the first pixels."""

    def activations(self, images: torch.Tensor) -> Activations:
        flat = images.flatten(1)
        return Activations(flat[:, :7], flat[:, :2], ())


def evidence(says: list[int], labels: list[int], judge: Classifier | None) -> AttackEvidence:
    images = torch.zeros(len(says), 3 * 16)
    images[torch.arange(len(says)), torch.tensor(says)] = 1
    part = ImageSet(images.view(-1, 3, 4, 4)[:2], torch.tensor(labels[:2]))
    names = tuple("abcdefg")
    return AttackEvidence(
        images=images.view(-1, 3, 4, 4),
        labels=torch.tensor(labels),
        target=Pixels(),
        draws=1,
        splits=Splits(part, part, part, part, part, names),
        evaluation_model=Pixels(),
        judge=judge,
        gallery=None,
        embed=None,
        missing={},
        device=CPU,
    )


def test_judge_counts_first_and_first_five() -> None:
    found = IndependentJudge().compute(evidence([0, 1, 2, 6], [0, 3, 2, 5], Pixels()))
    values = {name: m.values.tolist() for name, m in found.items() if not isinstance(m, str)}
    assert values["id_acc1"] == [1, 0, 1, 0]
    assert values["id_acc5"][0] == values["id_acc5"][2] == 1
    assert values["id_acc1_ceiling"] == [1, 0]


def test_without_a_judge_every_number_is_null_with_the_reason() -> None:
    found = IndependentJudge().compute(evidence([0], [0], None))
    assert set(found.values()) == {"the track has no independent judge"}


@pytest.mark.thorough
@pytest.mark.slow
def test_mnist_end_to_end_on_made_digits(cli: Callable, made: Path, monkeypatch, tmp_path: Path) -> None:
    options = ("mnist.per_class=10", "mnist.public_per_class=8", "ppa.search=60", "ppa.steps=2",
               "ppa.views=2", "eigenfaces.components=8")  # fmt: skip
    words = [word for option in options for word in ("-o", option)]
    done = cli("run", "--track", "mnist", "--defense", "none", "--attack", "ppa", "--data", made,
               "--device", "cpu", "--format", "json", *words)  # fmt: skip
    assert done.code == 0, done.err
    (record,) = done.records
    assert record["metrics"]["id_acc1"]["n"] == 100
    assert record["metrics"]["id_acc1_ceiling"]["n"] == 10
    for name in ("attack_acc5", "id_acc5"):
        assert record["metrics"][name] is None
        assert record["notes"][name] == "top 5 of 5 classes says nothing"
    assert list((tmp_path / "store" / "artifacts" / "judge").iterdir())


@pytest.mark.parametrize("role", ["judge", "evaluator"])
def test_the_judge_is_trained_on_images_of_its_own(monkeypatch, made: Path, role: str) -> None:
    splits, seen = load(made), []
    monkeypatch.setattr(
        "mia_bench.engine.stages.train_evaluation_model",
        lambda architecture, splits, images, *rest, **more: (
            seen.append((images, more["role"])) or SimpleNamespace(model=torch.nn.Linear(1, 1), losses=[])
        ),
    )
    stage = SimpleNamespace(name=role, make=lambda part: part, parts={"recipe": None})
    workspace = SimpleNamespace(input=lambda stage, part: splits, context=lambda stage: None)
    compute_evaluation_model(stage, workspace)
    ((images, told),) = seen
    assert images is (splits.judging if role == "judge" else splits.train)
    assert told == role


def test_data_without_images_for_a_judge_are_refused() -> None:
    part = ImageSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.arange(2))
    splits = Splits(part, part, part, part, part, ("a", "b"))
    with pytest.raises(DataError, match="keeps no images for an independent judge"):
        judging_images(splits)
