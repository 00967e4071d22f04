"""The bottleneck defense against torch.distributions, closed forms and finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mia_bench.api.classifier import answers
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import BuildContext, TrainingStep
from mia_bench.api.options import parse_options
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.track import Recipe
from mia_bench.training import train_classifier
from mia_bench_plugins.defenses.bottleneck import Bottleneck, _log_softplus
from mia_bench_plugins.defenses.mid import MutualInformation, divergence
from mia_bench_plugins.models.networks import residual_network

CPU = torch.device("cpu")
CLASSES = 4


def faces(count: int = 16) -> ImageSet:
    draws = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=draws, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % CLASSES)


def build(**options: float) -> Bottleneck:
    defense = MutualInformation(MutualInformation.Options(**options))
    torch.manual_seed(0)
    context = BuildContext(CLASSES, 16, faces(), torch.Generator())
    model = defense.build_model(lambda: residual_network((4, 8), CLASSES), context)
    assert isinstance(model, Bottleneck)
    return model


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_divergence_equals_torch_distributions(seed: int, rows: int, width: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    mean = torch.randn(rows, width, generator=draws, dtype=torch.float64)
    log_sigma = torch.randn(rows, width, generator=draws, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, log_sigma.exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(normal, standard).sum(1).mean()
    torch.testing.assert_close(divergence(mean, log_sigma), expected)


def test_divergence_is_zero_for_the_standard_normal_alone() -> None:
    zeros = torch.zeros(2, 3)
    assert float(divergence(zeros, zeros)) == 0
    assert float(divergence(zeros + 0.1, zeros)) > 0
    assert float(divergence(zeros, zeros - 0.1)) > 0


def test_gradient_of_the_divergence_by_finite_differences() -> None:
    mean, log_sigma = (torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in "ab")
    assert torch.autograd.gradcheck(divergence, (mean, log_sigma))


def test_divergence_of_half_precision_is_computed_in_float32() -> None:
    mean = torch.full((1, 4), 200.0, dtype=torch.bfloat16)  # its square times 4 needs more digits
    value = divergence(mean, torch.zeros_like(mean))
    assert value.dtype == torch.float32
    assert float(value) == 0.5 * 4 * 200**2


@pytest.mark.parametrize("x", [-300.0, -100.0, -15.0, -14.999, -5.0, 0.0, 3.0, 80.0])
def test_logarithm_of_softplus_has_no_underflow(x: float) -> None:
    precise = torch.tensor(x, dtype=torch.float64)
    expected = x if x < -40 else math.log(math.log1p(math.exp(precise.item())))
    value = torch.tensor(x, requires_grad=True)
    result = _log_softplus(value)
    assert result.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    (gradient,) = torch.autograd.grad(result, value)
    assert math.isfinite(gradient.item())
    assert gradient.item() > 0


def test_code_follows_the_equations() -> None:
    model = build(bottleneck=3.0).eval()
    images = faces().images.float() / 255
    features = model.network.activations(images).features
    raw = model.encode(features)
    mean, sigma = raw[:, :3], nn.functional.softplus(raw[:, 3:] - 5)
    torch.manual_seed(7)
    found = model.activations(images)
    torch.manual_seed(7)
    noise = torch.randn(16, 3)
    torch.testing.assert_close(found.logits, model.head(mean + sigma * noise))
    torch.testing.assert_close(found.extras["mean"], mean)
    torch.testing.assert_close(found.extras["log_sigma"].exp(), sigma)
    torch.testing.assert_close(found.features, mean)
    assert len(found.hidden) == len(model.network.blocks)


def test_answers_are_random_only_where_asked() -> None:
    images = faces().images.float() / 255
    for sample in (True, False):
        model = build(sample=sample).eval()
        assert torch.equal(model(images), model(images)) is not sample
        assert MutualInformation(MutualInformation.Options(sample=sample)).stochastic is sample
        model.train()
        assert not torch.equal(model(images), model(images))


@torch.no_grad()
def test_several_answers_are_drawn_apart_from_one_pass_through_the_network() -> None:
    model, images = build(bottleneck=3.0).eval(), faces().images.float() / 255
    passes = []
    model.network.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    torch.manual_seed(7)
    found = answers(model, images, 2000)
    assert (found.shape, len(passes)) == ((2000, 16, CLASSES), 1)
    code = model.activations(images).extras
    deviation = (code["log_sigma"].exp().square() @ model.head.weight.square().T).sqrt()
    expected = model.head(code["mean"])
    torch.testing.assert_close(found.std(0), deviation, rtol=0.1, atol=0)
    assert float((found.mean(0) - expected).abs().div(deviation).max()) < 5 / math.sqrt(2000)
    still = build(sample=False).eval()
    torch.testing.assert_close(answers(still, images, 2), still(images).expand(2, -1, -1))


def test_a_network_that_answers_otherwise_is_asked_by_its_own_way() -> None:
    class Rounded(Bottleneck):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images).round()

    model = Rounded(residual_network((4, 8), CLASSES), lambda features: 2, CLASSES, sample=True)
    found = answers(model.eval(), faces().images.float() / 255, 3)
    assert torch.equal(found, found.round())


@pytest.mark.parametrize(("bottleneck", "width"), [(0.5, 4), (0.25, 2), (0.01, 1), (1.0, 1), (5.0, 5)])
def test_width_is_a_share_or_a_number(bottleneck: float, width: int) -> None:
    assert build(bottleneck=bottleneck).head.in_features == width


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": "-1"}, "mid.beta=-1: "),
        ({"bottleneck": "0"}, "mid.bottleneck=0: "),
        ({"bottleneck": "2.5"}, "mid.bottleneck=2.5: a width is a whole number"),
        ({"gamma": "1"}, "mid has no option 'gamma'"),
    ],
)
def test_wrong_options_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        parse_options("mid", MutualInformation.Options, options)


def test_a_head_that_is_not_linear_is_refused() -> None:
    network = residual_network((4, 8), CLASSES)
    network.head = nn.Sequential(network.head)
    with pytest.raises(MiaBenchError, match="mid needs a linear head"):
        Bottleneck(network, lambda features: 2, CLASSES, sample=True)


def test_loss_is_cross_entropy_plus_beta_times_the_divergence() -> None:
    model = build().train()
    images, labels = faces().images.float() / 255, faces().labels
    outputs = model.activations(images)
    step = TrainingStep(images, labels, outputs, model, 0, 1, torch.Generator())
    plain = nn.functional.cross_entropy(outputs.logits, labels)
    penalty = divergence(outputs.extras["mean"], outputs.extras["log_sigma"])
    for beta in (0.0, 0.3):
        defense = MutualInformation(MutualInformation.Options(beta=beta))
        torch.testing.assert_close(defense.loss(step), plain + beta * penalty)


def test_a_larger_beta_makes_the_code_say_less() -> None:
    spent = []
    for beta in (0.0, 1.0):
        defense = MutualInformation(MutualInformation.Options(beta=beta))
        result = train_classifier(
            build(beta=beta),
            faces(),
            Recipe(epochs=30, batch_size=8, learning_rate=0.01),
            defense,
            seed=0,
            device=CPU,
            progress=lambda *_: None,
        )
        outputs = result.model.activations(faces().images.float() / 255)
        spent.append(divergence(outputs.extras["mean"], outputs.extras["log_sigma"]).item())
    assert spent[1] < 0.2 * spent[0]
