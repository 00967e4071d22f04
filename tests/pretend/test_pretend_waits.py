"""Where the CPU waits for the device: once an epoch of training, never in the steps of priors and attacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from pretend_device import Accelerator

from attacking import attacked
from mia_bench.api.access import open_access
from mia_bench.api.attack import Attack, AttackTask, Reconstructions
from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import BuildContext
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.prior import PriorTask
from mia_bench.api.progress import no_progress
from mia_bench.models.inference import embed_images, predict_probabilities
from mia_bench.plugins import host
from mia_bench.protocol.target import freeze
from mia_bench.track import Recipe
from mia_bench.training import train_classifier
from mia_bench_plugins.attacks.gmi import GenerativeModelInversion
from mia_bench_plugins.attacks.ppa import PlugAndPlay
from mia_bench_plugins.models.networks import residual_network
from mia_bench_plugins.priors import stylegan2, wgan_gp
from mia_bench_plugins.priors.stylegan2_model import StyleGAN2
from mia_bench_plugins.priors.stylegan2_networks import Shape
from mia_bench_plugins.priors.wgan_networks import WGAN

CPU = torch.device("cpu")
CLASSES = 3
RECIPE = Recipe(
    epochs=1, batch_size=8, shift=2, crop=(0.8, 1.0), jitter=0.1,
    colour={"hue": 0.1, "saturation": 0.1, "brightness": 0.1, "contrast": 0.1},
)  # fmt: skip


def images(count: int) -> ImageSet:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=rng)
    return ImageSet(pixels, torch.arange(count) % CLASSES)


def network() -> Classifier:
    torch.manual_seed(0)
    return residual_network((8, 16), CLASSES)


def more(waits: Callable[[int], Counter[str]], few: int, many: int) -> Counter[str]:
    """The waits that more steps add, by kind and line."""
    first, second = waits(few), waits(many)
    second.subtract(first)
    return Counter({at: count for at, count in second.items() if count})


# --- training ------------------------------------------------------------------------------------

VARIANTS = [
    ("none", {}),
    ("none", {"norm": "group"}),
    ("neg-ls", {}),
    ("pos-ls", {}),
    ("mid", {}),
    ("bido", {"measure": "hsic"}),
    ("bido", {"measure": "coco"}),
    ("dp-sgd", {}),
]


def test_every_built_in_defense_is_listed() -> None:
    assert {name for name, _ in VARIANTS} == set(host().registry.names("defense"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_training_waits_once_an_epoch(pretend, name: str, options: dict) -> None:
    component = host().registry.get("defense", name).load()
    data = images(24)

    def waits(epochs: int) -> Counter[str]:
        defense = component(component.Options(**options))
        with Accelerator() as machine:
            model = defense.build_model(
                network, BuildContext(CLASSES, 32, data, torch.Generator().manual_seed(0), restoring=False)
            )
            recipe = RECIPE.model_copy(update={"epochs": epochs})
            train_classifier(model, data, recipe, defense, seed=0, device=pretend, progress=no_progress)
        return machine.waited()

    found = more(waits, 1, 3)
    assert found.total() == 2, found


# --- priors --------------------------------------------------------------------------------------


def prior_task(device: torch.device) -> PriorTask:
    return PriorTask(
        public=images(8), source="", resolution=32, generator=torch.Generator().manual_seed(0), device=device,
        progress=no_progress, checkpoint=None, weights=None, watch=lambda model, step: None,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "options"),
    [
        (wgan_gp.Training, wgan_gp.WassersteinGAN.Options(latent=4, width=2, batch_size=4, critic_steps=1)),
        (
            stylegan2.Training,
            stylegan2.StyleGAN2Prior.Options(
                latent=4,
                style=4,
                layers=1,
                channel_base=64,
                channel_max=4,
                batch_size=4,
                path_every=1,
                r1_every=1,
            ),
        ),
    ],
)
def test_steps_of_a_prior_wait_for_nothing(pretend, training: type, options: object) -> None:
    def waits(steps: int) -> Counter[str]:
        with Accelerator() as machine:
            made = training(options, prior_task(pretend))
            pixels = images(8).images.to(pretend)
            for _ in range(steps):
                made.advance(pixels)
        return machine.waited()

    assert not more(waits, 1, 3)


# --- attacks -------------------------------------------------------------------------------------


def wgan() -> GenerativeModel:
    torch.manual_seed(1)
    return WGAN(8, 4, 32)


def style() -> GenerativeModel:
    torch.manual_seed(1)
    shape = Shape(64, latent=8, style=8, layers=2, channel_base=256, channel_max=8)
    return StyleGAN2(shape, 32, crop=48)


def ppa(steps: int) -> Attack:
    return PlugAndPlay(PlugAndPlay.Options(search=8, candidates=4, steps=steps, views=steps))


def gmi(steps: int) -> Attack:
    return GenerativeModelInversion(GenerativeModelInversion.Options(steps=steps, restarts=2))


def invert(attack: Attack, prior: GenerativeModel, device: torch.device) -> Reconstructions:
    target = freeze(network(), device)
    task = AttackTask(
        access=open_access("white-box", target, CLASSES, stochastic=True),
        prior=freeze(prior, device),
        public=images(1),
        classes=torch.arange(CLASSES),
        images_per_class=2,
        generator=torch.Generator().manual_seed(0),
        device=device,
        batch_size=4,
        progress=no_progress,
    )
    return attacked(attack, task)


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "prior"), [(ppa, style), (ppa, wgan), (gmi, wgan)])
def test_attacks_find_what_they_find_on_the_cpu_and_wait_for_nothing_in_their_steps(
    pretend, attack: Callable[[int], Attack], prior: Callable[[], GenerativeModel]
) -> None:
    made: list[Reconstructions] = []

    def waits(steps: int) -> Counter[str]:
        with Accelerator() as machine:
            made.append(invert(attack(steps), prior(), pretend))
        return machine.waited()

    assert not more(waits, 1, 3)
    expected = invert(attack(3), prior(), CPU)
    difference = made[-1].images.int() - expected.images.int()
    assert difference.abs().max() <= 1  # the CPU's weights are channels-last


# --- inference -----------------------------------------------------------------------------------


def test_inference_waits_for_its_result_alone(pretend) -> None:
    def waits(batches: int) -> Counter[str]:
        with Accelerator() as machine:
            model = freeze(network(), pretend)
            pixels = images(4 * batches).images
            predict_probabilities(model, pixels, device=pretend, batch_size=4)
            embed_images(model.features, pixels, pretend, batch_size=4)
        return machine.waited()

    assert not more(waits, 1, 3)
