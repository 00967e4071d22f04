"""``mia-bench prior``: a prior is trained ahead of a run, goes on where it stopped, and is shown."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mia_bench import store as store_module
from mia_bench.store import Store
from mia_bench_plugins.priors import wgan_gp, wgan_networks

pytestmark = pytest.mark.slow

GAN = ("prior", "train", "--track", "toy", "--prior", "wgan-gp", "--device", "cpu")
SMALL = [
    word
    for option in ("width=4", "latent=8", "steps=20", "batch_size=4", "critic_steps=1")
    for word in ("-o", f"wgan-gp.{option}")
]


@pytest.fixture(autouse=True)
def few_images_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mia_bench.protocol.prior.MONITORED_IMAGES", 100)


def test_trained_prior_is_listed_shown_and_used_by_a_run(cli, toy, tmp_path: Path) -> None:
    made = cli(*GAN, *SMALL)
    assert made.code == 0, made.err
    assert "step 20: " in made.out
    store = Store(tmp_path / "store")
    (key,) = [path.name for path in (store.root / "artifacts" / "prior").iterdir()]
    sheets = sorted((store.root / "pictures" / "priors" / key).glob("*.png"))
    assert [sheet.name for sheet in sheets] == [f"{step:07d}.png" for step in range(2, 21, 2)]
    looks = store.info("prior", key)["watched"]
    assert [look["step"] for look in looks] == list(range(2, 21, 2))
    assert all(look["frechet_distance"] > 0 for look in looks)
    assert not (store.root / "checkpoints").exists() or not list((store.root / "checkpoints").iterdir())
    listed = cli("prior", "list")
    assert key[:8] in listed.out
    assert "wgan-gp" in listed.out
    assert "public images" in listed.out
    shown = cli("prior", "show", key[:6], "--output", tmp_path / "sheet.png", "--count", "16")
    assert shown.code == 0, shown.err
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * sheet.height / 2  # two rows of eight
        assert len(np.unique(np.asarray(sheet))) > 10
    run = cli("run", "--track", "toy", "--defense", "none", "--attack", "gmi", "--prior", "wgan-gp",
              "--device", "cpu", "-o", "gmi.steps=3", "-o", "gmi.restarts=2", *SMALL,
              "--format", "json")  # fmt: skip
    assert run.code == 0, run.err
    (record,) = run.records
    assert record["status"] == "done"
    assert record["prior"]["options"]["steps"] == 20
    assert [path.name for path in (store.root / "artifacts" / "prior").iterdir()] == [key]


@pytest.mark.thorough
def test_a_prior_is_watched_and_shown_in_batches_of_its_track(cli, toy, monkeypatch, tmp_path: Path) -> None:
    forward, sizes = wgan_networks.WGAN.forward, set()

    def counted(self, latents):
        sizes.add(len(latents))
        return forward(self, latents)

    monkeypatch.setattr(wgan_networks.WGAN, "forward", counted)
    made = cli(*GAN, *SMALL)
    assert made.code == 0, made.err
    assert max(sizes) == 64  # the toy track's; 100 images are drawn
    sizes.clear()
    (key,) = [path.name for path in (tmp_path / "store" / "artifacts" / "prior").iterdir()]
    assert cli("prior", "show", key, "--output", tmp_path / "sheet.png", "--count", "100").code == 0
    assert sizes == {64, 36}


def test_second_training_computes_nothing(cli, toy, monkeypatch) -> None:
    first = cli(*GAN, *SMALL)

    def never(*args: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(wgan_gp.WassersteinGAN, "train", never)
    assert cli(*GAN, *SMALL).out == first.out


def test_stopped_training_goes_on_to_the_same_prior(cli, toy, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT_SECONDS", 0.0)
    whole = cli(*GAN, *SMALL, "--store", tmp_path / "whole")
    assert whole.code == 0, whole.err
    advance, steps = wgan_gp.Training.advance, []

    def stopping(self, images):
        steps.append(self.step)
        if len(steps) == 12:
            signal.raise_signal(signal.SIGTERM)
        return advance(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(wgan_gp.Training, "advance", stopping)
        stopped = cli(*GAN, *SMALL)
    assert stopped.code == 1
    assert "interrupted; what is finished is kept" in stopped.err
    with monkeypatch.context() as patch:
        patch.setattr(
            wgan_gp.Training,
            "advance",
            lambda self, i: (steps.append(-1), advance(self, i))[1],
        )
        again = cli(*GAN, *SMALL)
    assert again.code == 0, again.err
    assert steps.count(-1) == 9  # the last checkpoint was after step 11
    states, looks = [], []
    for folder in ("whole", "store"):
        store = Store(tmp_path / folder)
        (path,) = (store.root / "artifacts" / "prior").iterdir()
        states.append(store.tensors("prior", path.name))
        looks.append(store.info("prior", path.name)["watched"])
    assert looks[0] == looks[1]
    assert len(looks[0]) == 10
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_closed_form_prior_has_no_looks(cli, toy) -> None:
    made = cli("prior", "train", "--track", "toy", "--device", "cpu")
    assert made.code == 0, made.err
    assert "eigenfaces" in made.out
    assert "–" in made.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--track", "toy", "--prior", "wgan"), "did you mean 'wgan-gp'?"),
        (("train", "--track", "tory"), "did you mean 'toy"),
        (("train", "-o", "wgan-gp.width=0", "--prior", "wgan-gp"), "wgan-gp.width=0"),
        (("show", "zzz"), "no prior's key begins with 'zzz'"),
        (("show", "zzz", "--store", "/nowhere"), "there is no store at /nowhere"),
        (("list", "--store", "/nowhere"), "there is no store at /nowhere"),
    ],
)
def test_wrong_usage_is_one_line(cli, toy, tmp_path: Path, arguments, message: str) -> None:
    Store(tmp_path / "store")
    outcome = cli("prior", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_failed_training_is_one_line(cli, toy) -> None:
    outcome = cli(*GAN, *SMALL, "-o", "wgan-gp.learning_rate=1e30")
    assert outcome.code == 1
    assert "the critic's loss is not finite" in outcome.err
    assert "Traceback" not in outcome.err
