"""Records of stores as JSON objects, valid or not, as tests write and compare them."""

from __future__ import annotations

import json
from typing import Any

from mia_bench.store import Store


def write_json(store: Store, record: dict[str, Any]) -> None:
    """Write a JSON object where the store keeps that record."""
    path = store.record_path(record["track"]["name"], record["key"])
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(store: Store, track: str, key: str) -> dict[str, Any] | None:
    """The JSON object of a record that the store finds valid."""
    record = store.record(track, key)
    return record and record.to_json()
