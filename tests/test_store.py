"""The store: whole artifacts or none, damage found, records kept; and seeds and the record's schema."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mia_bench import jsonfile, seeds
from mia_bench import store as store_module
from mia_bench.api.dataset import ImageSet
from mia_bench.api.progress import no_progress
from mia_bench.errors import CorruptArtifact, MiaBenchError, StoreError, UsageError
from mia_bench.protocol.context import Context
from mia_bench.protocol.prior import TrainingMonitor
from mia_bench.record import RECORD_SCHEMA, Record, read_record
from mia_bench.store import STORE_SCHEMA, Store, write_whole
from stored import without_hash, write_json

TINY = ImageSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
TENSORS = {"x": torch.arange(6.0).view(2, 3), "n": torch.tensor([3])}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def filled(root: Path) -> Store:
    made = Store(root)
    made.save("train", "k1", TENSORS, {"losses": [1.5]})
    return made


def tensors_file(store: Store) -> Path:
    return store.root / "artifacts" / "train" / "k1" / "tensors.safetensors"


# --- artifacts -----------------------------------------------------------------------------------


def test_artifact_comes_back_as_it_was_saved(filled: Store) -> None:
    assert filled.has("train", "k1")
    assert filled.info("train", "k1") == {"losses": [1.5]}
    for name, tensor in filled.tensors("train", "k1").items():
        assert torch.equal(tensor, TENSORS[name])
    assert filled.arrays("train", "k1")["x"].tolist() == TENSORS["x"].tolist()


def test_artifact_of_another_stage_or_key_is_not_there(filled: Store) -> None:
    assert not filled.has("train", "k2")
    assert not filled.has("invert", "k1")
    with pytest.raises(CorruptArtifact):
        filled.info("train", "k2")


def test_saving_again_replaces_the_artifact(filled: Store) -> None:
    filled.save("train", "k1", {"x": torch.zeros(1)}, {})
    assert filled.tensors("train", "k1")["x"].tolist() == [0.0]


@pytest.mark.parametrize("name", ["tensors.safetensors", "meta.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_artifact_is_told_and_set_aside_once_there_is_another(
    filled: Store, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    path = tensors_file(filled).with_name(name)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    left = contents(filled.root)
    assert not filled.has("train", "k1")
    assert not filled.has("train", "k1")
    assert caplog.text.count("the train artifact k1 is damaged") == 1
    assert contents(filled.root) == left
    filled.save("train", "k1", TENSORS, {})
    assert filled.has("train", "k1")
    moved = contents(filled.root / "set-aside" / "artifacts" / "train" / "k1")
    assert moved == {path.name: data for path, data in by_path(left).items() if path.parent.name == "k1"}


def contents(root: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def by_path(found: dict[str, bytes]) -> dict[Path, bytes]:
    return {Path(name): data for name, data in found.items()}


@pytest.mark.parametrize(
    "change",
    [
        {"info": {"losses": [1.25]}},
        {"files": {}},
        {"key": "k2"},
        {"further": 1},
        {"sha256": ""},
    ],
)
def test_altered_notes_of_an_artifact_are_found(filled: Store, change: dict) -> None:
    path = tensors_file(filled).with_name("meta.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert not filled.has("train", "k1")
    for read in (filled.info, filled.tensors, filled.arrays):
        with pytest.raises(CorruptArtifact, match="train artifact k1"):
            read("train", "k1")


def unseal(path: Path, **changes: object) -> None:
    """Write a JSON object as it was before there were hashes."""
    old = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"}
    path.write_text(json.dumps({**old, **changes}))


def test_results_from_before_there_were_hashes_are_read_with_one_note(
    filled: Store, caplog: pytest.LogCaptureFixture
) -> None:
    unseal(tensors_file(filled).with_name("meta.json"))
    for key in ("k1", "k2"):
        filled.write_record(read_record(record(key)))
        unseal(filled.record_path("toy", key))
    again = Store(filled.root)
    assert again.has("train", "k1")
    assert again.info("train", "k1") == {"losses": [1.5]}
    assert len(again.records()) == 2
    assert len(caplog.records) == 1
    assert "from before results had a hash" in caplog.text
    again.write_record(again.records()[0])
    assert "sha256" in json.loads(filled.record_path("toy", "k1").read_text())
    assert not (filled.root / "set-aside").exists()


@pytest.mark.parametrize("info", [None, [], "x", {"run": []}])
def test_damaged_notes_without_a_hash_are_found_by_their_form(filled: Store, info: object) -> None:
    unseal(tensors_file(filled).with_name("meta.json"), info=info)
    assert not filled.has("train", "k1")


def test_a_field_that_is_missing_is_a_damage(filled: Store) -> None:
    unseal(tensors_file(filled).with_name("meta.json"), info={"run": {}})
    with pytest.raises(CorruptArtifact, match=r"lacks 'losses'") as caught:
        filled.info("train", "k1")["losses"]
    assert (caught.value.stage, caught.value.key, caught.value.lacks) == ("train", "k1", "losses")
    with pytest.raises(CorruptArtifact, match=r"lacks 'run.finished'"):
        filled.info("train", "k1")["run"]["finished"]


def failing(code: int, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading files of these names fails."""
    read = jsonfile.read_file

    def fail(path: Path, largest: int | None = None) -> bytes:
        if path.name in names:
            raise OSError(code, os.strerror(code), str(path))
        return read(path, largest)

    monkeypatch.setattr(jsonfile, "read_file", fail)


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_failing_disk_is_no_damage(
    filled: Store, monkeypatch: pytest.MonkeyPatch, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    write_json(filled, record("k"))
    left = contents(filled.root)
    failing(code, ("meta.json", "k.json"), monkeypatch)
    for call in (
        lambda: filled.has("train", "k1"),
        lambda: filled.info("train", "k1"),
        lambda: filled.tensors("train", "k1"),
        lambda: filled.arrays("train", "k1"),
        lambda: filled.save("train", "k1", TENSORS, {}),
        lambda: filled.record("toy", "k"),
        lambda: filled.records(),
        lambda: filled.records(strict=True),
        lambda: filled.write_record(read_record(record("k"))),
    ):
        with pytest.raises(StoreError, match=rf"(meta|k)\.json.*{os.strerror(code)}") as caught:
            call()
        assert not isinstance(caught.value, CorruptArtifact)
        assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert contents(filled.root) == left
    assert caplog.text == ""


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop"])
def test_what_is_no_file_is_set_aside_and_never_waited_for(
    filled: Store, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    def put(path: Path) -> None:
        path.unlink()
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
                (path / "kept").write_text("x")
            case "device":
                path.symlink_to("/dev/zero")
            case "loop":
                path.symlink_to(path.name)

    write_json(filled, record())
    put(filled.record_path("toy", "k"))
    assert filled.record("toy", "k") is None
    assert filled.records() == []
    filled.write_record(read_record(record()))
    assert filled.record("toy", "k") == read_record(record())
    assert os.path.lexists(filled.root / "set-aside" / "records" / "toy" / "k.json")
    for name in ("meta.json", "tensors.safetensors"):
        put(tensors_file(filled).with_name(name))
        assert not filled.has("train", "k1")
        filled.save("train", "k1", TENSORS, {})
        assert filled.has("train", "k1")
    assert sorted(p.name for p in (filled.root / "set-aside" / "artifacts" / "train").iterdir()) == [
        "k1",
        "k1.1",
    ]
    assert str(filled.record_path("toy", "k")) in caplog.text


def test_a_changed_byte_in_any_json_of_a_store_is_found_or_changes_nothing(
    undisturbed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed.copy(tmp_path / "store", ["train", "assess", "invert", "measure"])
    shutil.copytree(undisturbed.store / "records", tmp_path / "store" / "records")
    looks = tmp_path / "store" / "pictures" / "priors" / "k" / "looks.json"
    context = Context(4, 0, torch.device("cpu"), no_progress, None)
    monitor = TrainingMonitor(TINY, looks.parent, context, batch_size=8)
    monitor.observations = [{"step": 100, "frechet_distance": 12.345678, "features": "pixels"}]
    write_whole(looks, jsonfile.file_text(jsonfile.seal({"observations": monitor.observations})).encode())
    paths, draws = sorted((tmp_path / "store").rglob("*.json")), random.Random(0)
    assert len({path.name for path in paths}) > 4

    def everything() -> list:
        """All that is read of these files; what is damaged is missing."""
        try:
            made = Store(tmp_path / "store")
        except UsageError:
            return []
        found: list = [
            *made.records(),
            TrainingMonitor(TINY, looks.parent, context, batch_size=8).observations,
        ]
        for path in paths:
            if path.name == "meta.json" and made.has(*path.parts[-3:-1]):
                found.append(made.info(*path.parts[-3:-1]))
        return found

    right, told = everything(), 0
    for _ in range(60):
        path = draws.choice(paths)
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[draws.randrange(len(whole))] ^= 1 << draws.randrange(8)
        path.write_bytes(bytes(changed))
        caplog.clear()
        found = everything()
        if found != right:
            assert len(found) < len(right) or [] in found
            assert found == [] or "damaged" in caplog.text or str(path) in caplog.text
            told += 1
        path.write_bytes(whole)
    assert told > 30
    assert everything() == right


def test_altered_artifact_of_the_same_size_is_found_when_it_is_read(filled: Store) -> None:
    path = tensors_file(filled)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert filled.has("train", "k1")
    for read in (filled.tensors, filled.arrays):
        with pytest.raises(CorruptArtifact, match="the hash differs"):
            read("train", "k1")


@pytest.mark.parametrize("when", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "no space")])
def test_interrupted_write_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, when: int, error: BaseException
) -> None:
    made = Store(root)
    write, calls = store_module._write_synced, []

    def failing(path: Path, data: Any) -> Any:
        calls.append(path)
        if len(calls) == when:
            path.write_bytes(b"half")
            raise error
        return write(path, data)

    monkeypatch.setattr(store_module, "_write_synced", failing)
    with pytest.raises((KeyboardInterrupt, StoreError)):
        made.save("train", "k1", TENSORS, {})
    assert not made.has("train", "k1")
    assert list((root / "artifacts" / "train").iterdir()) == []


def test_what_a_killed_process_left_behind_is_no_artifact_and_no_record(filled: Store) -> None:
    (filled.root / "artifacts" / "train" / ".tmp-1-abc").mkdir()
    (filled.root / "records" / "toy").mkdir(parents=True)
    (filled.root / "records" / "toy" / ".tmp-1-abc").write_text('{"half":')
    again = Store(filled.root)
    assert again.has("train", "k1")
    assert again.records() == []


# --- opening -------------------------------------------------------------------------------------


def test_opening_makes_a_store_and_opening_again_finds_it(root: Path) -> None:
    Store(root)
    assert json.loads((root / "version.json").read_text()) == {"schema": STORE_SCHEMA}
    Store(root)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ('{"schema": 99}', "has schema 99; this version reads up to 1: upgrade mia-bench"),
        ('{"schema": "one"}', "has schema one"),
        ("{}", "has schema None"),
        ("[]", "version.json"),
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        (b"\xff\xfe", "version.json"),
    ],
)
def test_store_that_cannot_be_read_is_one_line(root: Path, version: str | bytes, message: str) -> None:
    root.mkdir()
    data = version if isinstance(version, bytes) else version.encode()
    (root / "version.json").write_bytes(data)
    with pytest.raises(UsageError, match=r"version|schema") as caught:
        Store(root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (root / "version.json").read_bytes() == data


def test_a_folder_of_something_else_is_refused_and_left_alone(root: Path) -> None:
    root.mkdir()
    (root / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="neither empty nor a store"):
        Store(root)
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]


def test_a_store_that_was_killed_while_it_was_made_can_be_opened(root: Path) -> None:
    root.mkdir()
    (root / ".tmp-17-abc").write_text("{")
    Store(root)
    assert (root / "version.json").is_file()


OPEN_AT_ONCE = """
import sys, time
from pathlib import Path
from mia_bench.store import Store
start = float(sys.argv[1])
for number in range(20):
    time.sleep(max(0, start + number / 50 - time.time()))
    Store(Path(sys.argv[2]) / str(number)).check_writable()
"""


@pytest.mark.slow
def test_processes_that_make_one_store_at_once_all_succeed(root: Path) -> None:
    start = str(time.time() + 1)
    command = [sys.executable, "-c", OPEN_AT_ONCE, start, str(root)]
    opening = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=240)[1] for process in opening] == [""] * 4


def test_a_file_in_the_place_of_the_store_is_named(root: Path) -> None:
    root.write_text("x")
    with pytest.raises(UsageError, match=str(root)):
        Store(root)


def test_explained_errors(root: Path) -> None:
    for code, words in (
        (errno.ENOSPC, "is full; what is finished is kept"),
        (errno.EROFS, "is not writable"),
        (errno.EACCES, "is not writable"),
        (errno.EIO, "Input/output error"),
    ):
        with pytest.raises(StoreError, match=words), store_module.explained(root):
            raise OSError(code, os.strerror(code))


# --- locks ---------------------------------------------------------------------------------------


def test_second_holder_of_a_lock_waits_and_says_so(filled: Store) -> None:
    held: list[str] = []
    first = filled.lock("train", "k1", lambda: held.append("first waited"))
    with first:

        def waiting() -> None:
            held.append("second waits")
            raise InterruptedError  # instead of blocking this thread

        second = Store(filled.root).lock("train", "k1", waiting)
        with pytest.raises((InterruptedError, StoreError)):
            second.__enter__()
        with filled.lock("train", "k2", lambda: held.append("other key waits")):
            pass
    assert held == ["second waits"]
    with Store(filled.root).lock("train", "k1", lambda: held.append("still held")):
        pass
    assert held == ["second waits"]


# --- records -------------------------------------------------------------------------------------


def record(key: str = "k", **changes) -> dict:
    part = {"name": "n", "options": {}, "distribution": "d", "version": "1"}
    made = {
        "schema": RECORD_SCHEMA,
        "key": key,
        "track": {"name": "toy", "version": 3, "data": "rendered"},
        "defense": part,
        "prior": part,
        "attack": part,
        "seed": 0,
        "status": "done",
        "reason": None,
        "metrics": {"ece": {"value": 0.1, "low": 0.0, "high": 0.2, "n": 4}, "fid": None},
        "cost": {},
        "provenance": {
            "mia_bench": "0.1.0", "git": None, "python": "3.12.1", "torch": None, "device": None,
            "platform": "Linux", "started": "2026-01-01", "finished": "2026-01-01",
        },
        "notes": {"fid": "too few images"},
    }  # fmt: skip
    return {**made, **changes}


def test_record_comes_back_and_lies_where_it_should(root: Path) -> None:
    made = Store(root)
    made.write_record(read_record(record()))
    assert made.record("toy", "k") == read_record(record())
    assert without_hash(json.loads(made.record_path("toy", "k").read_text())) == record()
    assert made.record_path("toy", "k") == root / "records" / "toy" / "k.json"
    assert made.record("toy", "other") is None
    assert made.records("other") == []


def test_truncated_record_is_passed_over_with_a_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Store(root)
    write_json(made, record("k1"))
    write_json(made, record("k2"))
    path = made.record_path("toy", "k1")
    path.write_text(path.read_text()[:-20])
    assert [one.key for one in made.records()] == ["k2"]
    with pytest.raises(MiaBenchError, match=f"{path} is damaged"):
        made.records(strict=True)
    assert str(path) in caplog.text


def test_record_is_written_whole_or_not_at_all(root: Path, monkeypatch) -> None:
    made = Store(root)
    write_json(made, record())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="full"):
        made.write_record(read_record(record(status="failed")))
    assert made.record("toy", "k") == read_record(record())
    assert [path.name for path in (root / "records" / "toy").iterdir()] == ["k.json"]


def test_records_of_a_run_fit_the_schema(undisturbed) -> None:
    for one in undisturbed.records.values():
        checked = read_record(one)
        assert checked.schema_ == RECORD_SCHEMA
        assert Record.model_validate(one).key == one["key"]
        names = set(one["metrics"])
        assert {"test_accuracy", "train_accuracy", "ece", "attack_acc1", "attack_acc5"} <= names
        assert {"target_confidence", "delta_eval", "id_acc1", "id_median_rank"} <= names
        for name, metric in one["metrics"].items():
            if metric is None:
                assert one["notes"][name]
            else:
                if name == "ece":
                    assert metric["low"] is metric["high"] is None
                else:
                    assert metric["low"] <= metric["value"] <= metric["high"]
                assert metric["n"] > 0
    assert len(Store(undisturbed.store).records()) == len(undisturbed.records)


def odd(**changes: object) -> str:
    return json.dumps({**record(), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "\ufeff" + odd(),
        odd().replace('"seed": 0', '"seed": NaN'),
        odd().replace('"seed": 0', '"seed": 0, "seed": 0'),
        odd().replace('"seed": 0', '"seed": 1e999'),
        odd().replace('"seed": 0', '"seed": ' + "9" * 5000),
        odd().replace('"seed": 0', '"seed": ' + "[" * 100_000 + "]" * 100_000),
        odd(seed=10**23),
        odd(schema=RECORD_SCHEMA + 1, further="kept"),
        odd(provenance=None),
        odd(provenance={}),
        odd(key="another"),
        odd(track={"name": "another", "version": 3}),
        odd(notes={"a": "\udcff"}),
        odd(sha256="0" * 64),
        odd(sha256=None),
        b"\xff\xfe{}",
    ],
    ids=range(20),
)
def test_odd_record_is_named_and_kept_and_stops_nothing(
    root: Path, caplog: pytest.LogCaptureFixture, text: str | bytes
) -> None:
    made = Store(root)
    write_json(made, record("other"))
    path = made.record_path("toy", "k")
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(data)
    assert made.record("toy", "k") is None
    assert [one.key for one in made.records()] == ["other"]
    with pytest.raises(MiaBenchError, match=str(path)) as caught:
        made.records(strict=True)
    assert "\n" not in str(caught.value)
    assert len(caplog.records) == 1  # told once
    assert str(path) in caplog.text
    assert path.read_bytes() == data
    made.write_record(read_record(record()))
    assert made.record("toy", "k") == read_record(record())
    assert (root / "set-aside" / "records" / "toy" / "k.json").read_bytes() == data


def test_record_of_a_newer_schema_is_refused() -> None:
    assert read_record(record()).key == "k"
    with pytest.raises(ValueError, match=f"schema {RECORD_SCHEMA + 1} is newer than {RECORD_SCHEMA}"):
        read_record(record(schema=RECORD_SCHEMA + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 0},
        {"schema": None},
        {"status": "finished"},
        {"surprise": 1},
        {"metrics": {"ece": 0.1}},
        {"metrics": {"ece": {"value": 0.1}}},
        {"metrics": {"ece": {"value": 0.1, "low": None, "high": 0.2, "n": 4}}},
        {"seed": "zero"},
        {"provenance": {}},
    ],
)
def test_record_that_does_not_fit_is_refused(change: dict) -> None:
    with pytest.raises(ValidationError):
        read_record(record(**change))


# --- seeds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ((0,), 3456079177858693020),
        ((0, "train"), 2247946608620987588),
        ((1, "attack"), 8166170302573800713),
        ((2024, "batches", 7), 6910943114751710198),
    ],
)
def test_derived_seeds_never_change(arguments, value: int) -> None:
    assert seeds.derive(*arguments) == value


def test_generator_draws_never_change() -> None:
    drawn = torch.rand(3, generator=seeds.generator(0, "pinned"))
    assert drawn.tolist() == pytest.approx([0.701687, 0.897257, 0.393552], abs=1e-6)


@given(st.integers(0, 2**31), st.lists(st.text(max_size=8), max_size=3))
def test_derived_seeds_are_63_bit_and_depend_on_every_label(seed: int, labels: list[str]) -> None:
    value = seeds.derive(seed, *labels)
    assert 0 <= value < 2**63
    assert value != seeds.derive(seed + 1, *labels)
    assert value != seeds.derive(seed, *labels, "more")


def test_order_and_grouping_of_labels_matter() -> None:
    assert seeds.derive(0, "a", "b") != seeds.derive(0, "b", "a")
    assert seeds.derive(0, "ab") != seeds.derive(0, "a", "b")


def test_seeded_restores_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with seeds.seeded(0, "inside"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeds.seeded(0, "inside"):
        assert torch.equal(torch.rand(2), inside)


def test_tensors_that_share_memory_are_saved_apart(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    one = torch.arange(6.0)
    tensors = {"one": one, "same": one, "part": one[2:4], "other": torch.ones(2)}
    store.save("train", "k", tensors, {})
    found = store.tensors("train", "k")
    assert {name: t.tolist() for name, t in found.items()} == {
        name: t.tolist() for name, t in tensors.items()
    }


def test_what_killed_runs_left_is_swept_after_a_day(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save("train", "k", {"one": torch.ones(1)}, {})
    left = [tmp_path / "s" / "artifacts" / "train" / f".tmp-1-{age}" for age in ("old", "new")]
    for folder in left:
        folder.mkdir()
        (folder / "tensors.safetensors").write_bytes(b"half")
    old = time.time() - 2 * 86400
    os.utime(left[0], (old, old))
    store.sweep()
    assert [folder.exists() for folder in left] == [False, True]
    assert store.has("train", "k")


def test_scratch_of_a_stored_stage_is_swept_another_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save("data", "stored", {"one": torch.ones(1)}, {})
    store.checkpoint("prior", "k").save({"w": torch.ones(1)})
    store.save("data", "damaged", {"one": torch.ones(1)}, {})
    (store.folder("data", "damaged") / "tensors.safetensors").write_bytes(b"")
    for key in ("stored", "damaged", "under-way"):
        store.scratch("data", key).mkdir(parents=True)
        (store.scratch("data", key) / "block").write_bytes(b"x")
        os.utime(store.scratch("data", key), (0, 0))
    store.sweep()
    left = sorted(path.name for path in (tmp_path / "s" / "checkpoints").iterdir())
    assert left == ["data-damaged", "data-under-way", "prior-k.pt"]
    for stage, key in (("data", "damaged"), ("data", "under-way"), ("prior", "k"), ("prior", "none")):
        store.clear(stage, key)
    assert not list((tmp_path / "s" / "checkpoints").iterdir())
    assert store.has("data", "stored")


def test_checkpoint_appears_whole_and_goes(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    checkpoint = store.checkpoint("prior", "k")
    assert checkpoint.load() is None
    for value in (1.0, 2.0):
        checkpoint.save({"w": torch.full((3,), value)})
    found = checkpoint.load()
    assert found is not None
    assert found["w"].tolist() == [2.0] * 3
    assert [p.name for p in (tmp_path / "s" / "checkpoints").iterdir()] == ["prior-k.pt"]
    store.clear("prior", "k")
    store.clear("prior", "k")
    assert checkpoint.load() is None


def test_checkpoints_of_stored_stages_and_half_written_ones_are_swept(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save("train", "stored", {"one": torch.ones(1)}, {})
    for key in ("stored", "under-way"):
        store.checkpoint("train", key).save({"w": torch.ones(1)})
    older = tmp_path / "s" / "checkpoints" / "train-stored.pt"
    store.sweep()
    assert older.exists()  # of a run that computes the stage anew
    os.utime(older, (0, 0))
    half = tmp_path / "s" / "checkpoints" / ".tmp-1-half"
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    store.sweep()
    assert [path.name for path in (tmp_path / "s" / "checkpoints").iterdir()] == ["train-under-way.pt"]
