"""The loss and the schedule against closed forms, PyTorch's own and finite differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mia_bench.api.classifier import Activations
from mia_bench.api.defense import TrainingStep
from mia_bench_plugins.defenses.label_smoothing import (
    NegativeLabelSmoothing,
    PositiveLabelSmoothing,
    scheduled_alpha,
    smoothed_cross_entropy,
)


def batch(seed: int = 0, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(11, classes, generator=draws, dtype=torch.float64)
    return logits, torch.randint(classes, (11,), generator=draws)


@given(alpha=st.floats(0.0, 1.0), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_positive_alpha_equals_pytorch(alpha: float, seed: int) -> None:
    logits, labels = batch(seed)
    expected = F.cross_entropy(logits, labels, label_smoothing=alpha)
    torch.testing.assert_close(smoothed_cross_entropy(logits, labels, alpha), expected)


@given(alpha=st.floats(-5.0, 1.0), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_any_alpha_equals_cross_entropy_with_the_smoothed_label(alpha: float, seed: int) -> None:
    logits, labels = batch(seed)
    classes = logits.shape[1]
    smoothed = (1 - alpha) * F.one_hot(labels, classes).double() + alpha / classes
    expected = -(smoothed * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(smoothed_cross_entropy(logits, labels, alpha), expected)


def test_negative_alpha_differs_from_plain_cross_entropy() -> None:
    logits, labels = batch()
    plain = F.cross_entropy(logits, labels)
    assert abs(smoothed_cross_entropy(logits, labels, -0.3) - plain) > 0.1


@pytest.mark.parametrize("alpha", [0.2, -0.4])
def test_gradient_by_finite_differences(alpha: float) -> None:
    logits, labels = batch()
    assert torch.autograd.gradcheck(
        lambda x: smoothed_cross_entropy(x, labels, alpha), logits.requires_grad_(True)
    )


def test_half_precision_logits_are_computed_in_float32() -> None:
    logits, labels = batch()
    loss = smoothed_cross_entropy(logits.bfloat16(), labels, -0.1)
    assert loss.dtype == torch.float32
    expected = smoothed_cross_entropy(logits.bfloat16().double(), labels, -0.1)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)


def test_schedule_of_the_authors() -> None:
    """For 100 epochs: 0 before 50; alpha·(e+1-50)/50 before 75; then alpha."""
    assert [scheduled_alpha(-0.05, e, 100) for e in (0, 49)] == [0.0, 0.0]
    assert scheduled_alpha(-0.05, 50, 100) == pytest.approx(-0.05 / 50)
    assert scheduled_alpha(-0.05, 74, 100) == pytest.approx(-0.05 / 2)
    assert [scheduled_alpha(-0.05, e, 100) for e in (75, 99)] == [-0.05, -0.05]


@given(epochs=st.integers(1, 200))
def test_schedule_scales_to_any_number_of_epochs(epochs: int) -> None:
    values = [scheduled_alpha(-1.0, e, epochs) for e in range(epochs)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 0.0
    assert all(-1 <= v <= 0 for v in values)
    if epochs >= 4:
        assert values[-1] == -1.0


def step(epoch: int) -> TrainingStep:
    logits, labels = batch()
    outputs = Activations(logits, logits, ())
    return TrainingStep(
        images=torch.zeros(11, 3, 4, 4),
        labels=labels,
        outputs=outputs,
        model=torch.nn.Identity(),
        epoch=epoch,
        epochs=10,
        generator=torch.Generator(),
    )


def test_defenses_use_their_alpha_and_schedule() -> None:
    logits, labels = batch()
    plain = F.cross_entropy(logits, labels)
    ramp = NegativeLabelSmoothing(NegativeLabelSmoothing.Options(alpha=-0.2))
    torch.testing.assert_close(ramp.loss(step(0)), plain)
    torch.testing.assert_close(ramp.loss(step(9)), smoothed_cross_entropy(logits, labels, -0.2))
    constant = NegativeLabelSmoothing(NegativeLabelSmoothing.Options(alpha=-0.2, schedule="constant"))
    torch.testing.assert_close(constant.loss(step(0)), ramp.loss(step(9)))
    positive = PositiveLabelSmoothing(PositiveLabelSmoothing.Options(alpha=0.3))
    torch.testing.assert_close(positive.loss(step(0)), F.cross_entropy(logits, labels, label_smoothing=0.3))
