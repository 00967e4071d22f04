"""The undefended target, and the weaker ones that are trained less."""

from __future__ import annotations

import torch

from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense
from mia_bench.api.progress import no_progress
from mia_bench.track import Recipe
from mia_bench.training import TrainingResult, shuffled_batches, some_of_each_class, train_classifier
from mia_bench_plugins.defenses.none import NoDefense
from mia_bench_plugins.models.networks import residual_network

RECIPE = Recipe(epochs=20, batch_size=8, milestones=(0.5, 0.8))
LABELS = torch.tensor([0] * 10 + [1] * 6 + [2])


def train(defense: Defense, recipe: Recipe = RECIPE) -> TrainingResult:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (len(LABELS), 3, 16, 16), dtype=torch.uint8)
    model = residual_network((4, 8), 3)
    return train_classifier(
        model,
        ImageSet(images, LABELS),
        recipe,
        defense,
        seed=5,
        device=torch.device("cpu"),
        progress=no_progress,
    )


def with_options(**options: float) -> NoDefense:
    return NoDefense(NoDefense.Options.model_validate(options))


def test_fewer_epochs_are_a_recipe_of_fewer_epochs() -> None:
    shortened = train(with_options(epochs=0.5))
    plain = train(Defense(), RECIPE.model_copy(update={"epochs": 10}))
    assert shortened.losses == plain.losses
    assert len(plain.losses) == 10
    assert shortened.setup.optimizer.param_groups[0]["lr"] == plain.setup.optimizer.param_groups[0]["lr"]


def test_at_least_one_epoch() -> None:
    assert len(train(with_options(epochs=0.001)).losses) == 1


def test_fewer_images_are_a_share_of_each_class_every_epoch() -> None:
    setup = train(with_options(images=0.5)).setup
    epochs = [torch.cat(list(setup.batches(epoch))) for epoch in range(3)]
    assert setup.train_size == 9
    assert LABELS[epochs[0]].bincount().tolist() == [5, 3, 1]
    assert all(torch.equal(one.sort().values, epochs[0].sort().values) for one in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    kept = some_of_each_class(LABELS, lambda there: max(1, there // 2), 5)
    assert torch.equal(epochs[1], torch.cat(list(shuffled_batches(kept, 8, 5)(1))))
    nearest = train(with_options(images=0.78)).setup  # 7.8, 4.68 and 0.78 images
    assert LABELS[torch.cat(list(nearest.batches(0)))].bincount().tolist() == [8, 5, 1]


def test_all_images_and_epochs_are_plain_training() -> None:
    assert train(with_options()).losses == train(Defense()).losses


def test_a_recipe_with_few_images_draws_the_same_for_every_defense_and_nested() -> None:
    def drawn(count: int, defense: Defense) -> list[int]:
        setup = train(defense, RECIPE.model_copy(update={"images_per_class": count})).setup
        assert setup.train_size == len(setup.labels)
        return setup.labels.bincount().tolist()

    assert drawn(2, Defense()) == drawn(2, with_options()) == [2, 2, 1]  # the last class has no more
    draws = [set(some_of_each_class(LABELS, lambda there, n=n: min(n, there), 3).tolist()) for n in (1, 2, 4)]
    assert draws[0] < draws[1] < draws[2]
    other = some_of_each_class(LABELS, lambda there: min(4, there), 4).tolist()
    assert set(other) != draws[2]
    every = RECIPE.model_copy(update={"images_per_class": len(LABELS)})
    assert train(Defense(), every).losses == train(Defense()).losses
    assert "images_per_class" not in RECIPE.spec()
