"""``mia-bench data``: what is there, what is wrong, where to get it; decoding ahead of a run."""

import signal
from pathlib import Path

import pytest
import torch

from mia_bench.data import trees
from mia_bench.plugins import host
from mia_bench.store import Store
from test_paper_datasets import celeba, facescrub


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


def test_check_of_all_goes_through_all(cli, tmp_path: Path) -> None:
    celeba(tmp_path)
    outcome = cli("data", "check", "--data", tmp_path)
    assert outcome.code == 0
    for name in ("celeba", "facescrub", "lfw", "mnist", "stanford-dogs"):
        assert f"{name}: " in outcome.out
    assert "synth-faces" not in outcome.out


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
