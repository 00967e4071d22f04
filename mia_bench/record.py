"""The record: one JSON object a cell, the same in the store, on standard output and on the boards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mia_bench import jsonfile
from mia_bench.errors import MiaBenchError
from mia_bench.names import ComponentName, ComponentVersion, DistributionName, Key, OptionName

RECORD_SCHEMA = 2
"""Version of the format. Records of version 1 have neither ``class_counts`` nor ``per_image``."""

Count: TypeAlias = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive: TypeAlias = Annotated[int, Field(ge=1, le=2**63 - 1)]

Status = Literal["done", "failed", "skipped", "interrupted"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)


class TrackRef(_Part):
    """The protocol: rows of different versions or different data never share a board."""

    name: ComponentName
    """The track's name."""
    version: Count
    """The track's version."""
    data: str = ""
    """Fingerprint of the data read (relative names and contents of the files)."""
    protocol: str = ""
    """Digest of everything that all rows of a board share: data, networks and their weights, recipes,
    metrics, with all versions."""
    variant: str = ""
    """What an experiment or a sweep changed in the track, in words. No board shows such a record; that of a
    further fold counts for the choice of settings. Empty for others."""


class Matched(_Part):
    """The undefended classifier that a defense names as the one with its architecture."""

    name: ComponentName
    """Its registered name."""
    options: dict[OptionName, Any] = Field(default_factory=dict)
    """The options that differ from the track's."""


class About(_Part):
    """What a component said of itself when it was run, so that a page needs nothing but its records."""

    summary: str = ""
    """What it is, in one line."""
    paper: str = ""
    """What it implements."""
    access: str = ""
    """What an attack sees of the target."""
    reference: str = ""
    """What kind of reference an attack is, ``floor`` say; empty for a real one."""
    baseline: bool = False
    """Whether it does not defend: a baseline, or a defense of which only the architecture is left."""
    front: bool = False
    """Whether this is a baseline with only such options changed as make it less accurate: a row of the
    undefended front."""
    matched: Matched | None = None
    """The undefended classifier with the architecture of this defense, which it is compared with too."""
    randomised: bool = False
    """Whether answers of a target under this defense are random."""
    own_model: Literal["", "unchecked", "stated"] = ""
    """Of a model of the user's own, which stands in place of a defense, what is known of its training data:
    ``unchecked``, or ``stated`` where its file says that they are the track's. Empty for a target that was
    trained in the run."""
    changed: list[OptionName] = Field(default_factory=list)
    """The options that were not the track's."""
    url: str = Field(default="", pattern=r"^(https?://[^\s`<>\"']+)?$")
    """Where the distribution's metadata say that it is to be had."""
    code: str = ""
    """Of a third-party component that declares its version: that of its distribution, a hash of its code."""


def canonical(options: Mapping[str, Any]) -> str:
    """Options as canonical JSON, by which rows are told apart."""
    return json.dumps(dict(options), sort_keys=True)


class ComponentRef(_Part):
    """A component as it was run: all its options, the distribution it came from, its version."""

    name: ComponentName
    """The registered name."""
    options: dict[OptionName, Any]
    """Every option with its value, those left at their defaults too."""
    distribution: DistributionName
    """The Python distribution that the plugin came from."""
    version: ComponentVersion
    """The version its class declares, else ``src-`` and a hash of its source."""
    about: About = Field(default_factory=About)
    """What it said of itself."""

    @cached_property
    def options_text(self) -> str:
        """The options as canonical JSON."""
        return canonical(self.options)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy, perhaps with other options."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("options_text", None)
        return copied

    @property
    def changed(self) -> dict[str, Any]:
        """The options that were not the track's, as it said."""
        return {name: self.options[name] for name in self.about.changed if name in self.options}


class MetricValue(_Part):
    """A metric with its 95 % interval, whose ends are both null where it has none; ``n`` samples."""

    value: float
    """The metric, from all samples."""
    low: float | None
    """Lower end of the interval."""
    high: float | None
    """Upper end of the interval."""
    n: Positive
    """How many samples it rests on."""

    @model_validator(mode="after")
    def _is_interval(self) -> Self:
        """Both ends are there, with the value between them, or none is."""
        if self.low is None and self.high is None:
            return self
        if self.low is None or self.high is None:
            raise ValueError("an interval has two ends: low and high are both numbers, or both null")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"the value {self.value} is not in its interval [{self.low}, {self.high}]")
        return self


class Cost(_Part):
    """What the cell took; the training time is that of the target, wherever it was trained."""

    train_seconds: float | None = None
    """Time to train the target."""
    invert_seconds: float | None = None
    """Time of the attack, its preparation included."""
    peak_memory_bytes: Count | None = None
    """The larger peak of training and attack: of the GPU on a GPU, else of the process."""
    target_queries: Count | None = None
    """Images that the target answered to the attack, its preparation included."""


class Provenance(_Part):
    """Where the numbers come from; nothing that names a person's machine."""

    mia_bench: str
    """Version of mia-bench."""
    git: str | None
    """Commit of the checkout, with ``-dirty`` if it was changed; several where stages differ."""
    python: str
    """Version of Python."""
    torch: str | None
    """Version of torch; several where stages differ."""
    device: str | None
    """What computed; several where stages differ."""
    threads: Positive | None = None
    """How many CPU threads computed; null on a GPU, and where stages differ."""
    capability: str | None = None
    """The vector instructions of the CPU, or the GPU's compute capability; several where stages differ."""
    processor: str | None = None
    """Vendor, family, model and stepping of the CPU; null on a GPU; several where stages differ."""
    platform: str
    """Operating system, processor architecture and count of cores."""
    started: str
    """When the run began with the cell, in UTC."""
    finished: str
    """When its last stage ended, in UTC."""
    weights: dict[str, str] = Field(default_factory=dict)
    """What identifies the weights that were taken instead of trained, by stage: a hash."""


class Record(_Part):
    """One cell's result. A metric that could not be computed is null, its reason is in ``notes``.

    Its JSON also has ``sha256``, the hash of all other fields (:mod:`mia_bench.jsonfile`), which is checked
    where a record is read. Records from before there were hashes have none.
    """

    schema_: int = Field(alias="schema", ge=1)
    """Version of this format."""
    key: Key
    """The cell's key: that of its last stage, and the name of the file."""
    track: TrackRef
    """The protocol it was made under."""
    defense: ComponentRef
    """How the target was protected."""
    prior: ComponentRef
    """The attacker's image model."""
    attack: ComponentRef
    """How the target was attacked."""
    seed: Count
    """The cell's seed."""
    status: Status
    """What became of the cell."""
    reason: str | None = None
    """Why it failed, was skipped or was interrupted."""
    metrics: dict[str, MetricValue | None] = Field(default_factory=dict)
    """Each metric by its name, null where it could not be computed."""
    per_class: dict[str, list[float]] = Field(default_factory=dict)
    """Mean of each class, of the quantities that are ``paired``."""
    class_counts: dict[str, list[Positive]] = Field(default_factory=dict)
    """Samples of each class, of the quantities in ``per_class`` whose classes have not equally many."""
    per_image: dict[str, list[list[int | float]]] = Field(default_factory=dict)
    """Value of each reconstruction, class by class; ``id_rank``: the rank of the true identity."""
    cost: Cost = Field(default_factory=Cost)
    """What the cell took."""
    provenance: Provenance
    """Where the numbers come from."""
    notes: dict[str, str] = Field(default_factory=dict)
    """By metric the reason why it is null, or in doubt; by stage or ``data`` what the run had to say. What is
    noted by ``gallery`` casts doubt on identification; ``own_model`` says where a target comes from that was
    not trained in the run."""

    @model_validator(mode="before")
    @classmethod
    def _check_hash(cls, data: Any) -> Any:
        """Check the hash, if there is one. It is no field: changed copies would hold a wrong one."""
        if not isinstance(data, dict) or jsonfile.SEAL not in data:
            return data
        if not jsonfile.seal_holds(data):
            raise PydanticCustomError("hash", "its hash differs: it was changed after it was written")
        return {name: value for name, value in data.items() if name != jsonfile.SEAL}

    @property
    def components(self) -> dict[str, ComponentRef]:
        """The components of the cell by their kind."""
        return {"defense": self.defense, "attack": self.attack, "prior": self.prior}

    def to_json(self) -> dict[str, Any]:
        """The JSON object with all fields and their hash."""
        return jsonfile.seal(self.model_dump(mode="json", by_alias=True))

    def file_text(self) -> str:
        """The text of its file: only the fields that were given, so that an older file stays as it is."""
        return jsonfile.sealed_text(self.model_dump(mode="json", by_alias=True, exclude_unset=True))


def read_record(data: dict[str, Any]) -> Record:
    """Check a record.

    Raises:
        ValueError: it doesn't fit the schema, its hash differs, or a newer version wrote it.
    """
    schema = data.get("schema")
    if isinstance(schema, int) and schema > RECORD_SCHEMA:
        raise ValueError(f"record schema {schema} is newer than {RECORD_SCHEMA}")
    return Record.model_validate(data)


def check_record(data: dict[str, Any], name: str) -> Record:
    """:func:`read_record` with a message for people.

    Raises:
        MiaBenchError: one line that begins with ``name``.
    """
    try:
        return read_record(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}." for part in first["loc"]).rstrip(".")
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        raise MiaBenchError(f"{name}: {place + ': ' if place else ''}{message}{more}") from error
    except ValueError as error:
        raise MiaBenchError(f"{name}: {error}") from error
