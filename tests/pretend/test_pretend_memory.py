"""Batches that are halved until they fit, what can't be, and the memory that the papers' tracks take."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from paper_memory import PaperTrack
from pretend_device import Accelerator
from torch import Tensor
from torch.nn import functional as F

import mia_bench
from mia_bench.api.checkpoint import NO_CHECKPOINT
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.defense import Defense
from mia_bench.api.progress import no_progress
from mia_bench.errors import OutOfMemory
from mia_bench.memory import halving, in_batches, noting_halvings
from mia_bench.models.inference import predict_probabilities
from mia_bench.plugins import host
from mia_bench.protocol.context import Context
from mia_bench.protocol.gallery import build_gallery
from mia_bench.track import Recipe, load_track
from mia_bench.training import train_classifier
from mia_bench_plugins.models.networks import residual_network
from mia_bench_plugins.priors.stylegan2 import StyleGAN2Prior
from mia_bench_plugins.priors.wgan_networks import WGAN

from test_pretend_runs import tiny  # noqa: F401  # isort: skip
from test_pretend_waits import prior_task  # isort: skip

MEGABYTE = 1e6


def images(count: int, pixels: int = 32) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, pixels, pixels), dtype=torch.uint8, generator=rng)


# --- halving -------------------------------------------------------------------------------------


def test_rows_are_computed_once_each_in_order_whatever_fits() -> None:
    asked: list[int] = []

    def compute(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        if len(rows) > (3 if len(asked) < 6 else 1):
            raise torch.OutOfMemoryError("full")
        return 2 * rows

    with noting_halvings() as noted:
        made = in_batches(compute, torch.arange(10), 100)
    assert made.tolist() == list(range(0, 20, 2))
    assert asked[:3] == [10, 5, 2]  # begins with all there are, not with more
    assert noted == {"a batch of inference": "out of memory; a batch of inference was halved to 1"}


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_of_one_that_does_not_fit_and_other_errors_are_raised(error: Exception) -> None:
    def fails(_: int) -> None:
        raise error

    with pytest.raises(type(error)), noting_halvings() as noted:
        halving(fails, 4)
    assert noted["the batch"].endswith("halved to 1")
    with pytest.raises(RuntimeError, match="shapes"), noting_halvings() as noted:
        in_batches(lambda rows: torch.ones(2, 3) @ torch.ones(2, 3) if len(rows) else rows, torch.ones(4), 2)
    assert not noted


@pytest.mark.parametrize("what", ["probabilities", "gallery", "prior"])
def test_inference_is_halved_and_gives_the_same(pretend, what: str) -> None:
    torch.manual_seed(0)
    network, prior = residual_network((8, 16), 3).eval(), WGAN(4, 8, 32).eval().requires_grad_(False)
    part = ImageSet(images(200), torch.arange(200) % 3)
    empty = ImageSet(images(0), torch.zeros(0, dtype=torch.int64))
    splits = Splits(part, empty, part, empty, part, class_names=("a", "b", "c"))

    def compute(device: torch.device) -> Tensor:
        network.to(device)
        prior.to(device)
        if what == "probabilities":
            return predict_probabilities(network, part.images, device=device)
        if what == "prior":
            latents = prior.sample(200, torch.Generator().manual_seed(0))
            return prior.render(latents, device=device)
        with torch.no_grad():
            return build_gallery(
                splits, lambda pixels: F.normalize(network.features(pixels), dim=1), Context(32, 0, device)
            ).private

    expected = compute(torch.device("cpu"))
    with Accelerator() as machine:
        compute(pretend)
    with Accelerator(capacity=machine.peak / 3) as machine, noting_halvings() as noted:
        found = compute(pretend)
    assert len(noted) == 1
    torch.testing.assert_close(found, expected)


def test_a_step_of_training_that_does_not_fit_says_what_to_lower(pretend) -> None:
    dp_sgd = host().registry.get("defense", "dp-sgd").load()
    data = ImageSet(images(64), torch.arange(64) % 3)
    for defense, advice in ((Defense(), r"smaller batch_size"), (dp_sgd(), r"dp-sgd\.physical_batch_size")):
        torch.manual_seed(0)
        model = defense.build_model(lambda: residual_network((16, 32), 3), None)
        with Accelerator(capacity=5 * MEGABYTE), pytest.raises(OutOfMemory, match=advice) as raised:
            train_classifier(
                model, data, Recipe(epochs=1, batch_size=64), defense, seed=0, device=pretend,
                progress=no_progress,
            )  # fmt: skip
        assert "out of memory in a training step of 64 images" in str(raised.value)


def test_a_step_of_a_prior_that_does_not_fit_says_what_to_lower(pretend) -> None:
    options = StyleGAN2Prior.Options(latent=4, style=4, layers=1, channel_base=512, batch_size=32, steps=1)

    task = dataclasses.replace(prior_task(pretend), checkpoint=NO_CHECKPOINT)
    with (
        Accelerator(capacity=8 * MEGABYTE),
        pytest.raises(OutOfMemory, match=r"step of stylegan2; lower stylegan2\.batch_size"),
    ):
        StyleGAN2Prior(options).train(task)


@pytest.mark.thorough
@pytest.mark.slow
def test_records_say_what_was_halved(tiny, on_pretend, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    on_pretend.capacity = 4 * MEGABYTE
    (record,) = mia_bench.run(
        track=tiny, defense="none", attack="ppa", prior="wgan-gp",
        store=tmp_path / "store",
    )  # fmt: skip
    assert (record.status, record.reason) == ("done", None)
    assert record.notes["prior"].startswith("out of memory; a batch of inference was halved to ")
    assert record.notes["gallery"].startswith("out of memory; a batch of inference was halved to ")


# --- the papers' scale ---------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "sizes", "defenses"),
    [
        ("facescrub", (530, 37_878, 1024), ("mid", "bido", "dp-sgd")),  # others train the plain network
        ("stanford-dogs", (120, 20_580, 512), ("bido",)),  # which takes most, as the other shows
    ],
)
def test_the_plan_shows_the_memory_that_stages_take(name: str, sizes: tuple, defenses: tuple) -> None:
    track = load_track(host().registry, name)
    counted = PaperTrack(track, *sizes).stages(defenses)
    assert track.gpu_megabytes == {
        stage: pytest.approx(number / MEGABYTE, rel=0.06) for stage, number in counted.items()
    }


def test_nothing_of_paper_scale_but_the_attack_needs_more_than_a_gpu_of_32_gigabytes() -> None:
    for name in ("facescrub", "facescrub-metfaces", "facescrub-small", "celeba", "stanford-dogs"):
        memory = load_track(host().registry, name).gpu_megabytes
        assert all(number < 32_000 for stage, number in memory.items() if stage != "invert")
        assert memory["invert"] < 40_000


def test_the_prior_of_faces_is_shown_in_batches_of_the_track(pretend) -> None:
    paper = PaperTrack(load_track(host().registry, "facescrub"), 530, 37_878, 1024)
    assert paper.prior() < 10e9
    with Accelerator(real=False, capacity=10e9), noting_halvings() as noted:
        paper.model().render(torch.zeros(32, 512), device=pretend)
    assert noted  # without a size, it is halved until it fits
