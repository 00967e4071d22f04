"""The papers' tracks from end to end, at reduced size on made data and random weights."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mia_bench.errors import MiaBenchError, Unavailable
from mia_bench.plugins import host
from mia_bench.registry import PluginInfo, Registry
from mia_bench.track import Track, load_track
from mia_bench_plugins.encoders.facenet import FILE, PEOPLE, SIZE, FaceNet
from mia_bench_plugins.priors.stylegan2_model import FORMAT, StyleGAN2
from mia_bench_plugins.priors.stylegan2_networks import Shape

from test_paper_datasets import ALL  # isort: skip

TINY = """
extends = "{track}"
name = "tiny"
version = 1
images_per_class = 2

[data]
resolution = 32
dataset = {{ name = "{dataset}" }}

[target]
architecture = {{ name = "torchvision", options = {{ network = "resnet18", pretrained = false }} }}
[target.recipe]
epochs = 2
batch_size = 8

[evaluation]
architecture = {{ name = "torchvision", options = {{ pretrained = false, size = 80, auxiliary = false }} }}
[evaluation.recipe]
epochs = 1
batch_size = 8

[priors.stylegan2]
file = "faces.safetensors"
{crop}

[attacks.ppa.options]
search = 8
candidates = 2
steps = 2
views = 2
"""


def write_facenet(folder: Path) -> None:
    """The file of the encoder ``facenet``, from torch's global generator."""
    from facenet_pytorch import InceptionResnetV1

    network = InceptionResnetV1(pretrained=None, classify=False, num_classes=PEOPLE)
    torch.save(network.state_dict(), folder / FILE.name)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random networks under the names that the tracks ask for."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    shape = Shape(64, latent=8, style=8, layers=2, channel_base=256, channel_max=8)
    state = {"shape": shape.as_tensor(), **StyleGAN2(shape, 64).state_dict()}
    save_file(state, folder / "faces.safetensors", {"format": FORMAT})
    write_facenet(folder)
    return folder


@pytest.fixture
def tiny(monkeypatch, weights: Path, tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """Register ``tiny``, a reduced form of a track, and make its data."""

    def make(track: str, dataset: str) -> None:
        path = tmp_path / "tiny.toml"
        crop = "" if track == "stanford-dogs" else "crop = 48"
        path.write_text(TINY.format(track=track, dataset=dataset, crop=crop))
        ALL[dataset][1](tmp_path / "data")
        host.cache_clear()
        owner = PluginInfo("made", "made-dist", "1", "made")
        host().registry.add("track", "tiny", path, "", owner)

    monkeypatch.setenv("MIA_BENCH_WEIGHTS", str(weights))
    monkeypatch.setenv("MIA_BENCH_DATA", str(tmp_path / "data"))
    yield make
    host.cache_clear()


@pytest.mark.parametrize(
    ("track", "dataset", "classes"),
    [
        pytest.param("facescrub", "facescrub", 3, marks=pytest.mark.thorough),
        pytest.param("facescrub-metfaces", "facescrub", 3, marks=pytest.mark.thorough),
        pytest.param("celeba", "celeba", 3, marks=pytest.mark.thorough),
        pytest.param("stanford-dogs", "stanford-dogs", 2, marks=pytest.mark.slow),
    ],
)
def test_a_reduced_track_runs_from_data_to_record(
    tiny, cli, track: str, dataset: str, classes: int, monkeypatch
) -> None:
    monkeypatch.setattr("mia_bench_plugins.datasets.celeba.CLASSES", 3)
    tiny(track, dataset)
    run = ("run", "--track", "tiny", "--defense", "neg-ls", "--attack", "ppa", "--device", "cpu")
    refused = cli(*run)
    assert refused.code == 1
    assert "give --allow-partial" in refused.err
    run = (*run, "--allow-partial")
    done = cli(*run, "--format", "json")
    assert done.code == 0, done.err
    (record,) = done.records
    assert record["status"] == "done"
    assert record["track"]["data"].endswith("+allow_partial=True")
    assert record["prior"]["name"] == "stylegan2"
    assert record["prior"]["options"]["trained_on"] in ("FFHQ", "MetFaces", "AFHQ dogs")
    assert "file" not in record["prior"]["options"]
    metrics = record["metrics"]
    assert metrics["attack_acc1"]["n"] == 2 * classes
    assert metrics["validation_accuracy"] is None
    if track == "stanford-dogs":
        assert "delta_face" not in metrics
    else:
        assert 0 < metrics["delta_face"]["value"] < 4
        assert metrics["id_acc1"]["n"] == 2 * classes
        assert metrics["id_gallery_acc1"] is None
        assert record["notes"]["id_gallery_acc1"] == "the data set keeps no decoys"
    assert json.loads(cli(*run, "--format", "json").out) == [record]


@pytest.mark.thorough
def test_the_attack_of_the_rehearsal_is_shared_out_in_four_parts(tiny, cli, tmp_path: Path) -> None:
    tiny("facescrub-small", "facescrub")
    words = ("--defense", "none", "--attack", "ppa", "--device", "cpu", "--allow-partial", "--format", "json")
    done = cli("run", "--track", "tiny", *words)
    assert done.code == 0, done.err
    (record,) = done.records
    assert record["metrics"]["attack_acc1"]["n"] == 2 * 3
    shards = list((tmp_path / "store" / "artifacts" / "shard").iterdir())
    assert len(shards) == 4  # of three classes, so that one is empty
    assert all(f"part {number} of 4" in done.err for number in range(1, 5))


@pytest.mark.parametrize(
    ("track", "search", "steps"),
    [
        ("facescrub", 2000, 50),
        ("facescrub-metfaces", 5000, 70),
        ("celeba", 5000, 70),
        ("stanford-dogs", 2000, 100),
    ],
)
def test_tracks_follow_the_papers_code(track: str, search: int, steps: int) -> None:
    found = load_track(host().registry, track)
    attack = found.attacks["ppa"].options
    assert (attack["search"], attack["steps"]) == (search, steps)
    assert found.target.architecture.options == {"network": "resnet152", "weights": "v2"}
    evaluation = found.evaluation.architecture.options
    assert evaluation == {"network": "inception_v3", "size": 299, "auxiliary": True}
    for recipe in (found.target.recipe, found.evaluation.recipe):
        assert recipe.colour is not None
        assert recipe.colour.order == "random"


def test_small_tracks_have_none_of_it() -> None:
    """Their recipes, and so their keys and results, know nothing of torchvision's augmentation."""
    for name in ("synth-faces", "lfw", "mnist"):
        track = load_track(host().registry, name)
        for model in filter(None, (track.target, track.evaluation, track.judge)):
            assert model.architecture.name != "torchvision"
            assert "colour" not in model.recipe.spec()


@pytest.mark.parametrize(
    ("track", "dataset", "reason"),
    [
        ("facescrub", "facescrub", "needs a prior with a discriminator"),
        ("stanford-dogs", "stanford-dogs", "clips standard normal latents"),
    ],
)
def test_gmi_is_skipped_with_the_reason(tiny, cli, track: str, dataset: str, reason: str) -> None:
    """Of faces only a part is kept, which the discriminator can't judge; of dogs the whole images."""
    tiny(track, dataset)
    words = ("--defense", "none", "--attack", "gmi", "--allow-partial", "--format", "json")
    done = cli("run", "--track", "tiny", *words)
    (record,) = done.records
    assert record["status"] == "skipped"
    assert reason in record["reason"]


def test_small_tracks_say_only_what_differs() -> None:
    registry = host().registry
    whole, small = (load_track(registry, name) for name in ("facescrub", "facescrub-small"))
    assert small.data.dataset.options == {"classes": 20}
    # ResNet-18 has one version of the weights.
    assert small.target.architecture.options == {"network": "resnet18", "weights": "v2"}
    assert small.target.recipe.epochs == 30
    assert small.target.recipe.colour == whole.target.recipe.colour
    assert small.evaluation.architecture == whole.evaluation.architecture
    assert small.priors == whole.priors


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": 'extends = "b"', "b": 'extends = "a"'}, "'a' extends itself"),
        ({"a": 'extends = "lost"'}, "lost"),
    ],
)
def test_tracks_that_extend_nothing_sensible(tmp_path: Path, files: dict, message: str) -> None:
    registry = Registry()
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text)
        owner = PluginInfo("made", "made-dist", "1", "made")
        registry.add("track", name, tmp_path / f"{name}.toml", "", owner)
    with pytest.raises(MiaBenchError, match=message):
        load_track(registry, "a")


# --- FaceNet -------------------------------------------------------------------------------------


def test_facenet_embeds_as_its_package_does(weights: Path) -> None:
    from facenet_pytorch import InceptionResnetV1

    embed = FaceNet().load(weights, device=torch.device("cpu"))
    network = InceptionResnetV1(pretrained=None, classify=False, num_classes=PEOPLE).eval()
    network.load_state_dict(torch.load(weights / FILE.name, weights_only=True))
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = network(images * 2 - 1)
    torch.testing.assert_close(embed(images), expected)
    torch.testing.assert_close(embed(images).norm(dim=1), torch.ones(2))


def test_facenet_without_its_file_or_with_a_damaged_one(weights: Path, tmp_path: Path) -> None:
    assert len(FaceNet().fingerprint(weights)) == 64
    with pytest.raises(Unavailable, match="vggface2"):
        FaceNet().fingerprint(tmp_path)
    (tmp_path / FILE.name).write_bytes((weights / FILE.name).read_bytes()[:1000])
    with pytest.raises(MiaBenchError, match="is damaged"):
        FaceNet().load(tmp_path, device=torch.device("cpu"))


def test_an_attack_is_like_another_of_its_track() -> None:
    track = load_track(host().registry, "facescrub-small")
    assert track.attacks["ppa-rescaled"] == track.attacks["ppa"]
    assert Track.model_validate(track.model_dump()) == track
    given = track.model_dump()
    given["attacks"]["ppa-steps"] = {"like": "ppa", "options": {"views": 3}}
    varied = Track.model_validate(given)
    assert varied.attacks["ppa-steps"].options == {**track.attacks["ppa"].options, "views": 3}
    for wrong in ("gmy", "ppa-rescaled"):
        given["attacks"] |= {"ppa-rescaled": {"like": "ppa"}, "ppa-steps": {"like": wrong}}
        with pytest.raises(ValueError, match=f"'ppa-steps' is like '{wrong}'"):
            Track.model_validate(given)
