"""Boundary repulsion on targets whose classes are half-spaces and balls of the latent space."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from attacking import attacked
from mia_bench.api.access import Access
from mia_bench.api.attack import AttackTask, Setting
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.options import describe_options, parse_options
from mia_bench.errors import UsageError
from mia_bench_plugins.attacks.brep_mi import ROUND, BoundaryRepulsion, Walk
from mia_bench_plugins.priors.eigenfaces import Eigenfaces
from mia_bench_plugins.priors.stylegan2 import StyleGAN2Prior

SCALE = 1 / 64
CENTRE = torch.tensor([0.6, -0.4, 0.2])


class Colours(GenerativeModel):
    """A latent is a colour, an image is flat."""

    latent_dim = 3
    resolution = 4

    def sample(self, count: int, generator: torch.Generator, *, truncation: float = 1.0):
        return truncation * torch.randn(count, 3, generator=generator)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return (0.5 + SCALE * latents)[:, :, None, None].expand(-1, -1, 4, 4)


class Labels(Access):
    """Answers with labels that a function of the latent gives; everything else is out of reach."""

    level = "label-only"

    def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(torch.nn.Identity(), 2)
        self.answer = answer
        self.asked: list[int] = []

    def labels(self, images: torch.Tensor) -> torch.Tensor:
        self._queries += len(images)
        self.asked.append(len(images))
        return self.answer((images[:, :, 0, 0] - 0.5) / SCALE).long()

    def probabilities(self, *_, **__):
        raise AssertionError("no probabilities")

    answers = logits = activations = probabilities

    @property
    def model(self):
        raise AssertionError("no weights")


def half(latents: torch.Tensor) -> torch.Tensor:
    """Class 1 where the first entry is positive."""
    return latents[:, 0] > 0


def ball(latents: torch.Tensor) -> torch.Tensor:
    """Class 1 within 1.2 of the centre."""
    return (latents - CENTRE).norm(dim=1) < 1.2


def task(answer=half, seed: int = 0, *, batch_size: int = 64, **more) -> AttackTask:
    return AttackTask(
        access=Labels(answer),
        prior=Colours(),
        public=ImageSet(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1).long()),
        classes=more.get("classes", torch.tensor([1])),
        images_per_class=more.get("images_per_class", 3),
        generator=torch.Generator().manual_seed(seed),
        device=torch.device("cpu"),
        batch_size=batch_size,
        progress=more.get("progress", lambda done, total, unit: None),
    )


def attack(**options: float | None) -> BoundaryRepulsion:
    defaults = {"steps": 20, "radius": 0.5, "clip": None}
    return BoundaryRepulsion(BoundaryRepulsion.Options(**{**defaults, **options}))


def prepared(brep: BoundaryRepulsion, given: AttackTask) -> tuple[torch.Tensor, torch.Tensor]:
    """Starts ``(K, M, D)``, and which classes have any."""
    state = brep.prepare(given)
    return state["starts"], state["found"]


def walk(latents: list[list[float]], radius: float) -> Walk:
    at, count = torch.tensor(latents), len(latents)
    return Walk(
        index=torch.arange(count),
        labels=torch.ones(count, dtype=torch.int64),
        latents=at,
        recorded=at,
        radius=torch.full((count,), radius),
        waited=torch.zeros(count, dtype=torch.int64),
    )


@pytest.mark.parametrize("radius", [0.8, 12.0])
def test_a_step_from_a_plane_is_the_closed_form(radius: float) -> None:
    """The mean of ``-u`` beyond a plane at distance d is ``(1 - (d/r)²)/4`` along its normal in 3-D."""
    state = walk([[0.1, 0.3, -0.2], [0.4, -1.0, 0.5], [2 * radius, 0.0, 0.0]], radius)
    before = state.latents.clone()
    attack(points=40_000)._step(task(batch_size=50_000), state)
    distance = before[:, 0].clamp(max=radius)
    expected = torch.zeros(3, 3)
    expected[:, 0] = min(radius / 3, 3) * (1 - (distance / radius) ** 2) / 4
    torch.testing.assert_close(state.latents - before, expected, rtol=0, atol=0.005 * radius)
    factor = 1.3
    torch.testing.assert_close(state.radius, torch.tensor([radius, radius, radius * factor]))
    assert state.waited.tolist() == [1, 1, 0]
    assert torch.equal(state.recorded, before)


def test_a_step_out_of_the_class_is_not_made() -> None:
    """Of a thin slab and a far half-space: repelled to the left, which from 0.03 leads out."""

    def parts(latents: torch.Tensor) -> torch.Tensor:
        x = latents[:, 0]
        return ((x > 0) & (x < 0.1)) | (x < -0.5)

    state = walk([[0.03, 0.0, 0.0], [0.08, 0.0, 0.0]], 0.9)
    before = state.latents.clone()
    attack(points=4000)._step(task(parts), state)
    assert torch.equal(state.latents[0], before[0])
    assert 0 < state.latents[1, 0] < 0.06
    assert state.waited.tolist() == [1, 1]


def test_walks_end_near_the_middle_of_a_ball_with_a_sphere_that_fits() -> None:
    given = task(ball)
    found = attacked(attack(steps=200, points=64, growth=1.1), given)
    start = attacked(attack(steps=0), task(ball))
    middle = (found.latents - CENTRE).norm(dim=2)
    assert middle.max() < 0.3 < (start.latents - CENTRE).norm(dim=2).mean()
    assert ball(found.latents[0]).all()
    pictures = Colours().pictures(found.latents[0], device=torch.device("cpu"))
    assert torch.equal(found.images, pictures[None])


def test_the_widest_sphere_comes_first() -> None:
    brep, given = attack(steps=12, growth=1.05), task(ball, images_per_class=6)
    latents, found = prepared(brep, given)
    ends, radii = brep._walks(given, latents[0], torch.ones(6, dtype=torch.int64))
    order = radii.argsort(descending=True, stable=True)
    assert found.all()
    assert len(set(radii.tolist())) > 1
    again = attacked(brep, task(ball, images_per_class=6))
    assert torch.equal(again.latents[0], ends[order])


def test_queries_are_exact_and_batches_full() -> None:
    given = task(images_per_class=5, classes=torch.tensor([0, 1]))
    attacked(attack(points=7, steps=4), given)
    assert given.access.queries == ROUND + 4 * (2 * 5) * (7 + 1)
    assert given.access.asked[-3:] == [64, 6, 10]  # 70 points of the last sphere, then the moves


def test_the_budget_of_starts_and_steps_is_kept() -> None:
    told = []
    given = task(lambda z: z[:, 0] > 100, progress=lambda *step: told.append(step), images_per_class=2)
    attacked(attack(search=ROUND + 300), given)
    assert given.access.queries == ROUND + 300
    assert told == [(1000, 1300, "sample"), (1300, 1300, "sample")]
    limited = task()
    attacked(attack(steps=3, points=8), limited)
    assert limited.access.queries == ROUND + 3 * 3 * 9


@pytest.mark.parametrize("patience", [1, 4, 9])
def test_patience_ends_each_walk_on_its_own(monkeypatch, patience: int) -> None:
    """Exactly those walk on that have not waited long enough: no step late, no query too many."""
    brep = attack(steps=500, patience=patience, points=16)
    given = task(ball, images_per_class=6)
    starts, _ = prepared(brep, given)
    asked, step = given.access.queries, brep._step
    going, sizes = set(range(6)), []

    def watched(task: AttackTask, state: Walk) -> None:
        assert set(state.index.tolist()) == going
        step(task, state)
        sizes.append(len(going))
        waited = zip(state.index.tolist(), state.waited.tolist(), strict=True)
        going.difference_update([index for index, long in waited if long >= patience])

    monkeypatch.setattr(brep, "_step", watched)
    brep._walk(given, starts[0], torch.ones(6, dtype=torch.int64), 0, 500)
    assert going == set()
    assert given.access.queries - asked == 17 * sum(sizes)
    assert 1 < len(sizes) < 500
    assert sizes[-1] < 6  # they did not all end at once


def test_a_class_without_a_start_gets_prior_samples_and_is_named(caplog) -> None:
    given = task(classes=torch.tensor([1, 5]))
    with caplog.at_level(logging.WARNING, logger="mia_bench"):
        found = attacked(attack(search=500, steps=5), given)
    assert "class 5" in caplog.text
    assert "unoptimised" in caplog.text
    assert found.images.shape == (2, 3, 3, 4, 4)
    assert half(found.latents[0]).all()
    draws = torch.Generator().manual_seed(0)
    torch.randn(500, 3, generator=draws)
    stand_ins = torch.randn(6, 3, generator=draws)[3:]
    assert torch.equal(found.latents[1], stand_ins)


def test_a_part_starts_from_what_was_prepared_for_its_own_classes() -> None:
    brep = attack(steps=0)
    state = brep.prepare(task(classes=torch.tensor([0, 1])))
    for label, side in ((0, -1), (1, 1)):
        part = replace(task(classes=torch.tensor([label])), state=state)
        assert (side * brep.invert(part).latents[..., 0] > 0).all()


def test_too_few_starts_are_used_again() -> None:
    rare = task(lambda z: z[:, 0] > 2.8, images_per_class=8)
    brep = attack(search=ROUND, steps=0)
    starts, found = prepared(brep, rare)
    own = len(starts[0].unique(dim=0))
    assert found.all()
    assert 1 <= own < 8
    assert torch.equal(starts[0, own:], starts[0, : 8 - own])


def test_a_seed_fixes_the_images_and_the_batch_size_does_not_matter() -> None:
    first, again, other = (attacked(attack(), task(ball, seed)).latents for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, attacked(attack(), task(ball, batch_size=7)).latents)


def test_latents_stay_in_the_box() -> None:
    found = attacked(attack(clip=0.3, steps=30), task())
    assert found.latents.abs().max() == pytest.approx(0.3)


def test_a_class_that_is_everywhere_ends_with_finite_images() -> None:
    found = attacked(attack(steps=80, points=2), task(lambda z: torch.ones(len(z))))
    assert torch.isfinite(found.images).all()
    brep = attack(steps=80, points=2)
    _, radii = brep._walk(task(lambda z: torch.ones(len(z))), torch.zeros(2, 3), torch.ones(2).long(), 0, 80)
    assert radii.tolist() == [1e6, 1e6]


def test_mapped_latents_are_skipped_with_a_reason() -> None:
    assert "mapped" in (attack(clip=1.5).skip(Setting(StyleGAN2Prior(), Defense(), 2)) or "")
    assert attack(clip=None).skip(Setting(StyleGAN2Prior(), Defense(), 2)) is None
    assert attack(clip=1.5).skip(Setting(Eigenfaces(), Defense(), 2)) is None


@pytest.mark.parametrize(
    "options",
    [{"search": 0}, {"points": 0}, {"radius": 0}, {"growth": 1}, {"inside": 0}, {"clip": -1}],
)
def test_bad_options_are_one_line(options: dict) -> None:
    with pytest.raises(UsageError) as error:
        parse_options("brep-mi", BoundaryRepulsion.Options, options)
    assert "\n" not in str(error.value)


def test_options_are_described() -> None:
    assert all(row["help"] for row in describe_options(BoundaryRepulsion.Options))
