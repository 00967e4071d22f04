"""Networks in bfloat16 and compiled: what changes, what must not, and what is said of it."""

from __future__ import annotations

import pytest
import torch

import mia_bench
from mia_bench import device as device_module
from mia_bench.api.generative import GenerativeModel
from mia_bench.cell import FinishedCell
from mia_bench.config import RunConfig
from mia_bench.device import autocast, choose_device, restore_settings, torch_settings
from mia_bench.engine import stages
from mia_bench.engine.rerun import prepare_again
from mia_bench.engine.run import prepare
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.plugins import host
from mia_bench.record import read_record
from mia_bench.store import Store
from mia_bench.track import Track, load_track
from mia_bench_plugins.attacks import ppa
from mia_bench_plugins.priors.stylegan2_model import StyleGAN2
from mia_bench_plugins.priors.stylegan2_networks import Shape

CPU = torch.device("cpu")


def run(tmp_path, defense: str = "none", attack: str = "ppa", **more) -> dict:
    (record,) = mia_bench.run(
        track="toy", defense=defense, attack=attack, device="cpu", store=tmp_path / "store", **more
    )
    return record.to_json()


def reconstructions(tmp_path, record: dict) -> torch.Tensor:
    cell = FinishedCell(read_record(record), Store(tmp_path / "store"))
    return torch.from_numpy(cell.arrays()["reconstructions"])


def test_precision_is_in_the_keys_of_attacks_and_in_the_protocol(toy, tmp_path) -> None:
    def planned(precision):
        config = RunConfig(
            track="toy", defense=["none"], attack=["toy-prepared"], precision=precision,
            store=tmp_path,
        )  # fmt: skip
        return prepare(config).cells[0]

    unsaid, single, half = map(planned, (None, "float32", "bfloat16"))
    assert (single.key, single.protocol) == (unsaid.key, unsaid.protocol)
    assert half.protocol != unsaid.protocol
    keys, changed = ({s.id for s in cell.measure.upstream()} for cell in (unsaid, half))
    assert {name for name, _ in changed - keys} == {"prepare", "invert", "measure"}


# --- TF32 ----------------------------------------------------------------------------------------


@pytest.fixture
def ampere(monkeypatch):
    """Let the CPU pass for a device with TF32: its flags are set, and change nothing."""
    before = torch_settings()
    choose_device("cpu")
    monkeypatch.setattr(device_module, "has_tf32", lambda device: True)
    yield
    restore_settings(before)


def allowed() -> list[str]:
    """What torch, by its newer flags and by its older ones, says of convolutions and matrix products."""
    backends = torch.backends
    newer = backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision
    older = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32
    compiler = torch.get_float32_matmul_precision()
    assert [flag == "tf32" for flag in newer] == list(older)
    assert (compiler != "highest") == older[1]
    return [name for name, on in zip(("convolutions", "products"), older, strict=True) if on]


def test_tf32_is_on_inside_only_and_all_flags_of_torch_agree(ampere) -> None:
    assert allowed() == []
    with autocast("tf32", CPU):
        assert allowed() == ["convolutions", "products"]
        with autocast("float32", CPU):
            assert allowed() == []
        assert allowed() == ["convolutions", "products"]
    assert allowed() == []
    with pytest.raises(KeyError), autocast("tf32", CPU):
        raise KeyError
    assert allowed() == []


def test_attacks_are_in_tf32_training_and_measurement_are_not(
    toy, store, tmp_path, monkeypatch, ampere
) -> None:
    seen = {}

    def watch(where: object, name: str) -> None:
        inner = getattr(where, name)

        def watched(*args, **more):
            seen[name] = allowed()
            return inner(*args, **more)

        monkeypatch.setattr(where, name, watched)

    store("data", "prior", "gallery", "evaluator")
    watch(ppa, "random_resized_crop")
    watch(stages, "train_target")
    watch(stages, "measure_reconstructions")
    run(tmp_path, precision="tf32", rerun="always")
    assert seen == {
        "random_resized_crop": ["convolutions", "products"],
        "train_target": [],
        "measure_reconstructions": [],
    }


def test_pictures_are_in_float32_whatever_the_attack_computes_in(ampere) -> None:
    seen = []

    class Watched(GenerativeModel):
        def sample(self, count, generator, *, truncation=1.0):
            return torch.zeros(count, 1)

        def forward(self, latents):
            seen.append((allowed(), torch.is_autocast_enabled("cpu")))
            return torch.zeros(len(latents), 3, 8, 8)

    for precision in ("tf32", "bfloat16"):
        with autocast(precision, CPU):
            Watched().pictures(torch.zeros(2, 1), device=CPU)
    assert seen == [([], False)] * 2


def test_tf32_on_a_cpu_is_float32_and_the_record_says_so(toy, cli, store, tmp_path) -> None:
    store("data", "prior", "gallery", "evaluator", "train", "assess")
    single, asked = run(tmp_path), run(tmp_path, precision="tf32")
    assert asked["key"] != single["key"]
    assert asked["track"]["protocol"] != single["track"]["protocol"]
    assert torch.equal(*(reconstructions(tmp_path, record) for record in (single, asked)))
    assert "attacked in float32" in asked["notes"]["precision"]
    assert "precision" not in single["notes"]
    again = prepare_again(read_record(asked), {"device": "cpu", "store": tmp_path / "store"})
    assert [planned.key for planned in again.cells] == [asked["key"]]
    same = cli("explain", asked["key"], "--seed", 0, "--store", tmp_path / "store")
    assert f"all stages of cell {asked['key'][:8]} are stored" in same.out


@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [("cuda", (8, 0), True), ("cuda", (9, 0), True), ("cuda", (7, 5), False), ("mps", (0, 0), False)],
)
def test_which_devices_have_tf32(monkeypatch, kind: str, capability: tuple, expected: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert device_module.has_tf32(torch.device(kind)) == expected
    assert bool(device_module.precision_notes("tf32", torch.device(kind))) != expected
    assert not device_module.precision_notes("bfloat16", torch.device(kind))


def test_a_setting_that_a_plugin_leaves_is_found_and_restored(ampere) -> None:
    with pytest.raises(MiaBenchError, match="TF32"), device_module.preserve_torch_settings():
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    assert allowed() == []


@pytest.mark.parametrize(
    ("track", "precision"),
    [
        ("facescrub", "tf32"),
        ("facescrub-metfaces", "tf32"),
        ("facescrub-small", "tf32"),
        ("celeba", "tf32"),
        ("stanford-dogs", "tf32"),
        ("synth-faces", "float32"),
        ("lfw", "float32"),
        ("mnist", "float32"),
        ("folder", "float32"),
    ],
)
def test_precision_of_each_track(track: str, precision: str) -> None:
    assert load_track(host().registry, track).attack_precision == precision


# --- bfloat16 ------------------------------------------------------------------------------------


def test_attacks_in_bfloat16_find_much_the_same_and_render_in_float32(
    toy, store, tmp_path, monkeypatch
) -> None:
    store("data", "prior", "gallery", "evaluator", "train", "assess")
    seen, crop = set(), ppa.random_resized_crop

    def watched(images, generator, **more):
        seen.add(torch.is_autocast_enabled("cpu"))
        return crop(images, generator, **more)

    monkeypatch.setattr(ppa, "random_resized_crop", watched)
    single, half = run(tmp_path), run(tmp_path, precision="bfloat16")
    assert seen == {False, True}
    first, second = (reconstructions(tmp_path, record).float() for record in (single, half))
    assert not torch.equal(first, second)
    assert (first - second).abs().mean() < 0.1 * first.std()
    latents = torch.randn(3, 8)
    model = StyleGAN2(Shape(16, latent=8, style=8, layers=1, channel_base=64), 16)
    with autocast("bfloat16", CPU):
        rendered = model.render(latents, device=CPU)
    assert torch.equal(rendered, model(latents).detach())


@pytest.mark.parametrize("defense", ["none", "pos-ls", "mid", "bido", "dp-sgd"])
def test_every_defense_trains_in_bfloat16(toy, store, tmp_path, monkeypatch, defense: str) -> None:
    store("data", "prior", "gallery", "evaluator")
    validate = Track.model_validate

    def halved(data):
        target = {**data["target"], "recipe": {**data["target"]["recipe"], "precision": "bfloat16"}}
        return validate({**data, "target": target})

    monkeypatch.setattr(Track, "model_validate", halved)
    record = run(tmp_path, defense, "prior-sample")
    assert (record["status"], record["reason"]) == ("done", None)


def test_stylegan2_in_bfloat16_is_near_and_its_images_are_float32() -> None:
    torch.manual_seed(0)
    model = StyleGAN2(Shape(32, latent=16, style=16, layers=2, channel_base=512), 32)
    latents = torch.randn(4, 16, requires_grad=True)
    single = model(latents)
    (gradient,) = torch.autograd.grad(single.square().sum(), latents)
    with autocast("bfloat16", CPU):
        half = model(latents)
        (near,) = torch.autograd.grad(half.square().sum(), latents)
    assert half.dtype == torch.float32
    assert (single - half).abs().max() < 0.05
    assert torch.nn.functional.cosine_similarity(gradient, near).min() > 0.98


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # and uses it
def test_compiled_networks_find_the_same_under_the_same_key(toy, store, tmp_path) -> None:
    store("data", "prior", "gallery", "evaluator", "train", "assess")
    plain = run(tmp_path)
    found = reconstructions(tmp_path, plain)
    again = run(tmp_path, compile=True, rerun="always")
    assert again["reason"] is None
    assert again["key"] == plain["key"]
    assert again["provenance"]["device"].count("compiled") == 1
    assert "partly" not in again["provenance"]["device"]
    difference = (reconstructions(tmp_path, again).int() - found.int()).abs()
    assert difference.float().mean() < 0.1


def test_wrong_precision_is_refused(cli, toy, tmp_path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('precision = "float16"\n')
    refused = cli("run", "--config", config)
    assert refused.code == 2
    assert "precision 'float16'; did you mean 'bfloat16'" in refused.err
    assert cli("run", "--precision", "half").code == 2
    with pytest.raises(UsageError, match="float16"):
        mia_bench.run(track="toy", store=tmp_path, precision="float16")  # type: ignore[arg-type]
