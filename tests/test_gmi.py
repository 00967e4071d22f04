"""GMI against steps worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mia_bench.api.access import open_access
from mia_bench.api.attack import AttackTask, Setting
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense
from mia_bench.api.images import to_float
from mia_bench.api.options import parse_options
from mia_bench.errors import UsageError
from mia_bench_plugins.attacks.gmi import GenerativeModelInversion
from mia_bench_plugins.priors.eigenfaces import Eigenfaces
from mia_bench_plugins.priors.linear_model import LinearModel
from mia_bench_plugins.priors.wgan_gp import WassersteinGAN

SIZE = 4


class MeanColour(nn.Module):
    """A target whose three logits are the mean colours."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * images.mean(dim=(2, 3))


class Judged(LinearModel):
    """Flat colours, and a critic that likes dark images."""

    def __init__(self) -> None:
        basis = torch.zeros(3, 3, SIZE, SIZE)
        for channel in range(3):
            basis[channel, channel] = 0.1
        super().__init__(torch.full((3 * SIZE**2,), 0.5), basis.flatten(1), SIZE)

    def discriminate(self, images: torch.Tensor) -> torch.Tensor:
        return -4 * images.square().mean(dim=(1, 2, 3))


def task(seed: int = 0, *, stochastic: bool = False, batch_size: int = 7, **more) -> AttackTask:
    return AttackTask(
        access=open_access(
            "white-box", more.get("target", MeanColour()), more.get("classes", 3), stochastic=stochastic
        ),
        prior=more.get("prior", Judged()),
        public=ImageSet(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), torch.zeros(1).long()),
        classes=torch.arange(3),
        images_per_class=2,
        generator=torch.Generator().manual_seed(seed),
        device=torch.device("cpu"),
        batch_size=batch_size,
        progress=more.get("progress", lambda done, total, unit: None),
    )


def attack(**options: float) -> GenerativeModelInversion:
    defaults = {"steps": 10, "restarts": 4, "learning_rate": 0.001}
    return GenerativeModelInversion(GenerativeModelInversion.Options(**{**defaults, **options}))


def test_descent_is_nesterov_on_the_objective_with_clipping() -> None:
    """The update as the authors' code writes it: v' = mv - lr g, z += -mv + (1 + m) v'."""
    start = torch.tensor([[0.9, -0.4, 0.2], [0.1, 0.0, -0.95]])
    labels = torch.tensor([0, 2])
    options = {"steps": 6, "learning_rate": 0.02, "momentum": 0.9, "identity_weight": 3.0}
    moved = attack(**options)._descend(task(), start, labels, 0, 6)
    prior, target = Judged(), MeanColour()
    for row in range(2):
        z, v = start[row].clone(), torch.zeros(3)
        for _ in range(6):
            z.requires_grad_(True)
            image = prior(z[None])
            loss = 3.0 * F.cross_entropy(target(image), labels[row : row + 1])
            (g,) = torch.autograd.grad(loss - prior.discriminate(image)[0], z)
            old, v = v, 0.9 * v - 0.02 * g
            z = (z.detach() - 0.9 * old + 1.9 * v).clamp(-1, 1)
        torch.testing.assert_close(moved[row], z, rtol=1e-5, atol=1e-6)
    assert float(moved.abs().max()) == 1  # the clip was met


class Painter(LinearModel):
    """A generator with a bend, and a critic that likes dark images."""

    def __init__(self, mean: torch.Tensor, basis: torch.Tensor) -> None:
        super().__init__(mean, basis, SIZE)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(latents @ self.basis + self.mean).view(-1, 3, SIZE, SIZE)

    def discriminate(self, images: torch.Tensor) -> torch.Tensor:
        return -4 * images.square().mean(dim=(1, 2, 3))


class LinearTarget(nn.Module):
    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weights


def authors_descent(
    z: np.ndarray, labels: np.ndarray, mean: np.ndarray, basis: np.ndarray, weights: np.ndarray, steps: int
) -> np.ndarray:
    """The descent on batch means at learning rate 0.02, with gradients by hand and in float64."""
    count, v = len(z), np.zeros_like(z)
    for _ in range(steps):
        image = 1 / (1 + np.exp(-(z @ basis + mean)))
        odds = np.exp(image @ weights)
        softmax = odds / odds.sum(1, keepdims=True)
        softmax[np.arange(count), labels] -= 1
        of_image = 100 * softmax @ weights.T / count  # 100 times the mean cross-entropy
        of_image += 8 * image / image.shape[1] / count  # minus the mean of the critic
        gradient = (of_image * image * (1 - image)) @ basis.T
        old, v = v, 0.9 * v - 0.02 * gradient
        z = np.clip(z - 0.9 * old + 1.9 * v, -1, 1)
    return z


def test_the_defaults_take_the_steps_of_the_authors_code() -> None:
    """300 steps of 100 images: the same latents, and the same share of them at the border of the box."""
    count, classes, wide = 100, 20, 100
    draws = np.random.default_rng(0)
    start = draws.normal(size=(count, wide))
    labels = np.arange(count) % classes
    mean, basis = draws.normal(size=3 * SIZE**2), draws.normal(size=(wide, 3 * SIZE**2)) / 20
    weights = draws.normal(size=(3 * SIZE**2, classes)) / 4
    theirs = authors_descent(start, labels, mean, basis, weights, 300)

    def ours(**options: float) -> torch.Tensor:
        given = task(
            prior=Painter(torch.tensor(mean), torch.tensor(basis)),
            target=LinearTarget(torch.tensor(weights)),
            classes=classes,
        )
        method = GenerativeModelInversion(GenerativeModelInversion.Options(**options))
        return method._descend(given, torch.tensor(start), torch.tensor(labels), 0, 300)

    def at_the_border(latents: torch.Tensor) -> float:
        return float((latents.abs() > 1 - 1e-6).double().mean())

    assert GenerativeModelInversion.Options().learning_rate == pytest.approx(0.02 / count)
    found = ours(steps=300)
    torch.testing.assert_close(found, torch.tensor(theirs), rtol=0, atol=1e-5)
    share = at_the_border(torch.tensor(theirs))
    assert 0.3 < share < 0.5
    assert at_the_border(found) == pytest.approx(share, abs=0.002)
    assert at_the_border(ours(steps=300, learning_rate=0.02)) > 0.9  # their rate, on a sum


def test_an_image_does_not_depend_on_the_batch_it_is_in() -> None:
    one = attack().invert(task(batch_size=5))
    other = attack().invert(task(batch_size=100))
    torch.testing.assert_close(one.latents, other.latents, rtol=1e-5, atol=1e-5)
    assert (one.images.int() - other.images.int()).abs().max() <= 1  # a rounding


def test_the_best_restart_is_kept_for_each_image_on_its_own() -> None:
    given = task()
    found = attack(steps=0, clip=10.0).invert(given)
    starts = torch.randn(3 * 2 * 4, 3, generator=torch.Generator().manual_seed(0))
    scores = MeanColour()(Judged()(starts)).softmax(1).view(3, 2, 4, 3)
    starts = starts.view(3, 2, 4, 3)
    for label in range(3):
        best = [starts[label, i, scores[label, i, :, label].argmax()] for i in range(2)]
        surest = [scores[label, i, :, label].max() for i in range(2)]
        expected = torch.stack(best if surest[0] >= surest[1] else best[::-1])
        torch.testing.assert_close(found.latents[label], expected)


def test_descent_raises_the_targets_confidence_and_pleases_the_critic() -> None:
    def confidence(images: torch.Tensor) -> torch.Tensor:
        scores = MeanColour()(to_float(images.flatten(0, 1))).softmax(1).view(3, 2, 3)
        return torch.stack([scores[k, :, k] for k in range(3)]).mean()

    start, end = attack(steps=0).invert(task()), attack(steps=30).invert(task())
    assert confidence(end.images) > confidence(start.images) + 0.05
    alone = attack(steps=60, identity_weight=0.0, learning_rate=0.05).invert(task())
    pleased, before = (
        Judged().discriminate(to_float(found.images.flatten(0, 1))).mean() for found in (alone, start)
    )
    assert pleased > before


def test_queries_and_progress_are_counted() -> None:
    told = []
    given = task(progress=lambda *step: told.append(step))
    attack().invert(given)
    runs = 3 * 2 * 4
    assert given.access.queries == runs * 10 + runs
    assert told[-1] == (40, 40, "step")  # 4 batches of 10 steps
    assert len(told) == 40
    random = task(stochastic=True)
    attack(eot=3).invert(random)
    assert random.access.queries == 3 * given.access.queries


def test_a_seed_fixes_the_images() -> None:
    first, again, other = (attack(clip=9.0).invert(task(seed)).images for seed in (0, 0, 1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_a_prior_without_a_critic_is_skipped_with_a_reason() -> None:
    assert "discriminator" in (attack().skip(Setting(Eigenfaces(), Defense(), 2)) or "")
    assert attack().skip(Setting(WassersteinGAN(), Defense(), 2)) is None


@pytest.mark.parametrize(
    "options",
    [{"steps": -1}, {"restarts": 0}, {"momentum": 1}, {"clip": 0}, {"identity_weight": -1}],
)
def test_bad_options_are_one_line(options: dict) -> None:
    with pytest.raises(UsageError) as error:
        parse_options("gmi", GenerativeModelInversion.Options, options)
    assert "\n" not in str(error.value)
