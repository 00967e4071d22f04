"""Origins: what the key of a stage is the hash of, noted beside its artifact.

From them it is known, without planning, which artifacts a record needs, and why two keys differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

StageId = tuple[str, str]
"""Name and key of a stage."""

NOTED = "origin"
"""The field of an artifact's info that holds its origin."""


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of ``content``."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def key_of(stage: str, version: int, spec: Mapping[str, Any], seed: int, inputs: Mapping[str, str]) -> str:
    """The key of a stage, 20 hexadecimal digits; ``inputs`` are the keys of its inputs by role."""
    content = {"stage": stage, "version": version, "spec": spec, "seed": seed, "inputs": inputs}
    return digest(content)[:20]


@dataclass(frozen=True)
class Origin:
    """What an artifact was made from.

    Attributes:
        stage: the stage's name.
        version: of the host's code for it.
        spec: its components with their options, and what else changes its result.
        seed: the cell's, or the track's.
        inputs: role to the stage it reads.
        upstream: every stage it needs, directly or not; not in the key.
    """

    stage: str
    version: int
    spec: Mapping[str, Any]
    seed: int
    inputs: Mapping[str, StageId]
    upstream: tuple[StageId, ...] = ()

    @property
    def key(self) -> str:
        """The key that follows."""
        keys = {role: key for role, (_, key) in self.inputs.items()}
        return key_of(self.stage, self.version, self.spec, self.seed, keys)

    def to_json(self) -> dict[str, Any]:
        """What :meth:`noted` reads; the stage's name stands beside it."""
        return {
            "version": self.version,
            "spec": self.spec,
            "seed": self.seed,
            "inputs": {role: "/".join(stage) for role, stage in self.inputs.items()},
            "upstream": ["/".join(stage) for stage in self.upstream],
        }

    @classmethod
    def noted(cls, stage: str, info: Mapping[str, Any]) -> Origin | None:
        """The origin in the info of an artifact; None in older ones, which have none.

        Raises:
            ValueError: it lacks what it must have.
        """
        found = info.get(NOTED)
        if found is None:
            return None
        try:
            inputs = {role: stage_id(text) for role, text in found["inputs"].items()}
            upstream = tuple(map(stage_id, found["upstream"]))
            spec, seed, version = dict(found["spec"]), found["seed"], found["version"]
            return cls(stage, version, spec, seed, inputs, upstream)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"its origin lacks what it must have: {error}") from error


def stage_id(text: str) -> StageId:
    """Name and key from ``name/key``."""
    name, _, key = text.partition("/")
    return name, key
