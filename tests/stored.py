"""Records of stores as JSON objects, valid or not, as tests write and compare them."""

from __future__ import annotations

from typing import Any

from mia_bench import jsonfile
from mia_bench.store import Store


def write_json(store: Store, record: dict[str, Any]) -> None:
    """Write a JSON object, with its hash, where the store keeps that record."""
    path = store.record_path(record["track"]["name"], record["key"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record_text(record), encoding="utf-8")


def record_text(record: dict[str, Any]) -> str:
    """The file of a record, with its hash, as the store writes it."""
    return jsonfile.file_text(jsonfile.seal(record))


def without_hash(record: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record."""
    return {name: value for name, value in record.items() if name != jsonfile.SEAL}


def read_json(store: Store, track: str, key: str) -> dict[str, Any] | None:
    """The JSON object of a record that the store finds valid."""
    record = store.record(track, key)
    return record and record.to_json()
