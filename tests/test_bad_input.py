"""Bad input: one clear line, exit code 2 or 1, nothing lost."""

import errno
import importlib
import json
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mia_bench import jsonfile, load_data
from mia_bench import store as store_module
from mia_bench.engine import stages as stages_module
from mia_bench.engine.plan import STAGE_VERSIONS
from mia_bench.engine.progress import counted
from mia_bench.plugins import host
from mia_bench.store import Store
from mia_bench_plugins.defenses.none import NoDefense
from stored import read_json

pytestmark = pytest.mark.slow

SHARED = ("data", "prior", "evaluator", "gallery")
TRAINED = (*SHARED, "train", "assess")
ALL = (*TRAINED, "prepare", "invert", "measure")
CELL = ("run", "--track", "toy", "--defense", "none", "--attack", "toy-prepared", "--device", "cpu",
        "--format", "json")  # fmt: skip
PEOPLE = {"Ann": 9, "Bob": 8, "Cyd": 7, "Dan": 6, "Eve": 5, "Fay": 5, "Gus": 2, "Hal": 2, "Ida": 1,
          "Jon": 1, "Kim": 2, "Lea": 1}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MIA_BENCH_DATA", "MIA_BENCH_WEIGHTS", "MIA_BENCH_DISABLE_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


def one_error_line(outcome) -> str:
    """The error's line: the last one, the only one that begins so, without a traceback."""
    assert "Traceback" not in outcome.err
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert errors == [outcome.err.splitlines()[-1]]
    return errors[0]


def folder_run(cli, root: Path, *more: object, track: str = "toy-folder"):
    return cli("run", "--track", track, "--defense", "none", "--attack", "prior-sample", "--device",
               "cpu", "--format", "json", "--data", root, *more)  # fmt: skip


def same_metrics(records: list[dict], undisturbed) -> bool:
    return all(
        (record["status"], record["metrics"], record["notes"])
        == tuple(undisturbed.records[record["key"]][part] for part in ("status", "metrics", "notes"))
        for record in records
    )


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("neg-ls.alpha=2", "neg-ls.alpha=2: "),
        ("neg-ls.alpha=0.1", "neg-ls.alpha=0.1: "),
        ("neg-ls.alpha=0", "neg-ls.alpha=0: "),
        ("neg-ls.alpha=abc", "neg-ls.alpha=abc: "),
        ("neg-ls.alpha=", "neg-ls.alpha=: "),
        ("neg-ls.alpha=-inf", "neg-ls.alpha=-inf: "),
        ("neg-ls.alpha=nan", "neg-ls.alpha=nan: "),
        ("neg-ls.alpha=[-1]", "neg-ls.alpha=[-1]: "),
        ("pos-ls.alpha=2", "pos-ls.alpha=2: "),
        ("pos-ls.alpha=-0.1", "pos-ls.alpha=-0.1: "),
        ("neg-ls.schedule=steep", "neg-ls.schedule=steep: "),
        ("ppa.steps=-1", "ppa.steps=-1: "),
        ("ppa.steps=1.5", "ppa.steps=1.5: "),
    ],
)
def test_option_out_of_range_or_of_the_wrong_type(cli, option: str, message: str) -> None:
    outcome = cli("run", "-o", option, "--dry-run")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {message}")
    assert len(outcome.err.splitlines()) == 1


def test_one_bad_value_of_a_grid_stops_it_before_anything_is_computed(cli, toy, tmp_path) -> None:
    outcome = cli("run", "--track", "toy", "-o", "neg-ls.alpha=-0.1", "-o", "neg-ls.alpha=2")
    assert outcome.code == 2
    assert not (tmp_path / "store" / "artifacts").exists()


# --- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["option", "environment"])
def test_missing_data_root_is_named(cli, monkeypatch, tmp_path: Path, by: str) -> None:
    missing = tmp_path / "nowhere"
    if by == "environment":
        monkeypatch.setenv("MIA_BENCH_DATA", str(missing))
    arguments = ("--data", missing) if by == "option" else ()
    outcome = cli("run", "--track", "lfw", *arguments)
    assert outcome.code == 2
    assert one_error_line(outcome) == f"error: the data root {missing} is not a folder"


def test_no_data_root_says_how_to_give_one(cli) -> None:
    outcome = cli("run", "--track", "lfw")
    assert outcome.code == 2
    assert "give --data DIR or set MIA_BENCH_DATA" in one_error_line(outcome)


@pytest.mark.parametrize(
    ("track", "message"),
    [("lfw", "lfw: there is no folder"), ("folder", "holds no <identity>/<image> files")],
)
def test_empty_data_root_is_named(cli, tmp_path: Path, track: str, message: str) -> None:
    (tmp_path / "data").mkdir()
    outcome = cli("run", "--track", track, "--data", tmp_path / "data")
    assert outcome.code == 1
    line = one_error_line(outcome)
    assert message in line
    assert str(tmp_path / "data") in line


@pytest.mark.parametrize("kind", ["no image", "truncated", "empty"])
@pytest.mark.parametrize("track", ["toy-lfw", "toy-folder"])
def test_corrupt_image_is_named_and_the_run_goes_on_with_a_note(
    cli, toy, make_tree, tmp_path: Path, track: str, kind: str
) -> None:
    root = tmp_path / "data"
    tree = root / "lfw" if track == "toy-lfw" else root
    make_tree(tree, PEOPLE, size=(250, 250) if track == "toy-lfw" else (30, 20))
    path = tree / "Ann" / "Ann_0004.jpg"
    path.write_bytes({"no image": b"?", "truncated": path.read_bytes()[:-150], "empty": b""}[kind])
    outcome = folder_run(cli, root, track=track)
    assert outcome.code == 0
    name = "lfw/Ann/Ann_0004.jpg" if track == "toy-lfw" else "Ann/Ann_0004.jpg"
    line = f"1 file left out, unreadable: {name} ("
    assert f"warning: {line}" in outcome.err
    (record,) = outcome.records
    assert record["status"] == "done"
    assert line in record["notes"]["data"]
    table = folder_run(cli, root, "--format", "table", track=track)
    assert "Ann/Ann_0004.jpg" in table.err  # told again when all is cached


def test_too_many_corrupt_images_fail_the_cell_and_name_the_first(
    cli, toy, make_tree, tmp_path: Path
) -> None:
    root = make_tree(tmp_path / "data", PEOPLE)
    for number in range(1, 6):
        (root / "Ann" / f"Ann_000{number}.jpg").write_bytes(b"?")
    outcome = folder_run(cli, root)
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    (record,) = outcome.records
    assert record["status"] == "failed"
    assert "5 of 49 images can't be read, the first is Ann/Ann_0001.jpg" in record["reason"]


def test_identities_with_one_image_are_public_never_private(cli, toy, make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", PEOPLE)
    outcome = folder_run(cli, root)
    assert outcome.code == 0
    (record,) = outcome.records
    assert "private: the 6 identities with most images (5 to 9" in record["notes"]["data"]


def test_only_identities_with_one_image_is_an_error(cli, toy, make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", {f"p{i}": 1 for i in range(8)})
    outcome = folder_run(cli, root)
    assert outcome.code == 1
    (record,) = outcome.records
    assert "0 of 8 identities have 3 images or more" in record["reason"]
    assert "Traceback" not in outcome.err


def test_private_identity_with_one_readable_image_is_named(cli, toy, make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", {"Ann": 30, "Bob": 3, "Cyd": 2, "Dan": 40})
    for number in (1, 2):
        path = root / "Bob" / f"Bob_000{number}.jpg"
        path.write_bytes(path.read_bytes()[:-150])  # its header is whole
    outcome = folder_run(cli, root, "-o", "dataset:folder.max_images=30")
    assert outcome.code == 0  # Ann and Dan are private, Bob is public with one image
    shutil.rmtree(root / "Ann")
    make_tree(tmp_path / "data", {"Zoe": 2})
    outcome = folder_run(cli, root)
    assert outcome.code == 1
    assert "identity 'Bob' has fewer than two readable images" in outcome.records[0]["reason"]


@pytest.mark.parametrize("classes", [2, 4, 5, 6])
def test_metrics_at_five_are_null_with_a_note_where_there_are_five_classes_or_fewer(
    cli, toy, make_tree, tmp_path: Path, classes: int
) -> None:
    counts = {f"private{i}": 4 for i in range(classes)} | {f"other{i}": 1 for i in range(8)}
    outcome = folder_run(cli, make_tree(tmp_path / "data", counts))
    assert outcome.code == 0
    (record,) = outcome.records
    if classes <= 5:
        assert record["metrics"]["attack_acc5"] is None
        assert record["notes"]["attack_acc5"] == f"top 5 of {classes} classes says nothing"
    else:
        assert record["metrics"]["attack_acc5"] is not None
        assert "attack_acc5" not in record["notes"]
    assert record["metrics"]["attack_acc1"] is not None


# --- weights and devices -------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["nothing", "a folder without it"])
def test_missing_onnx_file_makes_identification_null_with_a_note(
    cli, toy, make_tree, monkeypatch, tmp_path: Path, given: str
) -> None:
    if given != "nothing":
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.setenv("MIA_BENCH_WEIGHTS", str(tmp_path / "elsewhere"))
    outcome = folder_run(cli, make_tree(tmp_path / "data", PEOPLE))
    assert outcome.code == 0
    (record,) = outcome.records
    null = {name for name, metric in record["metrics"].items() if metric is None}
    assert {"id_acc1", "id_acc5", "id_gallery_acc1", "id_median_rank"} <= null
    for name in null:
        assert "mobilefacenet.onnx was not found" in record["notes"][name]
        assert str(tmp_path) not in record["notes"][name]
    assert "warning: mobilefacenet.onnx was not found" in outcome.err
    assert record["metrics"]["attack_acc1"] is not None


def test_damaged_onnx_file_fails_the_cell_and_names_the_encoder(cli, toy, make_tree, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mobilefacenet.onnx").write_bytes(b"not a network")
    outcome = folder_run(cli, make_tree(tmp_path / "data", PEOPLE))
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    (record,) = outcome.records
    assert record["reason"].startswith("gallery of plugin mia-bench:mobilefacenet: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_gpu_asked_for_where_there_is_none(cli, toy, tmp_path: Path, device: str) -> None:
    outcome = cli("run", "--track", "toy", "--device", device)
    assert outcome.code == 2
    assert one_error_line(outcome) == (
        f"error: --device {device}: no CUDA GPU is available here; use --device cpu"
    )
    assert not (tmp_path / "store").exists()


def test_gpu_of_a_number_that_is_not_there(cli, toy) -> None:
    outcome = cli("run", "--track", "toy", "--device", "cuda:99")
    assert outcome.code == 2
    assert "--device cuda:99: " in one_error_line(outcome)


# --- store ---------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_store_by_permissions(cli, toy, store) -> None:
    folder = store(*SHARED)
    folder.chmod(0o555)
    try:
        outcome = cli(*CELL)
    finally:
        folder.chmod(0o755)
    assert outcome.code == 2
    assert f"the store {folder} is not writable" in one_error_line(outcome)


def refuse(*args: object, **more: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_read_only_store_is_found_before_the_work_begins(cli, toy, store, monkeypatch) -> None:
    folder = store(*SHARED)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    outcome = cli(*CELL)
    assert outcome.code == 2
    assert one_error_line(outcome) == (f"error: the store {folder} is not writable: Read-only file system")
    assert "stages to compute" not in outcome.err


def test_store_that_becomes_read_only_stops_the_run(cli, toy, store, monkeypatch) -> None:
    folder = store(*SHARED)
    monkeypatch.setattr(store_module, "_write_synced", refuse)
    outcome = cli(*CELL)
    assert outcome.code == 1
    assert f"the store {folder} is not writable" in one_error_line(outcome)


def test_finished_results_can_be_read_from_a_read_only_store(cli, toy, undisturbed, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(store_module, "_write_synced", refuse)
    outcome = cli(*CELL, "--store", undisturbed.store)
    assert outcome.code == 0
    assert same_metrics(outcome.records, undisturbed)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_store_where_no_folder_can_be_made(cli, toy) -> None:
    outcome = cli(*CELL, "--store", "/proc/mia-bench-store")
    assert outcome.code == 2
    assert "the store /proc/mia-bench-store can't be used" in one_error_line(outcome)


@pytest.mark.parametrize("nth", [1, 2, 7, 11])
def test_full_store_keeps_what_is_finished_and_the_run_goes_on_later(
    cli, toy, store, undisturbed, monkeypatch, nth: int
) -> None:
    folder = store(*SHARED)
    write, calls = store_module._write_synced, []

    def filling(path: Path, data: Any) -> Any:
        calls.append(path)
        if len(calls) == nth:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_write_synced", filling)
        outcome = cli(*CELL)
    assert outcome.code == 1
    assert one_error_line(outcome) == f"error: the store {folder} is full; what is finished is kept"
    kept = {path.parent.name for path in folder.glob("artifacts/*/*") if path.name[0] != "."}
    assert kept >= set(SHARED) | set(("train", "assess", "prepare", "invert")[: (nth - 1) // 2])
    assert not list(folder.rglob(".tmp-*"))
    again = cli(*CELL)
    assert again.code == 0
    assert same_metrics(again.records, undisturbed)
    # Two files an artifact: what was whole is not computed again.
    assert f"{counted(5 - (nth - 1) // 2, 'stage')} to compute" in again.err or nth == 11


def test_store_of_a_newer_schema_is_left_alone(cli, toy, store) -> None:
    folder = store(*SHARED)
    (folder / "version.json").write_text('{"schema": 99}')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for arguments in (CELL, ("show", "abc"), ("run", "--track", "toy", "--dry-run")):
        outcome = cli(*arguments)
        assert outcome.code == 2
        assert "has schema 99" in one_error_line(outcome)
        assert "upgrade mia-bench or choose another --store" in outcome.err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# --- damage --------------------------------------------------------------------------------------


def one_artifact(folder: Path, stage: str) -> Path:
    """The tensors of a stage that the cell none × toy-prepared needs (all of them of that stage)."""
    (first, *_) = sorted((folder / "artifacts" / stage).glob("*/tensors.safetensors"))
    return first


def altered(path: Path) -> None:
    """One byte of the file is another: only its hash tells."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("stage", [s for s in ALL if s not in ("prior", "prepare", "measure")])
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_artifact_is_computed_again_with_a_warning(
    cli, toy, store, undisturbed, stage: str, damage: str
) -> None:
    folder = store(*(name for name in ALL if name != "measure"))
    paths = sorted((folder / "artifacts" / stage).glob("*/tensors.safetensors"))
    for path in paths:
        altered(path)
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-3])
    outcome = cli(*CELL)
    assert outcome.code == 0
    assert same_metrics(outcome.records, undisturbed)
    if stage == "assess" and damage == "altered":
        return  # its numbers are in its info; the altered file holds no tensors
    assert re.search(
        rf"warning: the {stage} artifact \w+ is damaged \(.*\); it is computed again", outcome.err
    )
    assert cli(*CELL).err == ""  # repaired


def test_damaged_prior_is_computed_again_when_the_attack_needs_it(cli, toy, store, undisturbed) -> None:
    folder = store(*TRAINED)
    path = one_artifact(folder, "prior")
    path.write_bytes(path.read_bytes()[:-1000])
    outcome = cli(*CELL)
    assert outcome.code == 0
    assert re.search(r"warning: the prior artifact \w+ is damaged", outcome.err)
    assert same_metrics(outcome.records, undisturbed)


def test_what_trains_on_a_damaged_input_tells_its_progress_afterwards(cli, toy, store, undisturbed) -> None:
    altered(one_artifact(store("data", "prior", "gallery", "evaluator"), "data"))
    outcome = cli(*CELL, "--jobs", 1)
    assert (outcome.code, "the data artifact" in outcome.err) == (0, True), outcome.err
    assert same_metrics(outcome.records, undisturbed)


def test_damaged_data_are_made_again_for_whoever_asks_for_them(toy, store) -> None:
    root = store("data")
    altered(one_artifact(root, "data"))
    assert len(load_data(track="toy", store=root).train)


@pytest.mark.parametrize(
    "words",
    [
        ("prior", "train", "--track", "toy", "-o", "neg-ls.alpha=-7"),
        ("plugins", "check", "none", "-o", "neg-ls.alpha=-7"),
    ],
)
def test_an_option_of_what_is_not_used_is_refused(cli, toy, words: tuple[str, ...]) -> None:
    refused = cli(*words)
    assert (refused.code, "an option is set for the defense 'neg-ls'" in refused.err) == (2, True), refused


def test_options_that_would_be_ignored_are_refused(cli, toy, store, tmp_path: Path) -> None:
    collecting = cli("store", "gc", "--track", "toy", "--checkpoints")
    assert (collecting.code, "choose artifacts" in collecting.err) == (2, True), collecting
    config = tmp_path / "run.toml"
    config.write_text('track = "toy"\nshard = "1/2"\n')
    measuring = cli("measure", "--config", config)
    assert (measuring.code, "leave out 'shard' and 'rerun'" in measuring.err) == (2, True), measuring


def test_truncated_record_is_made_again_from_its_artifacts(
    cli, toy, store, undisturbed, tmp_path: Path
) -> None:
    store(*ALL)
    (record,) = cli(*CELL).records
    path = tmp_path / "store" / "records" / "toy" / f"{record['key']}.json"
    path.write_text(path.read_text()[: 2**8])
    outcome = cli(*CELL)
    assert outcome.code == 0
    assert f"warning: the record {path} is damaged" in outcome.err
    assert "stages to compute" not in outcome.err
    assert same_metrics(outcome.records, undisturbed)
    assert json.loads(path.read_text()) == outcome.records[0]


def test_show_of_a_damaged_artifact_says_what_to_do(cli, toy, store, tmp_path: Path) -> None:
    folder = store(*ALL)
    (record,) = cli(*CELL).records
    path = folder / "artifacts" / "measure" / record["key"] / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    outcome = cli("show", record["key"], "--output", tmp_path / "x.png")
    assert outcome.code == 1
    assert "--rerun always makes it again" in one_error_line(outcome)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("meta.json", (*CELL, "--dry-run")),
        ("meta.json", CELL),
        ("record", (*CELL, "--dry-run")),
        ("record", CELL),
        ("record", ("results",)),
        ("record", ("show", "KEY")),
        ("record", ("leaderboard", "submit", "--folder", "boards")),
        ("meta.json", ("show", "KEY", "--output", "x.png")),
        ("meta.json", ("prior", "list")),
        ("version.json", ("results",)),
    ],
)
def test_a_failing_disk_costs_nothing_that_is_finished(
    cli, toy, store, monkeypatch, tmp_path: Path, name: str, arguments: tuple, code: int
) -> None:
    folder = store(*ALL)
    (record,) = cli(*CELL).records
    arguments = tuple(record["key"] if word == "KEY" else word for word in arguments)
    if name == "meta.json" and "run" in arguments:  # so that its stages are looked up
        shutil.rmtree(folder / "records")
    before, read = files(folder), jsonfile.read_file

    def fail(path: Path, largest: int | None = None) -> bytes:
        if path.name == name or (name == "record" and path.stem == record["key"]):
            raise OSError(code, os.strerror(code), str(path))
        return read(path, largest)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jsonfile, "read_file", fail)
    outcome = cli(*arguments)
    assert outcome.code != 0
    line = one_error_line(outcome)
    assert os.strerror(code) in line
    assert (f"{record['key']}.json" if name == "record" else "store") in line
    after = files(folder)
    assert {path: after[path] for path in before} == before
    assert not (folder / "set-aside").exists()


@pytest.mark.parametrize("odd", ["empty", "pipe", "newer"])
def test_odd_record_stops_no_command_and_no_run(
    cli, toy, store, undisturbed, tmp_path: Path, odd: str
) -> None:
    folder = store(*ALL)
    (record,) = cli(*CELL).records
    path = folder / "records" / "toy" / f"{record['key']}.json"
    kept = {"empty": "{}", "pipe": "", "newer": json.dumps({**record, "schema": 99, "further": 1})}[odd]
    path.unlink()
    os.mkfifo(path) if odd == "pipe" else path.write_text(kept)
    for arguments in (("results",), ("list",), ("prior", "list"), (*CELL, "--dry-run")):
        outcome = cli(*arguments)
        assert outcome.code == 0
        assert (str(path) in outcome.err) == (arguments[0] in ("results", "run"))
        assert odd == "pipe" or path.read_text() == kept
    for arguments in (("show", record["key"]), ("leaderboard", "submit", "--folder", tmp_path / "boards")):
        outcome = cli(*arguments)
        assert outcome.code != 0
        assert str(path) in outcome.err
        assert "Traceback" not in outcome.err
    outcome = cli(*CELL)
    assert outcome.code == 0
    assert same_metrics(outcome.records, undisturbed)
    aside = folder / "set-aside" / "records" / "toy" / path.name
    assert f"moved {path} to {aside}" in outcome.err
    assert odd == "pipe" or aside.read_text() == kept
    assert cli(*CELL).err == ""


@pytest.mark.parametrize(
    "info", [None, {}, {"run": None}, {"run": {}}, {"run": {"finished": "2026"}, "metrics": 5, "notes": {}}]
)
def test_damaged_measurement_from_before_there_were_hashes_is_made_again(
    cli, toy, store, undisturbed, info: object
) -> None:
    folder = store(*ALL)
    for path in (folder / "artifacts" / "measure").glob("*/meta.json"):
        old = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"}
        path.write_text(json.dumps({**old, "info": info}))
    outcome = cli(*CELL)
    assert "Traceback" not in outcome.err
    if outcome.code:  # it was found when nothing was left to compute
        assert "run the cell again" in outcome.records[0]["reason"]
        outcome = cli(*CELL)
    assert outcome.code == 0
    assert same_metrics(outcome.records, undisturbed)
    assert list((folder / "set-aside" / "artifacts" / "measure").iterdir())


def test_a_field_that_an_input_lacks_makes_it_again(cli, toy, store, undisturbed) -> None:
    folder = store(*TRAINED)
    for path in (folder / "artifacts" / "data").glob("*/meta.json"):
        old = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"}
        path.write_text(json.dumps({**old, "info": {}}))
    outcome = cli(*CELL)
    assert outcome.code == 0
    assert "lacks 'class_names'" in outcome.err
    assert same_metrics(outcome.records, undisturbed)


def test_no_record_names_this_machine(cli, toy, make_tree, tmp_path: Path, monkeypatch) -> None:
    """Errors of libraries carry paths."""
    root = make_tree(tmp_path / "data", PEOPLE)

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(root / "Ann" / "Ann_0001.jpg"))

    monkeypatch.setitem(stages_module.COMPUTE, "prior", fails)
    outcome = folder_run(cli, root)
    (record,) = outcome.records
    assert "'<data>/Ann/Ann_0001.jpg'" in record["reason"]
    assert str(tmp_path) not in outcome.out


# --- two runs at once ----------------------------------------------------------------------------


def test_two_runs_on_one_store_compute_everything_once(spawn, toy, store, undisturbed) -> None:
    folder = store("data", "prior")
    arguments = ("run", "--track", "toy", "--defense", "none", "--defense", "neg-ls", "--attack",
                 "toy-prepared", "--device", "cpu", "--format", "json")  # fmt: skip
    running = [spawn(*arguments) for _ in range(2)]
    results = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0, 0], results
    done = Counter(
        label for _, err in results for label in re.findall(r"^\[.*?\] (.*): done in", err, re.MULTILINE)
    )
    # 2 of the track, then train, assess, prepare, invert and measure of two defenses
    assert len(done) == 2 + 2 * 5
    assert set(done.values()) == {1}
    records = [json.loads(out) for out, _ in results]
    assert [r["key"] for r in records[0]] == [r["key"] for r in records[1]]
    assert same_metrics([*records[0], *records[1]], undisturbed)
    assert not list(folder.rglob(".tmp-*"))


# --- Ctrl-C, and worse ---------------------------------------------------------------------------

DEPENDENTS = {
    "data": (),
    "prior": ("invert",),
    "evaluator": (),
    "gallery": (),
    "train": ("assess", "prepare", "invert"),
    "assess": (),
    "prepare": ("invert",),
    "invert": (),
    "measure": (),
}
"""What else is taken out of the store, so that the stage's own result is used."""


def test_every_stage_is_interrupted_below() -> None:
    # The judge is trained by the code of the evaluation model; the toy run has neither it nor the others.
    assert set(DEPENDENTS) == set(STAGE_VERSIONS) - {"judge", "oracle", "load", "shard", "metric"} == set(ALL)


@pytest.mark.parametrize("stage", DEPENDENTS)
def test_ctrl_c_in_a_stage_keeps_the_rest_and_a_later_run_goes_on(
    cli, toy, store, undisturbed, monkeypatch, tmp_path: Path, stage: str
) -> None:
    folder = store(*(n for n in ALL if n not in (stage, "measure", *DEPENDENTS[stage])))
    before = sorted(folder.glob("artifacts/*/*"))
    compute = stages_module.COMPUTE[stage]

    def interrupted(*args: object) -> None:
        compute(*args)  # the moment before the result is stored
        signal.raise_signal(signal.SIGTERM)  # SIGINT is ignored in the background

    with monkeypatch.context() as patch:
        patch.setitem(stages_module.COMPUTE, stage, interrupted)
        outcome = cli(*CELL)
    assert outcome.code == 1
    assert one_error_line(outcome) == (
        "error: interrupted; what is finished is kept, run the same command to go on"
    )
    (record,) = outcome.records
    assert record["status"] == "interrupted"
    assert read_json(Store(folder), "toy", record["key"]) == record
    assert set(before) <= set(folder.glob("artifacts/*/*"))
    assert not list(folder.glob(f"artifacts/{stage}/*"))
    assert not list(folder.rglob(".tmp-*"))
    again = cli(*CELL)
    assert again.code == 0
    assert [record["status"] for record in again.records] == ["done"]
    assert same_metrics(again.records, undisturbed)


@pytest.mark.parametrize("style", ["json", "table"])
def test_ctrl_c_keeps_the_records_of_the_cells_before(
    cli, toy, store, undisturbed, monkeypatch, style: str
) -> None:
    store(*TRAINED)
    compute, calls = stages_module.COMPUTE["invert"], []

    def interrupted(*args: object):
        calls.append(args)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)  # SIGINT is ignored in the background
        return compute(*args)

    grid = ("run", "--track", "toy", "--defense", "none", "--defense", "neg-ls", "--attack", "ppa",
            "--device", "cpu", "--format", style)  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setitem(stages_module.COMPUTE, "invert", interrupted)
        outcome = cli(*grid)
    assert outcome.code == 1
    if style == "table":
        assert re.findall(r"^\w{8} +(\S+) .* done ", outcome.out, re.MULTILINE) == ["none"]
        return
    assert [record["status"] for record in outcome.records] == ["done", "interrupted"]
    again = cli(*grid)
    assert [record["status"] for record in again.records] == ["done", "done"]
    assert again.records[0] == outcome.records[0]
    assert same_metrics(again.records, undisturbed)


def until(process, text: str) -> None:
    """Read standard error up to a line with ``text``."""
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the run ended without {text!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_a_real_run_in_order_and_a_later_run_goes_on(
    cli, spawn, toy, store, undisturbed, number: signal.Signals
) -> None:
    store("data", "prior")
    process = spawn(*CELL)
    until(process, "] target under none")
    process.send_signal(number)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "error: interrupted; what is finished is kept" in err
    assert [record["status"] for record in json.loads(out)] == ["interrupted"]
    again = cli(*CELL)
    assert again.code == 0
    assert same_metrics(again.records, undisturbed)


@pytest.mark.thorough
def test_killed_at_random_moments_the_next_run_goes_on(cli, spawn, toy, store, undisturbed) -> None:
    store("prior")
    moments = [random.uniform(0, 5) for _ in range(2)]
    print(f"killed after {moments} s")  # shown when the test fails
    for seconds in moments:
        process = spawn(*CELL)
        process.stderr.readline()
        time.sleep(seconds)
        process.kill()
        process.communicate()
    outcome = cli(*CELL)
    assert outcome.code == 0
    assert [record["status"] for record in outcome.records] == ["done"]
    assert same_metrics(outcome.records, undisturbed)


def test_reporter_that_fails_on_a_full_disk_loses_no_result(
    cli, toy, store, undisturbed, monkeypatch
) -> None:
    from PIL import Image

    def full(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store(*ALL)
    monkeypatch.setattr(Image.Image, "save", full)
    outcome = cli(*CELL)
    assert outcome.code == 0
    assert "warning: plugin mia-bench:pictures: mia_bench_cell_finished raised OSError" in outcome.err
    assert same_metrics(outcome.records, undisturbed)


def test_picture_of_a_cell_is_made_for_every_kind_of_tree(
    cli, toy, make_tree: Callable[..., Path], tmp_path: Path
) -> None:
    outcome = folder_run(cli, make_tree(tmp_path / "data", PEOPLE, mode="L"))
    (record,) = outcome.records
    assert (tmp_path / "store" / "pictures" / f"{record['key']}.png").stat().st_size > 1000


def test_reports_of_a_defense_become_metrics_or_reasons(cli, toy, store, monkeypatch) -> None:
    store("data", "prior", "evaluator", "gallery")
    report = {"epsilon": 3.5, "delta": "no accountant", "slope": math.nan, "limit": math.inf}
    monkeypatch.setattr(NoDefense, "report", lambda self, setup: report)
    outcome = cli(*CELL)
    assert outcome.code == 0, outcome.err
    (record,) = outcome.records
    assert record["metrics"]["epsilon"] == {"value": 3.5, "low": 3.5, "high": 3.5, "n": 1}
    for name, reason in (("delta", "no accountant"), ("slope", "the value is nan"),
                         ("limit", "the value is inf")):  # fmt: skip
        assert record["metrics"][name] is None
        assert record["notes"][name] == reason


# --- training and attacks that can't go on ---------------------------------------------------


@pytest.mark.parametrize(
    ("defense", "option", "reason"),
    [
        (
            "toy-diverging",
            None,
            r"the training loss is (inf|nan) in epoch 2 of 4 \(last finite epoch mean: [\d.]+\)",
        ),
        ("dp-sgd", "dp-sgd.noise_multiplier=1e-4", r"dp-sgd can't account for noise_multiplier=0\.0001: "),
        ("bido", "bido.layers=[7]", r"bido\.layers: no hidden block 7"),
    ],
)
def test_training_that_fails_is_one_line_and_the_others_go_on(
    cli, toy, store, defense: str, option: str | None, reason: str
) -> None:
    store("data", "evaluator", "gallery", "prior")
    options = ["-o", option] if option else []
    outcome = cli("run", "--track", "toy", "--defense", defense, "--defense", "none",
                  "--attack", "prior-sample", *options, "--format", "json")  # fmt: skip
    assert outcome.code == 1
    failed, done = outcome.records
    assert re.search(reason, failed["reason"])
    assert failed["reason"].startswith("train of plugin ")
    assert "\n" not in failed["reason"]
    assert failed["metrics"] == {}
    assert (failed["status"], done["status"]) == ("failed", "done")
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "ValueError: no idea what to do (attack.py:101)"),
        ("shape", r"it returned images (6, 2, 3, 16, 15), expected"),
        ("few", r"it returned images (6, 1, 3, 16, 16), expected"),
        ("nan", "it returned images with NaN or infinity"),
        ("range", "it returned images outside [0, 1]"),
        ("nothing", "it returned NoneType, not Reconstructions"),
        ("weights", "the attack changed "),
        ("mode", "the attack changed the mode of the target; it may only use it"),
        ("prior", "the attack changed "),
    ],
)
def test_attack_that_does_what_it_must_not_is_named_and_spoils_nothing(
    cli, toy, store, undisturbed, how: str, reason: str
) -> None:
    store(*TRAINED)
    outcome = cli("run", "--track", "toy", "--defense", "none", "--attack", "toy-wrong",
                  "--attack", "ppa", "-o", f"toy-wrong.how={how}", "--format", "json")  # fmt: skip
    assert outcome.code == 1
    failed, done = outcome.records
    assert failed["status"] == "failed"
    assert failed["reason"].startswith(f"invert of plugin mia-bench-toy:toy-wrong: {reason}")
    assert "\n" not in failed["reason"]
    assert done["metrics"] == undisturbed.records[done["key"]]["metrics"]


def test_results_of_two_versions_of_a_plugin_stay_apart(cli, toy, store, monkeypatch) -> None:
    store(*TRAINED)
    attack = host().registry.get("attack", "toy-label-only").load()
    given = ("run", "--track", "toy", "--defense", "none", "--attack", "toy-label-only")
    (first,) = cli(*given, "--format", "json").records
    monkeypatch.setattr(attack, "version", "2", raising=False)
    (second,) = cli(*given, "--format", "json").records
    assert first["key"] != second["key"]
    assert second["attack"]["version"] == "2"
    shown = json.loads(cli("results", "--format", "json").out)
    assert {record["attack"]["version"] for record in shown} == {first["attack"]["version"], "2"}


def test_code_that_changed_under_a_version_is_warned_of(cli, toy, store, monkeypatch) -> None:
    from mia_bench.engine import code

    store(*TRAINED)
    attack = host().registry.get("attack", "toy-label-only").load()
    monkeypatch.setattr(attack, "version", "2", raising=False)
    given = ("run", "--track", "toy", "--defense", "none", "--attack", "toy-label-only")
    assert "warning: the code" not in cli(*given).err
    assert "warning: the code" not in cli(*given).err
    monkeypatch.setattr(code, "code_hash", lambda module: "another")
    again = cli(*given)
    assert again.code == 0
    assert "warning: the code of attack 'toy-label-only' changed after results" in again.err
    another = cli(*given, "--seed", "7", "--format", "json")
    assert "warning: the code of attack" in another.err
    (record,) = another.records
    assert record["attack"]["about"]["code"] == "1.2.3 another"
    monkeypatch.setattr(code, "package_version", lambda distribution: "1.3.0")  # its author's word
    assert "warning: the code" not in cli(*given).err


def test_the_hash_of_code_leaves_out_what_is_not_run(tmp_path, monkeypatch) -> None:
    from mia_bench.engine.code import code_hash

    monkeypatch.syspath_prepend(str(tmp_path))
    texts = {
        "hashed_one": "x = 1\n",
        "hashed_words": '"""Words."""\n\n# More words.\nx = (1)\n',
        "hashed_imports": (
            "import json\nfrom typing import TYPE_CHECKING\nfrom mia_bench import lazy_imports\n"
            "with lazy_imports():\n    import torch\n"
            "if TYPE_CHECKING:\n    from torch import Tensor\nelse:\n    x = 1\n"
        ),
        "hashed_two": "x = 2\n",
        "hashed_with": "with open(__file__):\n    x = 1\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        importlib.import_module(name)
    one, words, imports, two, block = map(code_hash, texts)
    assert one == words == imports
    assert len({one, two, block}) == 3


@pytest.mark.parametrize("words", ["cuda", "cpu", "python"])
def test_out_of_memory_halves_the_batch_and_says_so(cli, toy, store, words: str) -> None:
    store(*TRAINED)
    outcome = cli("run", "--track", "toy", "--defense", "none", "--attack", "toy-hungry",
                  "-o", f"toy-hungry.words={words}", "--format", "json")  # fmt: skip
    assert outcome.code == 0
    [record] = outcome.records
    assert record["notes"]["prepare"] == "out of memory; the batch was halved to 4"
    assert record["notes"]["invert"] == "out of memory; the batch was halved to 2"
    assert "attack none × toy-hungry" in outcome.err
    assert "halved to 32" in outcome.err  # each time, at once


def test_out_of_memory_with_one_image_fails_the_cell(cli, toy, store) -> None:
    store(*TRAINED)
    outcome = cli("run", "--track", "toy", "--defense", "none", "--attack", "toy-hungry",
                  "-o", "toy-hungry.fits=0", "--format", "json")  # fmt: skip
    assert outcome.code == 1
    [record] = outcome.records
    assert record["reason"].endswith("toy-hungry: OutOfMemoryError: CUDA out of memory (attack.py:79)")


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_weights_of_the_package_are_found_before_the_work(
    cli, toy, monkeypatch, tmp_path: Path, damage: str
) -> None:
    from mia_bench_plugins.encoders import synth_encoder

    data = synth_encoder.FILE.read_bytes()
    path = tmp_path / synth_encoder.FILE.name
    path.write_bytes(data[:-1] + (b"" if damage == "truncated" else bytes([data[-1] ^ 1])))
    shutil.copy(synth_encoder.FILE.with_name("SHA256SUMS"), tmp_path)
    monkeypatch.setattr(synth_encoder, "FILE", path)
    outcome = cli("run", "--track", "toy", "--defense", "none", "--attack", "ppa")
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: {path.name} is truncated or altered: its SHA-256 is ")
    assert outcome.err.count("\n") == 1
