"""WGAN-GP: the paper's networks, closed forms of the penalty, and training that can be stopped."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.prior import PriorTask
from mia_bench.config import RunConfig
from mia_bench.data.fingerprints import image_fingerprints
from mia_bench.engine.run import prior_stage, set_up
from mia_bench.errors import DataError, Diverged, MiaBenchError
from mia_bench.fetch import file_hash
from mia_bench.protocol.prior import check_prior_is_public
from mia_bench_plugins.priors import shipped_priors
from mia_bench_plugins.priors.wgan_gp import Training, WassersteinGAN, gradient_penalty
from mia_bench_plugins.priors.wgan_networks import Critic, Generator, stage_widths
from prior_tasks import Stopped, public, task

TINY = {"latent": 4, "width": 4, "steps": 8, "batch_size": 6, "critic_steps": 2}


def options(**changes: float) -> WassersteinGAN.Options:
    return WassersteinGAN.Options(**{**TINY, **changes})


# --- networks ------------------------------------------------------------------------------------


def test_networks_at_64_pixels_are_the_papers() -> None:
    assert stage_widths(64, 64) == [512, 256, 128, 64]
    generator, critic = Generator(100, 64, 64), Critic(64, 64)
    count = sum(p.numel() for m in (generator, critic) for p in m.parameters())
    assert count == pytest.approx(9.5e6, rel=0.01)
    kernels = [m.kernel_size for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert kernels == [(5, 5)] * 4
    norms = [m.num_features for m in critic.modules() if isinstance(m, nn.InstanceNorm2d)]
    assert norms == [128, 256, 512]


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_shapes_at_every_resolution(resolution: int) -> None:
    images = Generator(5, 4, resolution)(torch.randn(2, 5)).detach()
    assert images.shape == (2, 3, resolution, resolution)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert Critic(4, resolution)(images).shape == (2,)


@pytest.mark.parametrize("resolution", [4, 24, 48, 30])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(MiaBenchError, match=f"not {resolution}"):
        stage_widths(resolution, 4)


# --- the penalty ---------------------------------------------------------------------------------


def test_penalty_of_a_linear_critic_is_that_of_its_slope() -> None:
    weight = torch.randn(3, 2, 2, dtype=torch.float64)

    def critic(images: torch.Tensor) -> torch.Tensor:
        return (images * weight).sum(dim=(1, 2, 3))

    real, fake = torch.rand(2, 5, 3, 2, 2, dtype=torch.float64)
    value = gradient_penalty(critic, real, fake, torch.rand(5, 1, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(value, (weight.norm() - 1) ** 2)


def test_penalty_is_taken_between_real_and_fake() -> None:
    def critic(images: torch.Tensor) -> torch.Tensor:
        return images.square().sum(dim=(1, 2, 3)) / 2  # its gradient is the image

    real, fake = torch.rand(2, 4, 3, 2, 2, dtype=torch.float64)
    for place in (0.0, 0.25, 1.0):
        where = torch.full((4, 1, 1, 1), place, dtype=torch.float64)
        between = place * real + (1 - place) * fake
        expected = ((between.flatten(1).norm(dim=1) - 1) ** 2).mean()
        torch.testing.assert_close(gradient_penalty(critic, real, fake, where), expected)


def test_gradient_of_the_penalty_by_finite_differences() -> None:
    torch.manual_seed(0)
    critic = Critic(2, 16).double()
    real, fake = torch.rand(2, 3, 3, 16, 16, dtype=torch.float64)
    where = torch.rand(3, 1, 1, 1, dtype=torch.float64)
    weight = critic.layers[0].weight
    (gradient,) = torch.autograd.grad(gradient_penalty(critic, real, fake, where), weight)
    direction, step, values = torch.randn_like(weight), 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        values.append(gradient_penalty(critic, real, fake, where))
        with torch.no_grad():
            weight -= sign * step * direction
    numeric = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-4, atol=1e-7)


# --- training ------------------------------------------------------------------------------------


def test_one_step_of_the_critic_equals_a_step_by_hand(tmp_path: Path) -> None:
    one = options(critic_steps=1, mirror=False)
    given = task(tmp_path)
    training = Training(one, given)
    reference = Training(one, task(tmp_path))
    for part in ("generator", "critic"):
        getattr(reference.model, part).load_state_dict(getattr(training.model, part).state_dict())
    images = given.public.images
    loss = training.advance(images)
    draws, model = torch.Generator().manual_seed(1), reference.model
    real = images[torch.randint(40, (6,), generator=draws)].float() / 255
    with torch.no_grad():
        fake = model.generator(torch.randn(6, 4, generator=draws))
    where = torch.rand(6, 1, 1, 1, generator=draws)
    expected = (
        model.critic(fake).mean()
        - model.critic(real).mean()
        + 10 * gradient_penalty(model.critic, real, fake, where)
    )
    torch.testing.assert_close(loss, expected.detach())
    optimizer = torch.optim.Adam(model.critic.parameters(), lr=2e-4, betas=(0.5, 0.999))
    expected.backward()
    optimizer.step()
    for name, tensor in model.critic.state_dict().items():
        torch.testing.assert_close(training.model.critic.state_dict()[name], tensor)
    latents = torch.randn(6, 4, generator=draws)
    follow = torch.optim.Adam(model.generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    (-model.critic(model.generator(latents)).mean()).backward()
    follow.step()
    for name, tensor in model.generator.state_dict().items():
        torch.testing.assert_close(training.model.generator.state_dict()[name], tensor)


@pytest.mark.slow
def test_training_moves_the_samples_towards_the_data(tmp_path: Path) -> None:
    """Images of one colour each, red or blue: samples come to have the data's mean colour."""
    given = task(tmp_path)
    colours = torch.tensor([[230, 20, 20], [20, 20, 230]], dtype=torch.uint8)
    pixels = colours[torch.arange(40) % 2][:, :, None, None].expand(-1, -1, 8, 8).contiguous()
    given = PriorTask(**{**vars(given), "public": ImageSet(pixels, torch.arange(40))})
    chosen = options(steps=150, learning_rate=5e-3, average=0.9)
    start = Training(chosen, given).result()
    prior = WassersteinGAN(chosen)
    model = prior.build(WassersteinGAN(chosen).train(given), resolution=8)
    mean = pixels.float().mean(dim=(0, 2, 3)) / 255
    gaps = []
    for network in (start, model):
        images = network(network.sample(200, torch.Generator().manual_seed(5))).detach()
        gaps.append(float((images.mean(dim=(0, 2, 3)) - mean).abs().max()))
    assert gaps[1] < 0.12
    assert gaps[1] < gaps[0] / 2


@pytest.mark.parametrize("stop_at", [1, 4, 7])
def test_training_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path, stop_at: int) -> None:
    chosen = options()
    whole = WassersteinGAN(chosen).train(task(tmp_path / "whole"))
    with pytest.raises(Stopped):
        WassersteinGAN(chosen).train(task(tmp_path / "stopped", stop_at=stop_at))
    resumed = WassersteinGAN(chosen).train(task(tmp_path / "stopped"))
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_damaged_checkpoint_begins_anew(tmp_path: Path, caplog) -> None:
    whole = WassersteinGAN(options()).train(task(tmp_path / "whole"))
    given = task(tmp_path / "damaged")
    (tmp_path / "damaged" / "checkpoint").write_bytes(b"nonsense")
    again = WassersteinGAN(options()).train(given)
    assert "is damaged" in caplog.text
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_the_host_may_look_at_a_frozen_model_now_and_then(tmp_path: Path) -> None:
    looks: list = []
    state = WassersteinGAN(options(steps=20)).train(task(tmp_path, looks=looks))
    assert [step for _, step in looks] == list(range(2, 21, 2))
    model = looks[-1][0]
    assert not model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    early = looks[0][0].state_dict()["generator.project.weight"]
    assert not torch.equal(early, state["generator.project.weight"])


def test_the_average_follows_the_generator(tmp_path: Path) -> None:
    training = Training(options(average=0.999), task(tmp_path))
    before = training.average.project.weight.clone()
    training.advance(public().images)
    after = training.model.generator.project.weight
    # In the first step the decay is 1/10, not 0.999: a young average follows fast.
    torch.testing.assert_close(training.average.project.weight, 0.1 * before + 0.9 * after)


def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step \d of 8"):
        WassersteinGAN(options(learning_rate=1e30)).train(task(tmp_path))


# --- weights -------------------------------------------------------------------------------------


def test_weights_for_other_networks_are_refused(tmp_path: Path) -> None:
    state = WassersteinGAN(options(steps=1)).train(task(tmp_path))
    model = WassersteinGAN(options()).build(state, resolution=8)
    assert model.latent_dim == 4
    with pytest.raises(DataError, match="16×16"):
        WassersteinGAN(options()).build(state, resolution=16)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped file for :func:`options` and the data ``data-key``."""
    path = tmp_path / "wgan_gp_test.safetensors"
    state = {"generator.project.weight": torch.rand(2, 2).half(), "trained_on": torch.arange(3)}
    chosen = json.dumps(options().model_dump(mode="json"))
    save_file(state, path, {"source": "data-key", "options": chosen})
    (tmp_path / "SHA256SUMS").write_text(f"{file_hash(path)}  {path.name}\n")
    monkeypatch.setattr(shipped_priors, "FOLDER", tmp_path)
    return path


def test_shipped_weights_are_used_only_for_their_data_and_options(shipped: Path, tmp_path: Path) -> None:
    prior = WassersteinGAN(options())
    assert prior.weights("data-key", None) == hashlib.sha256(shipped.read_bytes()).hexdigest()
    found = prior.fit(dataclasses.replace(task(tmp_path / "store"), source="data-key"))
    assert found["generator.project.weight"].dtype == torch.float32
    assert found["trained_on"].tolist() == [0, 1, 2]
    assert prior.weights("other-data", None) is None
    assert WassersteinGAN(options(width=8)).weights("data-key", None) is None


@torch.no_grad()
def test_the_default_track_has_shipped_weights_of_public_images(tmp_path: Path) -> None:
    stage = prior_stage(set_up(RunConfig(track="synth-faces", store=tmp_path / "store")), "wgan-gp")
    prior = stage.parts["prior"].make()
    assert stage.spec["weights"]
    shipped = shipped_priors.FOLDER / shipped_priors.file_name("wgan-gp", "synth-faces")
    assert shipped.stat().st_size < 6e6
    given = dataclasses.replace(task(tmp_path / "other"), source=stage.inputs["data"].key)
    state = prior.fit(given)
    assert len(state.pop("trained_on")) == 7200
    model = prior.build(state, resolution=32)
    images = model(model.sample(64, torch.Generator().manual_seed(0)))
    assert images.shape == (64, 3, 32, 32)
    assert float(images.std(0).mean()) > 0.1  # not one face for all latents
    # The critic tells its generator's faces from noise.
    assert float(model.discriminate(images).mean()) > float(
        model.discriminate(torch.rand_like(images)).mean()
    )


@pytest.mark.parametrize("damage", ["truncated", "altered", "unknown"])
def test_shipped_weights_that_are_not_as_they_were_shipped_are_refused(shipped: Path, damage: str) -> None:
    data = shipped.read_bytes()
    if damage == "truncated":
        shipped.write_bytes(data[:-10])
    elif damage == "altered":
        shipped.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        (shipped.parent / "SHA256SUMS").unlink()
    with pytest.raises(MiaBenchError, match=r"^wgan_gp_test\.safetensors is truncated or altered"):
        WassersteinGAN(options()).weights("data-key", None)


def test_a_prior_that_saw_a_private_image_is_refused() -> None:
    images, private = public(6), public(10)
    part = ImageSet(private.images[6:], private.labels[6:])
    splits = Splits(part, part, part, images, images, ("a", "b"))
    trained_on = image_fingerprints(images.images)
    check_prior_is_public("x", trained_on, splits)
    leaky = torch.cat([trained_on, image_fingerprints(part.images[1:2])])
    with pytest.raises(DataError, match="prior 'x' was trained on 3 of the 12 private images"):
        check_prior_is_public("x", leaky, splits)


def test_fingerprints_tell_images_apart() -> None:
    images = public(30).images
    marks = image_fingerprints(images)
    assert len(marks.unique()) == 30
    assert torch.equal(image_fingerprints(images.clone()), marks)
    changed = images.clone()
    changed[3, 0, 0, 0] ^= 1
    assert (image_fingerprints(changed) != marks).nonzero().flatten().tolist() == [3]
