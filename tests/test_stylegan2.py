"""StyleGAN2: the equations by other routes, the authors' files and networks, training, the command."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from mia_bench.api.dataset import ImageSet
from mia_bench.api.prior import PriorTask
from mia_bench.errors import DataError, Diverged, MiaBenchError, Unavailable
from mia_bench.fetch import file_hash
from mia_bench.plugins import host
from mia_bench.track import load_track
from mia_bench_plugins.priors import shipped_priors
from mia_bench_plugins.priors.stylegan2 import (
    StyleGAN2Prior,
    Training,
    differentiable_augmentation,
    path_lengths,
    r1_penalty,
)
from mia_bench_plugins.priors.stylegan2_model import StyleGAN2, build, convert, read
from mia_bench_plugins.priors.stylegan2_networks import (
    Convolution,
    Discriminator,
    Epilogue,
    Generator,
    Mapping,
    Shape,
    Synthesis,
    ToImage,
    upsample,
)
from prior_tasks import Stopped, public, task
from stylegan2_files import TAPS, TINY, content, pretend_authors, randomised, tiny_networks, written

authors = pytest.fixture(pretend_authors)

OPTIONS = {"latent": 6, "style": 5, "layers": 2, "channel_base": 32, "channel_max": 6}


# --- the equations by another route --------------------------------------------------------------


def filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Valid convolution of one channel, pixel by pixel."""
    height, width = (image.shape[i] - kernel.shape[i] + 1 for i in (0, 1))
    out = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            patch = image[row : row + kernel.shape[0], column : column + kernel.shape[1]]
            out[row, column] = (patch * kernel[::-1, ::-1]).sum()
    return out


def test_upsampling_is_zeros_between_pixels_and_the_filter() -> None:
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    result = upsample(images)
    for image, large in zip(images.flatten(0, 1), result.flatten(0, 1), strict=True):
        spread = np.zeros((10, 10))
        spread[::2, ::2] = image.numpy()
        expected = filtered(np.pad(spread, ((2, 1), (2, 1))), 4 * TAPS)
        np.testing.assert_allclose(large.numpy(), expected, atol=1e-12)


def correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """``(I, H, W)`` and ``(O, I, k, k)`` to ``(O, H', W')``, valid, as deep learning convolves."""
    return np.stack(
        [sum(filtered(x[i], kernel[o, i, ::-1, ::-1]) for i in range(x.shape[0])) for o in range(len(kernel))]
    )


@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution_is_one_with_a_kernel_for_each_image(up: bool) -> None:
    """Equations 1 and 3 of the paper: scale the kernel, divide by its norm, convolve."""
    layer = randomised(Synthesis(3, 4, TINY, 8, up=up)).double()
    x = torch.randn(2, 3, *(2 * [4 if up else 8]), dtype=torch.float64)
    w = torch.randn(2, TINY.style, dtype=torch.float64)
    result = layer(x, w, lambda constant: constant)
    for image, style, got in zip(x, w, result, strict=True):
        affine = layer.affine.weight.numpy() / math.sqrt(TINY.style) @ style.numpy()
        scales = affine + layer.affine.bias.numpy()
        kernel = layer.weight.numpy() * scales[None, :, None, None]
        kernel = kernel / np.sqrt((kernel**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        pixels = image.numpy()
        if up:
            # Zeros between the pixels, the flipped kernel, then the filter (all padded by the
            # sizes that keep the middle of the image in the middle).
            spread = np.zeros((3, 8, 8))
            spread[:, ::2, ::2] = pixels
            padded = np.pad(spread, ((0, 0), (3, 2), (3, 2)))
            raw = correlate(padded, kernel[:, :, ::-1, ::-1])
            out = np.stack([filtered(channel, 4 * TAPS) for channel in raw])
        else:
            out = correlate(np.pad(pixels, ((0, 0), (1, 1), (1, 1))), kernel)
        noise = layer.noise_const.numpy() * float(layer.noise_strength)
        out = out + noise + layer.bias.numpy()[:, None, None]
        expected = np.where(out > 0, out, 0.2 * out) * math.sqrt(2)
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-9)


def test_image_layer_modulates_without_demodulating() -> None:
    layer = randomised(ToImage(3, TINY)).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    w = torch.randn(2, TINY.style, dtype=torch.float64)
    styles = layer.affine(w) / math.sqrt(3)
    expected = torch.stack(
        [
            F.conv2d(one[None], layer.weight * style[None, :, None, None], layer.bias)[0]
            for one, style in zip(x, styles, strict=True)
        ]
    )
    torch.testing.assert_close(layer(x, w), expected)


@pytest.mark.parametrize("size", [1, 3])
def test_downsampling_filters_then_takes_every_second_pixel(size: int) -> None:
    layer = randomised(Convolution(2, 3, size, TINY, down=True, active=size == 3)).double()
    image = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    kernel = layer.weight.numpy() / math.sqrt(2 * size**2)
    around = 1 + size // 2
    padded = np.pad(image[0].numpy(), ((0, 0), (around, around), (around, around)))
    smooth = np.stack([filtered(channel, TAPS) for channel in padded])
    expected = correlate(smooth, kernel)[:, ::2, ::2]
    if layer.bias is not None:
        expected = expected + layer.bias.numpy()[:, None, None]
        expected = np.where(expected > 0, expected, 0.2 * expected) * math.sqrt(2)
    np.testing.assert_allclose(layer(image, 0.5)[0].numpy(), 0.5 * expected, atol=1e-9)


def test_mapping_normalises_and_learns_slowly() -> None:
    torch.manual_seed(0)
    mapping = randomised(Mapping(Shape(resolution=8, latent=4, style=3, layers=1))).double()
    z = torch.randn(5, 4, dtype=torch.float64)
    normal = z / z.square().mean(1, keepdim=True).sqrt()
    layer = mapping.fc0
    out = normal @ (layer.weight * 0.01 / 2).T + layer.bias * 0.01
    torch.testing.assert_close(mapping(z), torch.where(out > 0, out, 0.2 * out) * math.sqrt(2))
    torch.testing.assert_close(mapping(7 * z), mapping(z))  # the length of z says nothing
    assert float(layer.weight.std()) > 20  # kept 1/0.01 times larger than it is used


def test_truncation_goes_to_the_mean_style() -> None:
    mapping = Mapping(TINY)
    mapping.w_avg.copy_(torch.arange(5.0))
    w = torch.randn(3, 5)
    torch.testing.assert_close(mapping.truncate(w, 1.0), w)
    torch.testing.assert_close(mapping.truncate(w, 0.0), mapping.w_avg.expand(3, -1))
    mapping.update_average(w, 0.75)
    torch.testing.assert_close(mapping.w_avg, 0.75 * torch.arange(5.0) + 0.25 * w.mean(0))


@pytest.mark.parametrize(("count", "size"), [(8, 4), (6, 3), (5, 1), (2, 2)])
def test_spread_within_groups_is_one_more_channel(count: int, size: int) -> None:
    judge, seen = Epilogue(TINY), []
    judge.conv.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.randn(count, TINY.channels(4), 4, 4)
    judge(x)
    for index in range(count):
        group = x[index % (count // size) :: count // size]
        assert len(group) == size
        spread = (group.double().var(0, unbiased=False) + 1e-8).sqrt().mean()
        channel = seen[0][index, -1]
        torch.testing.assert_close(channel, torch.full_like(channel, float(spread)))


def test_image_is_the_sum_of_what_all_resolutions_add() -> None:
    synthesis = randomised(Generator(TINY)).synthesis
    w = torch.randn(2, TINY.style)
    small, whole = synthesis(w, up_to=8), synthesis(w)
    assert small.shape == (2, 3, 8, 8)
    block = synthesis.b16
    block.torgb.weight.zero_()
    block.torgb.bias.zero_()
    torch.testing.assert_close(synthesis(w), upsample(small))
    assert not torch.allclose(synthesis(w), whole)


def test_styles_act_on_their_own_layers() -> None:
    synthesis = randomised(Generator(TINY)).synthesis
    styles = torch.randn(1, 1, TINY.style).expand(-1, synthesis.depth, -1).clone()
    torch.testing.assert_close(synthesis(styles), synthesis(styles[:, 0]))
    last = styles.clone()
    last[:, -1] += 1  # the last image layer's only
    torch.testing.assert_close(synthesis(last, up_to=8), synthesis(styles, up_to=8))
    assert not torch.allclose(synthesis(last), synthesis(styles))


def test_sizes_are_the_papers() -> None:
    with torch.device("meta"):
        generator, judge = Generator(Shape(1024)), Discriminator(Shape(1024))
    millions = [sum(p.numel() for p in n.parameters()) / 1e6 for n in (generator, judge)]
    assert millions == pytest.approx([30.0, 29.0], abs=0.5)  # as the paper says of both
    assert generator.synthesis.depth == 18


@pytest.mark.parametrize("resolution", [4, 12, 33])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(MiaBenchError, match=f"not {resolution}"):
        Shape(resolution)


def test_clamp_bounds_the_layers() -> None:
    layer = Synthesis(3, 4, Shape(16, style=5, clamp=0.3), 8)
    out = layer(100 * torch.randn(2, 3, 8, 8), torch.randn(2, 5), None)
    assert float(out.detach().abs().max()) == pytest.approx(0.3)


# --- the model -----------------------------------------------------------------------------------


def model(resolution: int = 16, **more) -> StyleGAN2:
    made = build(tiny_networks(), resolution, **{"crop": None, "partial": False, **more})
    return made.requires_grad_(False)


def test_samples_are_styles_and_images_are_in_range() -> None:
    made = model()
    draws = [torch.Generator().manual_seed(4) for _ in range(3)]
    w, same = (made.sample(7, one) for one in draws[:2])
    assert torch.equal(w, same)
    assert w.shape == (7, TINY.style)
    mean = made.generator.mapping.w_avg
    torch.testing.assert_close(made.sample(7, draws[2], truncation=0.5), (w + mean) / 2)
    images = made(w)
    assert images.shape == (7, 3, 16, 16)
    assert 0 <= images.min().item() < images.max().item() <= 1
    assert torch.equal(images, made(w))  # the noise is constant
    scores = made.discriminate(images)
    assert scores.shape == (7,)
    torch.testing.assert_close(made.discriminate(images[2:4]), scores[2:4])


def test_crop_and_resize_to_the_tracks_resolution() -> None:
    w = model().sample(2, torch.Generator().manual_seed(0))
    raw = model().generator.synthesis(w, lambda constant: constant) / 2 + 0.5
    middle = raw[:, :, 4:12, 4:12].clamp(0, 1)
    torch.testing.assert_close(model(8, crop=8)(w), middle)
    smaller = F.interpolate(raw, (8, 8), mode="bilinear", antialias=True).clamp(0, 1)
    torch.testing.assert_close(model(8)(w), smaller)
    with pytest.raises(MiaBenchError, match="whole images"):
        model(8, crop=8).discriminate(middle)
    with pytest.raises(DataError, match="crop=20"):
        model(8, crop=20)


def test_partial_synthesis_stops_where_the_target_needs_no_more() -> None:
    w = model().sample(2, torch.Generator().manual_seed(0))
    quick, whole = model(8, partial=True), model(8)
    early = (quick.generator.synthesis(w, lambda c: c, up_to=8) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(quick(w), early)
    assert not torch.allclose(quick(w), whole(w), atol=1e-3)
    # What an attack returns is made by all layers; afterwards it is quick again.
    torch.testing.assert_close(quick.render(w, device=torch.device("cpu")), whole(w))
    torch.testing.assert_close(quick(w), early)
    # Of a crop half as wide twice the resolution is needed: nothing is left out.
    torch.testing.assert_close(model(8, crop=8, partial=True)(w), model(8, crop=8)(w))


def test_gradient_of_an_image_by_finite_differences() -> None:
    made = model()
    w = made.sample(1, torch.Generator().manual_seed(1)).double()
    made = made.double()
    weights = torch.randn(1, 3, 16, 16, dtype=torch.float64)

    def value(w: torch.Tensor) -> torch.Tensor:
        return (made.generator.synthesis(w, lambda constant: constant) * weights).sum()

    w.requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(w), w)
    step = 1e-6
    for index in range(TINY.style):
        move = torch.zeros_like(w)
        move[0, index] = step
        with torch.no_grad():
            slope = (value(w + move) - value(w - move)) / (2 * step)
        assert float(gradient[0, index]) == pytest.approx(float(slope), rel=1e-5)


# --- files as a prior ----------------------------------------------------------------------------


def options(**changes) -> StyleGAN2Prior.Options:
    return StyleGAN2Prior.Options(**{**OPTIONS, "steps": 8, "batch_size": 6, **changes})


@pytest.mark.parametrize("ending", [".pkl", ".safetensors"])
def test_a_file_in_the_weights_folder_becomes_a_prior(authors, tmp_path: Path, ending: str) -> None:
    written(tmp_path / "faces.pkl", content(authors.EasyDict))
    convert(tmp_path / "faces.pkl", tmp_path / "faces.safetensors")
    prior = StyleGAN2Prior(options(file=f"faces{ending}", trained_on="FFHQ"))
    assert prior.weights("data-key", tmp_path) == file_hash(tmp_path / f"faces{ending}")
    looks: list = []
    state = prior.fit(task(tmp_path / "store", weights=tmp_path, looks=looks))
    assert len(looks) == 1
    assert len(state.pop("trained_on")) == 0
    made = prior.build(state, resolution=8)
    w = made.sample(2, torch.Generator().manual_seed(0))
    expected = model(8)
    torch.testing.assert_close(w, expected.sample(2, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(made(w), expected(w))


def test_the_shipped_prior_is_that_of_its_track_and_serves_others_as_a_file(tmp_path: Path) -> None:
    track = load_track(host().registry, "synth-faces")
    path = shipped_priors.FOLDER / shipped_priors.file_name("stylegan2", track.name)
    assert path.stat().st_size < 8e6
    trained = StyleGAN2Prior.Options(**track.priors["stylegan2"]).model_dump(mode="json")
    assert shipped_priors.training_of(path)["options"] == trained
    prior = StyleGAN2Prior(StyleGAN2Prior.Options(file=str(path), trained_on="rendered people"))
    state = prior.fit(task(tmp_path))
    assert len(state.pop("trained_on")) > 1000
    model = prior.build(state, resolution=8)
    assert (model.shape.resolution, model.resolution) == (32, 8)
    assert model(model.sample(2, torch.Generator().manual_seed(0))).shape == (2, 3, 8, 8)


def test_what_a_file_saw_must_be_said() -> None:
    with pytest.raises(ValueError, match="trained_on"):
        options(file="faces.pkl")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    prior = StyleGAN2Prior(options(file="faces.pkl", trained_on="FFHQ"))
    with pytest.raises(Unavailable, match=r"faces\.pkl was not found: give a path"):
        prior.weights("data-key", tmp_path)
    known = StyleGAN2Prior(options(file="ffhq.pkl", trained_on="FFHQ"))
    with pytest.raises(Unavailable, match=r"mia-bench prior fetch ffhq\.pkl"):
        known.weights("data-key", tmp_path)


def test_safetensors_of_something_else_are_refused(authors, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(DataError, match="holds no stylegan2 networks"):
        read(other)
    written(tmp_path / "faces.pkl", content(authors.EasyDict))
    convert(tmp_path / "faces.pkl", other)
    other.write_bytes(other.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated"):
        read(other)


def test_convert_by_command(authors, cli, tmp_path: Path) -> None:
    path = written(tmp_path / "faces.pkl", content(authors.EasyDict))
    result = cli("prior", "convert", str(path))
    assert result.code == 0, result.err
    made = tmp_path / "faces.safetensors"
    assert result.out.startswith(str(made))
    for name, tensor in read(path).items():
        assert torch.equal(read(made)[name], tensor)
    header = made.read_bytes()
    metadata = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    assert metadata["sha256"] == file_hash(path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("name", "more", "message", "code"),
    [
        ("faces.pkl", ["--output", "nowhere/x.safetensors"], "no folder nowhere", 2),
        ("faces.bin", [], "no prior converts files that end in '.bin'", 2),
        ("faces.pkl", ["--prior", "wgan-gp"], "'wgan-gp' does not convert", 2),
        ("broken.pkl", [], "broken.pkl is truncated", 1),
    ],
)
def test_wrong_conversions_are_one_line(
    authors, cli, tmp_path: Path, name: str, more: list[str], message: str, code: int
) -> None:
    written(tmp_path / "faces.pkl", content(authors.EasyDict))
    for other in ("faces.bin", "broken.pkl"):
        (tmp_path / other).write_bytes(b"nonsense")
    result = cli("prior", "convert", str(tmp_path / name), *more)
    assert result.code == code
    (line,) = result.err.strip().splitlines()
    assert message in line


def test_shipped_weights_are_used_for_their_data_and_options(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shipped_priors, "FOLDER", tmp_path)
    chosen = options(steps=1)
    trained = StyleGAN2Prior(chosen).train(task(tmp_path / "store"))
    half = {n: t.half() if t.is_floating_point() else t for n, t in trained.items()}
    path = tmp_path / "stylegan2_test.safetensors"
    save_file(half, path, {"source": "data-key", "options": chosen.model_dump_json()})
    (tmp_path / "SHA256SUMS").write_text(f"{file_hash(path)}  {path.name}\n")
    prior = StyleGAN2Prior(chosen)
    assert prior.weights("data-key", None) == file_hash(path)
    assert StyleGAN2Prior(options(steps=2)).weights("data-key", None) is None
    state = prior.fit(task(tmp_path / "other"))
    for name, tensor in half.items():
        assert torch.equal(state[name], tensor.float() if tensor.dtype.is_floating_point else tensor)
    assert prior.build(state, resolution=8).latent_dim == 5


# --- training ------------------------------------------------------------------------------------


def test_r1_of_a_linear_discriminator_is_its_squared_slope() -> None:
    slope = torch.randn(3, 4, 4, dtype=torch.float64)
    images = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    penalty = r1_penalty(lambda x: (x * slope).sum((1, 2, 3)), images)
    torch.testing.assert_close(penalty, slope.square().sum())


def test_path_length_of_a_linear_generator() -> None:
    """Images J·w of one style: ‖Jᵀ y‖ over the root of the number of pixels."""
    jacobian = torch.randn(2, 3, 4, 4, 5, dtype=torch.float64)
    styles = torch.randn(2, 1, 5, dtype=torch.float64, requires_grad=True)
    images = torch.einsum("nchwd,nd->nchw", jacobian, styles[:, 0])
    noise = torch.randn_like(images)
    expected = torch.einsum("nchwd,nchw->nd", jacobian, noise).norm(dim=1) / 4
    torch.testing.assert_close(path_lengths(images, styles, noise), expected)


def test_augmentation_keeps_the_gradient_and_moves_what_it_should() -> None:
    images = torch.rand(64, 3, 16, 16).requires_grad_(True)
    made = differentiable_augmentation(images, torch.Generator().manual_seed(0))
    again = differentiable_augmentation(images, torch.Generator().manual_seed(0))
    assert torch.equal(made, again)
    assert made.shape == images.shape
    (gradient,) = torch.autograd.grad(made.square().sum(), images)
    assert bool(torch.isfinite(gradient).all())
    assert all(float(one.abs().max()) > 0 for one in gradient)
    hidden = (made == 0).all(dim=1).float().mean((1, 2))
    assert float(hidden.min()) >= 1 / 16  # a corner of the square at least
    assert float(hidden.max()) < 0.6  # never the whole image


def test_augmentation_of_a_grey_image_shifts_its_brightness_by_half_at_most() -> None:
    flat = torch.zeros(200, 3, 8, 8)
    made = differentiable_augmentation(flat, torch.Generator().manual_seed(1))
    values = made.amax((1, 2, 3)) + made.amin((1, 2, 3))
    assert -0.5 <= float(values.min()) < -0.3
    assert 0.3 < float(values.max()) <= 0.5


def test_the_first_step_of_the_discriminator_by_hand(tmp_path: Path) -> None:
    """Logistic losses of its scores, Adam with the corrected rate; no regulariser, no mixing."""
    chosen = options(r1=0, path_length=0, mixing=0, augment=False, mirror=False)
    training, twin = Training(chosen, task(tmp_path)), Training(chosen, task(tmp_path))
    twin.model.load_state_dict(training.model.state_dict())
    images = public().images
    loss = training.advance(images)
    draws = torch.Generator().manual_seed(1)

    def fakes() -> torch.Tensor:
        w = twin.model.generator.mapping(torch.randn(6, 6, generator=draws))
        torch.rand((), generator=draws)
        return twin.model.generator.synthesis(
            w, lambda constant: torch.randn(6, 1, *constant.shape, generator=draws)
        )

    def stepped(network: nn.Module, every: int, loss: torch.Tensor) -> None:
        share = every / (every + 1)
        adam = torch.optim.Adam(network.parameters(), 0.002 * share, (0.0, 0.99**share))
        adam.zero_grad()
        loss.backward()
        adam.step()

    stepped(twin.model.generator, 4, (1 + (-twin.model.discriminator(fakes())).exp()).log().mean())
    real = 2 * images[torch.randint(40, (6,), generator=draws)].float() / 255 - 1
    fake = twin.model.discriminator(fakes().detach())
    expected = (1 + fake.exp()).log().mean()
    expected = expected + (1 + (-twin.model.discriminator(real)).exp()).log().mean()
    torch.testing.assert_close(loss, expected.detach())
    stepped(twin.model.discriminator, 16, expected)
    for part in ("generator", "discriminator"):
        for name, tensor in getattr(twin.model, part).named_parameters():
            torch.testing.assert_close(getattr(training.model, part).get_parameter(name), tensor)


@pytest.mark.slow
def test_training_by_command(cli, toy) -> None:
    small = [f"{key}={value}" for key, value in {**OPTIONS, "steps": 3, "batch_size": 4}.items()]
    options = [word for text in small for word in ("-o", f"stylegan2.{text}")]
    outcome = cli("prior", "train", "--track", "toy", "--prior", "stylegan2", *options)
    assert outcome.code == 0, outcome.err
    assert "step 3: " in outcome.out
    again = cli("prior", "train", "--track", "toy", "--prior", "stylegan2", *options)
    assert again.out == outcome.out
    assert "prior stylegan2" not in again.err


@pytest.mark.parametrize("stop_at", [1, 5])
def test_training_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path, stop_at: int) -> None:
    whole = StyleGAN2Prior(options()).train(task(tmp_path / "whole"))
    with pytest.raises(Stopped):
        StyleGAN2Prior(options()).train(task(tmp_path / "stopped", stop_at=stop_at))
    resumed = StyleGAN2Prior(options()).train(task(tmp_path / "stopped"))
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.slow
def test_training_moves_the_samples_towards_the_data(tmp_path: Path) -> None:
    """Images of one colour each, red or blue: samples come nearer to one of the two."""
    given = task(tmp_path)
    colours = torch.tensor([[230, 20, 20], [20, 20, 230]], dtype=torch.uint8)
    pixels = colours[torch.arange(40) % 2][:, :, None, None].expand(-1, -1, 8, 8).contiguous()
    given = PriorTask(**{**vars(given), "public": ImageSet(pixels, torch.arange(40))})
    chosen = options(steps=150, learning_rate=5e-3, average=0.9, r1=1, batch_size=16, augment=False)
    start = Training(chosen, given).result()
    made = StyleGAN2Prior(chosen).build(StyleGAN2Prior(chosen).train(given), resolution=8)
    gaps = []
    for network in (start, made):
        images = network(network.sample(200, torch.Generator().manual_seed(5))).detach()
        to_each = images[:, None] - colours[:, :, None, None] / 255
        gaps.append(to_each.abs().mean((2, 3, 4)).amin(1).mean().item())
    assert gaps[1] < 0.7 * gaps[0]


def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"discriminator's loss .* step \d of 8"):
        StyleGAN2Prior(options(learning_rate=1e30)).train(task(tmp_path))
