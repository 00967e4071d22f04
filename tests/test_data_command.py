"""``mia-bench data``: what is there, what is wrong, where to get it; decoding ahead of a run."""

import signal
from pathlib import Path

import pytest
import torch

from mia_bench.data import trees
from mia_bench.plugins import host
from mia_bench.store import Store
from test_paper_datasets import celeba, facescrub

pytestmark = pytest.mark.slow


def test_every_data_set_on_disk_says_its_layout_and_origin() -> None:
    for entry in host().registry.entries("dataset"):
        dataset = entry.load()
        if dataset.needs_root and entry.plugin.distribution == "mia-bench":
            assert "<data>" in dataset.layout, entry.name
            assert dataset.origin, entry.name


def test_list_says_what_each_is_and_which_tracks_use_it(cli, broken) -> None:
    outcome = cli("data", "list")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    summary = host().registry.get("dataset", "lfw").load().summary
    assert lines[lines.index(f"lfw: {summary}") + 1] == "  tracks: lfw, toy-lfw"
    assert any(line.startswith("  layout: <data>/lfw/") for line in lines)
    for name in host().registry.names("dataset"):
        assert f"\n{name}: " in f"\n{outcome.out}"
    assert "lazy-dataset: broken: dataset 'lazy-dataset' of plugin" in outcome.out


def test_check_names_what_is_wrong_and_where_to_get_it(cli, tmp_path: Path) -> None:
    facescrub(tmp_path)
    outcome = cli("data", "check", "facescrub", "--data", tmp_path)
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert "holds 3 identities, not 530 identities" in lines[0]
    assert lines[1].startswith("  layout: <data>/facescrub/actors/faces")
    assert "winklerbros" in lines[2]


def test_check_of_partial_data_that_are_allowed(cli, tmp_path: Path) -> None:
    facescrub(tmp_path)
    option = ("-o", "facescrub.allow_partial=true")
    outcome = cli("data", "check", "facescrub", "--data", tmp_path, *option)
    assert outcome.code == 0
    assert outcome.out.startswith("facescrub: complete, fingerprint ")


def tree(make_tree, root: Path) -> Path:
    return make_tree(root, {"Ann": 9, "Bob": 9, "Cyd": 9, "Dan": 7, "Eve": 7, "Fay": 7, "Gus": 4})


def test_check_tells_what_a_run_reads(cli, toy, make_tree, tmp_path: Path) -> None:
    root = tree(make_tree, tmp_path / "data")
    (root / "Fay" / "Fay_0001.jpg").write_text("<html>")
    (root / "Ann" / "notes.txt").write_text("x")
    outcome = cli("data", "check", "folder", "--data", root)
    assert outcome.code == 0, outcome.err
    first, second = outcome.out.split("folder: complete")[1:]  # the tracks folder and toy-folder differ
    assert "read at 32×32 pixels by folder\n" in first
    assert "read at 16×16 pixels by toy-folder\n" in second
    for line in (
        "files: 53 found, 51 read, 2 left out",
        "private: 4 identities with 34 images: Ann 9, Bob 9, Cyd 9, Dan 7",
        "public: 2 identities with ",
        "decoys: 1 identity with ",
        "warning: 1 file left out, unreadable: Fay/Fay_0001.jpg (no image, though named .jpg)",
        "warning: 1 file left out, no image: Ann/notes.txt",
    ):
        assert f"\n  {line}" in first
    assert not list((tmp_path / "store").glob("artifacts/*"))
    run = ("run", "--track", "toy-folder", "--defense", "none", "--attack", "prior-sample", "--data", root)
    listed = cli(*run, "--dry-run")
    assert "files: 53 found, 51 to read, 2 left out" in listed.out
    assert "private: 4 identities with 34 images: Ann 9, Bob 9, Cyd 9, Dan 7" in listed.out
    prepared = cli("data", "prepare", "--track", "toy-folder", "--data", root)
    assert prepared.code == 0, prepared.err
    stored = cli(*run, "--dry-run")
    numbers = [
        line for line in second.splitlines() if line.startswith(("  files:", "  private:", "  images:"))
    ]
    assert len(numbers) == 3
    for line in numbers:
        assert line in stored.out
    assert "1 file left out, unreadable: Fay/Fay_0001.jpg" in stored.err


@pytest.mark.parametrize("wrong", ["too few people", "unreadable"])
def test_check_and_run_refuse_the_same(cli, toy, make_tree, tmp_path: Path, wrong: str) -> None:
    counts = {"Ann": 30, "Bob": 30} if wrong == "too few people" else dict.fromkeys("abcdef", 10)
    root = make_tree(tmp_path / "data", counts)
    if wrong == "unreadable":
        for path in sorted(root.glob("*/*0001.jpg")):
            path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    check = cli("data", "check", "folder", "--data", root)
    run = cli("run", "--track", "toy-folder", "--defense", "none", "--attack", "prior-sample", "--data", root,
              "--device", "cpu", "--format", "json")  # fmt: skip
    assert (check.code, run.code) == (1, 1)
    refused = [line.removeprefix("folder: ") for line in check.out.splitlines()]
    assert any(line and line in run.records[0]["reason"] for line in refused)


def test_check_takes_allow_partial_where_it_recommends_it(cli, tmp_path: Path) -> None:
    facescrub(tmp_path)
    refused = cli("data", "check", "facescrub", "--data", tmp_path)
    assert refused.code == 1
    assert "--allow-partial" in refused.out
    allowed = cli("data", "check", "facescrub", "--data", tmp_path, "--allow-partial")
    assert allowed.code == 0, allowed.err
    assert "facescrub: complete" in allowed.out
    assert cli("data", "check", "--data", tmp_path, "--allow-partial").code == 0
    wrong = cli("data", "check", "folder", "--data", tmp_path, "--allow-partial")
    assert wrong.code == 2
    assert "has no option 'allow_partial'" in wrong.err


def test_check_of_all_goes_through_all(cli, tmp_path: Path) -> None:
    celeba(tmp_path)
    outcome = cli("data", "check", "--data", tmp_path)
    assert outcome.code == 0
    for name in ("celeba", "facescrub", "lfw", "mnist", "stanford-dogs"):
        assert f"{name}: " in outcome.out
    assert "synth-faces" not in outcome.out


def test_check_of_all_goes_on_after_a_broken_one(cli, broken, tmp_path: Path) -> None:
    outcome = cli("data", "check", "--data", tmp_path)
    assert outcome.code == 0
    assert "lazy-dataset: broken: " in outcome.out
    assert "mnist: " in outcome.out
    assert cli("data", "check", "lazy-dataset", "--data", tmp_path).code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "facescrub"), "give --data DIR or set MIA_BENCH_DATA"),
        (("check", "facescrab", "--data", "."), "did you mean 'facescrub'"),
        (("prepare", "--track", "lfv"), "did you mean 'lfw'"),
    ],
)
def test_wrong_usage_is_one_line(cli, monkeypatch, arguments: tuple, message: str) -> None:
    monkeypatch.delenv("MIA_BENCH_DATA", raising=False)
    outcome = cli("data", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_stopped_preparation_goes_on(cli, make_tree, monkeypatch, tmp_path: Path) -> None:
    make_tree(tmp_path / "data", dict.fromkeys(("Ann", "Bob", "Cyd", "Dan", "Eve", "Fay"), 12))
    monkeypatch.setattr(trees, "BLOCK", 16)
    prepare = ("data", "prepare", "--track", "folder", "--data", tmp_path / "data")
    whole = cli(*prepare, "--store", tmp_path / "whole")
    assert whole.code == 0, whole.err
    read, paths = trees._read, []

    def stopping(path: Path, *how: object):
        paths.append(path)
        if len(paths) == 40:
            signal.raise_signal(signal.SIGTERM)
        return read(path, *how)

    with monkeypatch.context() as patch:
        patch.setattr(trees, "_read", stopping)
        stopped = cli(*prepare)
    assert stopped.code == 1
    assert "interrupted; what is finished is kept" in stopped.err
    store = Store(tmp_path / "store")
    (scratch,) = (store.root / "checkpoints").iterdir()
    assert scratch.name.startswith("data-")
    assert len(list(scratch.iterdir())) == 2
    paths.clear()
    monkeypatch.setattr(trees, "_read", lambda *what: (paths.append(what[0]), read(*what))[1])
    again = cli(*prepare)
    assert again.code == 0, again.err
    assert again.out == whole.out
    assert len(set(paths)) == len(paths) == 72 - 32
    assert not list((store.root / "checkpoints").iterdir())
    key = scratch.name.removeprefix("data-")
    expected = Store(tmp_path / "whole").tensors("data", key)
    for name, tensor in store.tensors("data", key).items():
        assert torch.equal(tensor, expected[name]), name


def test_prepared_images_are_those_of_a_run(cli, toy, tmp_path: Path) -> None:
    first = cli("data", "prepare", "--track", "toy")
    assert first.code == 0, first.err
    assert " classes; images: " in first.out
    assert " train, " in first.out
    again = cli("data", "prepare", "--track", "toy")
    assert again.out == first.out
    assert "images of toy" not in again.err
    plan = cli("run", "--track", "toy", "--defense", "none", "--attack", "ppa", "--dry-run")
    (line,) = [line for line in plan.out.splitlines() if "images of toy" in line]
    assert "cached" in line
