"""Training that was stopped goes on from its checkpoint, and ends as if it had never been stopped."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mia_bench import store as store_module
from mia_bench.api.defense import Defense
from mia_bench.components import resolve
from mia_bench.config import RunConfig
from mia_bench.engine import stages as stages_module
from mia_bench.engine.run import execute, prepare
from mia_bench.errors import MiaBenchError
from mia_bench.plugins import host
from mia_bench.protocol.target import TrainedTarget, train_target
from mia_bench.store import Store
from mia_bench.testing import world as toy_world

RECIPE = toy_world.RECIPE.model_copy(update={"epochs": 4, "milestones": (0.5,)})
OPTIONS = {"dp-sgd": {"noise_multiplier": "1.0"}}
DEFENSES = [entry.name for entry in host().registry.entries("defense")]


class Stopped(Exception):
    pass


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose checkpoints are always due."""
    monkeypatch.setattr(store_module, "CHECKPOINT_SECONDS", 0.0)
    return Store(tmp_path / "store")


def made(name: str) -> Defense:
    defense: Defense = resolve(host().registry, "defense", name, {}, OPTIONS.get(name, {})).make()
    return defense


def train(defense: Defense, store: Store | None = None, stop_after: int | None = None) -> TrainedTarget:
    """A toy target; the training is stopped after an epoch if asked."""

    def progress(done: int, total: int, unit: str) -> None:
        if done == stop_after:
            raise Stopped

    context = replace(toy_world.context(), progress=progress)
    if store:
        context = replace(context, checkpoint=store.checkpoint("train", "k"))
    splits = toy_world.world().splits
    return train_target(defense, toy_world.ToyArchitecture(), splits, RECIPE, context)


def assert_same(first: TrainedTarget, second: TrainedTarget) -> None:
    assert first.state.keys() == second.state.keys()
    for name, tensor in first.state.items():
        assert torch.equal(tensor, second.state[name]), name
    assert first.training.losses == second.training.losses
    assert first.report == second.report


@pytest.mark.parametrize("name", DEFENSES)
def test_stopped_twice_it_ends_as_undisturbed(store: Store, name: str, caplog) -> None:
    for epoch in (1, 3):
        with pytest.raises(Stopped):
            train(made(name), store, stop_after=epoch)
    with caplog.at_level(logging.INFO, "mia_bench"):
        resumed = train(made(name), store)
    assert "goes on after epoch 3 of 4" in caplog.text
    assert_same(resumed, train(made(name)))


def test_what_does_not_fit_begins_anew(store: Store, caplog) -> None:
    with pytest.raises(Stopped):
        train(made("none"), store, stop_after=2)
    checkpoint = store.checkpoint("train", "k")
    state = checkpoint.load()
    assert state is not None
    state["model"]["head.weight"] = torch.zeros(2, 2)
    checkpoint.save(state)
    assert_same(train(made("none"), store), train(made("none")))
    assert "does not fit" in caplog.text
    assert "head.weight" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "flipped", "nonsense", "other torch", "other device"])
def test_damaged_or_foreign_it_begins_anew(store: Store, damage: str, monkeypatch, caplog) -> None:
    with pytest.raises(Stopped):
        train(made("none"), store, stop_after=2)
    checkpoint = store.checkpoint("train", "k", "cuda" if damage == "other device" else "cpu")
    (path,) = (store.root / "checkpoints").iterdir()
    data = path.read_bytes()
    place = data.index(b"head.weight")
    if damage == "other torch":
        monkeypatch.setattr(torch, "__version__", "1.0")
    elif damage != "other device":
        flipped = data[:place] + b"X" + data[place + 1 :]
        path.write_bytes({"cut": data[:-100], "flipped": flipped, "nonsense": b"nonsense"}[damage])
    assert checkpoint.load() is None
    assert "begins anew" in caplog.text
    assert len(caplog.text.splitlines()) == 1
    assert checkpoint.earlier == 0.0


def test_a_bit_of_a_tensor_that_flips_is_found(store: Store, caplog) -> None:
    checkpoint = store.checkpoint("train", "k")
    checkpoint.save({"w": torch.arange(1000.0)})
    (path,) = (store.root / "checkpoints").iterdir()
    data = bytearray(path.read_bytes())
    data[bytes(data).index(torch.tensor(500.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    assert checkpoint.load() is None
    assert "damaged" in caplog.text


def test_a_state_with_code_in_it_is_not_run(store: Store, tmp_path: Path, caplog) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    checkpoint = store.checkpoint("train", "k")
    checkpoint.save({"w": Evil()})
    assert checkpoint.load() is None
    assert not (tmp_path / "ran").exists()


def test_checkpoints_are_due_after_some_minutes(tmp_path: Path, monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr(store_module.time, "monotonic", lambda: now)
    checkpoint = Store(tmp_path / "s").checkpoint("train", "k")
    assert not checkpoint.due()
    now += store_module.CHECKPOINT_SECONDS
    assert checkpoint.due()
    checkpoint.save({})
    assert not checkpoint.due()


@pytest.mark.parametrize("stopped", ["train", "evaluator"])
def test_a_run_that_was_stopped_goes_on(toy, store: Store, tmp_path: Path, monkeypatch, stopped: str) -> None:
    def grid(folder: Path) -> RunConfig:
        return RunConfig(track="toy", defense=["none"], attack=["prior-sample"], store=folder, jobs=1)

    run_stage, compute = stages_module._run_stage, stages_module.COMPUTE[stopped]

    def stopping(stage, workspace):
        report = workspace.progress

        def progress(done: int, total: int, unit: str) -> None:
            if done == 1 and unit == "epoch":
                raise MiaBenchError("stopped")
            report(done, total, unit)

        workspace.progress = progress
        return compute(stage, workspace)

    monkeypatch.setitem(stages_module.COMPUTE, stopped, stopping)
    (record,) = execute(prepare(grid(store.root)))
    assert record.status == "failed"
    assert [p.name.partition("-")[0] for p in (store.root / "checkpoints").iterdir()] == [stopped]
    monkeypatch.setitem(stages_module.COMPUTE, stopped, compute)
    earlier: list[float] = []

    def noting(stage, workspace):
        checkpoint = workspace.checkpoint(stage)
        run_stage(stage, workspace)
        if stage.name == stopped:
            earlier.append(checkpoint.earlier)
            assert workspace.info(stage)["run"]["seconds"] > checkpoint.earlier

    monkeypatch.setattr(stages_module, "_run_stage", noting)
    (record,) = execute(prepare(grid(store.root)))
    assert record.status == "done"
    assert earlier[0] > 0
    assert not list((store.root / "checkpoints").iterdir())
    (undisturbed,) = execute(prepare(grid(tmp_path / "undisturbed")))
    assert record.metrics == undisturbed.metrics
