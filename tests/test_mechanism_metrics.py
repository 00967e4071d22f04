"""Metrics of how a target and an attack work: embedding space, gradients, calibration, robustness."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_samples
from torch import Tensor, nn

from mia_bench.api.classifier import Activations, Classifier
from mia_bench.api.dataset import ImageSet
from mia_bench.api.metric import AttackEvidence, Measurement, TargetEvidence
from mia_bench.testing import world as toy
from mia_bench_plugins.metrics.adversarial_robustness import AdversarialRobustness
from mia_bench_plugins.metrics.calibration import Calibration
from mia_bench_plugins.metrics.embedding import Embedding, coordinates, silhouettes
from mia_bench_plugins.metrics.gradients import Gradients

CPU = torch.device("cpu")


def value(found: Measurement | str) -> float:
    assert isinstance(found, Measurement), found
    return float(found.values.mean())


class Colours(Classifier):
    """Features are the mean colours, the logits a linear map of them."""

    def __init__(self, weights: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.head = nn.Linear(3, len(weights), bias=False)
        self.head.weight.data = weights
        self.scale = scale

    def activations(self, images: Tensor) -> Activations:
        features = self.scale * images.mean(dim=(2, 3))
        return Activations(self.head(features), features, ())


def images_of(colours: Tensor, labels: Tensor) -> ImageSet:
    """Images of one colour ``(N, 3)`` each, in [0, 1]."""
    pixels = (colours * 255).round().to(torch.uint8)
    return ImageSet(pixels[:, :, None, None].expand(-1, -1, 2, 2).contiguous(), labels)


def coloured(count: int, seed: int, noise: float = 0.05) -> ImageSet:
    """``count`` images of each of four colours with noise."""
    centres = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8], [0.7, 0.7, 0.7]])
    labels = torch.arange(4).repeat_interleave(count)
    draws = torch.Generator().manual_seed(seed)
    shifts = noise * torch.randn(4 * count, 3, generator=draws)
    return images_of((centres[labels] + shifts).clamp(0, 1), labels)


def attack_evidence(model: Classifier, train: ImageSet, test: ImageSet, made: ImageSet, **given):
    splits = dataclasses.replace(toy.world().splits, train=train, test=test, class_names=tuple("abcd"))
    shared = {"draws": 1, "judge": None, "gallery": None, "embed": None, "missing": {}, "device": CPU}
    return AttackEvidence(
        made.images, made.labels, model, splits=splits, evaluation_model=model, **{**shared, **given}
    )


# --- the embedding space -------------------------------------------------------------------------


def test_spreads_are_distances_to_class_means_in_units_of_those_of_the_means() -> None:
    train, test, made = (coloured(6, seed) for seed in range(3))
    model = Colours(torch.eye(4, 3))
    found = Embedding().compute(attack_evidence(model, train, test, made))

    def features(part: ImageSet) -> np.ndarray:
        return part.images.double().numpy().mean(axis=(2, 3)) / 255

    means = np.array([features(train)[train.labels == c].mean(0) for c in range(4)])
    unit = ((means - means.mean(0)) ** 2).sum(1).mean()
    for name, part in (("spread_train", train), ("spread_test", test), ("reconstruction_spread", made)):
        wanted = ((features(part) - means[part.labels]) ** 2).sum(1).mean() / unit
        assert value(found[name]) == pytest.approx(wanted, rel=1e-5), name
    away = {name: features(part) - means[part.labels] for name, part in (("train", train), ("test", test))}
    between = (means - means.mean(0)).T @ (means - means.mean(0)) / 4
    for name, rows in away.items():  # as Papyan et al. define it
        within = rows.T @ rows / len(rows)
        wanted = np.trace(within @ np.linalg.pinv(between, hermitian=True)) / 4
        assert value(found[f"variability_{name}"]) == pytest.approx(wanted, rel=1e-5)
    nearest = ((features(made)[:, None] - means) ** 2).sum(2).argmin(1)
    assert value(found["reconstruction_nearest"]) == np.mean(nearest == made.labels.numpy())
    rows = (means - means.mean(0)) / np.linalg.norm(means - means.mean(0), axis=1, keepdims=True)
    away_from_simplex = np.abs(rows @ rows.T + 1 / 3)[~np.eye(4, dtype=bool)].reshape(4, 3).mean(1)
    np.testing.assert_allclose(found["mean_angles"].values, away_from_simplex, rtol=1e-5)
    length = np.sqrt((features(train) ** 2).sum(1).mean())
    apart = np.linalg.norm(means[:, None] - means, axis=2)[~np.eye(4, dtype=bool)].reshape(4, 3).mean(1)
    np.testing.assert_allclose(found["class_distance"].values, apart / length, rtol=1e-5)
    by_sklearn = silhouette_samples(features(test), test.labels.numpy())
    np.testing.assert_allclose(found["silhouette"].values, by_sklearn, rtol=1e-4)


def test_variability_counts_directions_in_which_the_means_hardly_differ() -> None:
    """In one direction the covariance of the means is a thousandth of that in another, and counts."""
    colours = torch.tensor([[0.2, 0.5, 0.49], [0.8, 0.5, 0.5], [0.5, 0.2, 0.5], [0.5, 0.8, 0.51]])
    draws = torch.Generator().manual_seed(9)
    labels = torch.arange(4).repeat_interleave(8)
    train = images_of(colours[labels] + 0.02 * torch.randn(32, 3, generator=draws), labels)
    found = Embedding().compute(attack_evidence(Colours(torch.eye(4, 3)), train, train, train))
    rows = train.images.double().numpy().mean(axis=(2, 3)) / 255
    means = np.array([rows[labels == c].mean(0) for c in range(4)])
    between, within = np.cov(means.T, bias=True), (rows - means[labels]).T @ (rows - means[labels]) / 32
    values = np.linalg.eigvalsh(between)
    assert values[0] < 2e-3 * values[-1]
    wanted = np.trace(within @ np.linalg.inv(between)) / 4
    assert value(found["variability_train"]) == pytest.approx(wanted, rel=1e-4)


def test_scaling_all_features_changes_nothing() -> None:
    parts = [coloured(5, seed) for seed in range(3)]
    weights = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 1.0, 1.0]])
    one, other = (Embedding().compute(attack_evidence(Colours(weights, s), *parts)) for s in (1.0, 40.0))
    assert one.keys() == other.keys() == Embedding.quantities.keys()
    for name, found in one.items():
        np.testing.assert_allclose(found.values, other[name].values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_collapsed_simplex_has_no_spread_and_aligned_weights() -> None:
    corners = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    part = images_of(corners.repeat_interleave(4, 0), torch.arange(3).repeat_interleave(4))
    evidence = attack_evidence(Colours(5 * torch.eye(3)), part, part, part)
    splits = dataclasses.replace(evidence.splits, class_names=tuple("abc"))
    found = Embedding().compute(dataclasses.replace(evidence, splits=splits))
    none = ("spread_train", "spread_test", "variability_train", "reconstruction_spread", "mean_angles")
    for name in none:
        assert value(found[name]) == pytest.approx(0, abs=1e-6), name
    for name in ("head_alignment", "silhouette", "reconstruction_nearest"):
        assert value(found[name]) == pytest.approx(1, abs=1e-6), name
    assert value(found["class_distance"]) == pytest.approx(2**0.5, abs=1e-6)


def test_coordinates_keep_distances_within_the_plane_of_three_means() -> None:
    draws = torch.Generator().manual_seed(0)
    means = torch.randn(7, 10, generator=draws, dtype=torch.float64)
    labels = torch.arange(7)
    found = coordinates(means, labels, means)
    for triple in ((0, 1, 2), (3, 4, 5)):
        for one in triple:
            for other in triple:
                wanted = (means[one] - means[other]).norm()
                assert (found[one] - found[other]).norm() == pytest.approx(float(wanted), abs=1e-9)
        torch.testing.assert_close(found[list(triple)].mean(0), torch.zeros(2, dtype=torch.float64))
        assert found[triple[0], 0] > 0
        assert abs(found[triple[0], 1]) < 1e-9
        assert found[triple[1], 1] > 0
    # The last plane is that of the last three means.
    assert found[6].norm() == pytest.approx(float((means[6] - means[4:].mean(0)).norm()), abs=1e-9)


def test_a_class_with_one_image_has_a_silhouette_of_0() -> None:
    features = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    found = silhouettes(features, torch.tensor([0, 0, 1]))
    wanted = silhouette_samples(features.numpy(), [0, 0, 1])
    np.testing.assert_allclose(found.numpy(), wanted)
    assert found[2] == 0


def test_classes_that_coincide_have_a_silhouette_of_0() -> None:
    features = torch.tensor([[0.0], [0.0], [0.0], [0.0], [1.0], [1.0]], dtype=torch.float64)
    labels = [0, 0, 1, 1, 2, 2]
    found = silhouettes(features, torch.tensor(labels))
    np.testing.assert_allclose(found.numpy(), silhouette_samples(features.numpy(), labels))
    assert found.tolist() == [0, 0, 0, 0, 1, 1]


def test_where_there_is_nothing_to_measure_the_reason_is_said() -> None:
    train = coloured(3, 0)
    model = Colours(torch.eye(4, 3))
    hidden = dataclasses.replace(attack_evidence(model, train, train, train), target=nn.Identity())
    assert set(Embedding().compute(hidden).values()) == {"the target shows no features"}
    one = images_of(torch.full((12, 3), 0.5), torch.arange(4).repeat_interleave(3))
    assert set(Embedding().compute(attack_evidence(model, one, one, one)).values()) == {
        "the means of all classes are one point, or not finite"
    }
    wide = Colours(torch.eye(4, 3))
    wide.head = nn.Sequential(nn.Linear(3, 4))  # type: ignore[assignment]
    found = Embedding().compute(attack_evidence(wide, train, train, train))
    assert found["head_alignment"] == "the last layer is not linear in these features"
    assert isinstance(found["spread_test"], Measurement)


# --- gradients -----------------------------------------------------------------------------------


def test_gradients_are_means_over_steps_of_what_the_attack_returns() -> None:
    given = {
        "loss": torch.tensor([[4.0, 3.0, 1.0], [2.0, 2.0, 2.0]]),
        "gradient_norm": torch.tensor([[1.0, 10.0, 100.0], [1e-3, 1e-3, 1e-3]]),
        "gradient_cosine": torch.tensor([[math.nan, 0.5, -0.5], [math.nan, 1.0, 0.0]]),
    }
    part = coloured(3, 0)
    evidence = attack_evidence(Colours(torch.eye(4, 3)), part, part, part, diagnostics=given)
    found = Gradients().compute(evidence)
    assert value(found["gradient_cosine"]) == pytest.approx(0.25)
    assert value(found["gradient_log_norm"]) == pytest.approx((0 + 1 + 2 - 9) / 6)
    assert value(found["attack_loss"]) == pytest.approx(14 / 6)
    assert found["attack_loss"].values.tolist() == [4.0, 3.0, 1.0, 2.0, 2.0, 2.0]
    assert value(found["loss_fall"]) == pytest.approx(0.375)
    assert found["loss_fall"].groups.tolist() == [0, 1]
    assert found["gradient_log_norm"].groups.tolist() == [0, 0, 0, 1, 1, 1]
    turned = given["gradient_cosine"].clone()
    turned[0, 1] = math.nan  # a gradient was 0
    some = dataclasses.replace(evidence, diagnostics={**given, "gradient_cosine": turned})
    found = Gradients().compute(some)["gradient_cosine"]
    assert found.groups.tolist() == [0, 1, 1]
    assert value(found) == pytest.approx((-0.5 + 1.0 + 0.0) / 3)
    turned[0, 2] = math.nan
    loss = given["loss"] * torch.tensor([[0.0], [1.0]])
    vanished = dataclasses.replace(evidence, diagnostics={**given, "gradient_cosine": turned, "loss": loss})
    found = Gradients().compute(vanished)
    assert isinstance(found["gradient_cosine"], str)  # rather than a mean over the other classes
    assert found["loss_fall"] == "the loss of a class is 0 at the first step"
    without = dataclasses.replace(evidence, diagnostics={"loss": given["loss"]})
    assert set(Gradients().compute(without).values()) == {"the attack does not return its gradient_norm"}


def test_a_loss_below_0_falls_by_a_share_of_its_size() -> None:
    given = {
        "loss": torch.tensor([[-2.0, -3.0], [2.0, -1.0], [-2.0, -1.0], [4.0, 4.0]]),
        "gradient_norm": torch.ones(4, 2),
        "gradient_cosine": torch.ones(4, 2),
    }
    part = coloured(3, 0)
    found = Gradients().compute(
        attack_evidence(Colours(torch.eye(4, 3)), part, part, part, diagnostics=given)
    )
    assert found["loss_fall"].values.tolist() == [0.5, 1.5, -0.5, 0.0]


# --- the target ----------------------------------------------------------------------------------


def target_evidence(model: nn.Module, test: ImageSet, draws: int = 1) -> TargetEvidence:
    splits = dataclasses.replace(toy.world().splits, test=test, class_names=tuple("abcd"))
    return TargetEvidence(model, splits, draws, CPU)


def test_calibration_is_the_mean_of_scores_of_single_images() -> None:
    test = coloured(4, 3)
    model = Colours(3 * torch.eye(4, 3))
    logits = model(test.images.float() / 255).detach().double()
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    labels = test.labels.numpy()
    found = Calibration().compute(target_evidence(model, test))
    right = p.argmax(1) == labels
    assert value(found["overconfidence"]) == pytest.approx(float((p.max(1) - right).mean()), abs=1e-6)
    assert value(found["brier"]) == pytest.approx(
        float(((p - np.eye(4)[labels]) ** 2).sum(1).mean()), abs=1e-6
    )
    own = p[np.arange(len(p)), labels]
    assert value(found["log_loss"]) == pytest.approx(float(-np.log(own).mean()), abs=1e-5)


def test_robustness_of_a_linear_target_is_known_in_closed_form() -> None:
    # The margin of two classes is w·x with |w|₁ = 2 over the mean colours: it changes by up to 2 ε.
    draws = torch.Generator().manual_seed(0)
    shades = torch.rand(200, 3, generator=draws) * 0.2 + 0.4
    labels = (shades[:, 0] < shades[:, 1]).long()
    test = images_of(shades, labels)
    weights = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    seen = (test.images.double() / 255).mean(dim=(2, 3))
    for epsilon in (0.01, 0.03):
        metric = AdversarialRobustness(
            AdversarialRobustness.Options(epsilon=epsilon, step_size=epsilon / 4, steps=12)
        )
        torch.manual_seed(0)
        found = metric.compute(target_evidence(Colours(weights), test))
        margins = (seen[:, 0] - seen[:, 1]) * (1 - 2 * labels)
        wanted = float((margins > 2 * epsilon + 1e-6).double().mean())
        assert 0.05 < wanted < 0.95
        assert value(found["robust_accuracy"]) == pytest.approx(wanted, abs=0.01)


class Watched(Colours):
    """Keeps what it is asked, and answers wrongly at one of the calls."""

    def __init__(self, weights: Tensor, wrong: int = -1) -> None:
        super().__init__(weights)
        self.wrong, self.seen = wrong, list[Tensor]()

    def activations(self, images: Tensor) -> Activations:
        made = super().activations(images)
        sign = -1 if len(self.seen) == self.wrong else 1
        self.seen.append(images.detach().clone())
        return dataclasses.replace(made, logits=sign * made.logits)


def test_the_search_begins_at_random_and_stays_in_reach() -> None:
    shades = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.0, 0.5], [0.02, 0.98, 0.5]]).repeat(40, 1)
    test = images_of(shades, torch.arange(3).repeat(40))
    model = Watched(torch.eye(3))
    options = AdversarialRobustness.Options(epsilon=0.1, step_size=0.07, steps=4)
    AdversarialRobustness(options).compute(target_evidence(model, test))
    clean, start, *further = model.seen
    torch.testing.assert_close(clean, test.images.float() / 255)
    assert len(further) == 4
    for images in (start, *further):
        assert float((images - clean).abs().max()) <= 0.1 + 1e-6
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
    inner = (start - clean)[(clean > 0.1) & (clean < 0.9)]  # where nothing is cut off
    assert len(inner.unique()) > len(inner) / 2
    assert float(inner.min()) < -0.09 < 0.09 < float(inner.max())
    assert float(inner.mean()) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("wrong", range(7))
def test_one_wrong_answer_on_the_way_is_enough(wrong: int) -> None:
    """The image itself, the start, four steps: each of these answers counts."""
    test = images_of(torch.eye(3).repeat(5, 1) * 0.8, torch.arange(3).repeat(5))
    options = AdversarialRobustness.Options(epsilon=0.01, step_size=0.005, steps=4)
    found = AdversarialRobustness(options).compute(target_evidence(Watched(torch.eye(3), wrong), test))
    assert value(found["robust_accuracy"]) == (1.0 if wrong == 6 else 0.0)


def test_large_logits_are_not_taken_for_robustness() -> None:
    test = coloured(10, 5, noise=0.1)
    weights = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.6, 0.6, 0.6]])
    metric = AdversarialRobustness(AdversarialRobustness.Options(epsilon=0.05, step_size=0.02))
    found = []
    for scale in (1.0, 1e5):
        torch.manual_seed(0)
        found.append(
            value(metric.compute(target_evidence(Colours(scale * weights), test))["robust_accuracy"])
        )
    assert found[0] == found[1] < 1


class Noisy(Colours):
    """Adds noise to the logits."""

    def activations(self, images: Tensor) -> Activations:
        made = super().activations(images)
        return dataclasses.replace(made, logits=made.logits + 0.3 * torch.randn_like(made.logits))


def test_a_random_target_is_asked_several_times() -> None:
    test, weights = coloured(10, 6), torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.6, 0.6, 0.6]])
    found = {}
    for draws in (1, 64):
        torch.manual_seed(0)
        evidence = target_evidence(Noisy(weights), test, draws)
        found[draws] = value(AdversarialRobustness().compute(evidence)["robust_accuracy"])
    assert found[64] > found[1] + 0.1


def test_without_test_images_there_is_a_reason() -> None:
    none = ImageSet(torch.zeros(0, 3, 2, 2, dtype=torch.uint8), torch.zeros(0).long())
    evidence = target_evidence(Colours(torch.eye(4, 3)), none)
    for metric in (Calibration(), AdversarialRobustness()):
        assert set(metric.compute(evidence).values()) == {"the data set keeps no test images"}
