"""The configuration of a run: one model that the command line, a TOML file and ``mia_bench.run`` fill."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from mia_bench import paths
from mia_bench.device import Precision, check_device_form
from mia_bench.errors import UsageError, did_you_mean
from mia_bench.names import COMPONENT
from mia_bench.text import one_line

DEFAULT_TRACK = "synth-faces"

T = TypeVar("T")
R = TypeVar("R")


# --- types of values -------------------------------------------------------------------------


def _as_value_error(check: Callable[[T], R]) -> Callable[[T], R]:
    """Raise the UsageError of ``check`` as a ValueError, which pydantic collects with the key."""

    def checked(value: T) -> R:
        try:
            return check(value)
        except UsageError as error:
            raise ValueError(str(error)) from error

    return checked


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, Mapping))


def _as_tuple(value: Any) -> Any:
    return tuple(value) if _is_list(value) else (value,)


def _refuse_bool(value: Any) -> Any:
    """Refuse ``true``, which Python counts as 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _expanded(value: Any) -> Any:
    if value == "":  # a shell's variable that is not set
        raise PydanticCustomError("path_type", "Input should be a path")
    return _as_value_error(paths.expand_path)(value) if isinstance(value, (str, Path)) else value


def flatten_options(given: Any) -> dict[str, tuple[str, ...]]:
    """``PLUGIN.KEY`` (or ``kind:PLUGIN.KEY``) to the texts of its values, in order.

    Args:
        given: texts ``PLUGIN.KEY=VALUE``, ``{"PLUGIN.KEY": VALUE}``, or a table of such keys for each
            plugin; a list of values are several values.

    Raises:
        UsageError: it is something else.
    """
    flat: dict[str, list[str]] = {}
    for path, value in _option_pairs(given):
        owner, _, key = path.rpartition(".")
        if not (owner and key):
            raise UsageError(f"option {f'{path}={value}'!r} is not PLUGIN.KEY=VALUE")
        texts = [_option_text(one) for one in _as_tuple(value)]
        if not texts:
            raise UsageError(f"option {path!r} has no value")
        flat.setdefault(path, []).extend(texts)
    return {path: tuple(dict.fromkeys(texts)) for path, texts in flat.items()}


def _option_pairs(given: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(given, Mapping):
        for name, value in given.items():
            if isinstance(value, Mapping):
                yield from ((f"{name}.{key}", inner) for key, inner in value.items())
            else:
                yield str(name), value
    elif _is_list(given) and all(isinstance(text, str) for text in given):
        for text in given:
            path, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"option {text!r} is not PLUGIN.KEY=VALUE")
            yield path, value
    else:
        raise UsageError("options must be a table")


def named_files(given: Any) -> dict[str, Path]:
    """Rows of models of the user's own: the name of each, and its file.

    Args:
        given: a table of names and files, or files, each with ``NAME=`` before it or named by its stem.

    Raises:
        UsageError: a name has another form, or two files have one.
    """
    if isinstance(given, Mapping):
        pairs = [(str(name), file) for name, file in given.items()]
    elif _is_list(given) or isinstance(given, (str, Path)):
        pairs = [_named_file(one) for one in _as_tuple(given)]
    else:
        raise UsageError("target must be a file, a list of files, or a table of names and files")
    found: dict[str, Path] = {}
    for name, file in pairs:
        if not isinstance(file, (str, Path)) or not str(file):
            raise UsageError(f"target {name!r}: {str(file)!r} is not a file")
        if not COMPONENT.matches(name):
            raise UsageError(f"target {name!r}: a row's name is {COMPONENT.rule}: NAME=FILE")
        if name in found:
            raise UsageError(f"two targets have the name {name!r}: give others, NAME=FILE")
        found[name] = paths.expand_path(file)
    return found


def _named_file(given: Any) -> tuple[str, Any]:
    """``NAME=FILE`` as a pair; a file without a name is named by its stem."""
    if isinstance(given, str) and not Path(given).exists():
        name, equals, file = given.partition("=")
        if equals and "/" not in name and "\\" not in name:
            return name, file
    words = re.sub(r"[^a-z0-9]+", "-", Path(given).stem.lower()) if isinstance(given, (str, Path)) else ""
    return words.strip("-")[: COMPONENT.longest].strip("-") or "own-model", given


def _numbers(value: Any) -> Any:
    """``0.5,0.5,0.5`` as a command line has it, and one number for all channels, as three numbers."""
    values = value.split(",") if isinstance(value, str) else _as_tuple(value)
    return tuple(values) * 3 if len(values) == 1 else tuple(values)


def _option_text(value: Any) -> str:
    """A value as it is written after ``-o PLUGIN.KEY=``."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:  # a date of TOML, a number of NumPy
        return str(value)


def _check_shard(text: str) -> str:
    """Return ``i/n`` if it is one of n shares."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"shard {text!r} is not i/n with i from 1 to n")
    return text


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Number = Annotated[int, BeforeValidator(_refuse_bool), Field(ge=1)]
Jobs = Annotated[
    Annotated[Number, Tag("number")] | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(lambda value: "auto" if value == "auto" else "number"),
]
Seeds = Annotated[
    tuple[Annotated[int, BeforeValidator(_refuse_bool), Field(ge=0, lt=2**63)], ...],
    BeforeValidator(_as_tuple),
]
NumberOrSeeds = Annotated[
    Annotated[Number, Tag("number")] | Annotated[Seeds, Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "several" if _is_list(value) else "number"),
]
OptionTexts = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_as_value_error(flatten_options))]
Device = Annotated[str, AfterValidator(_as_value_error(check_device_form))]
Seconds = Annotated[float, BeforeValidator(_refuse_bool), Field(gt=0)]
NamedFiles = Annotated[dict[str, Path], BeforeValidator(_as_value_error(named_files))]
Channels = Annotated[tuple[float, float, float], BeforeValidator(_numbers)]
Spread = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]],
    BeforeValidator(_numbers),
]
Shard = Annotated[str, AfterValidator(_check_shard)]
Share = Annotated[float, BeforeValidator(_refuse_bool), Field(gt=0, le=1)]
Folder = Annotated[Path, BeforeValidator(_expanded)]
DataRoot = Annotated[Folder, AfterValidator(_as_value_error(paths.check_data_root))]


# --- the model -------------------------------------------------------------------------------


def _key(default: Any, help_text: str, metavar: str = "", **more: Any) -> Any:
    """A key with its help text, and the word that stands for its value in ``--help``."""
    return Field(default, description=help_text, json_schema_extra={"metavar": metavar}, **more)


OF_TARGETS = ("target_key", "target_defense", "architecture", "mean", "std")
"""The keys that say how models of the user's own are read."""


class RunConfig(BaseModel):
    """The configuration of a run. All values are checked here, except the names of components.

    Paths are expanded (``~``, ``$NAME``); those that are not given come from the environment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    track: str = _key(DEFAULT_TRACK, "Track, the protocol to run.", "NAME")
    defense: Names = _key((), "Defense; repeat for several. All of them by default.", "NAME")
    attack: Names = _key(
        (), "Attack; repeat for several, or standard: the track's set. All of them by default.", "NAME"
    )
    prior: Names = _key((), "Image prior; repeat for several. By default that of each attack.", "NAME")
    target: NamedFiles = _key(
        {},
        "File of a model of your own (.pt, .pth, .safetensors) to attack, beside the defenses named; its row "
        "has the file's name, or NAME. Repeat for several.",
        "[NAME=]FILE",
    )
    target_key: str | None = _key(
        None, "Where the weights are in a checkpoint that holds more: keys joined by dots.", "KEY"
    )
    target_defense: str | None = _key(
        None, "Defense as which own models are built and answer; plain networks by default.", "NAME"
    )
    architecture: str | None = _key(
        None, "Architecture of own models; the track's by default. -o sets its options.", "NAME"
    )
    mean: Channels | None = _key(
        None, "Mean of each channel that own models' images are normalised by, instead of 0.5.", "R,G,B"
    )
    std: Spread | None = _key(None, "Standard deviation of each channel that goes with --mean.", "R,G,B")
    seeds: NumberOrSeeds = _key(1, "Number of seeds: 0 … N-1.", "N")
    seed: Seeds = _key((), "One seed, instead of --seeds; repeat for several.", "SEED")
    options: OptionTexts = _key(
        {}, "Set an option; several values of a key multiply the grid.", "PLUGIN.KEY=VALUE"
    )
    device: Device = _key("auto", "auto, cpu, cuda, cuda:N or mps.", "DEVICE")
    jobs: Jobs = _key(
        "auto",
        "Number of processes that compute at once, on the GPUs in turn. auto: one a GPU; on a CPU as many as "
        "the track's threads leave room for.",
        "N",
    )
    shard: Shard | None = _key(
        None, "Only the i-th of n shares of the cells, for runs side by side in one store.", "i/n"
    )
    executor: Literal["local", "ray"] = _key(
        "local", "Where stages are computed: on this machine, or as tasks of a Ray cluster."
    )
    address: str | None = _key(
        None,
        "HOST:PORT of a Ray cluster, or auto for the one that runs here. By default one is started on this "
        "machine.",
        "ADDRESS",
    )
    gpus_per_stage: Share = _key(1.0, "Share of a GPU that a stage takes on a Ray cluster.", "SHARE")
    time_limit: Seconds | None = _key(
        None, "Seconds after which a stage fails and the others go on. No limit by default.", "SECONDS"
    )
    precision: Precision | None = _key(
        None, "Precision of networks in attacks, by default the track's; a board shows rows of one precision."
    )
    compile: bool = _key(False, "Compile the networks that attacks use.")
    store: Folder = Field(
        default_factory=paths.default_store,
        description="Folder of artifacts and records; else MIA_BENCH_STORE, or the user's data folder.",
    )
    data: DataRoot | None = Field(
        default_factory=paths.default_data, description="Root of the data sets; else MIA_BENCH_DATA."
    )
    weights: Folder | None = Field(
        default_factory=paths.default_weights,
        description="Folder of weight files; else MIA_BENCH_WEIGHTS, or weights beside the data root.",
    )
    rerun: Literal["never", "failed", "always"] = _key(
        "failed", "Which cells with a record to compute again."
    )
    fold: Number | None = _key(
        None,
        "Train on another fold: the N-th group of training images changes places with the validation images. "
        "Only the target's accuracy is measured, for the choice of settings.",
        "N",
    )
    allow_partial: bool = _key(False, "Accept data that are not the protocol's; every record is marked.")
    format: Literal["table", "json", "markdown"] = _key("table", "Format in which the records are printed.")

    @model_validator(mode="after")
    def _seed_or_seeds(self) -> Self:
        if self.seed and "seeds" in self.model_fields_set:
            raise ValueError("give either seed or seeds")
        return self

    @model_validator(mode="after")
    def _is_about_own_models(self) -> Self:
        given = [name for name in OF_TARGETS if getattr(self, name) is not None]
        if given and not self.target:
            raise ValueError(
                f"{given[0].replace('_', '-')} is for models of your own: give their files, target"
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both")
        return self

    @model_validator(mode="after")
    def _address_of_ray(self) -> Self:
        if self.executor == "ray" and self.device.startswith("cuda:"):
            raise ValueError(f"device {self.device!r}: Ray chooses the GPU of a stage; give cuda")
        given = {"address": self.address is not None, "gpus_per_stage": self.gpus_per_stage != 1}
        for name in given if self.executor != "ray" else ():
            if given[name]:
                raise ValueError(f"{name} is for executor ray")
        return self

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of the grid."""
        if self.seed:
            return self.seed
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def given_seeds(self) -> tuple[int, ...]:
        """The seeds of the grid, each once, if any were asked for."""
        asked = self.model_fields_set & {"seed", "seeds"}
        return tuple(dict.fromkeys(self.seed_list)) if asked else ()

    @property
    def share(self) -> tuple[int, int]:
        """Which share of the cells, from 1, of how many."""
        number, _, count = (self.shard or "1/1").partition("/")
        return int(number), int(count)

    @property
    def roots(self) -> paths.Roots:
        """Where data and weights lie."""
        return paths.data_roots(self.data, self.weights)

    def to_toml(self) -> str:
        """The configuration as a file that :func:`load_config` reads back."""
        left_out = {"options", "seeds" if self.seed else "seed", *(() if self.target else ("target",))}
        values = self.model_dump(mode="json", exclude=left_out, exclude_none=True)
        tables: dict[str, dict[str, Any]] = {}
        for path, texts in self.options.items():
            owner, _, key = path.rpartition(".")
            tables.setdefault(owner, {})[key] = texts if texts[1:] else texts[0]
        return tomli_w.dumps({**values, "options": tables})


def key_choices(name: str) -> tuple[str, ...]:
    """The values that a key of :class:`RunConfig` can have; empty where they can't be listed."""
    annotation = RunConfig.model_fields[name].annotation
    found = get_args(annotation)
    parts = (annotation,) if all(isinstance(one, str) for one in found) else found
    return tuple(choice for part in parts for choice in get_args(part) if isinstance(choice, str))


# --- reading ---------------------------------------------------------------------------------


def load_config(given: Mapping[str, Any], file: Path | None = None) -> RunConfig:
    """Check what was given. It overrides a TOML file, and that the environment; of options key by key.

    Args:
        given: values by key; None is the same as leaving a key out.
        file: a file with the same keys.

    Raises:
        UsageError: one line that names the key (and the file, if the value is from there), what is wrong,
            and what would be right.
    """
    given = {key: value for key, value in given.items() if value is not None}
    values = _read(file) if file else {}
    if {"seed", "seeds"} & given.keys():
        values = {key: value for key, value in values.items() if key not in ("seed", "seeds")}
    merged = {**values, **given}
    if "options" in values and "options" in given:
        ours, theirs = flatten_options(given["options"]), flatten_options(values["options"])
        replaced = {path.rpartition(":")[2] for path in ours}  # without the kind before the plugin
        kept = {path: texts for path, texts in theirs.items() if path.rpartition(":")[2] not in replaced}
        merged["options"] = {**kept, **ours}
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise UsageError("; ".join(map(_explain, error.errors()))) from None


def _read(file: Path) -> dict[str, Any]:
    """The values of a file; all of them must be valid, also those that are overridden."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {file}: {error}") from error
    try:
        RunConfig.model_validate(values)
    except ValidationError as error:
        # An error in the environment is not the file's.
        wrong = [one for one in error.errors() if not one["loc"] or one["loc"][0] in values]
        if wrong:
            raise UsageError(f"--config {file}: " + "; ".join(map(_explain, wrong))) from None
    return values


def _explain(error: ErrorDetails) -> str:
    key, value = str(error["loc"][0]) if error["loc"] else "", error["input"]
    if error["type"] == "extra_forbidden":
        return f"no key {key!r}; {did_you_mean(key, RunConfig.model_fields)}"
    if error["type"] == "literal_error":
        return f"no {key} {str(value)!r}; {did_you_mean(str(value), key_choices(key))}"
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    message = re.split(", (?:got|unable) | for <class", error["msg"])[0]
    return one_line(f"{key}={value}: {message[:1].lower()}{message[1:]}")
