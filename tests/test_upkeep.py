"""Looking after a store: what lies there, what nobody needs, hashes, bundles, merging, and explained keys."""

import hashlib
import io
import json
import os
import random
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import mia_bench
from mia_bench import jsonfile
from mia_bench import store as store_module
from mia_bench.api.architecture import NetworkTask
from mia_bench.config import load_config
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.run import execute, prepare
from mia_bench.errors import StoreError
from mia_bench.origin import NOTED, Origin
from mia_bench.plugins import host
from mia_bench.store import RUN, Store
from mia_bench.upkeep import collect
from mia_bench.upkeep.bundle import Bundle
from mia_bench.upkeep.contents import Contents
from mia_bench.upkeep.explain import ExplainedCell, Node
from mia_bench.upkeep.merge import OtherStore, merge
from mia_bench.upkeep.selection import select
from stored import write_json

pytestmark = pytest.mark.slow

OLD = time.time() - 10 * 86400
EVERY = ("ls", "du", "gc", "verify")


@pytest.fixture
def kept(undisturbed, tmp_path: Path, toy) -> Path:
    """A copy of the store of an undisturbed toy run, ten days old."""
    shutil.copytree(undisturbed.store, tmp_path / "store")
    age(tmp_path / "store")
    return tmp_path / "store"


def age(root: Path, when: float = OLD) -> None:
    for path in root.rglob("*"):
        os.utime(path, (when, when), follow_symlinks=False)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def listed(cli, *args: object) -> list[dict[str, Any]]:
    done = cli("store", "ls", "--format", "json", *args)
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = json.loads(done.out)
    return rows


def forget_origins(root: Path) -> None:
    """Make artifacts as they were before they noted what they were made from."""
    for path in root.glob("artifacts/*/*/meta.json"):
        meta = json.loads(path.read_text("utf-8"))
        del meta["info"][NOTED], meta["info"]["run"]["label"]
        path.write_text(jsonfile.file_text(jsonfile.seal({k: v for k, v in meta.items() if k != "sha256"})))


def damage(root: Path, stage: str) -> str:
    """Change a byte of the tensors of the first artifact of a stage; its key."""
    path = min((root / "artifacts" / stage).iterdir()) / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path.parent.name


def stray(root: Path, stage: str = "train", key: str = "0" * 20, **info: object) -> Path:
    """An artifact that no record needs."""
    run = {"track": "toy", "subject": "none", "seconds": 2.0}
    Store(root).save(stage, key, {"x": torch.zeros(3)}, {"run": run, **info})
    return root / "artifacts" / stage / key


# --- what an artifact notes ----------------------------------------------------------------------


def test_the_key_of_every_artifact_is_that_of_the_origin_it_notes(kept: Path) -> None:
    store, seen = Store(kept), set()
    for one in Contents(store).artifacts:
        origin = Origin.noted(one.stage, store.info(*one.id))
        assert origin is not None
        assert origin.key == one.key
        assert set(origin.inputs.values()) <= set(origin.upstream)
        assert one.id not in origin.upstream
        seen.add(one.stage)
    assert {"data", "prior", "train", "prepare", "invert", "measure"} <= seen


def test_origins_that_lack_something_are_told() -> None:
    whole = Origin("train", 1, {"a": 1}, 0, {"data": ("data", "k")}, (("data", "k"),)).to_json()
    assert Origin.noted("train", {}) is None
    for name in whole:
        with pytest.raises(ValueError, match="lacks what it must have"):
            Origin.noted("train", {NOTED: {k: v for k, v in whole.items() if k != name}})


# --- ls and du -----------------------------------------------------------------------------------


def test_list_says_for_how_many_records_each_artifact_is_needed(cli, kept: Path) -> None:
    rows = listed(cli)
    counts: dict[str, list[int]] = {}
    for row in rows:
        counts.setdefault(row["stage"], []).append(row["records"])
    assert counts["data"] == counts["evaluator"] == [4]
    assert counts["train"] == [2, 2]  # two attacks on each target
    assert counts["measure"] == [1] * 4
    assert all(row["bytes"] > 0 and row["what"] and row["track"] == "toy" for row in rows)
    shown = cli("store", "ls", "--sort", "size")
    assert f"{len(rows)} artifacts" in shown.out
    assert "no record needs 0 of them" in shown.out


def test_list_filters_by_stage_track_cell_and_use(cli, kept: Path) -> None:
    stray(kept)
    assert {row["stage"] for row in listed(cli, "--stage", "train,invert")} == {"train", "invert"}
    assert listed(cli, "--track", "other") == []
    (unused,) = listed(cli, "--unused")
    assert unused["key"] == "0" * 20
    cell = next(iter((kept / "records" / "toy").iterdir())).stem
    behind = listed(cli, "--cell", cell[:8])
    assert [row["key"] for row in behind if row["stage"] == "measure"] == [cell]
    assert len([row for row in behind if row["stage"] == "train"]) == 1
    wrong = cli("store", "ls", "--stage", "tarin")
    assert (wrong.code, wrong.err) == (2, "error: no stage 'tarin'; did you mean 'train' or 'metric'?\n")
    assert "no cell's key begins with 'zz'" in cli("store", "ls", "--cell", "zz").err


def test_older_artifacts_are_found_by_planning_the_cells_of_records(cli, kept: Path) -> None:
    noted = {(row["stage"], row["key"]): row["records"] for row in listed(cli)}
    what = {row["key"]: (row["what"], row["seed"]) for row in listed(cli)}
    forget_origins(kept)
    assert {(row["stage"], row["key"]): row["records"] for row in listed(cli)} == noted
    assert {row["key"]: (row["what"], row["seed"]) for row in listed(cli)} == what


def test_what_a_record_of_an_unknown_cell_may_need_is_kept(cli, kept: Path) -> None:
    forget_origins(kept)
    path = kept / "records" / "toy" / f"{cells(kept)['none', 'ppa']}.json"
    record = json.loads(path.read_text("utf-8"))
    for name, kind in {"f" * 20: {}, "e" * 20: {"track": {**record["track"], "name": "gone"}}}.items():
        write_json(Store(kept), {k: v for k, v in {**record, **kind, "key": name}.items() if k != "sha256"})
    stray(kept)
    stray(kept, key="1" * 20, run={"track": "elsewhere", "subject": "none"})
    age(kept)
    done = cli("store", "gc", "--delete")
    assert "what 1 record of track toy was made from is not known: the installed code" in done.err
    assert "what 1 record of track gone was made from is not known: unknown track 'gone'" in done.err
    assert "kept 1 that no record is known to need" in done.err
    assert not (kept / "artifacts" / "train" / ("1" * 20)).exists()
    assert (kept / "artifacts" / "train" / ("0" * 20)).exists()
    assert [row["records"] for row in listed(cli, "--stage", "train") if row["key"] == "0" * 20] == [None]


def test_sizes_add_up_to_those_of_the_files(cli, kept: Path) -> None:
    (kept / "set-aside" / "artifacts" / "train").mkdir(parents=True)
    (kept / "set-aside" / "artifacts" / "train" / "k1").write_bytes(b"x" * 1000)
    (kept / "notes.txt").write_text("mine")
    done = cli("store", "du", "--format", "json")
    found = json.loads(done.out)
    on_disk = sum(len(data) for data in files(kept).values())
    assert found["bytes"] == on_disk - len((kept / "version.json").read_bytes())
    others = {row["what"]: row for row in found["others"]}
    assert others["set aside"] == {"what": "set aside", "count": 1, "bytes": 1000}
    assert others["not the store's"]["bytes"] == 4
    assert "'mia-bench store gc' would free" in cli("store", "du").out


# --- gc ------------------------------------------------------------------------------------------


def test_gc_deletes_what_no_record_needs_and_nothing_before_it_is_told_to(cli, kept: Path) -> None:
    left = files(kept)
    gone = stray(kept)
    age(kept)
    for words in ((), ("--dry-run",)):
        done = cli("store", "gc", *words)
        assert done.code == 0, done.err
        assert "1 artifact, 0.0 MB, can be deleted; --delete deletes them" in done.out
        assert gone.exists()
    done = cli("store", "gc", "--delete")
    assert done.out.endswith("deleted 1 artifact, 0.0 MB\n")
    assert files(kept) == left
    run = cli("run", "--track", "toy", "--defense", "none", "--attack", "ppa", "--device", "cpu", "--dry-run")
    assert "1 done before" in run.out


def test_gc_frees_what_a_deleted_record_needed_alone(cli, kept: Path) -> None:
    shown = {row["key"] for row in listed(cli) if row["records"] == 1}
    record = next(iter(sorted((kept / "records" / "toy").iterdir())))
    mine = {row["key"] for row in listed(cli, "--cell", record.stem) if row["records"] == 1}
    record.unlink()
    assert cli("store", "gc", "--delete").code == 0
    left = {row["key"] for row in listed(cli)}
    assert shown - left == mine
    assert mine


def test_gc_keeps_what_is_young(cli, kept: Path) -> None:
    gone = stray(kept)
    done = cli("store", "gc", "--delete")
    assert "they are younger" in done.err
    assert gone.exists()
    assert cli("store", "gc", "--delete", "--older-than", "0").code == 0
    assert not gone.exists()
    for wrong in ("1", "d", "-1d", "1y"):
        done = cli("store", "gc", "--older-than", wrong)
        assert done.code == 2
        assert "is no time span" in done.err


def test_gc_deletes_nothing_while_a_run_computes(cli, kept: Path) -> None:
    gone, other = stray(kept), stray(kept, key="1" * 20)
    age(kept)
    with Store(kept).lock("train", "0" * 20, lambda: None):
        done = cli("store", "gc", "--delete")
        assert done.code == 1
        assert done.err.startswith("error: a run computes in the store now (train 00000000)")
        assert gone.exists()
        assert other.exists()
        done = cli("store", "gc", "--delete", "--while-running", "--locks", "--older-than", "0")
        assert gone.exists()  # the one that is computed
        assert not other.exists()
        assert "deleted 1 artifact and " in done.out
        assert "left, since a run computes them now" in done.err
    assert cli("store", "gc", "--delete", "--older-than", "0").code == 0
    assert not gone.exists()


def test_gc_deletes_nothing_between_two_stages_of_a_run(cli, kept: Path) -> None:
    shutil.rmtree(kept / "records")
    age(kept)
    refused: list[int] = []

    class Between(ProgressDisplay):
        def remaining(self, seconds: float) -> None:
            assert [stage for stage, _ in collect.computed_now(Contents(Store(kept)))] == [RUN]
            done = cli("store", "gc", "--delete")
            assert "a run computes in the store now, and may need" in done.err
            refused.append(done.code)

    given = {"track": "toy", "defense": "none", "attack": "toy-prepared", "device": "cpu", "store": kept}
    mia_bench.run(**given, rerun="always", display=Between())
    assert len(refused) == 5
    assert set(refused) == {1}
    assert not list((kept / "locks").glob(f"{RUN}-*"))
    collect.check_idle(Contents(Store(kept)))


def test_gc_frees_leftovers_only_where_it_is_asked_to(cli, kept: Path) -> None:
    (kept / "checkpoints").mkdir(exist_ok=True)
    checkpoint = kept / "checkpoints" / f"prior-{'1' * 20}.pt"
    checkpoint.write_bytes(b"state")
    (kept / "checkpoints" / ".tmp-1-b").write_bytes(b"sta")
    stored = next((kept / "artifacts" / "data").iterdir()).name
    done_with = kept / "checkpoints" / f"data-{stored}"
    done_with.mkdir()
    (kept / "artifacts" / "train" / ".tmp-1-a").mkdir()
    aside = kept / "set-aside" / "records" / "toy"
    aside.mkdir(parents=True)
    (aside / "k.json").write_text("{")
    (kept / "pictures" / ("0" * 20 + ".png")).write_bytes(b"gone")
    (kept / "artifacts" / "train" / "README").write_text("mine")
    age(kept)
    pictures = set((kept / "pictures").iterdir())
    assert list((kept / "locks").iterdir())
    assert cli("store", "gc", "--delete").code == 0
    assert not done_with.exists()
    assert not (kept / "artifacts" / "train" / ".tmp-1-a").exists()
    assert list((kept / "checkpoints").iterdir()) == [checkpoint]
    words = ("--set-aside", "--checkpoints", "--locks", "--pictures")
    age(kept)  # older versions of filelock write to the files that they look at
    assert cli("store", "gc", "--delete", *words).code == 0
    assert not checkpoint.exists()
    assert not list(aside.iterdir())
    assert not list((kept / "locks").iterdir())
    assert pictures - set((kept / "pictures").iterdir()) == {kept / "pictures" / ("0" * 20 + ".png")}
    assert (kept / "artifacts" / "train" / "README").exists()


def test_gc_keeps_the_checkpoint_of_a_stage_whose_artifact_is_damaged(cli, kept: Path) -> None:
    damaged = next((kept / "artifacts" / "train").iterdir())
    (damaged / "tensors.safetensors").write_bytes(b"")
    checkpoint = kept / "checkpoints" / f"train-{damaged.name}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.write_bytes(b"state")
    age(kept)
    cli("store", "gc", "--delete")
    assert checkpoint.exists()


def joined_attack(root: Path) -> Store:
    """A store with a record, and the attack behind it in one part."""
    store = Store(root)
    shard = Origin("shard", 1, {}, 0, {})
    invert = Origin("invert", 1, {}, 0, {"shard 1": ("shard", shard.key)}, (("shard", shard.key),))
    measured = Origin("measure", 1, {}, 0, {"invert": ("invert", invert.key)},
                      (("shard", shard.key), ("invert", invert.key)))  # fmt: skip
    for origin in (shard, invert, measured):
        store.save(origin.stage, origin.key, {}, {"run": {"track": "toy"}, NOTED: origin.to_json()})
    record = root / "records" / "toy" / f"{measured.key}.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")  # a damaged one: what it needs is known from its artifact
    return store


def test_gc_can_free_the_parts_of_attacks_that_were_joined(cli, tmp_path: Path) -> None:
    joined_attack(tmp_path / "store")
    age(tmp_path / "store")
    assert [row["records"] for row in listed(cli)] == [1, 1, 1]
    assert "0 artifacts" in cli("store", "gc").out
    assert cli("store", "gc", "--delete", "--joined-shards").code == 0
    assert {row["stage"] for row in listed(cli)} == {"invert", "measure"}
    assert [row["records"] for row in listed(cli)] == [1, 1]


def test_parts_of_attacks_go_into_a_bundle_where_they_are_named(tmp_path: Path) -> None:
    store = joined_attack(tmp_path / "store")

    def chosen(*stages: str) -> list[str]:
        contents = Contents(store)
        return [one.stage for one in select(contents, contents.records, stages or None).artifacts]

    assert chosen() == ["invert", "measure"]
    assert chosen("shard") == ["shard"]
    assert chosen("shard", "invert") == ["invert", "shard"]
    shutil.rmtree(store.root / "artifacts" / "invert")
    assert chosen() == ["measure", "shard"]  # they can't be made again from anything else


def test_an_interrupted_gc_leaves_whole_artifacts(kept: Path, monkeypatch, cli) -> None:
    stray(kept)
    age(kept)

    def stopped(path: Path, **_: object) -> None:
        (path / "meta.json").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_module.shutil, "rmtree", stopped)
        assert cli("store", "gc", "--delete").code == 1
    contents = Contents(Store(kept))
    assert all(not one.problem for one in contents.artifacts)
    assert ("train", "0" * 20) not in contents.by_id
    assert cli("store", "verify").code == 0


def test_gc_stops_where_records_or_artifacts_cannot_be_read(cli, kept: Path, monkeypatch) -> None:
    stray(kept)
    age(kept)
    scandir = os.scandir

    def failing(path: Any) -> Any:
        if Path(path).name == "toy":
            raise OSError(5, "Input/output error", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    done = cli("store", "gc", "--delete")
    assert done.code == 1
    assert done.err.endswith("can't be read: Input/output error\n")
    assert done.err.count("\n") == 1
    monkeypatch.undo()
    monkeypatch.setenv("MIA_BENCH_STORE", str(kept))
    assert (kept / "artifacts" / "train" / ("0" * 20)).exists()


def test_metrics_are_needed_as_long_as_what_they_measured(tmp_path: Path, cli) -> None:
    root = tmp_path / "store"
    target = Origin("train", 1, {}, 0, {})
    metric = Origin("metric", 1, {}, 0, {"train": ("train", target.key)}, (("train", target.key),))
    for origin in (target, metric):
        Store(root).save(origin.stage, origin.key, {}, {NOTED: origin.to_json()})
    Store(root).save("metric", "older", {}, {})
    measured = Origin("measure", 1, {}, 0, {"train": ("train", target.key)}, (("train", target.key),))
    Store(root).save("measure", measured.key, {}, {NOTED: measured.to_json()})
    path = root / "records" / "toy" / f"{measured.key}.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    age(root)
    counts = {row["key"]: row["records"] for row in listed(cli)}
    assert counts == {target.key: 1, metric.key: 1, "older": None, measured.key: 1}
    path.unlink()
    assert cli("store", "gc", "--delete").code == 0
    assert [row["key"] for row in listed(cli)] == ["older"]


# --- verify --------------------------------------------------------------------------------------


def test_verify_names_what_is_damaged_and_changes_nothing(cli, kept: Path) -> None:
    assert cli("store", "verify").out.endswith("all as they were written\n")
    key = damage(kept, "invert")
    record = next(iter((kept / "records" / "toy").iterdir()))
    record.write_text(record.read_text("utf-8").replace('"seed": 0', '"seed": 1'))
    left = files(kept)
    quick = cli("store", "verify", "--quick")
    assert key not in quick.out  # sizes are right
    done = cli("store", "verify")
    assert done.code == 1
    assert f"the invert artifact {key} is damaged (the hash differs); 1 record need" in done.out
    assert "its hash differs: it was changed after it was written" in done.out
    assert "2 damaged" in done.out
    assert files(kept) == left


def test_verify_finds_an_artifact_under_a_key_that_is_not_its_own(cli, kept: Path) -> None:
    origin = Origin("train", 1, {"defense": "mine"}, 0, {})
    stray(kept, **{NOTED: origin.to_json()})
    done = cli("store", "verify")
    assert done.code == 1
    assert "its key is not that of the origin in meta.json" in done.out


def test_verify_names_files_that_are_not_the_stores(cli, kept: Path) -> None:
    (kept / "artifacts" / "train" / "notes.txt").write_text("mine")
    done = cli("store", "verify")
    assert done.code == 0
    assert f"note: {kept / 'artifacts' / 'train' / 'notes.txt'} is not the store's" in done.err


# --- export and import ---------------------------------------------------------------------------


@pytest.fixture
def bundle(cli, kept: Path, tmp_path: Path) -> Path:
    """A bundle of one cell."""
    cell = min((kept / "records" / "toy").iterdir()).stem
    done = cli("store", "export", tmp_path / "cells.tar", cell[:8])
    assert done.code == 0, done.err
    return tmp_path / "cells.tar"


def test_a_bundle_moves_a_cell_to_another_store(cli, kept: Path, bundle: Path, tmp_path: Path) -> None:
    cell = min((kept / "records" / "toy").iterdir()).stem
    other = tmp_path / "other"
    dry = cli("store", "import", bundle, "--store", other, "--dry-run")
    assert "would be added: " in dry.out
    assert not other.exists()
    other.mkdir()
    assert cli("store", "import", bundle, "--store", other, "--dry-run").out == dry.out
    assert not list(other.iterdir())
    done = cli("store", "import", bundle, "--store", other)
    assert done.code == 0, done.err
    here, there = files(kept), files(other)
    assert there
    assert all(here[name] == data for name, data in there.items())
    assert [path.stem for path in other.glob("records/*/*")] == [cell]
    wanted = {(row["stage"], row["key"]) for row in listed(cli, "--cell", cell)}
    assert {one.id for one in Contents(Store(other)).artifacts} == wanted
    assert cli("store", "verify", "--store", other).code == 0
    again = cli("store", "import", bundle, "--store", other)
    assert "added: 0 artifacts (0.0 MB) and 0 records" in again.out


def test_a_bundle_is_a_tar_file_and_the_same_content_gives_the_same_bytes(
    cli, kept: Path, bundle: Path, tmp_path: Path
) -> None:
    with tarfile.open(bundle, "r:") as tar:
        names = tar.getnames()
    assert names[0] == "manifest.json"
    assert all(name.startswith(("artifacts/", "records/")) for name in names[1:])
    cell = min((kept / "records" / "toy").iterdir()).stem
    age(kept, OLD - 1000)
    assert cli("store", "export", tmp_path / "again.tar", cell).code == 0
    assert (tmp_path / "again.tar").read_bytes() == bundle.read_bytes()


def test_export_takes_chosen_stages_or_records_alone(cli, kept: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"

    def stages() -> set[str]:
        with tarfile.open(path, "r:") as tar:
            return {name.split("/")[1] for name in tar.getnames() if name.startswith("artifacts/")}

    assert cli("store", "export", path, "--all", "--records-only").code == 0
    assert stages() == set()
    assert cli("store", "export", path, "--track", "toy", "--with", "train,data").code == 0
    assert stages() == {"train", "data"}
    for words in ((), ("--all", "--track", "toy"), ("--track", "other")):
        assert cli("store", "export", path, *words).code == 2
    assert cli("store", "export", path, "--all", "--records-only", "--with", "train").code == 2


def test_export_writes_nothing_of_a_damaged_artifact(cli, kept: Path, tmp_path: Path) -> None:
    key = damage(kept, "invert")
    done = cli("store", "export", tmp_path / "b.tar", "--all")
    assert done.code == 1
    assert f"the invert artifact {key} is damaged (the hash differs)" in done.err
    assert list(tmp_path.glob("*.tar")) == list(tmp_path.glob(".tmp-*")) == []


def test_export_into_a_full_disk_leaves_nothing(cli, kept: Path, tmp_path: Path, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = cli("store", "export", tmp_path / "b.tar", "--all")
    assert done.code == 2
    assert done.err == f"error: {tmp_path / 'b.tar'} can't be written: No space left on device\n"
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


def test_pipes_are_neither_read_nor_replaced(cli, kept: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "it is no regular file" in cli("store", "import", tmp_path / "pipe").err
    assert cli("store", "export", tmp_path / "pipe", "--all").err.startswith("error: ")
    assert (tmp_path / "pipe").is_fifo()


def test_export_says_what_is_not_stored(cli, kept: Path, tmp_path: Path) -> None:
    shutil.rmtree(kept / "artifacts" / "prior")
    done = cli("store", "export", tmp_path / "b.tar", "--all")
    assert done.code == 0
    assert "warning: not stored, and left out: prior " in done.err


def rewritten(bundle: Path, change: Callable[[dict[str, bytes]], object], *, seal: bool = True) -> Path:
    """The bundle with other files, and a manifest that fits them."""
    with tarfile.open(bundle, "r:") as tar:
        content = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    change(content)
    if seal:
        manifest = json.loads(content.pop("manifest.json"))
        manifest["files"] = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in content.items()
        }
        del manifest["sha256"]
        content = {"manifest.json": json.dumps(jsonfile.seal(manifest)).encode(), **content}
    with tarfile.open(bundle, "w:", format=tarfile.GNU_FORMAT) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return bundle


def refused(cli, bundle: Path, reason: str) -> None:
    """The bundle is refused in one line, and nothing is written."""
    other = bundle.parent / "other"
    done = cli("store", "import", bundle, "--store", other)
    assert done.code == 1
    assert done.err.startswith(f"error: {bundle} is no bundle that can be imported: ")
    assert reason in done.err
    assert done.err.count("\n") == 1
    assert not other.exists() or files(other).keys() <= {"version.json"}


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside",
        "artifacts/../../outside/meta.json",
        "artifacts/train/../meta.json",
        "artifacts/train/k1/evil.py",
        "records/toy/../../x.json",
        "records/toy/.hidden.json",
        "version.json",
        "artifacts\\train\\k1\\meta.json",
    ],
)
def test_names_that_no_file_of_a_store_has_are_refused(cli, bundle: Path, name: str) -> None:
    refused(cli, rewritten(bundle, lambda content: content.update({name: b"x"})), "is no name of a store's")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
                                  tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE,
                                  tarfile.GNUTYPE_LONGNAME])  # fmt: skip
def test_what_is_no_regular_file_is_refused(cli, bundle: Path, kind: bytes) -> None:
    data = bytearray(bundle.read_bytes())
    info = tarfile.TarInfo("artifacts/train/k1/meta.json")
    info.type, info.linkname = kind, "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    with tarfile.open(bundle, "r:") as tar:
        place = tar.getmembers()[1].offset
    bundle.write_bytes(data[:place] + info.tobuf(tarfile.GNU_FORMAT) + data[place:])
    refused(cli, bundle, "is no regular file")


def meta_name(content: dict[str, bytes]) -> str:
    return next(name for name in content if name.endswith("meta.json") and "/train/" in name)


def change_meta(content: dict[str, bytes], **changes: object) -> None:
    name = meta_name(content)
    meta = {**json.loads(content[name]), **changes}
    del meta["sha256"]
    content[name] = json.dumps(jsonfile.seal(meta)).encode()


def change_origin(content: dict[str, bytes]) -> None:
    info = json.loads(content[meta_name(content)])["info"]
    change_meta(content, info={**info, NOTED: {**info[NOTED], "seed": 77}})


def change_tensors(content: dict[str, bytes]) -> None:
    name = meta_name(content).replace("meta.json", "tensors.safetensors")
    content[name] = content[name][:-1] + b"\1"


def change_record(content: dict[str, bytes]) -> None:
    name = next(name for name in content if name.startswith("records/"))
    content[name] = content[name].replace(b'"seed": 0', b'"seed": 1')


def newer_record(content: dict[str, bytes]) -> None:
    name = next(name for name in content if name.startswith("records/"))
    record = {k: v for k, v in json.loads(content[name]).items() if k != "sha256"}
    content[name] = json.dumps(jsonfile.seal({**record, "schema": 99})).encode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.update({meta_name(content): b"{"}), "is damaged (not valid JSON"),
        (lambda content: content.update({meta_name(content): b"[" * 9999}), "is damaged ("),
        (lambda content: content.pop(meta_name(content)), "meta.json is missing"),
        (lambda content: change_meta(content, key="k2"), "is of another artifact"),
        (lambda content: change_meta(content, files={}), "is damaged ("),
        (change_origin, "its key is not that of the origin"),
        (change_tensors, "the manifest and its notes differ"),
        (change_record, "its hash differs"),
        (newer_record, "record schema 99 is newer than"),
    ],
)
def test_content_that_is_not_as_it_was_written_is_refused(cli, bundle: Path, change, reason: str) -> None:
    refused(cli, rewritten(bundle, change), reason)


def test_a_bundle_that_is_not_as_its_manifest_says_is_refused(cli, bundle: Path) -> None:
    whole = bundle.read_bytes()
    content: dict[str, bytes] = {}
    rewritten(bundle, lambda found: content.update(found), seal=False)
    for change, reason in (
        (change_tensors, "differs"),
        (lambda found: found.pop(meta_name(found)), "is missing"),
        (lambda found: found.update({meta_name(found): b"{}"}), "bytes, not"),
        (lambda found: found.update({"manifest.json": b"{}"}), "the hash of manifest.json differs"),
        (lambda found: found.update({"manifest.json": found["manifest.json"][:-2]}), "not valid JSON"),
        (lambda found: found.update({"more": b"x"}), "the manifest does not name more"),
    ):
        bundle.write_bytes(whole)
        refused(cli, rewritten(bundle, change, seal=False), reason)
    for data, reason in (
        (b"", "it ends too early"),
        (whole[:2000], "it ends too early"),
        (whole[: len(whole) // 2], "it ends too early"),
        (b"\x1f\x8b" + whole, "it is no tar file"),
        (b"\0" * 2048, "it does not begin with manifest.json"),
    ):
        bundle.write_bytes(data)
        refused(cli, bundle, reason)


def test_sizes_that_are_only_claimed_are_refused_before_anything_is_read(cli, bundle: Path) -> None:
    info = tarfile.TarInfo("manifest.json")
    info.size = 2**62
    bundle.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x")
    refused(cli, bundle, "it ends too early")
    info.size = jsonfile.LARGEST + 1
    with bundle.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2 * jsonfile.LARGEST)
    refused(cli, bundle, f"manifest.json has {jsonfile.LARGEST + 1} bytes")


def everything(bundle: Path) -> list[Any]:
    """What a bundle holds, as it is taken from it."""
    found = Bundle(bundle)
    found.check(lambda size: None)
    artifacts = [(one.stage, one.meta, b"".join(one.tensors())) for one in found.artifacts()]
    return [artifacts, list(found.records())]


def test_whatever_byte_changes_a_bundle_is_refused_unless_it_is_no_content(bundle: Path) -> None:
    whole, held, draws, told = bundle.read_bytes(), everything(bundle), random.Random(0), []
    headers = [place for place in range(0, len(whole), 512) if whole[place + 257 : place + 262] == b"ustar"]
    assert len(headers) > 10
    for number in range(100):
        data = bytearray(whole)
        start, size = (draws.choice(headers), 512) if number % 2 else (0, len(whole))
        data[draws.randrange(start, start + size)] ^= draws.randrange(1, 256)
        bundle.write_bytes(data)
        try:
            found = everything(bundle)
        except StoreError as error:
            told.append(str(error))
        else:
            assert found == held  # padding was changed
    assert len(told) > 90
    assert all(line.startswith(f"{bundle} is no bundle that can be imported: ") for line in told)


def test_a_newer_bundle_is_refused_with_what_to_do(cli, bundle: Path) -> None:
    def newer(content: dict[str, bytes]) -> None:
        manifest = {k: v for k, v in json.loads(content["manifest.json"]).items() if k != "sha256"}
        content["manifest.json"] = json.dumps(jsonfile.seal({**manifest, "bundle": 2})).encode()

    refused(cli, rewritten(bundle, newer, seal=False), "a newer version wrote it (schema 2): upgrade")


def test_stores_are_merged_and_a_damaged_artifact_is_replaced(cli, kept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(kept, other)
    key = damage(kept, "invert")
    shutil.rmtree(kept / "artifacts" / "measure")
    lost = damage(other, "gallery")
    shutil.rmtree(kept / "artifacts" / "gallery")
    done = cli("store", "import", other)
    assert done.code == 1  # of the other store one is damaged
    assert f"warning: the gallery artifact {lost} is damaged (the hash differs)" in done.err
    assert "added: 5 artifacts" in done.out
    assert "1 of them in place of damaged ones" in done.out
    assert (kept / "set-aside" / "artifacts" / "invert" / key).exists()
    assert not (kept / "artifacts" / "gallery" / lost).exists()
    assert cli("store", "verify").code == 0
    assert cli("store", "import", kept).err == f"error: {kept} is the store itself\n"
    assert cli("store", "import", tmp_path).err == f"error: {tmp_path} is no store\n"
    assert not (tmp_path / "version.json").exists()


def change_file(path: Path, **changes: Any) -> None:
    content = {k: v for k, v in json.loads(path.read_text("utf-8")).items() if k != "sha256"}
    path.write_text(jsonfile.file_text(jsonfile.seal({**content, **changes})), "utf-8")


def test_a_record_with_numbers_is_never_replaced(cli, kept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(kept, other)
    names = sorted(path.name for path in (kept / "records" / "toy").iterdir())
    failed = {"status": "failed", "reason": "memory", "metrics": {}}
    change_file(other / "records" / "toy" / names[0], **failed)  # has numbers here
    change_file(kept / "records" / "toy" / names[1], **failed)  # has numbers there
    metrics = json.loads((other / "records" / "toy" / names[2]).read_text("utf-8"))["metrics"]
    accuracy = {**metrics["test_accuracy"], "value": 0.0, "low": None, "high": None}
    change_file(other / "records" / "toy" / names[2], metrics={**metrics, "test_accuracy": accuracy})
    left = files(kept / "records")
    done = cli("store", "import", other)
    assert done.code == 0, done.err
    assert (
        f"note: the record {Path(names[2]).stem} differs from the one in the store, which stays: here "
        in (done.err)
    )
    assert "test_accuracy" in done.err
    assert "and 1 record;" in done.out
    now = files(kept / "records")
    assert {name for name in now if now[name] != left[name]} == {f"toy/{names[1]}"}
    assert now[f"toy/{names[1]}"] == files(other / "records")[f"toy/{names[1]}"]


def test_another_result_of_the_same_key_is_said_and_stays(kept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(kept, other)
    key = next((other / "artifacts" / "train").iterdir()).name
    info = Store(other).info("train", key)
    Store(other).save("train", key, {"x": torch.ones(2)}, info)
    merged = merge(OtherStore(other), Store(kept), lambda count: None)
    (line,) = merged.differences
    assert line.startswith(f"the train artifact {key} was computed twice with different results")
    assert "x" not in Store(kept).arrays("train", key)


def test_an_interrupted_import_leaves_whole_artifacts_and_goes_on(
    cli, kept: Path, bundle: Path, tmp_path: Path, monkeypatch
) -> None:
    other, count = Store(tmp_path / "other"), 0
    found = Bundle(bundle)
    found.check(lambda size: None)

    def stop(size: int) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(found, other, stop)
    contents = Contents(other)
    assert len(contents.artifacts) == 3
    assert not contents.records
    assert not [left for left in contents.leftovers if left.kind != "lock"]
    merged = merge(found, other, lambda size: None)
    assert merged.present == 3
    assert len(merged.records) == 1


def test_an_import_into_a_full_disk_is_one_line(cli, bundle: Path, tmp_path: Path, monkeypatch) -> None:
    full = shutil._ntuple_diskusage(100, 100, 0)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    done = cli("store", "import", bundle, "--store", tmp_path / "other")
    assert done.code == 1
    assert "has 0 bytes free" in done.err
    assert not list((tmp_path / "other").glob("artifacts/*/*"))


# --- explain -------------------------------------------------------------------------------------


def cells(kept: Path) -> dict[tuple[str, str], str]:
    found = [json.loads(path.read_text("utf-8")) for path in (kept / "records" / "toy").iterdir()]
    return {(record["defense"]["name"], record["attack"]["name"]): record["key"] for record in found}


def test_explain_prints_what_is_in_each_key(cli, kept: Path) -> None:
    key = cells(kept)["neg-ls", "ppa"]
    done = cli("explain", key[:8])
    assert done.code == 0, done.err
    assert done.out.startswith(f"cell {key}\n")
    assert "defense: neg-ls of mia-bench, version" in done.out
    assert "inputs: data " in done.out
    content = json.loads(cli("explain", key, "--format", "json").out)
    stages = {stage["stage"]: stage for stage in content["cells"][0]["stages"]}
    assert stages["train"]["stored"]
    assert stages["train"]["origin"]["spec"]["defense"]["name"] == "neg-ls"


@pytest.mark.parametrize("older", [False, True])
def test_explain_against_another_cell_says_what_differs(cli, kept: Path, older: bool) -> None:
    if older:
        forget_origins(kept)
    keys = cells(kept)
    done = cli("explain", keys["none", "ppa"], "--against", keys["neg-ls", "ppa"])
    lines = done.out.splitlines()
    assert lines[0] == f"{keys['none', 'ppa'][:8]} → {keys['neg-ls', 'ppa'][:8]}"
    assert "train: defense: none → neg-ls" in lines
    assert "assess, prepare, invert: only through train" in lines
    assert lines[-1].endswith(": the same")
    assert "data" in lines[-1]
    done = cli("explain", keys["none", "ppa"], "--against", keys["none", "toy-prepared"])
    assert "invert: attack: ppa → toy-prepared" in done.out
    assert "prepare: attack: ppa → toy-prepared" in done.out
    done = cli("explain", keys["none", "ppa"], "--attack", "prior-sample")
    assert f"prepare: only in {keys['none', 'ppa'][:8]}" in done.out


@pytest.mark.parametrize("older", [False, True])
def test_explain_says_why_a_cell_is_computed_again(cli, kept: Path, older: bool) -> None:
    if older:
        forget_origins(kept)
    key = cells(kept)["neg-ls", "ppa"]
    train = next(row["key"] for row in listed(cli, "--cell", key) if row["stage"] == "train")
    words = ("--track", "toy", "--defense", "neg-ls", "--attack", "ppa", "-o", "neg-ls.alpha=-0.2")
    done = cli("explain", *words)
    assert done.code == 0, done.err
    assert f"is missing; most similar stored: {train[:8]}" in done.out
    assert "  defense.options.alpha: -0.05 → -0.2\n" in done.out
    assert "assess, prepare, invert, measure: missing because inputs are" in done.out
    beside = cli("explain", key[:8], "-o", "neg-ls.alpha=-0.2")  # the rest as in the cell
    assert "train: defense.options.alpha: -0.05 → -0.2\n" in beside.out
    same = cli("explain", "--track", "toy", "--defense", "neg-ls", "--attack", "ppa")
    assert f"all stages of cell {key[:8]} are stored" in same.out


def test_what_options_leave_open_is_as_in_the_cell_on_a_changed_track_too(cli, toy, tmp_path: Path) -> None:
    given = {"track": "toy", "defense": "none", "attack": "prior-sample", "store": tmp_path / "store"}
    (record,) = execute(prepare(load_config(given), "images_per_class: 2"))
    same = cli("explain", record.key[:8], "--seed", record.seed)
    assert f"all stages of cell {record.key[:8]} are stored" in same.out, same.out + same.err
    other = cli("explain", record.key[:8], "--seed", record.seed + 1)
    assert "images_per_class" not in other.out


def test_options_of_a_file_name_a_cell_as_those_of_the_command_do(cli, kept: Path, tmp_path: Path) -> None:
    file = tmp_path / "cell.toml"
    file.write_text(f'defense = "neg-ls"\nstore = "{kept}"\n[options.neg-ls]\nalpha = -0.2\n')
    done = cli("explain", cells(kept)["none", "ppa"][:8], "--config", file, "--store", kept)
    assert "train: defense: none → neg-ls\n" in done.out, done.out + done.err
    missing = cli("explain", "zz", "--config", file)
    assert "no cell's key begins with 'zz'" in missing.err


def test_an_undefended_target_beside_the_attacked_one_has_a_name_of_its_own() -> None:
    attacked, undefended = ("train", "a" * 20), ("train", "b" * 20)
    invert = Origin("invert", 1, {}, 0, {"target": attacked, "undefended": undefended})
    nodes = [Node(stage, "", Origin("train", 1, {}, 0, {}), True) for stage in (attacked, undefended)]
    cell = ExplainedCell("k", (*nodes, Node(("invert", invert.key), "", invert, True)))
    assert {name: node.id for name, node in cell.by_name.items()} == {
        "train": attacked,
        "train, undefended": undefended,
        "invert": ("invert", invert.key),
    }


def test_explain_takes_a_model_of_ones_own(cli, kept: Path, tmp_path: Path) -> None:
    built = host().registry.get("model", "resnet-small").load()
    network = built(built.Options(widths=(8, 16))).build(NetworkTask(6, 16))
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    done = cli("explain", cells(kept)["none", "ppa"], "--target", tmp_path / "mine.safetensors")
    assert done.code == 0, done.err
    assert "data, prior, evaluator, gallery: the same" in done.out
    assert "is missing, and no other load is stored" in done.out


def test_explain_of_a_stage_that_was_deleted(cli, kept: Path) -> None:
    shutil.rmtree(kept / "artifacts" / "prior")
    done = cli("explain", "--track", "toy", "--defense", "none", "--attack", "ppa")
    assert "is missing, and no other prior is stored" in done.out


def test_explain_refuses_what_is_no_single_cell(cli, kept: Path) -> None:
    key = next(iter(cells(kept).values()))
    for words, reason in (
        ((), "name a CELL, or give options of a run"),
        (("--track", "toy"), "of which one can be explained"),
        (("--track", "toy", "--attack", "standard"), "is a set of attacks"),
        ((key, "--against", key, "--defense", "none"), "not both"),
        (("zz",), "no cell's key begins with 'zz'"),
    ):
        done = cli("explain", *words)
        assert done.code == 2, words
        assert reason in done.err
        assert done.err.count("\n") == 1


# --- all of them ---------------------------------------------------------------------------------


def test_no_command_imports_torch(kept: Path, spawn, tmp_path: Path) -> None:
    key = next(iter(cells(kept).values()))
    started = [
        spawn("store", "export", tmp_path / "b.tar", "--all"),
        spawn("explain", key[:8]),
        spawn("store", "gc", "--delete"),
    ]
    for process in started:
        _, err = process.communicate()
        assert process.returncode == 0, err
        assert err.splitlines()[-1] == "imported:"


@pytest.mark.parametrize("words", [*EVERY, "ls --format json", "gc --delete --locks"])
def test_an_empty_store_is_no_error(cli, tmp_path: Path, words: str) -> None:
    Store(tmp_path / "store")
    assert cli("store", *words.split()).code == 0
    assert cli("store", *words.split(), "--store", tmp_path / "none").code == 2


@pytest.mark.parametrize("words", ["ls", "du", "gc"])
def test_damaged_and_foreign_things_in_a_store_stop_nothing(cli, kept: Path, words: str) -> None:
    metas = sorted(kept.glob("artifacts/*/*/meta.json"))
    for path, text in zip(metas, ("", "[]", "{}", '{"stage": 1}', '{"info": 3}', "\udcff"), strict=False):
        path.write_text(text, errors="surrogateescape")
    (kept / "artifacts" / "train" / "a b").mkdir()
    (kept / "artifacts" / "Odd").mkdir()
    (kept / "artifacts" / "loop").symlink_to("loop")
    (kept / "records" / "toy" / "odd.json").mkdir()
    (kept / "records" / "x.json").write_text("{}")
    age(kept)
    done = cli("store", words)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err


def test_a_lock_that_is_held_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.save("train", "k1", {}, {})
    with store.lock("train", "k1", lambda: None):
        assert collect.computed_now(Contents(store)) == [("train", "k1")]
        assert not store.remove("train", "k1")
        with pytest.raises(StoreError, match="a run computes in the store now"):
            collect.check_idle(Contents(store))
    assert collect.computed_now(Contents(store)) == []
    assert store.remove("train", "k1")
    assert not store.has("train", "k1")
