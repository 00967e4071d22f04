"""Access levels: what an attack must not see is not there, and every question counts."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from mia_bench.api.access import Access, BlackBox, LabelOnly, WhiteBox, open_access
from mia_bench.api.classifier import Activations, Classifier

CLASSES = 4


class Tiny(Classifier):
    """One block, one head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(3, 5, 3)])
        self.head = nn.Linear(5, CLASSES)


@pytest.fixture
def model() -> Tiny:
    torch.manual_seed(0)
    return Tiny().eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def reachable(thing: Any, depth: int = 4) -> Iterator[Any]:
    """What plain attributes lead to: vars and slots of the object and of what they hold."""
    yield thing
    if depth:
        held = list(getattr(thing, "__dict__", {}).values())
        slots = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]
        held += [getattr(thing, name) for name in slots if hasattr(thing, name)]
        if isinstance(thing, dict):
            held += list(thing.values())
        elif isinstance(thing, (list, tuple, set)):
            held += list(thing)
        for one in held:
            yield from reachable(one, depth - 1)


@pytest.mark.parametrize("level", ["black-box", "label-only"])
@pytest.mark.parametrize("question", ["logits", "activations"])
def test_without_white_box_no_logits_gradients_or_features(
    model: Tiny, images: torch.Tensor, level, question: str
) -> None:
    access = open_access(level, model, CLASSES, network=model)
    with pytest.raises(PermissionError, match=f"a {level} attack sees no"):
        getattr(access, question)(images)
    assert access.queries == 0


@pytest.mark.parametrize("level", ["black-box", "label-only"])
def test_without_white_box_no_weights(model: Tiny, level) -> None:
    access = open_access(level, model, CLASSES, network=model)
    with pytest.raises(PermissionError, match="sees no weights"):
        _ = access.model


def test_label_only_sees_no_probabilities(model: Tiny, images: torch.Tensor) -> None:
    with pytest.raises(PermissionError, match="a label-only attack sees no probabilities"):
        open_access("label-only", model, CLASSES).probabilities(images)


@pytest.mark.parametrize("level", ["black-box", "label-only"])
def test_no_attribute_leads_to_the_network_or_its_weights(model: Tiny, level) -> None:
    access = open_access(level, model, CLASSES, network=model)
    held = list(reachable(access))
    assert len(held) > 2
    assert not [thing for thing in held if isinstance(thing, (nn.Module, torch.Tensor))]


def test_the_search_for_attributes_finds_the_network_of_a_white_box(model: Tiny) -> None:
    access = open_access("white-box", model, CLASSES, network=model)
    assert any(thing is model for thing in reachable(access))


@pytest.mark.parametrize("level", ["black-box", "label-only", "white-box"])
def test_answers_of_permitted_questions_carry_no_gradient(model: Tiny, images: torch.Tensor, level) -> None:
    access = open_access(level, model, CLASSES)
    asked = images.clone().requires_grad_(True)
    assert not access.labels(asked).requires_grad
    if level != "label-only":
        assert not access.probabilities(asked).requires_grad


def test_answers_are_those_of_the_model(model: Tiny, images: torch.Tensor) -> None:
    logits = model(images)
    label_only = open_access("label-only", model, CLASSES)
    assert torch.equal(label_only.labels(images), logits.argmax(1))
    black_box = open_access("black-box", model, CLASSES)
    torch.testing.assert_close(black_box.probabilities(images), logits.softmax(1))
    white_box = open_access("white-box", model, CLASSES, network=model)
    torch.testing.assert_close(white_box.logits(images), logits)
    seen = white_box.activations(images)
    assert isinstance(seen, Activations)
    torch.testing.assert_close(seen.features, model.features(images))
    assert white_box.model is model


def test_white_box_logits_are_differentiable_in_the_images_but_not_in_the_weights(
    model: Tiny, images: torch.Tensor
) -> None:
    access = open_access("white-box", model, CLASSES)
    asked = images.clone().requires_grad_(True)
    access.logits(asked).sum().backward()
    assert asked.grad is not None
    assert asked.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_white_box_of_a_wrapped_target_has_no_hidden_features(model: Tiny, images: torch.Tensor) -> None:
    access = open_access("white-box", nn.Sequential(model), CLASSES)
    with pytest.raises(PermissionError, match="no hidden features"):
        access.activations(images)
    assert access.queries == 0


def test_every_image_of_every_question_counts(model: Tiny, images: torch.Tensor) -> None:
    access = open_access("white-box", model, CLASSES, network=model)
    access.labels(images)
    access.probabilities(images[:2])
    access.logits(images[:3])
    access.activations(images[:4])
    assert access.queries == 6 + 2 + 3 + 4


def test_the_count_cannot_be_set(model: Tiny, images: torch.Tensor) -> None:
    access = open_access("label-only", model, CLASSES)
    access.labels(images)
    with pytest.raises(AttributeError):
        access.queries = 0


def test_each_level_says_its_name_and_what_everybody_knows(model: Tiny) -> None:
    for level, cls in (("label-only", LabelOnly), ("black-box", BlackBox), ("white-box", WhiteBox)):
        access = open_access(level, model, CLASSES, stochastic=True)
        assert type(access) is cls
        assert isinstance(access, Access)
        assert (access.level, access.num_classes, access.stochastic) == (level, CLASSES, True)


def test_a_deployed_model_that_answers_no_tensor_is_named(images: torch.Tensor) -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    with pytest.raises(TypeError, match="answered tuple, not logits"):
        open_access("black-box", Pair(), CLASSES).probabilities(images)
