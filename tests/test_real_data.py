"""Real photographs and a real recogniser: Labeled Faces in the Wild and MobileFaceNet."""

from pathlib import Path

import pytest
import torch

from mia_bench.api.dataset import Splits
from mia_bench.api.images import to_float
from mia_bench.plugins import host
from mia_bench.protocol import oracle
from mia_bench.protocol.gallery import verify_pairs
from mia_bench.track import Track, load_track
from mia_bench_plugins.datasets.lfw import LFW
from mia_bench_plugins.encoders.mobilefacenet import MobileFaceNet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loaded() -> dict[Path, Splits]:
    return {}


def protocol_data() -> LFW:
    """The data set with the track's options."""
    registry = host().registry
    chosen = load_track(registry, "lfw").data.dataset
    return LFW(LFW.Options(**chosen.options))


@pytest.fixture
def lfw(real_data: Path, loaded: dict[Path, Splits], tmp_path: Path) -> Splits:
    if real_data not in loaded:
        loaded[real_data] = protocol_data().load(
            real_data,
            resolution=32,
            seed=2024,
            progress=lambda *_: None,
            scratch=tmp_path / "scratch",
        )
    return loaded[real_data]


def test_the_track_names_the_fingerprint_of_the_official_tree(real_data: Path) -> None:
    track = load_track(host().registry, "lfw")
    assert protocol_data().fingerprint(real_data) == track.data.fingerprint


def test_roles_and_counts_of_the_protocol(lfw: Splits) -> None:
    assert lfw.num_classes == 158
    parts = (lfw.train, lfw.validation, lfw.test)
    private = sum(map(len, parts))
    per_class = sum(part.labels.bincount(minlength=158) for part in parts)
    assert int(per_class.min()) >= 10
    assert int(per_class.max()) == 60
    assert private == 3456
    assert len(lfw.decoys.labels.unique()) == 1000
    assert len(lfw.public) + len(lfw.decoys) == 8909
    assert set(lfw.public.labels.tolist()).isdisjoint(lfw.decoys.labels.tolist())
    (note,) = lfw.notes  # five photographs lie under two names
    assert note.startswith("nearly the same image of two public people or decoys, 5 pairs: ")
    names = ("Andrew_Caldecott", "Bart_Hendricks", "Carlos_Beltran", "Emmy_Rossum", "Gabrielle_Rose")
    assert all(name in note for name in names)
    assert lfw.inventory is not None
    assert next(lfw.inventory.lines()) == "files: 13,233 found, 12,365 read, 868 not needed, 0 left out"


def test_private_photographs_are_not_among_the_public_ones(lfw: Splits) -> None:
    parts = {
        "private": (lfw.train, lfw.validation, lfw.test), "public": (lfw.public,), "decoys": (lfw.decoys,)
    }  # fmt: skip
    seen = {
        role: {image.numpy().tobytes() for part in several for image in part.images}
        for role, several in parts.items()
    }
    assert seen["private"].isdisjoint(seen["public"] | seen["decoys"])
    assert seen["public"].isdisjoint(seen["decoys"])


def test_recogniser_tells_people_apart_at_the_track_resolution(lfw: Splits, real_weights: Path) -> None:
    embed = MobileFaceNet().load(real_weights, device=torch.device("cpu"))
    labels = lfw.decoys.labels
    several = labels.bincount()[labels] > 1
    chosen = several.nonzero().flatten()[:400]
    embeddings = embed(to_float(lfw.decoys.images[chosen]))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(chosen)))
    right = verify_pairs(embeddings, labels[chosen], torch.Generator().manual_seed(0))
    assert float(right.mean()) > 0.85


def test_a_small_cell_end_to_end(
    cli, real_data: Path, real_weights: Path, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MIA_BENCH_DATA", str(real_data))
    monkeypatch.setenv("MIA_BENCH_WEIGHTS", str(real_weights))
    validate = Track.model_validate

    def smaller(data):
        short = {
            part: {**data[part], "recipe": {**data[part]["recipe"], "epochs": 16}}
            for part in ("target", "evaluation")
        }
        return validate({**data, **short, "data": {**data["data"], "resolution": 24}})

    monkeypatch.setattr(Track, "model_validate", smaller)
    monkeypatch.setattr(oracle, "SAMPLES", 50)
    small = [
        word
        for option in ("lfw.private_min=100", "lfw.public_max=2", "lfw.decoys=50",
                       "eigenfaces.components=64", "ppa.steps=5", "ppa.views=4")
        for word in ("-o", option)
    ]  # fmt: skip
    done = cli("run", "--track", "lfw", "--defense", "none", "--attack", "ppa", *small,
               "--jobs", "1", "--format", "json")  # fmt: skip
    assert done.code == 0, done.err
    (record,) = done.records
    assert record["status"] == "done"
    metrics = record["metrics"]
    assert metrics["test_accuracy"]["value"] > 0.6
    assert metrics["id_acc5"] is None  # five people
    assert "5" in record["notes"]["id_acc5"]
    assert metrics["id_gallery_acc1_ceiling"]["value"] > 0.8
    assert (tmp_path / "store" / "pictures" / f"{record['key']}.png").is_file()
    # A cell of other data than the protocol's can't be on its board.
    refused = cli("leaderboard", "submit", "--folder", tmp_path / "boards")
    assert refused.code == 1
    assert "made from other data" in refused.err
