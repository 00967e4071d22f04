"""The training loop against a loop written by hand, and what a defense can change in it."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mia_bench import augment
from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense, TrainingSetup, TrainingStep
from mia_bench.api.images import to_float
from mia_bench.errors import Diverged
from mia_bench.models.inference import move_model
from mia_bench.seeds import generator
from mia_bench.track import Recipe
from mia_bench.training import TrainingResult, shuffled_batches, train_classifier
from mia_bench_plugins.models.networks import residual_network

CPU = torch.device("cpu")
CLASSES = 3
PLAIN = Recipe(epochs=4, batch_size=8, flip=False, milestones=(0.5,), gamma=0.1)


class Tiny(Classifier):
    """One linear layer over 2×2 pixels."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Flatten(), nn.Dropout(dropout))])
        self.head = nn.Linear(12, CLASSES)

    def pool(self, hidden: Tensor) -> Tensor:
        return hidden


def tiny(**more: float) -> Tiny:
    torch.manual_seed(5)
    return Tiny(**more)


def images(count: int = 20) -> ImageSet:
    draws = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 3, 2, 2), generator=draws, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % CLASSES)


def train(
    model: Tiny | None = None,
    recipe: Recipe = PLAIN,
    defense: Defense | None = None,
    *,
    data: ImageSet | None = None,
    seed: int = 0,
    told: list | None = None,
) -> TrainingResult:
    return train_classifier(
        model or tiny(),
        data or images(),
        recipe,
        defense or Defense(),
        seed=seed,
        device=CPU,
        progress=lambda *step: told.append(step) if told is not None else None,
    )


class Recorder(Defense):
    """Keeps what the loop hands out."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[TrainingStep] = []

    def loss(self, step: TrainingStep) -> Tensor:
        self.steps.append(step)
        return super().loss(step)


def test_plain_training_equals_a_loop_by_hand() -> None:
    recorder = Recorder()
    result = train(defense=recorder)
    model = tiny()
    adam = torch.optim.Adam(model.parameters(), lr=PLAIN.learning_rate)
    means = []
    for epoch in range(PLAIN.epochs):
        adam.param_groups[0]["lr"] = PLAIN.learning_rate * (0.1 if epoch >= 2 else 1)
        losses = []
        for step in (s for s in recorder.steps if s.epoch == epoch):
            logits = model.head((step.images * 2 - 1).flatten(1))
            loss = nn.functional.cross_entropy(logits, step.labels)
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], expected, rtol=0, atol=1e-6)
    assert result.losses == pytest.approx(means, abs=1e-6)
    assert not result.model.training


@pytest.mark.parametrize(
    "more",
    [
        {"flip": True},
        {"shift": 1},
        {"jitter": 0.2},
        {"crop": (0.3, 0.6)},
        {"colour": {"brightness": 0.4, "contrast": 0.3, "saturation": 0.2, "hue": 0.1}},
        {"weight_decay": 0.5},
        {"gamma": 0.3, "milestones": (0.25, 0.75)},
    ],
    ids=lambda more: next(iter(more)),
)
def test_every_entry_of_the_recipe_does_what_it_says(more: dict[str, Any]) -> None:
    recipe = Recipe.model_validate({**PLAIN.model_dump(), **more})
    result = train(recipe=recipe)
    data, model, draws = images(), tiny(), generator(0, "augment")
    adam = torch.optim.Adam(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    batches = shuffled_batches(torch.arange(20), 8, 0)
    for epoch in range(4):
        passed = sum(epoch >= 4 * milestone for milestone in recipe.milestones)
        adam.param_groups[0]["lr"] = recipe.learning_rate * recipe.gamma**passed
        for index in batches(epoch):
            batch = to_float(data.images[index])
            match next(iter(more)):
                case "flip":
                    batch = augment.flip(batch, draws)
                case "shift":
                    batch = augment.shift(batch, 1, draws)
                case "jitter":
                    batch = augment.jitter(batch, 0.2, draws)
                case "crop":
                    batch = augment.random_resized_crop(batch, draws, scale=(0.3, 0.6))
                case "colour":
                    batch = augment.colour(batch, draws, **more["colour"])
            adam.zero_grad()
            nn.functional.cross_entropy(model(batch), data.labels[index]).backward()
            adam.step()
    found = result.model.state_dict()
    torch.testing.assert_close(dict(found), dict(model.state_dict()), rtol=0, atol=1e-6)
    assert not torch.allclose(train().model.head.weight, model.head.weight, rtol=0, atol=1e-4)


def test_every_image_is_seen_once_an_epoch_in_an_order_of_its_own() -> None:
    data = ImageSet(images().images, torch.arange(20) % CLASSES)
    # Each image is told by its first pixel.
    data.images[:, 0, 0, 0] = torch.arange(20, dtype=torch.uint8)
    recorder = Recorder()
    train(defense=recorder, data=data)
    orders = []
    for epoch in range(PLAIN.epochs):
        steps = [s for s in recorder.steps if s.epoch == epoch]
        seen = torch.cat([s.images[:, 0, 0, 0] for s in steps]).mul(255).round().int()
        labels = torch.cat([s.labels for s in steps])
        assert sorted(seen.tolist()) == list(range(20))
        assert labels.tolist() == (seen % CLASSES).tolist()
        orders.append(tuple(seen.tolist()))
    assert len(set(orders)) == PLAIN.epochs


@pytest.mark.parametrize(("count", "sizes"), [(16, [8, 8]), (17, [8, 9]), (18, [8, 8, 2]), (1, [1])])
def test_a_last_batch_of_one_joins_its_neighbour(count: int, sizes: list[int]) -> None:
    recorder = Recorder()
    train(defense=recorder, data=images(count), recipe=PLAIN.model_copy(update={"epochs": 1}))
    assert [len(s.labels) for s in recorder.steps] == sizes


def test_a_seed_fixes_the_run_and_the_callers_draws_are_left_alone() -> None:
    augmented = PLAIN.model_copy(update={"flip": True, "shift": 1, "jitter": 0.2})
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(99 + len(states))  # whatever the caller drew before
        before = torch.get_rng_state()
        model = tiny(dropout=0.5)
        torch.set_rng_state(before)
        states.append(train(model, augmented, seed=seed).model.state_dict()["head.weight"])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_progress_is_told_once_an_epoch() -> None:
    told: list = []
    train(told=told)
    assert told == [(n, PLAIN.epochs, "epoch") for n in range(1, PLAIN.epochs + 1)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_epoch_and_the_last_value(value: float) -> None:
    class Explodes(Defense):
        def loss(self, step: TrainingStep) -> Tensor:
            return super().loss(step) * (value if step.epoch == 2 else 1)

    with pytest.raises(Diverged, match=r"epoch 3 of 4 \(last finite epoch mean: [0-9.]+\)"):
        train(defense=Explodes())


def test_a_defense_can_change_images_sampler_and_optimiser() -> None:
    class Changes(Recorder):
        def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
            return torch.zeros_like(images)

        def prepare_training(self, setup: TrainingSetup) -> TrainingSetup:
            def batches(epoch: int) -> Iterator[Tensor]:
                yield torch.tensor([0, 3])

            optimizer = torch.optim.SGD(setup.model.parameters(), lr=0.0)
            scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
            return dataclasses.replace(setup, optimizer=optimizer, scheduler=scheduler, batches=batches)

    defense = Changes()
    start = tiny().state_dict()
    result = train(defense=defense)
    assert len(defense.steps) == PLAIN.epochs
    assert all(s.images.abs().max() == 0 and s.labels.tolist() == [0, 0] for s in defense.steps)
    for name, expected in start.items():
        assert torch.equal(result.model.state_dict()[name], expected)


def test_what_a_defense_draws_shifts_nobody_elses_draws() -> None:
    class Draws(Recorder):
        def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
            torch.rand(7, generator=generator)
            torch.rand(3)
            return images

        def loss(self, step: TrainingStep) -> Tensor:
            torch.rand(2, generator=step.generator)
            return super().loss(step)

    recipe = PLAIN.model_copy(update={"flip": True, "shift": 1, "jitter": 0.2})
    plain, drawing = Recorder(), Draws()
    for defense in (plain, drawing):
        train(recipe=recipe, defense=defense)
    for one, other in zip(plain.steps, drawing.steps, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize(("widths", "expected"), [((4, 8), False), ((8, 16), True)])
def test_layouts_that_write_past_their_memory_are_not_taken(widths: tuple[int, ...], expected: bool) -> None:
    """oneDNN's gradient of a narrow strided 1×1 convolution, channels-last on a CPU with AVX2."""
    network = move_model(residual_network(widths, 3), torch.device("cpu"))
    laid = [
        layer.weight.is_contiguous(memory_format=torch.channels_last)
        for layer in network.modules()
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    assert laid
    assert all(laid) == any(laid) == expected
