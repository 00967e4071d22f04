"""Plug & Play with steps on an undefended target, on rescaled logits, and on a distilled student."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from mia_bench.api.access import open_access
from mia_bench.api.attack import Attack, AttackTask, Reconstructions
from mia_bench.api.dataset import ImageSet
from mia_bench.api.images import to_float
from mia_bench_plugins.attacks.ppa import PlugAndPlay
from mia_bench_plugins.attacks.ppa_distilled import DistilledPlugAndPlay
from mia_bench_plugins.attacks.ppa_rescaled import RescaledPlugAndPlay, fitted_temperature
from mia_bench_plugins.attacks.ppa_steps import PlugAndPlaySteps
from mia_bench_plugins.priors.linear_model import LinearModel

SIZE = 8

OPTIONS = {"search": 30, "candidates": 5, "steps": 15, "learning_rate": 0.1, "views": 4}


class MeanColour(nn.Module):
    """The three logits are the mean colours, in an order, times a scale."""

    def __init__(self, order: tuple[int, ...] = (0, 1, 2), scale: float = 20.0) -> None:
        super().__init__()
        self.order, self.scale = list(order), scale

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.mean(dim=(2, 3))[:, self.order]


def prior() -> LinearModel:
    """Latents are the three colours of a flat grey image."""
    basis = torch.zeros(3, 3, SIZE, SIZE)
    for channel in range(3):
        basis[channel, channel] = 0.1
    return LinearModel(torch.full((3 * SIZE**2,), 0.5), basis.flatten(1), SIZE)


def task(model: nn.Module, level: str = "white-box", undefended: nn.Module | None = None) -> AttackTask:
    public = torch.randint(
        0, 256, (40, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(5)
    )
    return AttackTask(
        access=open_access(level, model, 3),
        prior=prior(),
        public=ImageSet(public, torch.zeros(40).long()),
        classes=torch.arange(3),
        images_per_class=2,
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        batch_size=16,
        progress=lambda done, total, unit: None,
        undefended=open_access(level, undefended, 3) if undefended else None,
    )


def attacked(attack: Attack, given: AttackTask) -> Reconstructions:
    return attack.invert(dataclasses.replace(given, state=attack.prepare(given)))


def colours(made: Reconstructions) -> Tensor:
    """Mean colours ``(K, M, 3)``."""
    return to_float(made.images.flatten(0, 1)).mean(dim=(2, 3)).unflatten(0, made.images.shape[:2])


def plain(**options: object) -> PlugAndPlay:
    return PlugAndPlay(PlugAndPlay.Options(**{**OPTIONS, **options}))


# --- single steps on an undefended target --------------------------------------------------------


def steps(**on: str) -> PlugAndPlaySteps:
    return PlugAndPlaySteps(PlugAndPlaySteps.Options(**OPTIONS, **on))


ON = ("selection", "optimisation", "final_selection")


def test_with_all_steps_on_one_target_it_is_ppa() -> None:
    own, other = MeanColour(), MeanColour((1, 2, 0))
    for model, on in ((own, "target"), (other, "undefended")):
        found = attacked(steps(**dict.fromkeys(ON, on)), task(own, undefended=other))
        wanted = attacked(plain(), task(model))
        assert torch.equal(found.images, wanted.images)
        assert torch.equal(found.latents, wanted.latents)
        assert torch.equal(found.diagnostics["loss"], wanted.diagnostics["loss"])


def test_every_combination_asks_the_targets_that_it_names() -> None:
    images = {"selection": 2 * 30, "optimisation": 15 * 15, "final_selection": 15 * 4}
    seen = set()
    for on in itertools.product(("target", "undefended"), repeat=3):
        given = task(MeanColour(), undefended=MeanColour((1, 2, 0)))
        found = attacked(steps(**dict(zip(ON, on, strict=True))), given)
        own = sum(count for (name, count), one in zip(images.items(), on, strict=True) if one == "target")
        assert given.access.queries == own
        assert given.undefended.queries == sum(images.values()) - own
        seen.add(found.images.numpy().tobytes())
    assert len(seen) == 8


def test_the_optimisation_decides_where_the_images_end() -> None:
    found = attacked(
        steps(selection="target", optimisation="undefended", final_selection="target"),
        task(MeanColour(), undefended=MeanColour((1, 2, 0))),
    )
    # The undefended target wants the next colour; of its results the target takes those that suit it best.
    brightest = colours(found).mean(1).argmax(1)
    assert brightest.tolist() == [1, 2, 0]


def test_what_no_attacker_has_is_a_probe() -> None:
    assert PlugAndPlaySteps.reference == "probe"
    with pytest.raises(TypeError, match="is no attack; set a reference"):
        type("Unfair", (PlugAndPlay,), {"needs_undefended": True})


# --- rescaled logits -----------------------------------------------------------------------------


def rescaled(**options: object) -> RescaledPlugAndPlay:
    return RescaledPlugAndPlay(RescaledPlugAndPlay.Options(**{**OPTIONS, **options}))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_temperature_gives_the_entropy_that_is_asked_for(share: float) -> None:
    logits = 50 * torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    temperature = fitted_temperature(logits, share)
    logs = (logits.double() / temperature).log_softmax(1)
    entropy = float(-(logs.exp() * logs).sum(1).mean())
    assert entropy == pytest.approx(share * math.log(10), rel=1e-6)
    assert fitted_temperature(1000 * logits, share) == pytest.approx(1000 * temperature, rel=1e-6)


def test_the_scale_of_the_logits_makes_no_difference() -> None:
    loss = {"loss": "cross-entropy"}
    small, large = (attacked(rescaled(**loss), task(MeanColour(scale=s))) for s in (1.0, 1e5))
    torch.testing.assert_close(small.latents, large.latents, rtol=1e-3, atol=1e-3)
    # Without, softmax is saturated, and the gradient of what is classified correctly is exactly 0.
    blind = attacked(plain(**loss), task(MeanColour(scale=1e5)))
    assert float(blind.diagnostics["gradient_norm"][:, -1].max()) == 0
    assert float(large.diagnostics["gradient_norm"].min()) > 0
    assert blind.diagnostics["gradient_cosine"][:, -1].isnan().all()  # nothing has no direction
    assert large.diagnostics["gradient_cosine"][:, 1:].abs().max() <= 1 + 1e-5


def test_the_search_for_a_temperature_is_counted() -> None:
    given = task(MeanColour())
    attacked(rescaled(calibration=20), given)
    assert given.access.queries == 20 + 2 * 30 + 15 * 15 + 15 * 4


# --- a student -----------------------------------------------------------------------------------


def distilled(**options: object) -> DistilledPlugAndPlay:
    given = {"samples": 200, "public": 20, "student_steps": 120, "student_widths": (8, 16), **options}
    return DistilledPlugAndPlay(DistilledPlugAndPlay.Options(**{**OPTIONS, **given}))


@pytest.mark.slow
def test_a_student_of_answers_leads_to_what_the_target_wants() -> None:
    given = task(MeanColour(), "black-box")
    made = attacked(distilled(), given)
    assert colours(made).mean(1).argmax(1).tolist() == [0, 1, 2]
    assert given.access.queries == 20 + 200  # the student is asked the rest
    again = attacked(distilled(), task(MeanColour(), "black-box"))
    assert torch.equal(made.images, again.images)


@pytest.mark.slow
def test_the_student_learns_the_answers() -> None:
    given = task(MeanColour(), "black-box")
    attack = distilled(student_steps=300)
    state = attack.prepare(given)
    images = given.prior.pictures(
        given.prior.sample(50, torch.Generator().manual_seed(9)), device=given.device
    )
    seen = to_float(images)
    wanted = given.access.probabilities(seen).argmax(1)
    student = attack._on(dataclasses.replace(given, state=state), "selection").access
    assert float((student.labels(seen) == wanted).double().mean()) > 0.8
    away = student.probabilities(seen) - given.access.probabilities(seen)
    assert float(away.abs().sum(1).mean()) < 0.1  # with the first class of each answer alone: 0.38


def test_the_student_sees_public_images_from_anywhere() -> None:
    """They lie person by person, so that the first ones are of few."""
    given = task(MeanColour(), "black-box")
    images, _ = distilled(public=10)._asked(given)
    whole, _ = distilled(public=99)._asked(task(MeanColour(), "black-box"))
    place = {one.numpy().tobytes(): number for number, one in enumerate(given.public.images)}
    found = [place[one.numpy().tobytes()] for one in images[:10]]
    assert len(set(found)) == 10
    assert max(found) >= 20
    assert sorted(place[one.numpy().tobytes()] for one in whole[:40]) == list(range(40))


def test_the_attack_never_sees_a_gradient_of_the_target() -> None:
    class Watched(MeanColour):
        differentiated = False

        def forward(self, images: Tensor) -> Tensor:
            self.differentiated |= torch.is_grad_enabled() and images.requires_grad
            return super().forward(images)

    model = Watched()
    attacked(distilled(student_steps=3), task(model, "black-box"))
    assert not model.differentiated
    with pytest.raises(PermissionError):
        attacked(rescaled(), task(model, "black-box"))
