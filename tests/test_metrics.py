"""Metrics against brute force, closed forms and torchmetrics."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

from mia_bench import AttackMetric, Measurement, Quantity
from mia_bench.api.classifier import Activations, Classifier
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.images import to_float
from mia_bench.api.metric import AttackEvidence, Gallery, Recorded, TargetEvidence
from mia_bench.plugins import host
from mia_bench.protocol.context import Context
from mia_bench.protocol.gallery import doubts
from mia_bench.protocol.measurement import Measured, measure_reconstructions, measure_target
from mia_bench.protocol.target import Target
from mia_bench.provenance import HOST
from mia_bench.statistics import estimate
from mia_bench.track import load_track
from mia_bench_plugins.metrics.evaluation_classifier import (
    EvaluationClassifier,
    nearest_squared_distances,
)
from mia_bench_plugins.metrics.identification import Identification, bits, identify, ranks
from mia_bench_plugins.metrics.independent_judge import IndependentJudge
from mia_bench_plugins.metrics.target_confidence import TargetConfidence
from mia_bench_plugins.metrics.utility import Utility, expected_calibration_error

CPU = torch.device("cpu")


class Pixels(Classifier):
    """Logits and features are the first pixels: every answer can be written by hand."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def activations(self, images: torch.Tensor) -> Activations:
        flat = images.flatten(1)
        return Activations(10 * flat[:, : self.classes], flat[:, :2], ())


def images_for(logit_rows: list[list[float]]) -> torch.Tensor:
    flat = torch.zeros(len(logit_rows), 3 * 4 * 4)
    for row, values in enumerate(logit_rows):
        flat[row, : len(values)] = torch.tensor(values)
    return flat.view(-1, 3, 4, 4)


def one_hot_images(labels: list[int], classes: int) -> torch.Tensor:
    return images_for(F.one_hot(torch.tensor(labels), classes).float().tolist())


def splits(classes: int) -> Splits:
    labels = list(range(classes))
    part = ImageSet(one_hot_images(labels, classes), torch.tensor(labels))
    names = tuple(f"p{i}" for i in labels)
    return Splits(part, part, part, part, part, names)


def evidence(images: torch.Tensor, labels: list[int], classes: int, **more) -> AttackEvidence:
    return AttackEvidence(
        images=images,
        labels=torch.tensor(labels),
        target=more.pop("target", Pixels(classes)),
        draws=1,
        splits=splits(classes),
        evaluation_model=Pixels(classes),
        judge=more.pop("judge", None),
        gallery=more.pop("gallery", None),
        embed=more.pop("embed", None),
        missing=more.pop("missing", {"gallery": "no encoder"}),
        device=CPU,
    )


def value(measurement) -> float:
    return measurement.statistic(measurement.values)


# --- calibration -----------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_ece_equals_torchmetrics(seed: int) -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    draws = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(300, 5, generator=draws).mul(2).softmax(1)
    labels = torch.randint(5, (300,), generator=draws)
    confidence, predicted = probabilities.max(1)
    rows = np.stack([confidence.double().numpy(), (predicted == labels).double().numpy()], 1)
    expected = multiclass_calibration_error(probabilities, labels, num_classes=5, n_bins=15)
    assert expected_calibration_error(rows) == pytest.approx(float(expected), abs=1e-5)


def test_ece_of_a_sure_and_always_wrong_classifier_is_one() -> None:
    assert expected_calibration_error(np.array([[1.0, 0.0]] * 9)) == 1.0


def calibration_sample(rng: np.random.Generator, size: int, overconfidence: float) -> np.ndarray:
    """Rows (confidence, correct) of a classifier whose accuracy is below its confidence by a constant."""
    confidence = 0.05 + 0.95 * rng.beta(4, 1, size)
    return np.stack([confidence, rng.random(size) < confidence - overconfidence], 1).astype(float)


@pytest.mark.slow
def test_ece_overstates_the_error_the_more_the_fewer_images() -> None:
    """What its description says, and why it has no interval."""
    rng = np.random.default_rng(0)
    true = 0.025
    means = [
        np.mean([expected_calibration_error(calibration_sample(rng, size, true)) for _ in range(200)])
        for size in (320, 1280, 5120, 100_000)
    ]
    over = [found - true for found in means]
    assert over == sorted(over, reverse=True)
    assert 0.025 < over[0] < 0.045
    assert over[2] < 0.005
    assert abs(over[3]) < 0.001
    covered = 0
    for _ in range(40):
        sample = calibration_sample(rng, 320, true)
        found = estimate(Measurement(sample, np.repeat(np.arange(40), 8), expected_calibration_error))
        covered += found.interval[0] <= true <= found.interval[1]
    assert covered / 40 < 0.5


def test_ece_is_measured_without_an_interval_and_the_others_with_one() -> None:
    made = Target(None, Pixels(3), stochastic=False)
    context = Context(4, 0, CPU)
    found = measure_target({"metric 'utility'": Utility()}, made, splits(3), context).values
    ece = found.pop("ece")
    assert (ece.low, ece.high) == (None, None)
    assert ece.value == value(Utility().compute(TargetEvidence(Pixels(3), splits(3), 1, CPU))["ece"])
    assert all(one.interval for one in found.values())
    assert "biased upwards, the more the fewer images" in Utility.quantities["ece"].description


def test_utility_has_the_ece_of_the_test_images() -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    draws = torch.Generator().manual_seed(0)
    test = images_for(torch.rand(60, 3, generator=draws).tolist())
    labels = torch.randint(3, (60,), generator=draws)
    made = dataclasses.replace(splits(3), test=ImageSet(test, labels))
    found = Utility().compute(TargetEvidence(Pixels(3), made, 1, CPU))["ece"]
    probabilities = Pixels(3)(to_float(test)).softmax(1)
    wanted = multiclass_calibration_error(probabilities, labels, num_classes=3, n_bins=15)
    assert value(found) == pytest.approx(float(wanted), abs=1e-5)
    confidence, right = probabilities.max(1).values, probabilities.argmax(1) == labels
    assert abs(value(found) - abs(float(confidence.mean() - right.float().mean()))) > 0.01


def test_utility_counts_right_answers() -> None:
    test = ImageSet(one_hot_images([0, 1, 1, 2], 3), torch.tensor([0, 1, 2, 2]))
    made = splits(3)
    made = Splits(made.train, made.validation, test, made.public, made.decoys, made.class_names)
    found = Utility().compute(TargetEvidence(Pixels(3), made, 1, CPU))
    assert value(found["test_accuracy"]) == 0.75
    assert value(found["train_accuracy"]) == 1.0
    assert value(found["validation_accuracy"]) == 1.0
    none = ImageSet(test.images[:0], test.labels[:0])
    kept = Splits(made.train, none, test, made.public, made.decoys, made.class_names)
    found = Utility().compute(TargetEvidence(Pixels(3), kept, 1, CPU))
    assert found["validation_accuracy"] == "the data set keeps no validation images"


class Coin(nn.Module):
    """Answers class 0 or class 1 at random."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 100 * F.one_hot(torch.randint(2, (len(images),)), 2).float()


def test_random_targets_are_averaged_over_draws() -> None:
    torch.manual_seed(0)
    found = TargetConfidence().compute(evidence(one_hot_images([0] * 50, 2), [0] * 50, 2, target=Coin()))
    assert set(found["target_confidence"].values.round(6)) == {0.0, 1.0}
    many = AttackEvidence(
        **{**vars(evidence(one_hot_images([0] * 50, 2), [0] * 50, 2, target=Coin())), "draws": 400}
    )
    averaged = TargetConfidence().compute(many)["target_confidence"].values
    assert np.abs(averaged - 0.5).max() < 0.15


# --- evaluation classifier -------------------------------------------------------------------


def test_attack_accuracy_counts_first_and_first_five() -> None:
    classes = 8
    descending = [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    images = images_for([descending] * 3)
    found = EvaluationClassifier().compute(evidence(images, [0, 4, 5], classes))
    assert list(found["attack_acc1"].values) == [1, 0, 0]
    assert list(found["attack_acc5"].values) == [1, 1, 0]
    assert value(found["attack_acc1_ceiling"]) == 1.0


@pytest.mark.parametrize("classes", [2, 5])
def test_top_five_of_five_or_fewer_classes_is_null_with_a_reason(classes: int) -> None:
    found = EvaluationClassifier().compute(evidence(one_hot_images([0], classes), [0], classes))
    assert isinstance(found["attack_acc5"], str)
    assert str(classes) in found["attack_acc5"]


def test_delta_is_the_squared_distance_to_the_nearest_of_the_class() -> None:
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(40, 6, generator=draws)
    references = torch.randn(60, 6, generator=draws)
    labels = torch.randint(4, (40,), generator=draws)
    reference_labels = torch.arange(60) % 4
    expected = [
        min(
            float(((f - r).double() ** 2).sum())
            for r, rl in zip(references, reference_labels, strict=True)
            if rl == label
        )
        for f, label in zip(features, labels, strict=True)
    ]
    found = nearest_squared_distances(features, labels, references, reference_labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_delta_eval_of_a_training_image_is_zero() -> None:
    found = EvaluationClassifier().compute(evidence(one_hot_images([0, 1, 0], 6), [0, 1, 1], 6))
    assert list(found["delta_eval"].values) == [0, 0, 2]


# --- identification --------------------------------------------------------------------------


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_ranks_equal_a_sorted_search(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    gallery = F.normalize(torch.randn(20, 5, generator=draws), dim=1)
    queries = F.normalize(torch.randn(9, 5, generator=draws), dim=1)
    labels = torch.randint(20, (9,), generator=draws)
    order = (queries @ gallery.T).argsort(1, descending=True)
    expected = (order == labels[:, None]).nonzero()[:, 1] + 1
    assert ranks(queries, labels, gallery).tolist() == expected.tolist()


def test_a_constant_embedding_does_not_win() -> None:
    gallery = torch.tensor([[1.0, 0.0]] * 10)
    assert ranks(gallery[:3], torch.tensor([0, 1, 2]), gallery).tolist() == [10, 10, 10]


def gallery_of(private: int, decoys: int, dimensions: int = 8, seed: int = 0) -> Gallery:
    draws = torch.Generator().manual_seed(seed)
    entries = F.normalize(torch.randn(private + decoys, dimensions, generator=draws), dim=1)
    return Gallery(entries[:private], entries[private:], entries[:private], torch.ones(30))


def test_bits_of_identity_by_hand() -> None:
    assert bits(torch.tensor([1, 2, 3, 8]), 8).tolist() == pytest.approx([3, 2, 3 - math.log2(3), 0])


@pytest.mark.parametrize("size", [60, 1060, 100_000])
def test_a_uniform_rank_gives_1_44_bits(size: int) -> None:
    """The mean over r = 1 … G is log2(G) - log2(G!) / G, by Stirling log2(e) - log2(2 pi G) / 2G."""
    chance = float(bits(torch.arange(1, size + 1), size).mean())
    assert chance == pytest.approx(math.log2(size) - math.lgamma(size + 1) / math.log(2) / size, rel=1e-9)
    assert chance == pytest.approx(math.log2(math.e) - math.log2(2 * math.pi * size) / (2 * size), abs=1e-4)
    assert chance == pytest.approx(math.log2(math.e), abs=math.log2(size) / size)


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=10)
def test_identification_equals_scipy(seed: int) -> None:
    """Bits by SciPy's ranks, the z-score by NumPy, the share below by scikit-learn's area under the curve."""
    gallery, draws = gallery_of(7, 20, seed=seed), torch.Generator().manual_seed(seed + 1)
    rows, labels = (
        F.normalize(torch.randn(9, 8, generator=draws), dim=1),
        torch.randint(7, (9,), generator=draws),
    )
    found = identify(rows, labels, gallery)
    everybody = torch.cat([gallery.private, gallery.decoys]).double().numpy()
    for row, label, *numbers in zip(
        rows.double().numpy(),
        labels.tolist(),
        *(found[n].values for n in ("id_bits", "id_z", "id_auc")),
        strict=True,
    ):
        cosine = everybody @ row
        rank = scipy.stats.rankdata(-cosine)[label]
        truth = np.arange(27) == label
        z = (cosine[label] - cosine[~truth].mean()) / cosine[~truth].std()
        assert numbers == pytest.approx([math.log2(27 / rank), z, roc_auc_score(truth, cosine)])


def test_entries_that_are_equally_similar_count_as_ahead_and_half_below() -> None:
    same = Gallery(*(torch.tensor([[1.0, 0.0]] * n) for n in (6, 4, 6)), torch.ones(30))
    found = identify(same.private[:2], torch.tensor([0, 1]), same)
    assert list(found["id_bits"].values) == [0, 0]
    assert list(found["id_auc"].values) == [0.5, 0.5]
    assert np.isnan(found["id_z"].values).all()  # never a number: nothing stands out where all are equal


def test_a_gallery_of_one_has_neither_z_score_nor_share_below() -> None:
    found = identify(torch.eye(3)[:1], torch.tensor([0]), gallery_of(1, 0, 3))
    assert list(found["id_bits"].values) == [0]
    assert found["id_z"] == found["id_auc"] == "the gallery has one entry"


def recorded(**changes: float) -> Recorded:
    """The numbers of six classes of two images; ``changes`` replace or remove values."""
    draws, gallery = torch.Generator().manual_seed(0), gallery_of(6, 200)
    labels = torch.arange(12) // 2
    rows = F.normalize(gallery.private[labels] + 0.4 * torch.randn(12, 8, generator=draws), dim=1)
    seen = evidence(
        one_hot_images(labels.tolist(), 6), labels.tolist(), 6, gallery=gallery, embed=lambda _: rows
    )
    measured = Measured()
    measure_reconstructions({"metric": Identification()}, seen, measured, seed=0)
    values = {name: one.value for name, one in measured.values.items() if one}
    return Recorded(values | changes, measured.per_class, measured.per_image)


def test_records_keep_the_ranks_and_numbers_agree_with_them() -> None:
    kept = recorded()
    ranks = np.array(kept.per_image["id_rank"])
    assert ranks.shape == (6, 2)
    assert ranks.min() == 1
    assert ranks.max() > 5
    assert all(isinstance(rank, int) for of_class in kept.per_image["id_rank"] for rank in of_class)
    assert kept.values["id_bits"] == pytest.approx(np.log2(206 / ranks).mean())
    assert kept.per_class["id_bits"] == pytest.approx(np.log2(206 / ranks).mean(1), abs=1e-6)
    assert set(kept.per_class) == {"id_bits", "id_acc1", "id_acc5", "id_gallery_acc1", "id_z", "id_auc"}
    assert list(Identification.contradictions(kept)) == []
    without = Recorded(kept.values, kept.per_class, {})
    assert list(Identification.contradictions(without)) == []  # of an older record


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("id_bits", 0.01),
        ("id_gallery_acc1", 0.08),
        ("id_acc1", -0.9),
        ("id_acc5", -0.9),
        ("id_auc", -0.5),
        ("id_median_rank", 1),
    ],
)
def test_numbers_that_disagree_with_the_ranks_are_found(name: str, change: float) -> None:
    kept = recorded()
    line, *more = Identification.contradictions(recorded(**{name: kept.values[name] + change}))
    assert line.startswith(f"{name} is ")
    assert not more or name == "id_bits"  # which says how large the gallery is
    if name in kept.per_class:
        means = {**kept.per_class, name: [kept.per_class[name][0] + 9 * change, *kept.per_class[name][1:]]}
        [line] = Identification.contradictions(Recorded(kept.values, means, kept.per_image))
        assert line.startswith(f"{name} is ")


def test_ranks_of_classes_of_several_sizes_are_compared() -> None:
    ranks = [[1, 4], [2], [8, 1]]
    bits = [math.log2(64) - sum(map(math.log2, one)) / len(one) for one in ranks]
    values = {"id_bits": 6 - sum(math.log2(rank) for one in ranks for rank in one) / 5}
    assert list(Identification.contradictions(Recorded(values, {"id_bits": bits}, {"id_rank": ranks}))) == []
    wrong = Recorded(values, {"id_bits": [bits[0], bits[1] + 0.01, bits[2]]}, {"id_rank": ranks})
    [line] = Identification.contradictions(wrong)
    assert line.startswith("id_bits is 5.01, by the ranks in id_rank it is from 5.0 to 5.0")


def test_ranks_of_other_classes_or_without_bits_are_found() -> None:
    kept = recorded()
    fewer = {"id_rank": kept.per_image["id_rank"][1:]}
    assert any(
        "of 6 classes, id_rank of 5" in line
        for line in Identification.contradictions(Recorded(kept.values, kept.per_class, fewer))
    )
    nothing = Recorded({}, {}, {"id_rank": [[0]]})
    assert list(Identification.contradictions(nothing)) == [
        "id_rank must hold ranks from 1, and id_bits a value"
    ]


def test_identification_with_and_without_decoys() -> None:
    private = torch.eye(7)[:6]
    decoys = F.normalize(torch.eye(7)[:1] + 0.3 * torch.eye(7)[6:], dim=1)
    gallery = Gallery(private, decoys, private, torch.tensor([1.0, 1.0, 0.0]))
    nearly_decoy = F.normalize(torch.eye(7)[:1] + 0.2 * torch.eye(7)[6:], dim=1)
    answers = torch.cat([nearly_decoy, private[1:2], private[2:3]])
    found = Identification().compute(
        evidence(
            torch.zeros(3, 3, 4, 4),
            [0, 1, 3],
            6,
            gallery=gallery,
            embed=lambda images: answers,
        )
    )
    assert list(found["id_acc1"].values) == [1, 1, 0]
    assert list(found["id_gallery_acc1"].values) == [0, 1, 0]
    assert list(found["id_median_rank"].values)[:2] == [2, 1]
    assert value(found["id_median_rank"]) == 2
    assert value(found["id_acc1_ceiling"]) == 1.0
    assert value(found["verification_accuracy"]) == pytest.approx(2 / 3)


def test_the_first_five_are_those_among_the_private_people() -> None:
    """Six decoys lie nearer than the true one, and are not counted."""
    private = torch.eye(8)[:7]
    near = F.normalize(torch.eye(8)[:1] + 0.1 * torch.eye(8)[7:], dim=1)
    gallery = Gallery(private, near.repeat(6, 1), private, torch.ones(3))
    row = F.normalize(torch.eye(8)[:1] + 0.2 * torch.eye(8)[7:], dim=1)
    last = F.normalize(8.0 - torch.arange(8.0), dim=0)[None]
    found = identify(torch.cat([row, last, last]), torch.tensor([0, 4, 5]), gallery)
    assert found["id_acc5"].values.tolist() == [1, 1, 0]
    assert found["id_gallery_acc1"].values.tolist() == [0, 0, 0]


def test_without_an_encoder_every_number_is_null_with_the_reason() -> None:
    found = Identification().compute(evidence(torch.zeros(1, 3, 4, 4), [0], 6))
    assert set(found) == set(Identification.quantities)
    assert set(found.values()) == {"no encoder"}


# --- unfit judges --------------------------------------------------------------------------------


def test_a_weak_encoder_and_a_low_ceiling_are_noted() -> None:
    """Private people alike to the encoder, and pairs that it verifies in 64 % of the cases."""
    entries = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    weak = Gallery(entries, entries[:0], entries[[1, 0, 2, 0]], torch.tensor([1.0] * 64 + [0.0] * 36))
    seen = evidence(
        one_hot_images([0, 1], 3), [0, 1], 3, gallery=weak, embed=lambda x: F.normalize(x[:, :2, 0, 0])
    )
    made = Splits(
        **{**vars(seen.splits), "test": ImageSet(one_hot_images([0, 1, 2, 0], 3), torch.arange(4) % 3)}
    )
    measured = Measured()
    measure_reconstructions(
        {"metric": Identification()}, dataclasses.replace(seen, splits=made), measured, seed=0
    )
    assert measured.values["verification_accuracy"].value == 0.64
    notes = measured.notes
    assert notes["verification_accuracy"].startswith("verification_accuracy is 0.640, below 0.900: ")
    assert notes["id_acc1_ceiling"].startswith("id_acc1_ceiling is 0.500, below 0.750: ")
    assert "id_acc1" not in notes


def test_a_fit_judge_gives_no_reason_to_doubt() -> None:
    quantities = {
        **Identification.quantities,
        **EvaluationClassifier.quantities,
        **IndependentJudge.quantities,
    }
    watched = {name for name, quantity in quantities.items() if quantity.unfit_below is not None}
    assert watched == {
        "verification_accuracy",
        "id_acc1_ceiling",
        "id_gallery_acc1_ceiling",
        "attack_acc1_ceiling",
    }
    for name in watched:
        least = quantities[name].unfit_below
        assert quantities[name].doubt(name, least) == ""
        assert quantities[name].doubt(name, least - 0.01).startswith(f"{name} is {least - 0.01:.3f}, below")
    assert quantities["id_acc1"].doubt("id_acc1", 0.0) == ""


@pytest.mark.parametrize(
    ("decoys", "public", "noted"),
    [(0, 0, []), (99, 99, ["99 decoys, fewer than 100", "99 public people, fewer than 100"]), (100, 100, [])],
)
def test_few_decoys_and_few_public_people_are_noted(decoys: int, public: int, noted: list[str]) -> None:
    def people(count: int) -> ImageSet:
        return ImageSet(torch.zeros(2 * count, 3, 4, 4, dtype=torch.uint8), torch.arange(2 * count) // 2)

    made = Splits(**{**vars(splits(3)), "decoys": people(decoys), "public": people(public)})
    lines = doubts(made)
    assert [line.split(":")[0] for line in lines] == noted
    entries = F.normalize(torch.eye(3))
    several = Gallery(entries, entries[:0], entries, torch.ones(30))
    for gallery in (several, None):  # without an encoder nothing depends on them
        measured = Measured()
        seen = evidence(one_hot_images([0], 3), [0], 3, gallery=gallery)
        measure_reconstructions({}, dataclasses.replace(seen, splits=made), measured, seed=0)
        assert measured.notes == ({"gallery": "; ".join(lines)} if gallery and lines else {})


# --- what a record keeps -------------------------------------------------------------------------


def test_means_of_classes_are_kept_of_paired_quantities_only() -> None:
    class Toy(AttackMetric):
        quantities = {  # noqa: RUF012
            "compared": Quantity("one number an image", "lower", "share", "leakage", paired=True),
            "shown": Quantity("the same", "lower", "share", "leakage", per_image="toy_value"),
            "absent": Quantity("nothing", paired=True),
        }

        def compute(self, evidence):
            given = Measurement(np.array([0.0, 1.0, 1.0]), evidence.labels.numpy())
            return {"compared": given, "shown": given, "absent": "there is none"}

    measured = Measured()
    seen = evidence(torch.zeros(3, 3, 4, 4), [0, 0, 1], 6)
    measure_reconstructions({"metric 'toy'": Toy()}, seen, measured, seed=0)
    assert measured.per_class == {"compared": [0.5, 1.0]}
    assert measured.class_counts == {"compared": [2, 1]}
    assert measured.per_image == {"toy_value": [[0, 1], [1]]}
    equal = dataclasses.replace(seen, labels=torch.tensor([1, 0, 2]))
    measured = Measured()
    measure_reconstructions({"metric 'toy'": Toy()}, equal, measured, seed=0)
    assert measured.per_class == {"compared": [1.0, 0.0, 1.0]}  # in the order of the classes
    assert measured.class_counts == {}


def test_the_accuracy_of_each_class_is_kept_with_the_number_of_its_images() -> None:
    test = ImageSet(one_hot_images([0, 1, 1, 2], 3), torch.tensor([0, 1, 2, 2]))
    made = dataclasses.replace(splits(3), test=test)
    target = Target(None, Pixels(3), stochastic=False)
    found = measure_target({"metric 'utility'": Utility()}, target, made, Context(4, 0, CPU))
    assert found.per_class == {"test_accuracy": [1.0, 1.0, 0.5]}
    assert found.class_counts == {"test_accuracy": [1, 1, 2]}


def test_what_built_in_quantities_records_keep_the_means_of() -> None:
    registry = host().registry
    quantities = {
        (entry.name, name): quantity
        for entry in registry.entries("metric")
        if entry.plugin.distribution == HOST
        for name, quantity in entry.load().quantities.items()
    }
    paired = {name for (_, name), quantity in quantities.items() if quantity.paired}
    leaked = {"id_bits", "id_z", "id_auc", "id_acc1", "id_acc5", "id_gallery_acc1", "delta_face"}
    leaked |= {
        "density",
        "coverage",
        "precision",
        "recall",
        "knowledge_extraction_test",
        "knowledge_extraction_train",
    }
    of_mechanisms = {
        name
        for (metric, name), quantity in quantities.items()
        if metric in ("embedding", "gradients", "calibration", "adversarial-robustness")
        and not name.endswith(("_x", "_y"))
    }
    assert paired == {"attack_acc1", "attack_acc5", "delta_eval", "test_accuracy"} | leaked | of_mechanisms


@pytest.mark.parametrize("name", ["synth-faces", "lfw", "mnist", "facescrub", "stanford-dogs"])
def test_the_ranking_of_a_built_in_track_is_by_quantities_of_its_metrics(name: str) -> None:
    registry = host().registry
    track = load_track(registry, name)
    given = {n for m in track.metrics for n in registry.get("metric", m).load().quantities}
    assert track.ranked_by
    assert set(track.ranked_by) <= given
    assert track.ranked_by[-1] == "attack_acc1"
