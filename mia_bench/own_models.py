"""Models of the user's own: trained elsewhere, given as files, and rows beside the defenses. No torch here.

Such a row takes the place of a defense. Its target is not trained but restored from the file; everything
after that is as for any target.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from etils.epy import lazy_imports
from pydantic import BaseModel, ConfigDict, ValidationError

from mia_bench.api.defense import Defense
from mia_bench.components import ConfiguredComponent, OptionValues, baseline, resolve, track_options
from mia_bench.config import RunConfig
from mia_bench.errors import UsageError
from mia_bench.fetch import file_hash
from mia_bench.provenance import HOST
from mia_bench.registry import Registry
from mia_bench.tensorfile import read_metadata
from mia_bench.track import Track

with lazy_imports():
    import safetensors

CARD = "mia_bench"
"""Name of the model card in the header of a safetensors file."""

SHORT = 12
"""Digits of the hash of a file that names show."""


class Part(BaseModel):
    """A component that a model was built with.

    Attributes:
        name, distribution, version: as in records.
        options: all of them.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    distribution: str
    version: str
    options: dict[str, Any]


class ModelCard(BaseModel):
    """What a file that ``mia-bench export`` wrote says of its model.

    Attributes:
        cell: key of the cell whose target it is.
        track, track_version, data: the protocol it was trained by, and the fingerprint of its data.
        classes, resolution: of the private images.
        architecture, defense: what it was built with.
        seed: of the training.
        metrics: the utility that was measured.
        made_with: versions of mia-bench and torch.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = 1
    cell: str
    track: str
    track_version: int
    data: str
    classes: int
    resolution: int
    architecture: Part
    defense: Part
    seed: int
    metrics: dict[str, float] = {}
    made_with: dict[str, str] = {}


class OwnModel(Defense):
    """What records say of a model of the user's own, which was trained elsewhere, in place of a defense."""

    summary = "a model of the user's own, trained elsewhere"
    version = "1"


@dataclass(frozen=True)
class OwnTarget(ConfiguredComponent):
    """A model of the user's own, as a row: in place of a defense, and named by the user.

    Attributes:
        path, sha256: the file.
        key: where its weights are, empty to take what fits.
        architecture, defense: what it is built with.
        mean, std: its normalisation, None for that of the architecture.
        card: what the file says of itself, if mia-bench wrote it.
    """

    path: Path = Path()
    sha256: str = ""
    key: str = ""
    architecture: ConfiguredComponent | None = None
    defense: ConfiguredComponent | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    card: ModelCard | None = None

    @property
    def owner(self) -> str:
        """It, as error messages name it."""
        return f"own model {self.name!r}"

    def reading(self) -> dict[str, Any]:
        """How the file is read: what decides the target, beside file, architecture and defense."""
        return {"key": self.key, "mean": self.mean and [*self.mean], "std": self.std and [*self.std]}

    def spec(self) -> dict[str, Any]:
        """What a record holds of it in place of a defense with options."""
        assert self.architecture
        assert self.defense
        options: dict[str, Any] = {"sha256": self.sha256[:SHORT], **self.reading()}
        for role, part in (("architecture", self.architecture), ("defense", self.defense)):
            options[role] = {"name": part.name, "options": part.spec()["options"]}
        return {**self.identity, "options": options}

    def make(self) -> Any:
        """The defense as which it is built and answers."""
        assert self.defense
        return self.defense.make()

    def origin(self, track: Track, data: str) -> Literal["unchecked", "stated"]:
        """What is known of its training data: whether its file states that they are those of a protocol."""
        card = self.card
        same = card and (card.track, card.track_version, card.data) == (track.name, track.version, data)
        return "stated" if same else "unchecked"


def own_targets(
    config: RunConfig, registry: Registry, track: Track, options: OptionValues
) -> tuple[list[OwnTarget], OptionValues]:
    """The models of the user's own that a run attacks, and the options that are left for its grid.

    Args:
        config: names the files and says how they are read.
        registry: where architectures and defenses are looked up.
        track: the protocol.
        options: all that were given; those of architectures are for these models.

    Raises:
        UsageError: a file is missing, or a name or an option is wrong.
        MiaBenchError: a plugin fails.
    """
    found: list[OwnTarget] = []
    used: set[tuple[str, str]] = set()
    for name, path in config.target.items():
        if name in registry.names("defense"):
            raise UsageError(f"--target {name!r} is the name of a defense: name the row, NAME={path}")
        sha256, card = _hash(path), read_card(path)
        architecture = _architecture(config, registry, track, options, card)
        defense = _defense(config, registry, track, options, card)
        used |= {("model", architecture.name)}
        used |= {("defense", defense.name)} if config.target_defense else set()
        found.append(
            OwnTarget(
                "defense",
                {"name": name, "distribution": HOST, "version": OwnModel.version},
                OwnModel,
                OwnModel.Options(),
                {"sha256": sha256[:SHORT]},
                path=path,
                sha256=sha256,
                key=config.target_key or "",
                architecture=architecture,
                defense=defense,
                mean=config.mean,
                std=config.std,
                card=card,
            )
        )
    options.refuse_others(used, "which no target is built of", kinds=("model",))
    left = {
        (kind, name): values
        for (kind, name), values in options.values.items()
        if kind != "model" and ((kind, name) not in used or name in config.defense)
    }
    return found, OptionValues(left)


def _hash(path: Path) -> str:
    if path.is_dir():
        raise UsageError(f"--target {path} is a folder: give the file of a checkpoint in it")
    try:
        return file_hash(path)
    except OSError as error:
        raise UsageError(f"--target {path} can't be read: {error.strerror or error}") from error


def read_card(path: Path) -> ModelCard | None:
    """What a file says of its model; None if ``mia-bench export`` did not write it.

    Raises:
        UsageError: its header can't be read.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        text = read_metadata(path).get(CARD)
        return None if text is None else ModelCard.model_validate(json.loads(text))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise UsageError(f"{path} is no safetensors file, or was cut off: {error}") from error
    except (ValueError, ValidationError) as error:
        raise UsageError(f"{path}: its model card is not one that this version of mia-bench wrote") from error


def _architecture(
    config: RunConfig, registry: Registry, track: Track, options: OptionValues, card: ModelCard | None
) -> ConfiguredComponent:
    """What a model is built of: as given, else as its file says, else that of the track."""
    usual = track.target.architecture
    stated = card.architecture if card and config.architecture in (None, card.architecture.name) else None
    name = config.architecture or (stated.name if stated else usual.name)
    defaults: Mapping[str, Any] = usual.options if name == usual.name else {}
    if stated:
        defaults = stated.options
    return resolve(registry, "model", name, defaults, options.single("model", name))


def _defense(
    config: RunConfig, registry: Registry, track: Track, options: OptionValues, card: ModelCard | None
) -> ConfiguredComponent:
    """As what a model is built and answers: as given, else as its file says, else the baseline."""
    stated = card.defense if card and config.target_defense in (None, card.defense.name) else None
    name = config.target_defense or (stated.name if stated else baseline(registry))
    defaults = stated.options if stated else track_options(track, "defense", name)
    given = options.single("defense", name) if config.target_defense else {}
    return resolve(registry, "defense", name, defaults, given)


def origin_warnings(targets: Sequence[OwnTarget], track: Track, data: str) -> Iterator[str]:
    """A line for each model whose file says that it was made otherwise: of other data, or of other code."""
    for one in targets:
        card = one.card
        if card and one.architecture and one.defense:
            yield from other_versions(one.path, card, one.architecture, one.defense)
        if card and one.origin(track, data) != "stated":
            what = f"version {card.track_version} of the track {card.track!r}"
            other = (
                what if (card.track, card.track_version) != (track.name, track.version) else "other images"
            )
            yield f"{one.path} says that it was trained on {other}, not on the data of this run"


def other_versions(
    path: Path, card: ModelCard, architecture: ConfiguredComponent, defense: ConfiguredComponent
) -> Iterator[str]:
    """A line for each component of which another version was exported than the model is built with now."""
    parts = ("architecture", card.architecture, architecture), ("defense", card.defense, defense)
    for kind, stated, part in parts:
        then = {name: getattr(stated, name) for name in part.identity}
        if stated.name == part.name and then != part.identity:
            both = then, part.identity
            made, now = (f"version {one['version']} of {one['distribution']}" for one in both)
            yield (
                f"{path} was made with another {kind} {part.name!r} ({made}) than is installed ({now}): "
                "it may answer differently"
            )
