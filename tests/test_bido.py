"""BiDO against its equations written literally, closed forms, finite differences; its hard cases."""

import statistics
import time
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mia_bench.api.classifier import Activations
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense, TrainingStep
from mia_bench.api.options import parse_options
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.track import Recipe
from mia_bench.training import train_classifier
from mia_bench_plugins.defenses.bido import (
    BilateralDependency,
    Measure,
    centred,
    dependencies,
    gaussian_kernel,
    label_kernel,
    mia_bench_register_defenses,
    regularised,
)
from mia_bench_plugins.models.networks import residual_network

MEASURES: tuple[Measure, ...] = ("hsic", "coco")
CLASSES = 3

each_measure = pytest.mark.parametrize("measure", MEASURES)

# --- the equations, literally, in float64 --------------------------------------------------------


def literal_kernel(samples: Tensor, sigma: float) -> Tensor:
    flat = samples.double().flatten(1)
    rows = []
    for a in flat:
        row = [torch.exp(-((a - b) ** 2).sum() / (2 * sigma**2 * flat.shape[1])) for b in flat]
        rows.append(torch.stack(row))
    return torch.stack(rows)


def literal_label_kernel(labels: Tensor) -> Tensor:
    one_hot = F.one_hot(labels, CLASSES).double()
    return torch.stack([torch.stack([a @ b for b in one_hot]) for a in one_hot])


def literal_centring(size: int) -> Tensor:
    return torch.eye(size).double() - torch.ones(size, size).double() / size


def literal_ratio(kernel: Tensor) -> Tensor:
    """``R = KH(KH + 1e-5·m·I)⁻¹``."""
    size = len(kernel)
    product = kernel @ literal_centring(size)
    return product @ torch.inverse(product + 1e-5 * size * torch.eye(size).double())


def literal_dependency(first: Tensor, second: Tensor, measure: Measure) -> Tensor:
    if measure == "hsic":
        return (literal_ratio(first) * literal_ratio(second).T).sum()
    h = literal_centring(len(first))
    return (h @ first @ h @ h @ second @ h).square().sum().sqrt().sqrt() / len(first)


def literal_dependencies(
    images: Tensor, labels: Tensor, hidden: Sequence[Tensor], measure: Measure, sigma: float
) -> tuple[Tensor, Tensor]:
    x, y = literal_kernel(images, sigma), literal_label_kernel(labels)
    z = [literal_kernel(layer, sigma) for layer in hidden]
    return (
        torch.stack([literal_dependency(k, x, measure) for k in z]),
        torch.stack([literal_dependency(k, y, measure) for k in z]),
    )


# --- batches -------------------------------------------------------------------------------------

SHAPES = [
    (2, [(3,)]),
    (5, [(4, 3, 3), (7,)]),
    (8, [(2, 4, 4), (5, 2, 2), (6,)]),
    (11, [(1,), (40,)]),
]


def batch(
    size: int, shapes: Sequence[tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Images in [0, 1], labels, hidden features, which need gradients."""
    draws = torch.Generator().manual_seed(seed)
    images = torch.rand(size, 3, 4, 4, generator=draws, dtype=dtype)
    labels = torch.randint(CLASSES, (size,), generator=draws)
    hidden = [torch.randn(size, *shape, generator=draws, dtype=dtype) for shape in shapes]
    return images, labels, [layer.requires_grad_() for layer in hidden]


def training_step(images: Tensor, labels: Tensor, hidden: Sequence[Tensor]) -> TrainingStep:
    draws = torch.Generator().manual_seed(9)
    logits = torch.randn(len(images), CLASSES, generator=draws).requires_grad_()
    return TrainingStep(
        images=images,
        labels=labels,
        outputs=Activations(logits, logits, tuple(hidden)),
        model=torch.nn.Identity(),
        epoch=0,
        epochs=1,
        generator=torch.Generator(),
    )


def defense(**options: object) -> BilateralDependency:
    return BilateralDependency(parse_options("bido", BilateralDependency.Options, options))


# --- forward and gradient ------------------------------------------------------------------------


def test_gaussian_and_label_kernels_are_those_of_the_paper() -> None:
    images, labels, _ = batch(7, [])
    torch.testing.assert_close(
        gaussian_kernel(images, 0.3), literal_kernel(images, 0.3), rtol=1e-5, atol=1e-7
    )
    torch.testing.assert_close(label_kernel(labels), literal_label_kernel(labels))
    h = literal_centring(7)
    kernel = literal_kernel(images, 0.3)
    torch.testing.assert_close(centred(kernel), h @ kernel @ h)


@each_measure
@pytest.mark.parametrize(("size", "shapes"), SHAPES)
@pytest.mark.parametrize("sigma", [5.0, 0.7])
@pytest.mark.parametrize(
    ("dtype", "of_value", "of_gradient"),
    [(torch.float64, 1e-9, 1e-7), (torch.float32, 1e-4, 1e-2)],
    ids=["float64", "float32"],
)
def test_values_and_gradients_equal_the_equations(
    measure: Measure,
    size: int,
    shapes: list[tuple[int, ...]],
    sigma: float,
    dtype: torch.dtype,
    of_value: float,
    of_gradient: float,
) -> None:
    images, labels, hidden = batch(size, shapes, dtype=dtype)
    labels[0], labels[1] = 0, 1  # otherwise a batch of 2 may depend on nothing
    found = dependencies(images, labels, hidden, measure, sigma)
    expected = literal_dependencies(images, labels, hidden, measure, sigma)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=of_value, atol=of_value * 1e-2)
        assert (theirs > 1e-4).all()
        for mine, right in zip(
            torch.autograd.grad(ours.sum(), hidden, retain_graph=True),
            torch.autograd.grad(theirs.sum(), hidden, retain_graph=True),
            strict=True,
        ):
            scale = right.abs().max().item()
            assert scale > 0
            torch.testing.assert_close(mine, right, rtol=0, atol=of_gradient * scale + 1e-8)


@each_measure
def test_gradient_by_finite_differences(measure: Measure) -> None:
    images, labels, hidden = batch(6, [(2, 3), (4,)], dtype=torch.float64)
    labels[0], labels[1] = 0, 1

    def both(images: Tensor, *layers: Tensor) -> Tensor:
        return torch.cat(dependencies(images, labels, layers, measure, 1.5))

    inputs = (images.requires_grad_(), *hidden)
    assert torch.autograd.gradcheck(both, inputs, check_undefined_grad=False)


def test_normalised_hsic_equals_its_symmetric_form() -> None:
    """``Σ R_a ∘ R_bᵀ = tr T_a T_b``, and ``R = KH(S+εI)⁻¹H``, ``S = HKH``."""
    images, labels, _ = batch(9, [])
    first, second = literal_kernel(images, 5), literal_label_kernel(labels)
    h = literal_centring(9)
    inverse = torch.inverse(h @ first @ h + 9e-5 * torch.eye(9).double())
    torch.testing.assert_close(literal_ratio(first), first @ h @ inverse @ h, rtol=1e-6, atol=1e-8)
    trace = (regularised(first) @ regularised(second)).trace()
    torch.testing.assert_close(literal_dependency(first, second, "hsic"), trace)
    assert trace > 1


@each_measure
@given(seed=st.integers(0, 10_000), size=st.integers(2, 20))
@settings(deadline=None, max_examples=20)
def test_order_of_the_batch_does_not_matter(measure: Measure, seed: int, size: int) -> None:
    images, labels, hidden = batch(size, [(3, 2, 2), (6,)], seed)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    shuffled = [layer[order] for layer in hidden]
    for ours, theirs in zip(
        dependencies(images, labels, hidden, measure, 2.0),
        dependencies(images[order], labels[order], shuffled, measure, 2.0),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


# --- closed forms --------------------------------------------------------------------------------


def test_closed_forms_of_far_apart_samples() -> None:
    """``K = I``, so ``S = H`` of rank m-1; labels of C classes of n: C-1 eigenvalues n."""
    size, each = 12, 4
    labels = torch.arange(CLASSES).repeat_interleave(each)
    features = torch.eye(size)
    epsilon = 1e-5 * size
    for measure, of_x, of_y in (
        ("hsic", (size - 1) / (1 + epsilon) ** 2, (CLASSES - 1) * each / (each + epsilon)),
        ("coco", (size - 1) ** 0.25 / size, (each * (CLASSES - 1) ** 0.5) ** 0.5 / size),
    ):
        x, y = dependencies(features, labels, [features], measure, 1e-3)
        assert x.item() == pytest.approx(of_x, rel=1e-9)
        scale = 1 + epsilon if measure == "hsic" else 1
        assert y.item() == pytest.approx(of_y / scale, rel=1e-9)


@each_measure
def test_independent_variables_have_no_dependency(measure: Measure) -> None:
    """On a full grid the one coordinate says nothing of the other."""
    draws = torch.Generator().manual_seed(0)
    rows, columns = torch.randn(6, 5, generator=draws), torch.randn(CLASSES, 8, generator=draws)
    images, hidden = rows.repeat_interleave(CLASSES, 0), columns.repeat(6, 1)
    labels = torch.arange(6).repeat_interleave(CLASSES)
    of_x, of_y = dependencies(images, labels, [hidden, images], measure, 1.0)
    assert of_x[0].abs() < 1e-6
    assert of_y[0].abs() < 1e-6
    assert of_x[1] > 0.1
    assert of_y[1] > 0.1


@each_measure
def test_constant_features_have_no_dependency_and_no_gradient(measure: Measure) -> None:
    images, labels, _ = batch(8, [])
    constant = torch.full((8, 5), 3.7).requires_grad_()
    of_x, of_y = dependencies(images, labels, [constant], measure, 5.0)
    torch.testing.assert_close(torch.cat([of_x, of_y]), torch.zeros(2).double(), rtol=0, atol=1e-9)
    (gradient,) = torch.autograd.grad((of_x - of_y).sum(), constant)
    torch.testing.assert_close(gradient, torch.zeros(8, 5), rtol=0, atol=1e-6)


# --- precision -----------------------------------------------------------------------------------


@each_measure
def test_features_far_from_zero_lose_no_digits(measure: Measure) -> None:
    images, labels, _ = batch(10, [])
    far = torch.randn(10, 50, generator=torch.Generator().manual_seed(2)) + 1000
    for ours, theirs in zip(
        dependencies(images, labels, [far], measure, 5.0),
        dependencies(images.double(), labels, [far.double()], measure, 5.0),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


def test_no_distance_is_negative() -> None:
    """In float32, samples that all but coincide, far from the others."""
    draws = torch.Generator().manual_seed(0)
    samples = 1e4 * torch.randn(4, 300, generator=draws).repeat(8, 1)
    kernel = gaussian_kernel(samples + 0.01 * torch.randn(32, 300, generator=draws), 5.0)
    assert kernel.max() <= 1


@each_measure
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(measure: Measure, dtype: torch.dtype) -> None:
    images, labels, hidden = batch(9, [(3, 4, 4), (20,)])
    half = images.to(dtype), labels, [layer.detach().to(dtype) for layer in hidden]
    full = half[0].float(), labels, [layer.float() for layer in half[2]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = dependencies(*half, measure, 5.0)
    for ours, theirs in zip(found, dependencies(*full, measure, 5.0), strict=True):
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    loss = defense(measure=measure).loss(training_step(*half))
    assert loss.dtype == torch.float32


def test_what_rounding_has_spoilt_is_nan() -> None:
    """Clusters 1000 wide apart, in float32: within a cluster no distance survives."""
    images, labels, _ = batch(64, [])
    nan = 0
    for seed in range(5):
        draws = torch.Generator().manual_seed(seed)
        far = 1e4 * torch.randn(8, 500, generator=draws).repeat(8, 1)
        near = far + torch.randn(64, 500, generator=draws)
        ours, _ = dependencies(images, labels, [near], "hsic", 5.0)
        right, _ = dependencies(images.double(), labels, [near.double()], "hsic", 5.0)
        assert ours.isnan() or abs(ours / right - 1) < 0.1
        nan += int(ours.isnan())
    assert nan > 0


# --- hard batches --------------------------------------------------------------------------------


def one(step: tuple[Tensor, Tensor, list[Tensor]]) -> tuple[Tensor, Tensor, list[Tensor]]:
    images, labels, hidden = step
    return images, torch.zeros_like(labels), hidden


def twins(step: tuple[Tensor, Tensor, list[Tensor]]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Every sample twice."""
    images, labels, hidden = step
    doubled = [torch.cat([layer, layer]).detach().requires_grad_() for layer in hidden]
    return images.repeat(2, 1, 1, 1), labels.repeat(2), doubled


HARD = {
    "batch of 1": batch(1, [(3, 2, 2), (5,)]),
    "batch of 2": batch(2, [(3, 2, 2), (5,)]),
    "2 of one class": one(batch(2, [(3, 2, 2), (5,)])),
    "all labels equal": one(batch(8, [(3, 2, 2), (5,)])),
    "duplicates": twins(batch(4, [(3, 2, 2), (5,)])),
    "all the same": twins(twins(twins(batch(1, [(3, 2, 2), (5,)])))),
}


@each_measure
@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-6, 1e-20, 1e3])
def test_hard_batches_have_a_finite_loss_and_gradient(measure: Measure, name: str, scale: float) -> None:
    images, labels, hidden = HARD[name]
    hidden = [(scale * layer.detach()).requires_grad_() for layer in hidden]
    step = training_step(images, labels, hidden)
    loss = defense(measure=measure).loss(step)
    assert loss.isfinite()
    assert loss.shape == ()
    for gradient in torch.autograd.grad(loss, [*hidden, step.outputs.logits]):
        assert gradient.isfinite().all()
        assert gradient.norm() < 100


@each_measure
def test_a_single_sample_leaves_plain_cross_entropy(measure: Measure) -> None:
    step = training_step(*HARD["batch of 1"])
    loss = defense(measure=measure).loss(step)
    torch.testing.assert_close(loss, Defense().loss(step))


def test_twins_keep_a_gradient() -> None:
    """The guard is for what coincides altogether; twins among others still learn."""
    images, labels, hidden = HARD["duplicates"]
    for measure in MEASURES:
        of_x, _ = dependencies(images, labels, hidden, measure, 5.0)
        gradients = torch.autograd.grad(of_x.sum(), hidden)
        assert all(gradient.abs().amax(tuple(range(1, gradient.ndim))).min() > 0 for gradient in gradients)


# --- the defense ---------------------------------------------------------------------------------


@each_measure
def test_loss_is_cross_entropy_and_the_weighted_dependencies(measure: Measure) -> None:
    images, labels, hidden = batch(8, [(3, 4, 4), (5,), (2, 2)])
    step = training_step(images, labels, hidden)
    of_x, of_y = literal_dependencies(images, labels, hidden, measure, 2.0)
    plain = F.cross_entropy(step.outputs.logits, labels)
    loss = defense(measure=measure, lambda_x=3, lambda_y=0.7, sigma=2).loss(step)
    expected = plain + (3 * of_x - 0.7 * of_y).sum()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    assert abs(loss - plain) > 1e-2


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, (0.05, 0.5)),
        ({"measure": "coco"}, (1, 50)),
        ({"measure": "coco", "lambda_x": 0}, (0, 50)),
        ({"lambda_y": "2"}, (0.05, 2)),
        ({"lambda_x": "null", "measure": "hsic"}, (0.05, 0.5)),
    ],
)
def test_weights_are_the_published_ones_where_none_are_given(
    options: dict[str, object], weights: tuple[float, float]
) -> None:
    assert defense(**options).weights == weights
    images, labels, hidden = batch(6, [(4,)])
    step = training_step(images, labels, hidden)
    given = {**options, "lambda_x": weights[0], "lambda_y": weights[1]}
    torch.testing.assert_close(defense(**options).loss(step), defense(**given).loss(step))


def test_layers_choose_hidden_blocks() -> None:
    images, labels, hidden = batch(6, [(4,), (3, 2, 2), (7,)])
    step = training_step(images, labels, hidden)

    def only(*chosen: int) -> Tensor:
        return defense().loss(training_step(images, labels, [hidden[i] for i in chosen]))

    torch.testing.assert_close(defense().loss(step), only(0, 1, 2))
    torch.testing.assert_close(defense(layers=[1]).loss(step), only(1))
    torch.testing.assert_close(defense(layers="[-1, 0]").loss(step), only(2, 0))
    assert abs(only(0, 1, 2) - only(1)) > 1e-3


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([3], "bido.layers: no hidden block 3; this architecture has 3, 0 to 2 or -3 to -1"),
        ([0, -4], "bido.layers: no hidden block -4; this architecture has 3, 0 to 2 or -3 to -1"),
        ([2, -1], "bido.layers=[2, -1]: names one of 3 blocks twice"),
    ],
)
def test_layers_that_are_not_there_are_one_clear_line(layers: list[int], message: str) -> None:
    step = training_step(*batch(6, [(4,), (3, 2, 2), (7,)]))
    with pytest.raises(MiaBenchError) as error:
        defense(layers=layers).loss(step)
    assert str(error.value) == message


def test_a_network_without_hidden_blocks_is_one_clear_line() -> None:
    with pytest.raises(MiaBenchError, match=r"^bido: this architecture shows no hidden blocks$"):
        defense().loss(training_step(*batch(6, [])))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_x": "-1"}, "bido.lambda_x=-1: "),
        ({"lambda_y": -0.5}, "bido.lambda_y=-0.5: "),
        ({"lambda_y": "inf"}, "bido.lambda_y=inf: "),
        ({"measure": "mmd"}, "bido.measure=mmd: "),
        ({"sigma": "0"}, "bido.sigma=0: "),
        ({"layers": "[]"}, "bido.layers=[]: tuple should have at least 1 item"),
        ({"layers": "[a]"}, "bido.layers=[a]: "),
        ({"layers": [0.5]}, "bido.layers.0=0.5: "),
        ({"lamda_x": 1}, "bido has no option 'lamda_x'; did you mean 'lambda_x'"),
    ],
)
def test_wrong_options_are_one_clear_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        defense(**options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_registers_under_its_name() -> None:
    registered = {}
    mia_bench_register_defenses(register=lambda name, component: registered.update({name: component}))
    assert registered == {"bido": BilateralDependency}
    assert BilateralDependency.summary
    assert "2206.05483" in BilateralDependency.paper


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"measure": "hsic"}, {"measure": "coco"}, {"measure": "hsic", "layers": [-1]}]
)
def test_training_with_it_reduces_cross_entropy(options: dict[str, object]) -> None:
    draws = torch.Generator().manual_seed(3)
    labels = torch.arange(4).repeat(16)
    pattern = torch.randint(60, 196, (4, 3, 16, 16), generator=draws)
    noise = torch.randint(-60, 60, (64, 3, 16, 16), generator=draws)
    images = (pattern[labels] + noise).to(torch.uint8)
    torch.manual_seed(0)
    network = residual_network((8, 16), 4)

    def cross_entropy() -> float:
        with torch.no_grad():
            return F.cross_entropy(network.train()(images.float() / 255), labels).item()

    before = cross_entropy()
    result = train_classifier(
        network,
        ImageSet(images, labels),
        Recipe(epochs=8, batch_size=16, learning_rate=1e-2, flip=False),
        defense(**options),
        seed=0,
        device=torch.device("cpu"),
        progress=lambda *_: None,
    )
    assert cross_entropy() < 0.7 * before
    assert result.losses[-1] < result.losses[0]


@each_measure
@pytest.mark.parametrize(("lambda_x", "lambda_y"), [(1.0, 0.0), (0.0, 1.0)])
def test_following_the_gradient_moves_the_dependencies_the_right_way(
    measure: Measure, lambda_x: float, lambda_y: float
) -> None:
    images, labels, (hidden,) = batch(16, [(3, 4, 4)])
    before = dependencies(images, labels, [hidden], measure, 5.0)
    chosen = defense(measure=measure, lambda_x=lambda_x, lambda_y=lambda_y)
    (gradient,) = torch.autograd.grad(chosen.loss(training_step(images, labels, [hidden])), hidden)
    moved = hidden - 0.1 * gradient / gradient.norm()
    after = dependencies(images, labels, [moved], measure, 5.0)
    if lambda_x:
        assert after[0] < before[0]
    else:
        assert after[1] > before[1]


@pytest.mark.slow
def test_a_training_step_costs_at_most_half_as_much_again() -> None:
    """Median ratio to a plain step at batch 64, measured in turns: other load hits both."""
    defenses = {"plain": Defense(), "hsic": defense(), "coco": defense(measure="coco")}
    torch.manual_seed(0)
    images, labels = torch.rand(64, 3, 32, 32), torch.randint(60, (64,))
    network = residual_network((32, 64, 128), 60).train()
    optimizer = torch.optim.Adam(network.parameters())

    def seconds(name: str) -> float:
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        step = TrainingStep(
            images=images,
            labels=labels,
            outputs=network.activations(images),
            model=network,
            epoch=0,
            epochs=1,
            generator=torch.Generator(),
        )
        defenses[name].loss(step).backward()
        optimizer.step()
        return time.process_time() - start

    for name in defenses:
        seconds(name)
    rounds = [{name: seconds(name) for name in defenses} for _ in range(25)]
    for name in MEASURES:
        assert statistics.median(r[name] / r["plain"] for r in rounds) <= 1.5, name
