"""Hashes of contents, and what is kept of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mia_bench import fetch
from mia_bench.data import contents
from mia_bench.data.contents import content_fingerprint, content_hashes
from mia_bench.errors import DataError
from mia_bench.paths import cache_folder

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "SETTLED", -1_000_000_000)  # files just written count as settled


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"abc")
    (folder / "sub" / "caf\udce9").write_bytes(b"xyz")
    return folder


NAMES = ["a", "sub/caf\udce9"]


def never(path: Path) -> str:
    raise AssertionError(f"{path} is read again")


def test_hash_is_the_sha256_of_the_content(files: Path) -> None:
    assert content_hashes(files, ["a"]) == [SHA256_OF_ABC]


def test_second_call_reads_nothing(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = content_hashes(files, NAMES)
    monkeypatch.setattr(fetch, "file_hash", never)
    assert content_hashes(files, NAMES) == first


def test_file_changed_a_moment_ago_is_read_again(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SETTLED", 10_000_000_000)
    content_hashes(files, NAMES)
    monkeypatch.setattr(fetch, "file_hash", never)
    with pytest.raises(AssertionError, match="is read again"):
        content_hashes(files, NAMES)


def test_change_that_keeps_size_and_time_of_modification_is_found(files: Path) -> None:
    before, times = content_fingerprint(files, NAMES), (files / "a").stat()
    time.sleep(0.02)
    (files / "a").write_bytes(b"abd")
    os.utime(files / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert content_fingerprint(files, NAMES) != before


@pytest.mark.parametrize("damage", [b"", b"x", b"\xff\n{}", None])
def test_damaged_cache_changes_nothing(files: Path, damage: bytes | None) -> None:
    right = content_hashes(files, NAMES)
    (kept,) = (cache_folder() / "contents").iterdir()
    content = kept.read_bytes()
    kept.write_bytes(content.replace(right[0].encode(), b"0" * 64) if damage is None else damage)
    assert content_hashes(files, NAMES) == right


def test_cache_that_can_not_be_written_is_no_error(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIA_BENCH_CACHE", str(files / "a" / "no folder"))
    assert content_hashes(files, ["a"]) == [SHA256_OF_ABC]


def test_missing_file_is_named(files: Path) -> None:
    with pytest.raises(DataError, match="gone can't be read: No such file"):
        content_hashes(files, ["gone"])
