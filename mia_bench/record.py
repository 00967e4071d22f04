"""The record: one JSON object a cell, the same in the store, on standard output and on the boards."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

RECORD_SCHEMA = 1

PER_CLASS = ("attack_acc1", "id_acc1", "id_gallery_acc1")
"""Metrics whose class means a record keeps: boards compare defenses class by class with them."""

Status = Literal["done", "failed", "skipped", "interrupted"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TrackRef(_Part):
    """The protocol: rows of different versions or different data never share a board."""

    name: str
    version: int
    data: str = ""
    """Fingerprint of the data read (relative names and sizes of the files)."""
    protocol: str = ""
    """Digest of everything that all rows of a board share: data, networks, recipes, judges and their
    weights, metrics, with all versions."""


class ComponentRef(_Part):
    """A component as it was run: all its options, the distribution it came from, its version."""

    name: str
    options: dict[str, Any]
    distribution: str
    version: str


class MetricValue(_Part):
    """A metric with its 95 % interval; ``n`` samples."""

    value: float
    low: float
    high: float
    n: int


class Cost(_Part):
    """What the cell took; the training time is that of the target, wherever it was trained."""

    train_seconds: float | None = None
    invert_seconds: float | None = None
    peak_memory_bytes: int | None = None
    target_queries: int | None = None


class Provenance(_Part):
    """Where the numbers come from; nothing that names a person's machine."""

    mia_bench: str
    git: str | None
    python: str
    torch: str | None
    device: str | None
    platform: str
    started: str
    finished: str
    weights: dict[str, str] = Field(default_factory=dict)
    """What identifies the weights that were taken instead of trained, by stage: a hash."""


class Record(_Part):
    """One cell's result. A metric that could not be computed is null, its reason is in ``notes``."""

    schema_: int = Field(alias="schema", ge=1)
    key: str
    track: TrackRef
    defense: ComponentRef
    prior: ComponentRef
    attack: ComponentRef
    seed: int
    status: Status
    reason: str | None = None
    metrics: dict[str, MetricValue | None] = Field(default_factory=dict)
    per_class: dict[str, list[float]] = Field(default_factory=dict)
    """Class means of the metrics in :data:`PER_CLASS`."""
    cost: Cost = Field(default_factory=Cost)
    provenance: Provenance
    notes: dict[str, str] = Field(default_factory=dict)

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


def read_record(data: dict[str, Any]) -> Record:
    """Check a record; older schemas are migrated here when there are any.

    Raises:
        ValueError: it doesn't fit the schema, or a newer version wrote it.
    """
    schema = data.get("schema")
    if isinstance(schema, int) and schema > RECORD_SCHEMA:
        raise ValueError(f"record schema {schema} is newer than {RECORD_SCHEMA}")
    return Record.model_validate(data)
