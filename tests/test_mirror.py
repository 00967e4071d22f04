"""MIRROR's genetic search: P-space, crossover, mutation, budget, and a planted target."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from attacking import attacked
from mia_bench.api.access import open_access
from mia_bench.api.attack import AttackTask, Setting
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_uint8
from mia_bench.api.options import describe_options, parse_options
from mia_bench.errors import UsageError
from mia_bench_plugins.attacks.mirror import GeneticSearch, Space, crossed, mutated
from mia_bench_plugins.priors.eigenfaces import Eigenfaces
from mia_bench_plugins.priors.stylegan2_model import StyleGAN2
from mia_bench_plugins.priors.stylegan2_networks import Shape

WIDTH = 12
PLANTED = 1.2 * torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(7))


class Pixels(GenerativeModel):
    """Each entry of a latent is the brightness of a pixel."""

    latent_dim = WIDTH
    resolution = 2

    def sample(self, count: int, generator: torch.Generator, *, truncation: float = 1.0) -> torch.Tensor:
        return truncation * torch.randn(count, WIDTH, generator=generator)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return (latents / 8).sigmoid().view(-1, 3, 2, 2)


class Planted(nn.Module):
    """Three classes, likelier the nearer a latent is to the planted one, and a fourth of all others.

    It notes the sizes of its passes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        near = -torch.cdist(8 * images.flatten(1).logit(), PLANTED).square() / 2
        return torch.cat([near, torch.zeros(len(images), 1)], dim=1)


def task(seed: int = 0, *, batch_size: int = 50, stochastic: bool = False, **more) -> AttackTask:
    return AttackTask(
        access=open_access("black-box", more.get("target", Planted()), 4, stochastic=stochastic),
        prior=Pixels(),
        public=ImageSet(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1).long()),
        classes=more.get("classes", torch.arange(3)),
        images_per_class=more.get("images_per_class", 2),
        generator=torch.Generator().manual_seed(seed),
        device=torch.device("cpu"),
        batch_size=batch_size,
        progress=more.get("progress", lambda done, total, unit: None),
    )


def attack(**options: float) -> GeneticSearch:
    defaults = {
        "search": 60, "truncation": 1.0, "population": 20, "generations": 60, "mutation": 0.3,
        "scale": 0.5, "clip": 3.0,
    }  # fmt: skip
    return GeneticSearch(GeneticSearch.Options(**{**defaults, **options}))


def distances(latents: torch.Tensor) -> torch.Tensor:
    """Distance of each latent ``(K, M, D)`` to the planted one of its class."""
    return (latents - PLANTED[:, None]).norm(dim=2)


@pytest.mark.parametrize("populations", [1, 2])
def test_it_comes_nearer_to_what_is_planted_than_as_many_samples(populations: int) -> None:
    given = task()
    found = attacked(attack(populations=populations), given)
    samples = Pixels().sample(given.access.queries, torch.Generator().manual_seed(1))
    nearest = torch.cdist(PLANTED, samples).amin(1)
    assert (distances(found.latents).amax(1) < 0.5 * nearest).all()
    start = attacked(attack(populations=populations, generations=0), task())
    assert (distances(found.latents).mean(1) < distances(start.latents).mean(1)).all()


def test_the_first_generation_is_the_best_of_the_search() -> None:
    found = attacked(attack(generations=0, clip=9.0), task())
    samples = Pixels().sample(60, torch.Generator().manual_seed(0))
    likeliest = Planted()(Pixels()(samples)).softmax(1)[:, :3].topk(2, dim=0).indices.T
    torch.testing.assert_close(found.latents, samples[likeliest])
    assert torch.equal(found.images, to_uint8(Pixels()(samples[likeliest.flatten()])).unflatten(0, (3, 2)))


def test_starts_are_dealt_out_among_the_populations_of_a_class() -> None:
    mirror, given = attack(population=5, populations=3), task()
    space, points, fitness = mirror._start(replace(given, state=mirror.prepare(given)))
    assert points.shape == (9, 5, WIDTH)
    order = fitness.view(3, 3, 5).transpose(1, 2).flatten(1)
    assert (order.diff(dim=1) <= 0).all()
    logarithms = Planted()(Pixels()(space.latents(points.flatten(0, 1)))).log_softmax(1)
    own = logarithms.view(3, 15, 4)[torch.arange(3), :, torch.arange(3)]
    torch.testing.assert_close(own.view(9, 5), fitness, rtol=1e-4, atol=1e-4)


def test_a_generation_never_loses_its_best() -> None:
    likeliest = []
    for generations in range(6):
        latents = attacked(attack(generations=generations, scale=3.0), task()).latents[:, 0]
        likeliest.append(Planted()(Pixels()(latents)).log_softmax(1)[:, :3].diagonal())
    assert (torch.stack(likeliest).diff(dim=0) >= -1e-5).all()


@pytest.mark.parametrize(("stochastic", "times"), [(False, 1), (True, 3)])
def test_queries_are_exact_and_batches_full(stochastic: bool, times: int) -> None:
    target = Planted()
    given = task(target=target, stochastic=stochastic)
    attacked(attack(populations=2, population=10, generations=4, eot=3), given)
    assert given.access.queries == times * (60 + 4 * (3 * 2) * 9)
    assert set(target.sizes) == {50, 10, 4}  # 60 samples, 54 children


def test_entries_are_inherited_in_proportion_to_the_parents_probabilities() -> None:
    points = torch.tensor([0.0, 1.0])[None, :, None].expand(1, 2, 1000)
    children = crossed(points, torch.tensor([0.2, 0.6]).log()[None], 4000, torch.Generator().manual_seed(0))
    means = children[0].mean(1)
    # Two equal parents, or one of each, from whom three of four entries are those of the likelier one.
    assert (means == 0).float().mean() == pytest.approx(1 / 16, abs=0.015)
    assert (means == 1).float().mean() == pytest.approx(9 / 16, abs=0.03)
    mixed = means[(means > 0) & (means < 1)]
    torch.testing.assert_close(mixed, torch.full_like(mixed, 0.75), rtol=0, atol=0.08)


def test_parents_of_no_probability_are_no_error() -> None:
    points = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    certain = torch.tensor([[-200.0, -200.0, -200.0], [0.0, -200.0, -200.0]])
    children = crossed(points, certain, 50, torch.Generator().manual_seed(0))
    assert torch.isfinite(children).all()
    assert torch.equal(children[1], points[1, :1].expand(50, -1))


def test_mutations_are_as_frequent_and_as_large_as_asked_for() -> None:
    space = Space(1.0, torch.zeros(2), torch.tensor([1.0, 10.0]), 100.0)
    moved = mutated(torch.zeros(1, 20_000, 2), space, 0.5, 0.2, torch.Generator().manual_seed(0))[0]
    assert (moved != 0).float().mean(0).tolist() == pytest.approx([0.2, 0.2], abs=0.01)
    assert moved.abs().amax(0).tolist() == pytest.approx([0.5, 5.0], rel=0.01)
    shifted = moved[moved[:, 0] != 0, 0]
    assert shifted.mean() == pytest.approx(0, abs=0.02)
    assert shifted.std() == pytest.approx(0.5 / 3**0.5, rel=0.03)


def test_the_scale_decays(monkeypatch) -> None:
    scales: list[float] = []

    def watched(points, space, scale, *rest):
        scales.append(scale)
        return mutated(points, space, scale, *rest)

    monkeypatch.setattr("mia_bench_plugins.attacks.mirror.mutated", watched)
    attacked(attack(generations=3, scale=0.8, decay=0.5), task())
    assert scales == pytest.approx([0.8, 0.4, 0.2])


def test_p_undoes_the_leaky_relu_and_is_clipped_there() -> None:
    prior = StyleGAN2(Shape(8, 4, 6, 2, 64, 8), 8).eval()
    samples = prior.sample(500, torch.Generator().manual_seed(0))
    space = Space.of(prior, samples, 1.0)
    before = torch.where(samples < 0, 5 * samples, samples)
    torch.testing.assert_close(space.mean, before.mean(0))
    torch.testing.assert_close(space.spread, before.var(0, correction=0).sqrt())
    points = space.points(samples)
    low, high = space.mean - space.spread, space.mean + space.spread
    assert ((points >= low) & (points <= high)).all()
    wide = Space.of(prior, samples, 100.0)
    torch.testing.assert_close(wide.latents(wide.points(samples)), samples)
    assert Space.of(Pixels(), samples, 1.0).slope == 1


def test_found_latents_stay_in_the_box() -> None:
    found = attacked(attack(clip=0.5, scale=2.0), task())
    samples = Pixels().sample(60, torch.Generator().manual_seed(0))
    limit = samples.mean(0).abs() + 0.5 * samples.std(0)
    assert (found.latents.abs() <= limit + 1e-6).all()
    assert (found.latents.abs() > 0.8 * limit).any()


def test_a_seed_fixes_the_images_and_the_batch_size_does_not_matter() -> None:
    first, again, other = (attacked(attack(), task(seed)).latents for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first, attacked(attack(), task(batch_size=7)).latents)


def test_images_come_best_first_from_every_population() -> None:
    found = attacked(attack(populations=2, generations=2), task(images_per_class=5)).latents
    assert found.shape == (3, 5, WIDTH)
    likelihoods = Planted()(Pixels()(found.flatten(0, 1))).log_softmax(1).view(3, 5, 4)
    own = torch.stack([likelihoods[k, :, k] for k in range(3)])
    assert (own.diff(dim=1) <= 1e-4).all()
    assert all(len(rows.unique(dim=0)) == 5 for rows in found)


def test_some_of_the_classes_are_enough() -> None:
    given = task(classes=torch.tensor([2, 1]))
    found = attacked(attack(), given)
    nearest = torch.cdist(found.latents.mean(1), PLANTED).argmin(1)
    assert nearest.tolist() == [2, 1]
    assert given.access.queries == 60 + 60 * 2 * 19


def test_a_part_starts_from_what_was_prepared_for_its_own_classes() -> None:
    mirror = attack(generations=0, populations=2)
    state = mirror.prepare(task())
    part = replace(task(classes=torch.tensor([2, 0])), state=state)
    whole = mirror.invert(replace(task(), state=state)).latents
    assert torch.equal(mirror.invert(part).latents, whole[[2, 0]])
    assert part.rows(state["classes"]).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"of the classes \[2, 0\] only \[0, 1\] were prepared"):
        part.rows(torch.tensor([0, 1]))


def test_too_few_members_for_the_track_are_a_reason_to_skip() -> None:
    assert "4 members, fewer than the 5" in (
        attack(population=2, populations=2).skip(Setting(Eigenfaces(), Defense(), 5)) or ""
    )
    assert attack(population=5).skip(Setting(Eigenfaces(), Defense(), 5)) is None


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"population": 1}, "population"),
        ({"search": 99}, "exceed search=99"),
        ({"mutation": 2}, "mutation"),
        ({"decay": 0}, "decay"),
        ({"clip": 0}, "clip"),
        ({"generations": -1}, "generations"),
    ],
)
def test_bad_options_are_one_line(options: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word) as error:
        parse_options("mirror", GeneticSearch.Options, options)
    assert "\n" not in str(error.value)


def test_options_are_described() -> None:
    assert all(row["help"] for row in describe_options(GeneticSearch.Options))
