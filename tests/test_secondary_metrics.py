"""Density, coverage, precision, recall, kernel and Fréchet distance, and knowledge extraction.

Compared with independent libraries on random and degenerate sets.
"""

import contextlib
import dataclasses
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from torch import Tensor, nn
from torchmetrics.image.kid import poly_mmd

from mia_bench.api.classifier import Activations, Classifier
from mia_bench.api.dataset import ImageSet
from mia_bench.api.metric import AttackEvidence, mean
from mia_bench.frechet import frechet_distance
from mia_bench.testing import world as toy
from mia_bench_plugins.metrics import fid
from mia_bench_plugins.metrics.density_coverage import (
    DensityCoverage,
    density_coverage,
    precision_recall,
)
from mia_bench_plugins.metrics.face_distance import FaceDistance
from mia_bench_plugins.metrics.kid import KernelDistance, squared_discrepancy
from mia_bench_plugins.metrics.knowledge_extraction import KnowledgeExtraction, reinitialised

CPU = torch.device("cpu")


def value(measurement) -> float:
    return measurement.statistic(measurement.values)


def by_prdc(real: Tensor, made: Tensor, k: int) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        return compute_prdc(real.numpy(), made.numpy(), nearest_k=k)


def agree(real: Tensor, made: Tensor, k: int) -> None:
    expected = by_prdc(real, made, k)
    precision, recall = precision_recall(real, made, k)
    density, coverage = density_coverage(real, made, k)
    found = {"precision": precision, "recall": recall, "density": density, "coverage": coverage}
    for name, samples in found.items():
        assert float(samples.double().mean()) == pytest.approx(expected[name]), name


@given(seed=st.integers(0, 10_000), shift=st.floats(0, 3), k=st.integers(1, 6))
@settings(deadline=None, max_examples=20)
def test_spheres_equal_prdc(seed: int, shift: float, k: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    real = torch.randn(17, 4, generator=draws, dtype=torch.float64)
    agree(real, torch.randn(23, 4, generator=draws, dtype=torch.float64) + shift, k)


def test_spheres_of_degenerate_sets_equal_prdc() -> None:
    draws = torch.Generator().manual_seed(0)
    spread, point = torch.randn(16, 3, generator=draws, dtype=torch.float64), torch.ones(16, 3).double()
    twice = torch.cat([spread[:8], spread[:8]])
    for real, made in [(point, point), (spread, point), (point, spread), (spread, spread), (twice, spread)]:
        agree(real, made, 3)
    precision, recall = precision_recall(point, point, 3)
    assert not precision.any()  # a sphere of radius 0 holds nothing
    assert not recall.any()
    density, coverage = density_coverage(spread, spread, 5)
    assert float(density.mean()) > 0.9
    assert coverage.all()


class Flat(Classifier):
    """Features are the pixels."""

    def activations(self, images: Tensor) -> Activations:
        flat = images.flatten(1)
        return Activations(flat[:, :4], flat, ())


def drawn(labels: Tensor, seed: int) -> ImageSet:
    """Noise round a colour of the class."""
    draws = torch.Generator().manual_seed(seed)
    colours = torch.rand(9, 3, 1, 1, generator=torch.Generator().manual_seed(7))
    noise = 0.1 * torch.randn(len(labels), 3, 2, 2, generator=draws)
    return ImageSet(((colours[labels] + noise).clamp(0, 1) * 255).to(torch.uint8), labels)


def evidence(train: ImageSet, made: ImageSet, model: Classifier | None = None, **more) -> AttackEvidence:
    splits = dataclasses.replace(toy.world().splits, train=train, test=more.pop("test", train))
    model = model or Flat()
    given = {"draws": 1, "judge": None, "gallery": None, "embed": None, "missing": {}, "device": CPU, **more}
    return AttackEvidence(made.images, made.labels, model, splits=splits, evaluation_model=model, **given)


def test_density_and_coverage_are_means_over_classes_of_prdc() -> None:
    train = drawn(torch.tensor([0] * 16 + [1] * 40 + [2] * 5), 0)  # the last class is not attacked
    made = drawn(torch.arange(2).repeat_interleave(18), 1)
    found = DensityCoverage().compute(evidence(train, made))
    for name, k in (("density", 5), ("coverage", 5), ("precision", 3), ("recall", 3)):
        by_class = [
            by_prdc(
                train.images[train.labels == label].flatten(1).double() / 255,
                made.images[made.labels == label].flatten(1).double() / 255,
                k,
            )[name]
            for label in (0, 1)
        ]
        assert value(found[name]) == pytest.approx(np.mean(by_class), abs=1e-6), name
        assert set(found[name].groups) == {0, 1}
        assert found[name].statistic is mean
    alone = DensityCoverage().compute(evidence(train, ImageSet(made.images[:18], made.labels[:18])))
    assert set(alone["coverage"].groups) == {0}


@pytest.mark.parametrize(("real", "made", "what"), [(16, 15, "15 reconstructions"), (15, 16, "15 training")])
def test_few_images_have_no_density_and_no_coverage(real: int, made: int, what: str) -> None:
    labels = torch.arange(2).repeat_interleave
    found = DensityCoverage().compute(evidence(drawn(labels(real), 0), drawn(labels(made), 1)))
    assert len(found) == 4
    assert all(what in reason for reason in found.values())


@given(seed=st.integers(0, 10_000), shift=st.floats(0, 2))
@settings(deadline=None, max_examples=20)
def test_the_kernel_distance_equals_torchmetrics(seed: int, shift: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, 12, 5, generator=draws, dtype=torch.float64)
    expected = float(poly_mmd(first, second + shift))
    assert squared_discrepancy(first.numpy(), (second + shift).numpy()) == pytest.approx(expected)


def test_the_kernel_distance_of_degenerate_sets_equals_torchmetrics() -> None:
    draws = torch.Generator().manual_seed(0)
    spread, point = torch.randn(16, 3, generator=draws, dtype=torch.float64), torch.ones(16, 3).double()
    twice, nothing = torch.cat([spread[:8], spread[:8]]), torch.zeros(16, 3).double()
    for first, second in [(point, point), (spread, point), (point, nothing), (twice, spread), (twice, twice)]:
        expected = float(poly_mmd(first, second))
        assert squared_discrepancy(first.numpy(), second.numpy()) == pytest.approx(expected, abs=1e-12)


def test_the_kernel_distance_is_unbiased_and_symmetric() -> None:
    rng = np.random.default_rng(0)
    found = [squared_discrepancy(rng.normal(size=(5, 3)), rng.normal(size=(9, 3))) for _ in range(3000)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))
    assert min(found) < 0
    first, second = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
    assert squared_discrepancy(first, second) == pytest.approx(squared_discrepancy(second, first))
    same = np.ones((4, 3))
    assert squared_discrepancy(same, same) == pytest.approx(0)


def test_the_kernel_distance_is_to_the_attacked_classes_only() -> None:
    train, made = drawn(torch.arange(90) % 3, 0), drawn(torch.arange(40) % 2, 1)
    found = KernelDistance().compute(evidence(train, made))["kid"]
    expected = squared_discrepancy(
        made.images.flatten(1).double().numpy() / 255,
        train.images[train.labels < 2].flatten(1).double().numpy() / 255,
    )
    assert value(found) == pytest.approx(expected, abs=1e-6)
    assert not KernelDistance.quantities["kid"].interval
    lonely = KernelDistance().compute(evidence(train, ImageSet(made.images[:1], made.labels[:1])))
    assert lonely["kid"] == "it needs two reconstructions and two training images"


def test_fid_is_null_without_weights(tmp_path) -> None:
    train, made = drawn(torch.arange(90) % 3, 0), drawn(torch.arange(40) % 2, 1)
    found = fid.FrechetDistance().compute(evidence(train, made, weights=tmp_path))["fid"]
    assert found == f"{fid.FILE} was not found: put it into the folder that MIA_BENCH_WEIGHTS names"


def test_fid_is_the_distance_of_the_networks_features(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network of one layer, which sees images of 299 pixels from -1 to 1."""
    (tmp_path / fid.FILE).touch()
    ranges = []

    class Tiny(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            ranges.append((images.shape[2:], float(images.min()), float(images.max())))
            return images.mean((2, 3))

    monkeypatch.setattr(fid, "check_hash", lambda path, file: path)
    monkeypatch.setattr(fid, "inception", lambda path, device: Tiny())
    train, made = drawn(torch.arange(90) % 3, 0), drawn(torch.arange(40) % 2, 1)
    found = fid.FrechetDistance().compute(evidence(train, made, weights=tmp_path))["fid"]
    real = train.images[train.labels < 2]
    features = [2 * (one.float() / 255).mean((2, 3)) - 1 for one in (made.images, real)]
    assert value(found) == pytest.approx(frechet_distance(*features), rel=1e-3)
    assert all(shape == (299, 299) for shape, _, _ in ranges)
    assert min(low for _, low, _ in ranges) < -0.3
    assert max(high for _, _, high in ranges) > 0.3


def test_inception_has_pooled_features(tmp_path) -> None:
    import torchvision

    network = torchvision.models.inception_v3(weights=None, init_weights=False)
    torch.save(network.state_dict(), tmp_path / fid.FILE)
    found = fid.inception_features(
        fid.inception(tmp_path / fid.FILE, CPU), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), CPU
    )
    assert found.shape == (1, 2048)


# --- knowledge extraction ------------------------------------------------------------------------


def test_the_face_distance_is_to_the_nearest_training_image_of_the_class() -> None:
    train = drawn(torch.tensor([2, 0, 1, 1, 0, 2, 0]), 0)
    made = drawn(torch.tensor([1, 1, 0]), 1)
    asked = evidence(train, made, embed=lambda images: images.flatten(1))
    rows, theirs = (part.images.double().flatten(1) / 255 for part in (made, train))
    wanted = [
        min(float((row - other).square().sum()) for other in theirs[train.labels == label])
        for row, label in zip(rows, made.labels, strict=True)
    ]
    found = FaceDistance().compute(asked)["delta_face"]
    np.testing.assert_allclose(found.values, wanted, rtol=1e-5)
    assert found.groups.tolist() == [1, 1, 0]


def test_a_student_knows_nothing_before_it_is_trained() -> None:
    model = toy.world().evaluation_model(CPU)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        student, again = reinitialised(model), reinitialised(model)
    for (name, old), new, other in zip(
        model.named_parameters(), student.parameters(), again.parameters(), strict=True
    ):
        assert new.requires_grad
        assert not old.requires_grad
        if new.dim() > 1:
            assert not torch.equal(new, old), name
            assert not torch.equal(new, other), name
    assert all(
        torch.equal(buffer, torch.zeros_like(buffer))
        for name, buffer in student.named_buffers()
        if "running_mean" in name
    )


def test_a_layer_that_can_not_be_drawn_anew_is_a_reason() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    model = toy.world().evaluation_model(CPU)
    model.extra = Own()
    assert reinitialised(model) is None
    train = toy.world().splits.train
    found = KnowledgeExtraction().compute(evidence(train, train, model))
    assert set(found.values()) == {"a layer of the evaluation model can't be initialised anew"}


def test_a_student_learns_from_what_shows_the_classes_and_not_from_noise() -> None:
    splits = toy.world().splits
    model, options = toy.world().evaluation_model(CPU), KnowledgeExtraction.Options
    metric = KnowledgeExtraction(options(epochs=30, batch_size=8, learning_rate=0.01, shift=0))
    shown = metric.compute(evidence(splits.train, splits.train, model, test=splits.test))
    assert value(shown["knowledge_extraction_train"]) > 0.95
    assert value(shown["knowledge_extraction_test"]) > 0.9
    noise = torch.randint(256, splits.train.images.shape, generator=torch.Generator().manual_seed(0))
    made = ImageSet(noise.to(torch.uint8), splits.train.labels)
    blind = metric.compute(evidence(splits.train, made, model, test=splits.test))
    assert value(blind["knowledge_extraction_test"]) < 0.6
    state = torch.get_rng_state()
    again = metric.compute(evidence(splits.train, splits.train, model, test=splits.test))
    assert torch.equal(state, torch.get_rng_state())
    for name, measurement in shown.items():
        assert again[name].values.tolist() == measurement.values.tolist()


def test_a_student_is_tested_on_the_attacked_classes() -> None:
    splits = toy.world().splits
    made = ImageSet(
        splits.train.images[splits.train.labels < 2], splits.train.labels[splits.train.labels < 2]
    )
    metric = KnowledgeExtraction(KnowledgeExtraction.Options(epochs=1))
    found = metric.compute(evidence(splits.train, made, toy.world().evaluation_model(CPU), test=splits.test))
    for name, part in (("test", splits.test), ("train", splits.train)):
        tested = found[f"knowledge_extraction_{name}"]
        assert tested.groups.tolist() == part.labels[part.labels < 2].tolist()
    nothing = metric.compute(evidence(splits.train, toy.without(made), toy.world().evaluation_model(CPU)))
    assert set(nothing.values()) == {"there are no reconstructions to learn from"}
