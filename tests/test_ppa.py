"""Plug & Play: the losses, the three stages, the budget."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from attacking import attacked
from mia_bench.api.access import open_access
from mia_bench.api.attack import AttackTask, Setting
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense
from mia_bench.api.images import to_float, to_uint8
from mia_bench.api.options import parse_options
from mia_bench.augment import random_resized_crop
from mia_bench.errors import UsageError
from mia_bench_plugins.attacks.ppa import LOSSES, PlugAndPlay, poincare_loss
from mia_bench_plugins.priors.eigenfaces import Eigenfaces
from mia_bench_plugins.priors.linear_model import LinearModel

SIZE = 8


def reference_poincare(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The equation of the paper in float64, row by row."""
    rows = []
    for o, y in zip(logits.double(), labels, strict=True):
        u = o / o.abs().sum()
        v = torch.zeros_like(u)
        v[y] = 1 - 1e-4
        argument = 1 + 2 * (u - v).square().sum() / ((1 - u.square().sum()) * (1 - v.square().sum()))
        rows.append(torch.acosh(argument))
    return torch.stack(rows)


def test_poincare_loss_equals_the_equation() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(200, 30, generator=draws)
    labels = torch.randint(30, (200,), generator=draws)
    torch.testing.assert_close(
        poincare_loss(logits, labels).double(),
        reference_poincare(logits, labels),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("cross-entropy", [math.log(math.exp(3) + math.exp(1) + math.exp(-2)) - 1, math.log(3)]),
        ("max-margin", [3.0 - 1.0, 0.0]),
        ("logit", [-1.0, -0.5]),
    ],
)
def test_losses_equal_their_closed_forms(loss: str, expected: list[float]) -> None:
    logits = torch.tensor([[3.0, 1.0, -2.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    losses = LOSSES[loss](logits, torch.tensor([1, 2]))
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_losses_by_finite_differences(loss: str) -> None:
    draws = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 6, generator=draws, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 5, 1])
    assert torch.autograd.gradcheck(lambda x: LOSSES[loss](x, labels), logits)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_per_sample_and_in_float32_or_better(loss: str) -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).bfloat16()
    labels = torch.tensor([0, 1, 2])
    losses = LOSSES[loss](logits, labels)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, LOSSES[loss](logits.float(), labels), rtol=0, atol=0)
    alone = [LOSSES[loss](logits[i : i + 1], labels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(losses, torch.cat(alone))


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_poincare_stays_finite_where_one_logit_carries_everything(scale: float) -> None:
    logits = torch.zeros(2, 5)
    logits[0, 1], logits[1, 1] = scale, -scale
    logits.requires_grad_(True)
    loss = poincare_loss(logits, torch.tensor([1, 1]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert loss[0] < loss[1]


class MeanColour(nn.Module):
    """A target whose three logits are the mean colours: what it wants is known exactly."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * images.mean(dim=(2, 3))


def colour_prior() -> LinearModel:
    """Latents are the three colours of a flat grey image."""
    basis = torch.zeros(3, 3, SIZE, SIZE)
    for channel in range(3):
        basis[channel, channel] = 0.1
    return LinearModel(torch.full((3 * SIZE**2,), 0.5), basis.flatten(1), SIZE)


def task(seed: int = 0, *, images_per_class: int = 2, batch_size: int = 7) -> AttackTask:
    return AttackTask(
        access=open_access("white-box", MeanColour(), 3),
        prior=colour_prior(),
        public=ImageSet(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), torch.zeros(1).long()),
        classes=torch.arange(3),
        images_per_class=images_per_class,
        generator=torch.Generator().manual_seed(seed),
        device=torch.device("cpu"),
        batch_size=batch_size,
        progress=lambda done, total, unit: None,
    )


def attack(**options: object) -> PlugAndPlay:
    defaults = {"search": 30, "candidates": 5, "steps": 15, "learning_rate": 0.1, "views": 4}
    return PlugAndPlay(PlugAndPlay.Options(**{**defaults, **options}))


def confidence(images: torch.Tensor) -> torch.Tensor:
    """The target's probability of each image's class, (K, M)."""
    flat = to_float(images.flatten(0, 1))
    probabilities = MeanColour()(flat).softmax(1).unflatten(0, images.shape[:2])
    return torch.stack([probabilities[k, :, k] for k in range(3)])


def test_optimisation_improves_on_the_initial_selection() -> None:
    start = confidence(attacked(attack(steps=0), task()).images)
    end = confidence(attacked(attack(), task()).images)
    assert (end.mean(1) > start.mean(1) + 0.01).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("crops", [1, 3])
def test_every_loss_optimises(loss: str, crops: int) -> None:
    start = confidence(attacked(attack(steps=0), task()).images)
    end = confidence(attacked(attack(loss=loss, augment_average=crops), task()).images)
    assert (end.mean(1) > start.mean(1) + 0.01).all()


@pytest.mark.parametrize(
    ("batch_size", "passes"), [(7, [[4], [4], [4]]), (8, [[4, 4], [4]]), (50, [[4] * 3])]
)
def test_gradients_are_averaged_over_crops_within_the_batch_size(
    batch_size: int, passes: list[list[int]]
) -> None:
    """The mean of the gradients of the single crops, from the same random numbers."""
    given, labels = task(batch_size=batch_size), torch.tensor([0, 1, 2, 1])
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    found, losses = attack(augment_average=3, crop=(0.2, 0.9))._gradient(given, images.clone(), labels)
    assert given.access.queries == 3 * 4
    draws, expected = torch.Generator().manual_seed(0), torch.zeros_like(images)
    mean = torch.zeros(4)
    for together in passes:
        repeated = images.repeat(len(together), 1, 1, 1).requires_grad_(True)
        assert len(repeated) <= batch_size
        views = random_resized_crop(repeated, draws, scale=(0.2, 0.9))
        for view, number in zip(views.split(4), range(len(together)), strict=True):
            loss = poincare_loss(MeanColour()(view), labels)
            mean += loss.detach() / 3
            (gradient,) = torch.autograd.grad(loss.sum(), repeated, retain_graph=True)
            assert gradient.abs().sum((1, 2, 3)).gt(0).tolist() == [
                number == i // 4 for i in range(len(gradient))
            ]
            expected += gradient.unflatten(0, (-1, 4)).sum(0) / 3
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(losses, mean)


def test_one_crop_is_plain_backpropagation_to_the_bit() -> None:
    given, labels = task(batch_size=50), torch.tensor([0, 1, 2, 1])
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(4))
    moved, _ = attack(steps=1)._optimise(given, start, labels)
    w, draws = start.clone().requires_grad_(True), torch.Generator().manual_seed(0)
    views = random_resized_crop(colour_prior()(w), draws, scale=(0.9, 1.0))
    adam = torch.optim.Adam([w], lr=0.1, betas=(0.1, 0.1), fused=False)
    poincare_loss(MeanColour()(views), labels).sum().backward()
    adam.step()
    assert torch.equal(moved, w.detach())


def test_diagnostics_are_those_of_each_step_averaged_over_candidates() -> None:
    options = {"search": 30, "candidates": 4, "steps": 3, "views": 2, "crop": (1.0, 1.0), "loss": "logit"}
    made = task(batch_size=5)
    prior = made.prior
    attack = PlugAndPlay(PlugAndPlay.Options(**options))
    state = attack.prepare(made)
    found = attack.invert(replace(made, state=state)).diagnostics
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "loss": (3, 3), "gradient_norm": (3, 3), "gradient_cosine": (3, 3)
    }  # fmt: skip
    # The logit of a flat image is linear in its latent, as long as no colour is cut: all gradients are equal.
    start = state["latents"][state["best"]]
    expected = -MeanColour()(prior(start.flatten(0, 1))).view(3, 4, 3)[torch.arange(3), :, torch.arange(3)]
    torch.testing.assert_close(found["loss"][:, 0], expected.mean(1), rtol=1e-5, atol=1e-5)
    assert (found["loss"][:, 1:] < found["loss"][:, :-1]).all()
    # 20 times the mean of a channel, which grows by 0.1 with its latent.
    torch.testing.assert_close(found["gradient_norm"], torch.full((3, 3), 2.0), rtol=1e-4, atol=1e-4)
    assert found["gradient_cosine"][:, 0].isnan().all()
    torch.testing.assert_close(found["gradient_cosine"][:, 1:], torch.ones(3, 2), rtol=1e-5, atol=1e-5)


def test_without_steps_there_are_no_diagnostics() -> None:
    options = PlugAndPlay.Options(search=10, candidates=3, steps=0)
    assert attacked(PlugAndPlay(options), task()).diagnostics == {}


def test_initial_selection_is_the_best_of_the_search() -> None:
    """With steps=0 the images are the top of all sampled latents by the mirrored mean softmax."""
    found = attacked(attack(steps=0), task())
    latents = 0.5 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    images = colour_prior()(latents)
    scores = (MeanColour()(images).softmax(1) + MeanColour()(images.flip(3)).softmax(1)) / 2
    for label in range(3):
        best = scores[:, label].topk(2).indices
        torch.testing.assert_close(found.latents[label], latents[best])
        assert torch.equal(found.images[label], to_uint8(images[best]))


class LeftColour(nn.Module):
    """A target that sees the left half only, so that an image and its mirror get other answers."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * images[..., : SIZE // 2].mean(dim=(2, 3))


def test_initial_selection_averages_over_an_image_and_its_mirror() -> None:
    draws = torch.Generator().manual_seed(5)
    prior = LinearModel(torch.full((3 * SIZE**2,), 0.5), torch.randn(3, 3 * SIZE**2, generator=draws), SIZE)
    given = replace(task(), prior=prior, access=open_access("white-box", LeftColour(), 3))
    state = attack().prepare(given)
    images = prior(state["latents"])
    both = (LeftColour()(images).softmax(1) + LeftColour()(images.flip(3)).softmax(1)) / 2
    assert torch.equal(state["best"], both.topk(5, dim=0).indices.T)
    assert not torch.equal(state["best"], LeftColour()(images).softmax(1).topk(5, dim=0).indices.T)


def test_final_selection_returns_the_surest_first() -> None:
    """The mean colour of a flat image is that of all its crops, so the target's confidence is known."""
    some, every = (attacked(attack(steps=2), task(images_per_class=number)) for number in (2, 5))
    answers = MeanColour()(colour_prior()(every.latents.flatten(0, 1))).softmax(1).view(3, 5, 3)
    assert (torch.stack([answers[k, :, k] for k in range(3)]).diff(dim=1) <= 1e-6).all()
    assert torch.equal(some.latents, every.latents[:, :2])


def test_final_scores_are_the_mean_confidence_over_the_views(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, object]] = []

    def shown(images: torch.Tensor, generator: torch.Generator, **how: object) -> torch.Tensor:
        seen.append(how)
        return images * torch.tensor([1.0, 1.0 + 0.1 * len(seen), 1.0])[:, None, None]

    monkeypatch.setattr("mia_bench_plugins.attacks.ppa.random_resized_crop", shown)
    w, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])
    given = task(batch_size=50)
    found = attack(views=3, views_crop=(0.4, 0.6))._final_scores(given, w, labels)
    assert seen == 3 * [{"scale": (0.4, 0.6), "ratio": (0.8, 1.2), "flips": True}]
    colours = torch.stack([torch.tensor([1.0, 1.0 + 0.1 * view, 1.0]) for view in (1, 2, 3)])
    expected = torch.stack(
        [MeanColour()(colour_prior()(w) * colour[:, None, None]).softmax(1) for colour in colours]
    ).mean(0)[torch.arange(4), labels]
    torch.testing.assert_close(found, expected)


def test_what_is_returned_is_what_the_latents_show() -> None:
    found = attacked(attack(), task())
    rendered = colour_prior()(found.latents.flatten(0, 1)).unflatten(0, (3, 2))
    assert torch.equal(found.images, to_uint8(rendered))


def test_no_repeats_within_a_class() -> None:
    found = attacked(attack(steps=0, candidates=10), task(images_per_class=10))
    for rows in found.latents:
        assert len(rows.unique(dim=0)) == 10


def test_same_seed_same_images_and_other_seed_others() -> None:
    first, again, other = (attacked(attack(), task(seed)).images for seed in (0, 0, 1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("crops", [1, 4])
def test_queries_are_counted(crops: int) -> None:
    given = task()
    attacked(attack(augment_average=crops), given)
    search, candidates = 2 * 30, 3 * 5
    assert given.access.queries == search + candidates * 15 * crops + candidates * 4


def test_gradients_of_the_target_are_never_stored() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 3))
    given = task()
    given = AttackTask(**{**vars(given), "access": open_access("white-box", model, 3)})
    attacked(attack(steps=2), given)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"candidates": 50, "search": 10}, "exceed"),
        ({"steps": -1}, "steps"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"loss": "huber"}, "loss"),
        ({"augment_average": 0}, "augment_average"),
        ({"crop": "[0.5]"}, "crop"),
        ({"crop": "[-1, 0.5]"}, "crop"),
        ({"crop": "[0.9, 0.5]"}, "from low to high"),
        ({"views_crop": "[0, 0]"}, "views_crop"),
        ({"views_crop": "[0.5, 9]"}, "views_crop"),
        ({"betas": "[2, 2]"}, "betas"),
        ({"betas": "[" * 100_000}, "betas"),
    ],
)
def test_bad_options_are_one_line(options: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word) as error:
        parse_options("ppa", PlugAndPlay.Options, options)
    assert "\n" not in str(error.value)


def test_too_few_candidates_for_the_track_are_a_reason_to_skip() -> None:
    setting = Setting(Eigenfaces(), Defense(), 2)
    assert "fewer than the 2 images" in (attack(candidates=1).skip(setting) or "")
    assert attack(candidates=2).skip(setting) is None


class Wavering(MeanColour):
    """Answers with the mean colours plus two fixed disturbances in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        disturbance = torch.tensor([6.0, -3.0, 1.0])
        return super().forward(images) + disturbance * (1 if self.calls % 2 else -1)


def stochastic_task(model: nn.Module) -> AttackTask:
    access = open_access("white-box", model, 3, stochastic=True)
    return AttackTask(**{**vars(task()), "access": access})


def test_random_targets_are_asked_eot_times_and_averaged() -> None:
    given = stochastic_task(Wavering())
    images = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    averaged = given.access.probabilities(images, draws=2)
    both = [Wavering()(images), MeanColour()(images) - torch.tensor([6.0, -3.0, 1.0])]
    torch.testing.assert_close(averaged, torch.stack(both).softmax(2).mean(0))
    assert given.access.queries == 2 * 5
    given.access.probabilities(images)
    assert given.access.queries == 3 * 5
    attacked(attack(eot=3), given)
    search, candidates = 2 * 30, 3 * 5
    assert given.access.queries == 15 + 3 * (search + candidates * 15 + candidates * 4)


def test_averaging_over_answers_takes_the_gradient_of_the_mean_loss() -> None:
    """One step of plain descent in disguise: Adam with betas 0 moves by the sign of the gradient."""
    start, labels = torch.tensor([[0.3, -0.2, 0.1]]), torch.tensor([1])
    options = {"eot": 2, "steps": 1, "betas": (0.0, 0.0), "crop": (1.0, 1.0), "learning_rate": 0.01}
    moved, seen = attack(**options)._optimise(stochastic_task(Wavering()), start, labels)
    w = start.clone().requires_grad_(True)
    logits = MeanColour()(colour_prior()(w))
    disturbance = torch.tensor([6.0, -3.0, 1.0])
    mean = (poincare_loss(logits + disturbance, labels) + poincare_loss(logits - disturbance, labels)) / 2
    (gradient,) = torch.autograd.grad(mean.sum(), w)
    torch.testing.assert_close(moved, start - 0.01 * gradient.sign(), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen["loss"], mean.detach()[:, None])
    torch.testing.assert_close(seen["gradient_norm"], gradient.norm(dim=1, keepdim=True))


def test_deterministic_targets_are_asked_once() -> None:
    first, second = task(), task()
    one, other = attacked(attack(eot=1), first), attacked(attack(eot=8), second)
    torch.testing.assert_close(one.images, other.images, rtol=0, atol=0)
    assert first.access.queries == second.access.queries
