"""Private training: gradients against a literal loop, noise, sampling and accounting against theory."""

import copy
import dataclasses
import math
import subprocess
import sys
from collections.abc import Iterator

import dp_accounting
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import RDPAccountant
from torch import Tensor, nn
from torch.nn import functional as F

from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import BuildContext, Defense, TrainingSetup, TrainingStep
from mia_bench.api.options import parse_options
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.track import Recipe
from mia_bench.training import TrainingResult, train_classifier
from mia_bench_plugins.defenses import dp_sgd, none, private_steps
from mia_bench_plugins.defenses.dp_sgd import DPSGD
from mia_bench_plugins.defenses.none import NoDefense
from mia_bench_plugins.defenses.private_steps import (
    PrivateSteps,
    check_network,
    epsilon_spent,
    find_noise_multiplier,
    poisson_batch,
    poisson_schedule,
)
from mia_bench_plugins.models.networks import residual_network
from mia_bench_plugins.models.norms import replace_batch_norm

CLASSES = 3
SIZE = 24
RECIPE = Recipe(epochs=2, batch_size=8, milestones=(0.5,), gamma=0.1)


def network(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return replace_batch_norm(residual_network((4, 8), CLASSES), 2).train()


def faces(size: int = SIZE) -> ImageSet:
    draws = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (size, 3, 16, 16), generator=draws, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(size) % CLASSES)


def make_setup(
    model: Classifier, *, size: int = SIZE, batch_size: int = 8, lr: float = 0.1, seed: int = 3
) -> TrainingSetup:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return TrainingSetup(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.MultiStepLR(optimizer, [1]),
        batches=lambda epoch: iter(()),
        train_size=size,
        labels=torch.zeros(size, dtype=torch.long),
        epochs=2,
        batch_size=batch_size,
        resolution=16,
        seed=seed,
    )


def make_steps(
    setup: TrainingSetup, noise: float = 0.0, clip: float = 1.0, physical: int = 1000
) -> PrivateSteps:
    return PrivateSteps(setup, noise_multiplier=noise, max_grad_norm=clip, physical_batch_size=physical)


def walk(
    model: Classifier, steps: PrivateSteps, epochs: int = 1, *, size: int = SIZE
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The training loop in float64, without augmentation: (images, labels, gradient) of each part."""
    data = faces(size)
    images, labels = data.images.double() / 255, data.labels
    for epoch in range(epochs):
        for index in steps.batches(epoch):
            steps.optimizer.zero_grad()
            batch = images[index].requires_grad_()
            F.cross_entropy(model.activations(batch).logits, labels[index]).backward()
            steps.optimizer.step()
            gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
            yield images[index], labels[index], gradient


def single_gradients(model: Classifier, images: Tensor, labels: Tensor) -> list[Tensor]:
    """One image at a time, without Opacus."""
    plain = network().double()  # not a copy, which would have the hooks
    plain.load_state_dict(model.state_dict())
    found = []
    for image, label in zip(images, labels, strict=True):
        plain.zero_grad()
        F.cross_entropy(plain.activations(image[None]).logits, label[None]).backward()
        found.append(torch.cat([p.grad.flatten() for p in plain.parameters()]))
    return found


def train(
    defense: Defense,
    model: Classifier | None = None,
    recipe: Recipe = RECIPE,
    *,
    size: int = SIZE,
    seed: int = 0,
) -> TrainingResult:
    return train_classifier(
        model or network(),
        faces(size),
        recipe,
        defense,
        seed=seed,
        device=torch.device("cpu"),
        progress=lambda *_: None,
    )


def private(**options: object) -> DPSGD:
    """With a given noise unless told: the search for it takes a second."""
    return DPSGD(parse_options("dp-sgd", DPSGD.Options, options or {"noise_multiplier": 1.0}))


def context() -> BuildContext:
    return BuildContext(CLASSES, 16, faces(), torch.Generator())


# --- gradients, noise, parts -----------------------------------------------------------------


def test_gradient_is_the_sum_of_clipped_gradients_of_single_images() -> None:
    model = network().double()
    setup = make_setup(model, lr=0.0)
    clip, clipped = 3.8, []
    steps = make_steps(setup, clip=clip)
    for images, labels, gradient in walk(model, steps, epochs=3):
        singles = single_gradients(model, images, labels)
        clipped += [bool(g.norm() > clip) for g in singles]
        expected = sum(g * min(1.0, clip / float(g.norm())) for g in singles) / setup.batch_size
        # Opacus divides by the norm + 1e-6.
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6)
    assert 0.1 < sum(clipped) / len(clipped) < 0.9  # both sides of the clipping were seen


def test_noise_has_the_promised_deviation_and_is_never_used_twice() -> None:
    sigma, clip, expected_batch = 1.5, 0.4, 8
    runs = []
    for noise in (0.0, sigma):
        model = network().double()
        steps = make_steps(make_setup(model, lr=0.0), noise=noise, clip=clip)
        runs.append(torch.stack([g for *_, g in walk(model, steps, epochs=20)]))
    noise = runs[1] - runs[0]
    assert noise.shape[0] == 20 * 3
    std = sigma * clip / expected_batch
    assert noise.std().item() == pytest.approx(std, rel=0.01)
    assert abs(noise.mean().item()) < 5 * std / math.sqrt(noise.numel())
    correlation = torch.corrcoef(noise) - torch.eye(len(noise))
    assert correlation.abs().max() < 6 / math.sqrt(noise.shape[1])
    per_parameter = noise.std(0)
    assert per_parameter.min() > 0.5 * std  # every parameter gets its noise


def test_noise_follows_the_seed() -> None:
    gradients = []
    for seed in (3, 3, 4):  # full batches: all but the noise is the same
        model = network().double()
        steps = make_steps(make_setup(model, size=8, batch_size=8, seed=seed), noise=1.0)
        ((*_, gradient),) = walk(model, steps, size=8)
        gradients.append(gradient)
    assert torch.equal(gradients[0], gradients[1])
    assert (gradients[0] - gradients[2]).std() > 0.1


@pytest.mark.parametrize("physical", [1, 3])
def test_parts_of_a_batch_make_the_step_of_the_whole(physical: int) -> None:
    states, parts = [], []
    for size in (1000, physical):
        model = network().double()
        steps = make_steps(make_setup(model), clip=3.8, physical=size)
        parts.append([len(labels) for _, labels, _ in walk(model, steps, epochs=2)])
        states.append(model.state_dict())
    assert max(parts[1]) <= physical
    assert len(parts[1]) > len(parts[0])
    assert sum(parts[1]) == sum(parts[0])
    start = network().double().state_dict()
    for name, whole in states[0].items():
        assert not torch.equal(whole, start[name])
        torch.testing.assert_close(states[1][name], whole, rtol=1e-9, atol=1e-12)


def test_noise_is_added_once_a_batch_however_many_parts_it_has() -> None:
    grown = []
    for physical in (1000, 2):
        model = network().double()
        setup = make_setup(model, lr=1.0)
        start = torch.cat([p.detach().flatten() for p in model.parameters()])
        steps = make_steps(setup, noise=50.0, clip=1.0, physical=physical)
        list(walk(model, steps, epochs=1))
        grown.append(torch.cat([p.detach().flatten() for p in model.parameters()]) - start)
    expected = 50.0 / 8 * math.sqrt(3)  # three steps, each of this deviation
    for moved in grown:
        assert moved.std().item() == pytest.approx(expected, rel=0.1)


# --- sampling --------------------------------------------------------------------------------


def test_each_image_is_drawn_on_its_own_with_the_rate() -> None:
    size, rate, count = 40, 0.2, 4000
    draws = torch.Generator().manual_seed(0)
    member = torch.zeros(count, size)
    for row in member:
        row[poisson_batch(size, rate, draws)] = 1
    error = math.sqrt(rate * (1 - rate) / count)
    assert (member.mean(0) - rate).abs().max() < 5 * error
    sizes = member.sum(1)
    assert sizes.var().item() == pytest.approx(size * rate * (1 - rate), rel=0.15)  # not fixed
    correlation = torch.corrcoef(member.T) - torch.eye(size)
    assert correlation.abs().max() < 5.5 / math.sqrt(count)


def test_sampler_takes_one_over_rate_steps_an_epoch_and_new_draws_each_epoch() -> None:
    setup = make_setup(network(), size=90, batch_size=8)
    assert poisson_schedule(setup) == (8 / 90, 11)
    assert poisson_schedule(make_setup(network(), size=94, batch_size=8)) == (8 / 94, 12)
    assert poisson_schedule(make_setup(network(), size=8, batch_size=64)) == (1.0, 1)
    first, again, second = ([b.tolist() for b in make_steps(setup).batches(e)] for e in (0, 0, 1))
    assert len(first) == 11
    assert first == again != second
    assert len({len(batch) for batch in first}) > 1
    other = make_steps(dataclasses.replace(setup, seed=4)).batches(0)
    assert [b.tolist() for b in other] != first


def test_an_empty_batch_is_a_step_of_noise_alone() -> None:
    model = network().double()
    setup = make_setup(model, size=4, batch_size=1, lr=1.0)
    steps = make_steps(setup, noise=2.0, clip=0.5)
    taken, with_images = [], 0
    setup.optimizer.register_step_pre_hook(
        lambda *_: taken.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    )
    for epoch in range(10):
        for index in steps.batches(epoch):
            with_images += 1
            steps.optimizer.zero_grad()
            batch = faces(4).images[index].double().requires_grad_()
            F.cross_entropy(model.activations(batch).logits, index % CLASSES).backward()
            steps.optimizer.step()
    assert 0 < with_images < 40
    assert len(taken) == 40
    assert all(g.std().item() == pytest.approx(2.0 * 0.5, rel=0.15) for g in taken)
    spent = epsilon_spent([(2.0, 0.25, 40)], 1e-3)  # empty steps spend like the others
    assert steps.epsilon(1e-3) == spent


def test_training_goes_on_through_empty_batches() -> None:
    recipe = RECIPE.model_copy(update={"batch_size": 1, "epochs": 8})
    result = train(private(noise_multiplier=0.5), recipe=recipe, size=3)
    assert all(math.isfinite(loss) for loss in result.losses)


# --- accounting ------------------------------------------------------------------------------


MANY_ORDERS = [1 + 1.02**k / 100 for k in range(600)]


def integrated_epsilon(noise: float, rate: float, steps: int, delta: float, orders: list[float]) -> float:
    """Rényi accounting of the subsampled Gaussian by numerical integration, for orders of any kind.

    The moments of Mironov, Talwar, Zhang 2019, section 3.1; conversion of Balle et al. 2020, theorem 21.
    """
    best = math.inf
    for order in orders:
        z = torch.linspace(-15 * noise, order + 15 * noise, 20001, dtype=torch.float64)
        log_density = -((z / noise) ** 2) / 2 - math.log(noise * math.sqrt(2 * math.pi))
        with_image = math.log(rate) + (2 * z - 1) / (2 * noise**2)
        without = torch.full_like(z, math.log1p(-rate) if rate < 1 else -math.inf)
        log_ratio = torch.logaddexp(without, with_image)
        log_moment = torch.logsumexp(log_density + order * log_ratio, 0) + math.log(z[1] - z[0])
        renyi = steps * float(log_moment) / (order - 1)
        converted = math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        best = min(best, renyi + converted)
    return best


def best_order(mechanism: tuple[float, float, int, float]) -> float:
    noise, rate, steps, delta = mechanism
    return private_steps._spent([(noise, rate, steps)], delta)[1]


def gaussian_delta(epsilon: float, noise: float, steps: int) -> float:
    """Exact delta of ``steps`` full-batch Gaussian mechanisms (Balle and Wang, 2018, theorem 8)."""
    mu = math.sqrt(steps) / noise

    def below(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    return below(mu / 2 - epsilon / mu) - math.exp(epsilon) * below(-mu / 2 - epsilon / mu)


def spent(noise: float, rate: float, steps: int, delta: float) -> float:
    setup = make_setup(network(), size=1000, batch_size=round(1000 * rate))
    taken = make_steps(setup, noise=noise)
    taken._accountant.history = [(noise, poisson_schedule(setup)[0], steps)]
    return taken.epsilon(delta)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_epsilon_agrees_with_numerical_integration(noise: float, rate: float) -> None:
    ours = spent(noise, rate, 300, 1e-5)
    tightest = integrated_epsilon(noise, rate, 300, 1e-5, MANY_ORDERS)
    assert (1 - 1e-4) * tightest < ours < 1.001 * tightest


# Noise multiplier, sampling rate, steps, delta. The first are what the tracks synth-faces and lfw need for
# epsilon 5000, and mnist for 500.
MECHANISMS = [
    (0.0809, 64 / 840, 13 * 40, 1 / 8400),
    (0.0946, 64 / 1623, 25 * 60, 1 / 16230),
    (0.1439, 64 / 3750, 59 * 8, 1 / 37500),
    (0.01, 64 / 1819, 28 * 60, 1 / 18190),
    (0.3, 0.001, 5000, 1e-6),
    (0.5, 64 / 1819, 28 * 60, 1 / 18190),
    (1.0, 64 / 1819, 28 * 60, 1 / 18190),
    (1.0, 0.25, 300, 1e-5),
    (4.0, 0.01, 300, 1e-5),
    (20.0, 64 / 1819, 28 * 60, 1 / 18190),
    (50.0, 0.9, 1700, 1e-5),
    (4.0, 1.0, 10, 1e-5),
]
each_mechanism = pytest.mark.parametrize(
    "mechanism", MECHANISMS, ids=lambda m: f"{m[0]:g}-{m[1]:.3g}-{m[2]}-{m[3]:.0e}"
)


@each_mechanism
def test_epsilon_agrees_with_dp_accounting(mechanism: tuple[float, float, int, float]) -> None:
    noise, rate, steps, delta = mechanism
    ours = epsilon_spent([(noise, rate, steps)], delta)
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise)), steps
    )
    # Privacy loss distributions leave next to no slack; Rényi accounting is up to 20 % above.
    tight = PLDAccountant(value_discretization_interval=max(1e-4, 1e-5 * ours)).compose(event)
    assert 1.0 < ours / tight.get_epsilon(delta) < 1.2
    # Its Rényi accountant ends a series that converges slowly at a bound, or leaves the order out.
    theirs = RdpAccountant([best_order(mechanism)]).compose(event).get_epsilon(delta)
    assert ours <= theirs * (1 + 1e-6)
    if math.isfinite(theirs):
        assert ours == pytest.approx(theirs, rel=5e-3)


@pytest.mark.slow
@each_mechanism
def test_orders_are_enough_for_any_noise(mechanism: tuple[float, float, int, float]) -> None:
    noise, rate, steps, delta = mechanism
    best = best_order(mechanism)
    near = [1 + (best - 1) * 1.01**k for k in range(-60, 61)]
    ours = epsilon_spent([(noise, rate, steps)], delta)
    tightest = integrated_epsilon(noise, rate, steps, delta, near)
    assert (1 - 1e-4) * tightest < ours < 1.0005 * tightest


@pytest.mark.parametrize(
    ("target", "mechanism"), [(5000, MECHANISMS[0]), (5000, MECHANISMS[1]), (500, MECHANISMS[2])]
)
def test_tracks_get_no_more_noise_than_their_epsilon_needs(
    target: float, mechanism: tuple[float, float, int, float]
) -> None:
    enough, rate, steps, delta = mechanism
    noise = find_noise_multiplier(target, delta, rate, steps)
    assert noise == pytest.approx(enough, rel=2e-3)
    assert best_order((noise, rate, steps, delta)) < 1.1  # where Opacus's own orders begin


@pytest.mark.parametrize(
    ("noise", "rate", "what"),
    [
        (1e-4, 0.1, "lowest of those tried, 1.000001, .* use more"),
        (1e3, 0.001, "highest of those tried, 1024, .* use less"),
    ],
)
def test_a_best_order_at_the_edge_is_refused_before_training(noise: float, rate: float, what: str) -> None:
    with pytest.raises(MiaBenchError, match=rf"^dp-sgd can't account for noise_multiplier=\S+: .*{what}"):
        epsilon_spent([(noise, rate, 100)], 1e-5)
    steps: list[int] = []

    class Watches(DPSGD):
        def loss(self, step: TrainingStep) -> Tensor:
            steps.append(1)
            return super().loss(step)

    with pytest.raises(MiaBenchError, match="can't account for noise_multiplier"):
        train(Watches(Watches.Options(noise_multiplier=1e-4)))
    assert not steps


def test_a_found_noise_whose_best_order_is_at_the_edge_is_refused() -> None:
    with pytest.raises(MiaBenchError, match=r"highest of those tried, 1024, .* use less noise"):
        find_noise_multiplier(0.006, 1e-5, 0.01, 100)


def test_epsilon_of_full_batches_bounds_the_exact_gaussian_from_near() -> None:
    noise, steps, delta = 4.0, 10, 1e-5
    epsilon = spent(noise, 1.0, steps, delta)
    assert gaussian_delta(epsilon, noise, steps) <= delta
    assert gaussian_delta(0.9 * epsilon, noise, steps) > delta


@pytest.mark.slow
def test_report_is_of_the_steps_really_taken() -> None:
    defense = private(noise_multiplier=1.1, delta=1e-3)
    result = train(defense)
    reference = RDPAccountant()
    for _ in range(2 * 3):
        reference.step(noise_multiplier=1.1, sample_rate=8 / 24)
    assert defense.report(result.setup) == {
        "epsilon": pytest.approx(reference.get_epsilon(1e-3, alphas=MANY_ORDERS[:400]), rel=1e-4),
        "delta": 1e-3,
        "noise_multiplier": 1.1,
    }
    longer = private(noise_multiplier=1.1, delta=1e-3)
    more = train(longer, recipe=RECIPE.model_copy(update={"epochs": 4}))
    assert longer.report(more.setup)["epsilon"] > defense.report(result.setup)["epsilon"] + 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", [0.7, 8.0, *(pytest.param(target, marks=pytest.mark.thorough) for target in (50.0, 1000.0))]
)
def test_target_epsilon_is_met_and_not_exceeded(target: float) -> None:
    defense = private(epsilon=target)
    reported = defense.report(train(defense).setup)
    assert reported.keys() == defense.reports.keys()
    assert reported["delta"] == 1 / 240
    assert 0.998 * target < reported["epsilon"] <= target


@pytest.mark.slow
def test_more_privacy_takes_more_noise() -> None:
    noises = [find_noise_multiplier(e, 1e-4, 0.1, 100) for e in (1, 8, 50)]
    assert noises == sorted(noises, reverse=True)
    for noise, target in zip(noises, (1, 8, 50), strict=True):
        there = integrated_epsilon(noise, 0.1, 100, 1e-4, MANY_ORDERS)
        assert there == pytest.approx(target, rel=2e-3)


def test_epsilon_out_of_reach_is_one_line_with_the_limit() -> None:
    with pytest.raises(MiaBenchError) as error:
        train(private(epsilon=0.001, delta=1e-5))
    assert str(error.value) == (
        "dp-sgd.epsilon=0.001 can't be reached with delta=1e-05: "
        "the accountant gives 0.0035 however large the noise"
    )


# --- the run ---------------------------------------------------------------------------------


def test_a_seed_fixes_the_weights() -> None:
    states = [train(private(), seed=seed).model.state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


def test_recipe_schedule_steers_the_private_optimiser() -> None:
    rates: list[float] = []

    class Watches(DPSGD):
        def loss(self, step: TrainingStep) -> Tensor:
            assert self._steps is not None
            rates.append(self._steps.optimizer.original_optimizer.param_groups[0]["lr"])
            return super().loss(step)

    recipe = RECIPE.model_copy(update={"epochs": 4})
    train(Watches(Watches.Options(noise_multiplier=1)), recipe=recipe)
    assert sorted(set(rates), reverse=True) == pytest.approx([1e-3, 1e-4])
    rates.clear()
    train(Watches(Watches.Options(noise_multiplier=1, learning_rate=0.02)), recipe=recipe)
    assert sorted(set(rates), reverse=True) == pytest.approx([2e-2, 2e-3])
    assert rates == sorted(rates, reverse=True)


def test_private_steps_move_every_parameter_through_the_recipes_optimiser() -> None:
    start = network().state_dict()
    result = train(private(noise_multiplier=0.01))
    assert isinstance(result.setup.optimizer.original_optimizer, torch.optim.Adam)
    for name, value in result.model.state_dict().items():
        assert not torch.equal(value, start[name])


def test_clipping_norm_and_part_size_are_the_options() -> None:
    counts: list[int] = []

    class Counts(DPSGD):
        def loss(self, step: TrainingStep) -> Tensor:
            counts.append(len(step.labels))
            return super().loss(step)

    given = {"noise_multiplier": 2.0, "max_grad_norm": 0.25, "physical_batch_size": 3}
    result = train(Counts(Counts.Options(**given)))
    assert max(counts) == 3
    optimizer = result.setup.optimizer
    assert (optimizer.noise_multiplier, optimizer.max_grad_norm) == (2.0, 0.25)


def test_little_noise_learns_and_much_noise_does_not() -> None:
    """The whole chain on images that differ by colour."""
    labels = torch.arange(60) % CLASSES
    pixels = torch.zeros(60, 3, 16, 16)
    pixels[torch.arange(60), labels] = 160
    draws = torch.Generator().manual_seed(0)
    pixels += 90 * torch.rand(pixels.shape, generator=draws)
    data = ImageSet(pixels.to(torch.uint8), labels)
    accuracy = []
    for noise in (0.05, 500.0):
        defense = private(noise_multiplier=noise, learning_rate=0.01)
        result = train_classifier(
            network(),
            data,
            Recipe(epochs=12, batch_size=20),
            defense,
            seed=0,
            device=torch.device("cpu"),
            progress=lambda *_: None,
        )
        predicted = result.model(data.images.float() / 255).argmax(1)
        accuracy.append((predicted == labels).float().mean().item())
    assert accuracy[0] > 0.95
    assert accuracy[1] < 0.8


def test_trained_target_is_an_ordinary_network() -> None:
    defense = private(noise_multiplier=1.0, groups=2)
    trained = train(defense).model
    loaded = defense.build_model(lambda: residual_network((4, 8), CLASSES), context()).eval()
    loaded.load_state_dict(trained.state_dict())
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    gradients = []
    for model in (trained, loaded):
        asked = images.clone().requires_grad_()
        logits = model(asked)
        logits[:, 1].sum().backward()
        gradients.append(asked.grad)
        torch.testing.assert_close(logits, trained(images), rtol=0, atol=0)
    assert (gradients[0].flatten(1).norm(dim=1) > 0).all()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    for module in trained.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
        assert "activations" not in module.__dict__
    assert not hasattr(trained, "autograd_grad_sample_hooks")
    for parameter in trained.parameters():
        assert not hasattr(parameter, "grad_sample")
        assert parameter.summed_grad is None
    copy.deepcopy(trained).train()(images).sum().backward()


def test_hooks_leave_when_training_breaks_off() -> None:
    class Breaks(DPSGD):
        def loss(self, step: TrainingStep) -> Tensor:
            raise RuntimeError("broken off")

    model = network()
    with pytest.raises(RuntimeError, match="broken off"):
        train(Breaks(Breaks.Options(noise_multiplier=1)), model)
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


# --- refusals --------------------------------------------------------------------------------


class WithLayer(Classifier):
    """A network of some other author with one layer put in."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 4, 3), layer)])
        self.head = nn.Linear(4, CLASSES)


class MinusMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return x


class TwiceUsed(nn.Module):
    """Its weight is used once as a layer and once as a function, which no hook sees."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + F.conv2d(x, 3 * self.inner.weight)


class HalfUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(1))
        self.inner = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.BatchNorm2d(4), "BatchNorm cannot support training with differential privacy"),
        (nn.BatchNorm2d(4, affine=False), "depends on the others of the batch"),
        (nn.BatchNorm2d(4).requires_grad_(False), "depends on the others of the batch"),
        (nn.InstanceNorm2d(4, track_running_stats=True), "blocks.0.1.running_mean keeps"),
        (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), "tracking running stats"),
        (MinusMean(), "its answer for one image depends on the others of the batch"),
        (Remembers(), "blocks.0.1.mean keeps statistics of the images"),
        (nn.ReLU(inplace=True), "can't take per-sample gradients here"),
        (TwiceUsed(), "gradients of blocks.0.1.inner.weight don't add up to its gradient"),
        (HalfUsed(), "blocks.0.1.unused has no per-sample gradient"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_networks_that_void_the_accounting_are_refused(layer: nn.Module, reason: str) -> None:
    model = WithLayer(layer)
    start = copy.deepcopy(model.state_dict())
    with pytest.raises(MiaBenchError) as error:
        train(private(), model)
    assert str(error.value).startswith("dp-sgd can't")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    for name, value in model.named_parameters():
        assert torch.equal(value, start[name])


def test_a_parameter_outside_every_layer_is_refused() -> None:
    class Scaled(WithLayer):
        def __init__(self) -> None:
            super().__init__(nn.ReLU())
            self.scale = nn.Parameter(torch.ones(()))

        def pool(self, hidden: Tensor) -> Tensor:
            return super().pool(hidden) * self.scale

    with pytest.raises(MiaBenchError, match="scale has no per-sample gradient"):
        train(private(), Scaled())


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), nn.Dropout(0.5), nn.ReLU(), nn.LayerNorm(14)])
def test_networks_that_can_be_accounted_for_pass(layer: nn.Module) -> None:
    model = WithLayer(layer).train()
    check_network(model, 16, seed=0)
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    train(private(), model)


def test_frozen_layers_are_left_out() -> None:
    model = network()
    model.blocks[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    after = train(private(noise_multiplier=1.0), model).model.state_dict()
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("blocks.0.")


@pytest.mark.parametrize("kind", ["own", "filtered", "repeated"])
def test_another_sampler_is_refused_before_the_first_step(kind: str) -> None:
    class Replaces(DPSGD):
        def prepare_training(self, setup: TrainingSetup) -> TrainingSetup:
            ready = super().prepare_training(setup)

            def batches(epoch: int) -> Iterator[Tensor]:
                for index in setup.batches(epoch) if kind == "own" else ready.batches(epoch):
                    if kind == "repeated":
                        yield index
                    yield index[:-1] if kind == "filtered" else index

            return dataclasses.replace(ready, batches=batches)

    model = network()
    start = copy.deepcopy(model.state_dict())
    with pytest.raises(MiaBenchError, match="a batch did not come from its Poisson sampler"):
        train(Replaces(Replaces.Options(noise_multiplier=1)), model)
    if kind != "repeated":
        assert all(torch.equal(v, start[n]) for n, v in model.state_dict().items())


def test_another_optimiser_is_refused_in_the_report() -> None:
    defense = private()
    result = train(defense)
    other = dataclasses.replace(result.setup, optimizer=torch.optim.SGD(result.model.parameters()))
    with pytest.raises(MiaBenchError, match="another optimiser"):
        defense.report(other)


# --- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "epsilon", "noise"),
    [
        ({}, 50.0, None),
        ({"epsilon": "8"}, 8.0, None),
        ({"noise_multiplier": "1.5"}, None, 1.5),
        ({"epsilon": "null", "noise_multiplier": "1.5"}, None, 1.5),
        ({"epsilon": "8", "noise_multiplier": "null"}, 8.0, None),
        ({"noise_multiplier": "null"}, 50.0, None),
    ],
)
def test_epsilon_or_noise_multiplier(given: dict, epsilon: object, noise: object) -> None:
    options = parse_options("dp-sgd", DPSGD.Options, given)
    assert (options.epsilon, options.noise_multiplier) == (epsilon, noise)
    # What a record holds can be read back.
    assert DPSGD.Options(**options.model_dump(mode="json")) == options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"epsilon": "8", "noise_multiplier": "1"},
            "dp-sgd.noise_multiplier=1: epsilon 8 is given too; give one of the two",
        ),
        (
            {"epsilon": "null"},
            "dp-sgd.noise_multiplier=None: epsilon is null too; give one of the two",
        ),
        ({"epsilon": "0"}, "dp-sgd.epsilon=0: "),
        ({"epsilon": "inf"}, "dp-sgd.epsilon=inf: "),
        ({"noise_multiplier": "0"}, "dp-sgd.noise_multiplier=0: "),
        ({"delta": "1"}, "dp-sgd.delta=1: "),
        ({"max_grad_norm": "0"}, "dp-sgd.max_grad_norm=0: "),
        ({"accountant": "prv"}, "dp-sgd.accountant=prv: "),
        ({"physical_batch_size": "0"}, "dp-sgd.physical_batch_size=0: "),
        (
            {"noise_multiplyer": "1"},
            "dp-sgd has no option 'noise_multiplyer'; did you mean 'noise_multiplier'",
        ),
    ],
)
def test_wrong_options_are_one_line(given: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_options("dp-sgd", DPSGD.Options, given)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


# --- architecture ----------------------------------------------------------------------------


def norms(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(
    ("channels", "groups", "expected"), [(32, 8, 8), (12, 8, 6), (7, 8, 7), (7, 4, 1), (4, 8, 4)]
)
def test_most_groups_that_divide_the_channels(channels: int, groups: int, expected: int) -> None:
    block = nn.Sequential(nn.Conv2d(3, channels, 1), nn.Sequential(nn.BatchNorm2d(channels)))
    (made,) = norms(replace_batch_norm(block, groups), nn.GroupNorm)
    assert (made.num_groups, made.num_channels) == (expected, channels)
    assert torch.equal(made.weight, torch.ones(channels))
    assert torch.equal(made.bias, torch.zeros(channels))


def test_no_batch_norm_of_any_dimension_is_left() -> None:
    model = nn.Sequential(
        nn.BatchNorm1d(4), nn.ModuleDict({"a": nn.BatchNorm3d(4)}), residual_network((4, 8), 3)
    )
    count = len(norms(model, nn.modules.batchnorm._BatchNorm))
    assert count == 2 + 6
    replace_batch_norm(model, 8)
    assert not norms(model, nn.modules.batchnorm._BatchNorm)
    assert len(norms(model, nn.GroupNorm)) == count


def test_none_has_the_private_architecture_when_asked() -> None:
    def build() -> Classifier:
        torch.manual_seed(0)
        return residual_network((4, 8), CLASSES)

    plain, grouped = (
        NoDefense(parse_options("none", NoDefense.Options, given))
        for given in ({}, {"norm": "group", "groups": "4"})
    )
    batch = plain.build_model(build, context())
    assert len(norms(batch, nn.BatchNorm2d)) == 6
    assert not norms(batch, nn.GroupNorm)
    group = grouped.build_model(build, context())
    assert not norms(group, nn.BatchNorm2d)
    same = private(groups=4).build_model(build, context())
    assert str(group) == str(same)
    state = same.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in group.state_dict().items())
    with pytest.raises(UsageError, match=r"none\.norm=layer"):
        parse_options("none", NoDefense.Options, {"norm": "layer"})


# --- registration ----------------------------------------------------------------------------


def test_registration_imports_neither_torch_nor_opacus() -> None:
    found: dict[str, object] = {}
    for module in (dp_sgd, none):
        module.mia_bench_register_defenses(lambda name, component: found.update({name: component}))
    assert found == {"dp-sgd": DPSGD, "none": NoDefense}
    code = (
        "import sys, mia_bench_plugins.defenses.dp_sgd as d, mia_bench_plugins.defenses.none\n"
        "d.DPSGD(d.DPSGD.Options(epsilon=1))\n"
        "assert not {'torch', 'opacus'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
