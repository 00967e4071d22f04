"""Missing weight files are named before the first stage: once each, where to get them, where to put them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mia_bench import fetch
from mia_bench.api.component import Published
from mia_bench.components import resolve
from mia_bench.plugins import host
from mia_bench.registry import PluginInfo
from mia_bench.track import load_track
from mia_bench.weights import missing_lines, needed_by, weight_files
from mia_bench_plugins.encoders.facenet import FILE
from test_paper_datasets import facescrub

PAPERS = {
    "facescrub": {
        "resnet152-f82ba261.pth", "inception_v3_google-0cc3c7bd.pth", FILE.name, "ffhq.pkl",
    },
    "stanford-dogs": {"resnet152-f82ba261.pth", "inception_v3_google-0cc3c7bd.pth", "afhqdog.pkl"},
    "lfw": {"mobilefacenet.onnx"},
    "synth-faces": set(),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch, "weights_cache", lambda: tmp_path / "cache")


@pytest.fixture
def reduced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Register ``reduced``, a track of the paper's networks on a few made images."""
    facescrub(tmp_path / "data")
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("MIA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MIA_BENCH_WEIGHTS", str(tmp_path / "weights"))

    def make(more: str = "") -> None:
        path = tmp_path / "reduced.toml"
        path.write_text(f'extends = "facescrub-small"\nname = "reduced"\nversion = 1\n{more}')
        host.cache_clear()
        host().registry.add("track", "reduced", path, "", PluginInfo("made", "made-dist", "1", "made"))

    yield make
    host.cache_clear()


def named(text: str) -> Counter[str]:
    """How often a text says that a file is missing or was not found."""
    return Counter(re.findall(r"([\w.-]+\.(?:pth?|pkl|onnx)) (?:is missing|was not found)", text))


@pytest.mark.parametrize(("track", "files"), PAPERS.items())
def test_a_track_knows_the_files_it_needs(track: str, files: set[str]) -> None:
    registry = host().registry
    needed = weight_files(needed_by(registry, [load_track(registry, track)]))
    assert {file.name for file in needed} == files
    assert all(users == [track] for users in needed.values())


def test_networks_that_begin_without_imagenet_need_no_file() -> None:
    assert (
        resolve(host().registry, "model", "torchvision", {"pretrained": False}, {}).make().weight_files()
        == ()
    )


def test_a_line_says_for_whom_where_from_and_where_to() -> None:
    known = Published("a.pkl", "https://x/a.pkl", how="mia-bench prior fetch a.pkl")
    lines = missing_lines({known: ["one", "two"], Published("b.onnx", ""): ["one"]}, None)
    assert lines == [
        "weight file a.pkl is missing (needed for one, two): mia-bench prior fetch a.pkl, or download "
        "https://x/a.pkl into the folder that MIA_BENCH_WEIGHTS names",
        "weight file b.onnx is missing (needed for one): put it into the folder that MIA_BENCH_WEIGHTS names",
    ]


@pytest.mark.slow
def test_doctor_names_each_file_once_and_those_that_are_damaged(cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MIA_BENCH_WEIGHTS", str(tmp_path / "weights"))
    outcome = cli("doctor")
    every = set().union(*PAPERS.values()) | {"resnet18-f37072fd.pth", "metfaces.pkl"}
    assert named(outcome.out) == dict.fromkeys(every, 1)
    assert outcome.code == 0
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ffhq.pkl").write_bytes(b"networks")
    (tmp_path / "weights" / "resnet18-f37072fd.pth").write_bytes(b"half")
    outcome = cli("doctor")
    assert outcome.code == 1
    assert "ok     weight file ffhq.pkl: found" in outcome.out
    assert re.search("^BROKEN .*resnet18-f37072fd.pth is not the file published", outcome.out, re.MULTILINE)
    assert named(outcome.out) == dict.fromkeys(every - {"ffhq.pkl", "resnet18-f37072fd.pth"}, 1)


def test_data_check_names_the_files_of_the_tracks_of_a_data_set(cli, reduced, tmp_path: Path) -> None:
    outcome = cli("data", "check", "facescrub", "-o", "facescrub.allow_partial=true")
    assert outcome.code == 0
    expected = PAPERS["facescrub"] | {"resnet18-f37072fd.pth", "metfaces.pkl"}
    assert named(outcome.out) == dict.fromkeys(expected, 1)
    assert f"into {tmp_path / 'weights'}" in outcome.out
    assert not named(cli("data", "check", "mnist").out)


def test_a_plan_names_what_its_stages_will_need(cli, reduced, tmp_path: Path) -> None:
    reduced()
    (tmp_path / "weights" / "ffhq.pkl").write_bytes(b"networks")
    words = ("run", "--track", "reduced", "--attack", "ppa", "--allow-partial", "--dry-run")
    outcome = cli(*words, "--defense", "none", "--defense", "neg-ls")
    assert outcome.code == 0, outcome.err
    networks = {"resnet18-f37072fd.pth", "inception_v3_google-0cc3c7bd.pth"}
    assert named(outcome.err) == dict.fromkeys({*networks, FILE.name}, 1)
    assert named(outcome.out) == {}


def test_a_run_that_can_not_begin_names_all_that_is_missing(cli, reduced) -> None:
    reduced()
    words = ("run", "--track", "reduced", "--attack", "ppa", "--allow-partial")
    outcome = cli(*words, "--defense", "none", "--defense", "neg-ls")
    assert outcome.code == 1
    (line,) = [one for one in outcome.err.splitlines() if one.startswith("error: ")]
    assert "none × ppa, seed 0 and 1 more are left out: ffhq.pkl was not found" in line
    expected = (PAPERS["facescrub"] - {"resnet152-f82ba261.pth"}) | {"resnet18-f37072fd.pth"}
    assert named(line) == dict.fromkeys(expected, 1)


def test_networks_of_skipped_cells_are_not_asked_for(cli, reduced, tmp_path: Path) -> None:
    reduced()
    (tmp_path / "weights" / "ffhq.pkl").write_bytes(b"networks")
    outcome = cli("run", "--track", "reduced", "--attack", "gmi", "--allow-partial", "--dry-run")
    assert named(outcome.err) == {FILE.name: 1}
