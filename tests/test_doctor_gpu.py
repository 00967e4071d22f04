"""``doctor --gpu``: the whole table with the CPU in place of the GPU, and what is said without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mia_bench.api.options import parse_options
from mia_bench.device import has_tf32
from mia_bench.plugins import host
from mia_bench.registry import Entry
from mia_bench.testing import gpu
from mia_bench.track import load_track

CPU = torch.device("cpu")


def entry(kind: str, name: str) -> Entry:
    return host().registry.get(kind, name)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SECONDS", 0.0)


def test_without_a_gpu_it_says_what_it_would_do(cli, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    outcome = cli("doctor", "--gpu")
    assert outcome.code == 0
    assert "there is nothing to measure" in outcome.out
    assert "seconds and memory" in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "cpu"), "go with --gpu"),
        (("--track", "lfw"), "go with --gpu"),
        (("--gpu", "--device", "cup"), "no device 'cup'"),
        (("--gpu", "--device", "cpu", "--track", "lwf"), "did you mean 'lfw'"),
    ],
)
def test_wrong_words_are_one_line(cli, words: tuple[str, ...], message: str) -> None:
    outcome = cli("doctor", *words)
    assert outcome.code == 2
    assert message in outcome.err


def test_the_whole_table_of_a_device(cli, toy, monkeypatch) -> None:
    few = [entry("defense", "none"), entry("attack", "ppa"), entry("encoder", "synth-encoder")]
    monkeypatch.setattr(gpu, "components", lambda registry: few)
    attacks = [entry("attack", "gmi"), entry("attack", "ppa")]
    assert {one.name for one in gpu.comparable(host().registry)} > {one.name for one in attacks}
    monkeypatch.setattr(gpu, "comparable", lambda registry: attacks)
    outcome = cli("doctor", "--gpu", "--device", "cpu", "--track", "toy")
    assert outcome.code == 0, outcome.out
    lines = outcome.out.splitlines()
    assert all(line.startswith("|") and line.endswith("|") for line in lines)
    cells = {what.strip(): result.strip() for _, what, result, _ in (line.split("|") for line in lines)}
    assert cells["device"].startswith("cpu (")
    for name in ("defense none", "attack ppa", "encoder synth-encoder"):
        assert cells[name].startswith("works (")
    for name in ("one network", "a training", "attack ppa", "attack gmi"):
        assert cells[f"{name}, device and CPU"].startswith("they agree: ")
    batches = load_track(host().registry, "toy")
    for precision in ("float32", "bfloat16"):
        for step, batch in (
            ("training", batches.target.recipe.batch_size),
            ("attack", batches.attack_batch_size),
        ):
            assert "images a second" in cells[f"{step} step, batch {batch}, {precision}"]
    assert cells["steps, tf32"] == "the device has no TF32: as in float32"


def test_a_component_that_fails_is_broken_and_the_rest_goes_on(cli, toy, monkeypatch) -> None:
    broken, sound = entry("defense", "neg-ls"), entry("defense", "none")

    def fails(self, step):
        raise RuntimeError("a | device\nmix-up")

    monkeypatch.setattr(broken.load(), "loss", fails)
    monkeypatch.setattr(gpu, "components", lambda registry: [broken, sound])
    outcome = cli("doctor", "--gpu", "--device", "cpu", "--track", "toy")
    assert outcome.code == 1
    (line,) = [one for one in outcome.out.splitlines() if one.startswith("| defense neg-ls")]
    assert "BROKEN: " in line
    assert line.count("|") == 3
    assert "| defense none" in outcome.out
    assert "a training, device and CPU" in outcome.out


def test_devices_that_disagree_are_said_to(monkeypatch) -> None:
    answers, calls = gpu.predict_probabilities, []

    def differing(*given, **more):
        calls.append(given)
        return answers(*given, **more) + (0.1 if len(calls) == 2 else 0)

    monkeypatch.setattr(gpu, "predict_probabilities", differing)
    rows = {row.what: row for row in gpu.agreement(CPU, [])}
    assert rows["one network, device and CPU"].result.startswith("they DIFFER: ")
    assert not rows["one network, device and CPU"].fine
    assert rows["a training, device and CPU"].fine


def test_reconstructions_that_differ_are_said_to(monkeypatch) -> None:
    made, calls = gpu._reconstructions, []

    def differing(*given):
        calls.append(given)
        images = made(*given)
        return 255 - images if len(calls) == 2 else images

    monkeypatch.setattr(gpu, "_reconstructions", differing)
    row = list(gpu.agreement(CPU, [entry("attack", "ppa")]))[-1]
    assert not row.fine
    assert row.what == "attack ppa, device and CPU"


def test_a_step_that_does_not_fit_is_a_row() -> None:
    def step() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    row = gpu._timed("a step", step, 4, CPU, None)
    assert row.fine
    assert "does not fit into memory" in row.result


def test_a_part_that_fails_is_a_row_and_the_others_go_on(monkeypatch, toy) -> None:
    monkeypatch.setattr(gpu, "components", lambda registry: [])
    monkeypatch.setattr(gpu, "train_target", lambda *given: 1 / 0)
    registry = host().registry
    rows = list(gpu.examine_device(CPU, registry, load_track(registry, "toy"), None))
    (failed,) = [row for row in rows if not row.fine]
    assert failed.what == "agreement"
    assert "division by zero" in failed.result
    assert any("images a second" in row.result for row in rows)


def test_networks_and_prior_are_the_tracks(toy, tmp_path: Path) -> None:
    registry = host().registry
    assert gpu.default_track(registry).gpu_megabytes
    _, reason = gpu._prior(CPU, registry, load_track(registry, "facescrub"), tmp_path)
    assert reason == "ffhq.pkl is missing"
    _, reason = gpu._prior(CPU, registry, load_track(registry, "lfw"), tmp_path)
    assert reason == "eigenfaces is trained here"
    assert not has_tf32(CPU)


@pytest.mark.parametrize("kind", gpu.KINDS)
def test_options_for_trials_are_valid(kind: str) -> None:
    for one in host().registry.entries(kind):
        cls = one.load()
        parse_options(one.name, cls.Options, cls.trial_options)
