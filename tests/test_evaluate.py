"""``mia_bench.evaluate``: a module and a checkpoint of the user's, by the protocol of a track."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import mia_bench
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.store import Store

SHARED = ("data", "prior", "gallery", "evaluator")


def stored_target(folder: Path) -> tuple[dict[str, Tensor], dict]:
    """Weights of the undefended target of the undisturbed run, and the record of ``ppa`` against it."""
    opened = Store(folder)
    (path,) = [
        p
        for p in (folder / "artifacts" / "train").iterdir()
        if opened.info("train", p.name)["run"]["subject"] == "none"
    ]
    return opened.tensors("train", path.name), opened.info("train", path.name)


def evaluate(model, tmp_path: Path, attack: str = "ppa", **more):
    given = {"track": "toy", "attack": attack, "device": "cpu", "store": tmp_path / "store"}
    return mia_bench.evaluate(model, **given, **more)


def test_a_checkpoint_has_the_numbers_of_the_cell_that_trained_it(
    toy, store, undisturbed, tmp_path: Path
) -> None:
    store(*SHARED)
    state, _ = stored_target(undisturbed.store)
    save_file(state, tmp_path / "mine.safetensors")
    torch.save({"state_dict": state}, tmp_path / "mine.pt")
    (record,) = [
        r
        for r in undisturbed.records.values()
        if (r["defense"]["name"], r["attack"]["name"]) == ("none", "ppa")
    ]
    for file in ("mine.safetensors", "mine.pt"):
        found = evaluate(tmp_path / file, tmp_path, attack="ppa")
        assert {name: value and vars(value) for name, value in found.metrics.items()} == record["metrics"]
        assert found.per_class == record["per_class"]
        assert found.queries == record["cost"]["target_queries"]
        assert found.notes == record["notes"]
    assert not list((tmp_path / "store").glob("artifacts/train/*"))
    assert not list((tmp_path / "store").glob("records/*"))


class Plain(nn.Module):
    """Any module from images to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean((2, 3)))


def test_any_module_is_evaluated_and_stays_as_it_is(toy, store, tmp_path: Path) -> None:
    store(*SHARED)
    model = Plain().train()
    found = evaluate(model, tmp_path, attack="toy-label-only")
    assert found.metrics["test_accuracy"].n > 0
    assert found.reconstructions.dtype == torch.uint8
    assert found.queries > 0
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_data_of_a_track_are_those_of_its_runs(toy, store, undisturbed, tmp_path: Path) -> None:
    store("data")
    splits = mia_bench.load_data(track="toy", store=tmp_path / "store")
    assert splits.num_classes == 6
    opened = Store(undisturbed.store)
    (stage,) = (undisturbed.store / "artifacts" / "data").iterdir()
    assert torch.equal(splits.train.images, opened.tensors("data", stage.name)["train.images"])


def test_preparation_of_an_attack_is_part_of_it(toy, store, tmp_path: Path) -> None:
    store(*SHARED)
    found = evaluate(Plain(), tmp_path, attack="toy-prepared")
    assert found.metrics["attack_acc1"] is not None


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "can't be read: No such file"),
        (lambda path: path.write_bytes(b"no checkpoint"), "no checkpoint that can be read safely"),
        (lambda path: torch.save([1, 2], path), r"holds no weights by name \(it is a list\)"),
        (lambda path: torch.save({"head.weight": torch.ones(2, 2)}, path), "does not fit: .* under none"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(toy, store, tmp_path: Path, write, message: str) -> None:
    store(*SHARED)
    write(tmp_path / "mine.pt")
    with pytest.raises(UsageError, match=message) as raised:
        evaluate(tmp_path / "mine.pt", tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("classes", [5, 7])
def test_a_model_of_other_classes_is_refused(toy, store, tmp_path: Path, classes: int) -> None:
    store(*SHARED)
    model = Plain()
    model.head = nn.Linear(3, classes)
    with pytest.raises(UsageError, match=rf"\(1, {classes}\), not with logits \(1, 6\)"):
        evaluate(model, tmp_path)


def test_several_values_or_an_attack_that_can_not_run_are_refused(toy, store, tmp_path: Path) -> None:
    store(*SHARED)
    with pytest.raises(UsageError, match="one value of each option"):
        evaluate(Plain(), tmp_path, options={"ppa.steps": [1, 2]})
    with pytest.raises(MiaBenchError, match="gmi can't run here: gmi needs a prior"):
        evaluate(Plain(), tmp_path, attack="gmi", prior="eigenfaces")
