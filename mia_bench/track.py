"""The track file's model and its loader."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mia_bench.device import Precision
from mia_bench.errors import MiaBenchError
from mia_bench.registry import Registry
from mia_bench.text import shortened


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(_Model):
    """A component by name with its options on this track."""

    name: str
    """The registered name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options that differ from the class's defaults."""


class Data(_Model):
    """The data set, its resolution in pixels and the seed of its splits."""

    dataset: Choice
    """The data set."""
    resolution: int = Field(ge=8)
    """Height and width of the images, in pixels."""
    split_seed: int = 0
    """Seed of what the whole track shares: splits, priors, evaluation model, independent judge."""
    fingerprint: str = ""
    """The official data's fingerprint; rows from other data are refused by the board."""


class Colour(_Model):
    """Factors of brightness, contrast and saturation from ``1 ± value``, hue shifts within ``± hue``.

    ``hue`` is a part of the colour circle. As torchvision's ``ColorJitter``, each image with its own draws.
    """

    brightness: float = Field(default=0.0, ge=0, lt=1)
    """Half-width of the factors of brightness."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Half-width of the factors of contrast."""
    saturation: float = Field(default=0.0, ge=0, lt=1)
    """Half-width of the factors of saturation."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Largest shift of the hue, a part of the colour circle."""
    order: Literal["random", "fixed"] = "random"
    """Whether the four changes of an image come in an order drawn for it, or in the order of these fields."""


class Recipe(_Model):
    """How a classifier is trained; part of the protocol, the same for every defense.

    The learning rate is multiplied by ``gamma`` at each milestone, a fraction of the epochs.
    Augmentation: horizontal flip with probability one half, shifts of up to ``shift`` pixels, square
    crops whose share of the area is from ``crop``, resized back, brightness and contrast factors from
    ``1 ± jitter``, and ``colour``. The last epoch is kept.
    """

    epochs: int = Field(ge=1)
    """Passes over the training images."""
    batch_size: int = Field(default=64, ge=1)
    """Images a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of Adam at the start."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of Adam."""
    milestones: tuple[float, ...] = (0.75, 0.9)
    """Where the learning rate drops, as fractions of the epochs."""
    gamma: float = 0.1
    """What the learning rate is multiplied by at each milestone."""
    flip: bool = True
    """Mirror images with probability one half."""
    shift: int = Field(default=0, ge=0)
    """Largest shift in pixels."""
    jitter: float = Field(default=0.0, ge=0, lt=1)
    """Half-width of the factors of brightness and contrast."""
    crop: tuple[float, float] | None = None
    """Range of the crops' share of the area; no crops unless given."""
    colour: Colour | None = None
    """Changes of colour; none unless given."""
    precision: Precision = "float32"
    """Precision of the network while it is trained."""
    images_per_class: int | None = Field(default=None, ge=1)
    """How many training images of each class, drawn for the seed: those of a smaller number are among those
    of a larger one. All of them unless given."""
    fold: int | None = Field(default=None, ge=1)
    """Cross-validation: the ``fold``-th group of training images changes places with the validation images.
    Set by ``--fold`` and ``--folds`` only."""

    def spec(self) -> dict[str, Any]:
        """The recipe as cache keys hold it: without what the track does not use."""
        return self.model_dump(exclude_none=True)


class ClassifierSpec(_Model):
    """An architecture and the recipe it is trained by."""

    architecture: Choice
    """The network."""
    recipe: Recipe
    """How it is trained."""


class AttackDefaults(_Model):
    """An attack's prior and options on this track.

    In a file ``like = "ppa"`` stands for the prior and the options of another attack of the track, which its
    own come on top of.
    """

    prior: str
    """The prior it takes unless another is asked for."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options that differ from the class's defaults."""


class StandardAttack(_Model):
    """An attack of the standard set, with options that differ from the track's."""

    name: str
    """The registered name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options that differ from the track's."""
    prior: str = ""
    """The prior, unless it is that of the attack on this track."""
    default: bool = False
    """Whether it is run on every seed; the others only where they turn out to be the strongest."""

    @property
    def label(self) -> str:
        """``ppa (loss=cross-entropy)``, ``gmi with stylegan2``."""
        changed = ", ".join(
            f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in self.options.items()
        )
        prior = f" with {self.prior}" if self.prior else ""
        return self.name + (f" ({changed})" if changed else "") + prior


TUNING_SEEDS = (1000, 1001)
"""The tuning seeds of a track without a standard set of attacks."""


class Standard(_Model):
    """The standard set of attacks: what ``--attack standard`` runs against every defense, with one budget.

    The whole set is run on the tuning seeds. On the seeds of the board the default attacks are run, and the
    one that was the strongest on the tuning seeds.
    """

    version: int = Field(ge=1)
    """Raised when the set changes."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(1000, 1001), min_length=1)
    """The tuning seeds, which no board shows."""
    attacks: tuple[StandardAttack, ...] = Field(min_length=1)
    """The set; of two equally strong ones the first is taken."""

    @model_validator(mode="after")
    def _is_a_set(self) -> Self:
        labels = [one.label for one in self.attacks]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"the standard set has {twice[0]!r} twice")
        if not any(one.default for one in self.attacks):
            raise ValueError("an attack of the standard set must have default = true")
        return self


class Track(_Model):
    """A versioned protocol; see ``docs/protocol.md`` for what each part means.

    A file that ``extends`` another track says only what differs from it.
    """

    name: str
    """As it is registered."""
    version: int = Field(ge=1)
    """Raised when what the track measures changes; a board shows one version."""
    summary: str
    """One line for lists."""
    protocol: str = ""
    """A paragraph for the board's page."""
    data: Data
    """The images."""
    target: ClassifierSpec
    """The classifier that is defended and attacked."""
    evaluation: ClassifierSpec
    """The evaluation model: another architecture, trained on the same private images."""
    judge: ClassifierSpec | None = None
    """An independent judge for data without an identity encoder, trained on ``Splits.judging``."""
    encoder: Choice | None = None
    """The identity encoder, for data that have identities."""
    images_per_class: int = Field(ge=1)
    """How many reconstructions of a class every attack returns."""
    attacked_classes: int | None = Field(default=None, ge=1)
    """How many classes are attacked, the first ones; None for all."""
    shards: int = Field(default=1, ge=1, le=1000)
    """In how many parts the classes are dealt out to an attack that takes each class by itself. The parts are
    computed, and kept, one by one; their number is part of the protocol."""
    attack_batch_size: int = Field(default=256, ge=1)
    """Images a forward pass of an attack."""
    attack_precision: Precision = "float32"
    """Of the prior's and the target's networks while they are attacked."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of every stage, as results depend on their number; None for all that there are."""
    metrics: tuple[str, ...]
    """The metric families that are computed."""
    ranked_by: tuple[str, ...] = ()
    """Quantities of these metrics, the most telling first. The first that a board has measured orders its
    tables, the last breaks ties. Unless given: those of leakage that are compared class by class."""
    variant: str = ""
    """What an experiment or a sweep changed (:class:`Variation`). No file sets it; boards don't show it."""
    verdicts: bool = True
    """Whether its page decides between defenses; false where the track only shows that everything runs."""
    priors: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of each prior on this track."""
    default_prior: str
    """The prior of attacks that have none of their own here."""
    defenses: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of each defense on this track."""
    attacks: dict[str, AttackDefaults] = Field(default_factory=dict)
    """Prior and options of each attack on this track."""
    standard: Standard | None = None
    """The standard set of attacks; in no key, as it changes no result."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Rough time of each stage, or of a stage for one component (``"invert.gmi"``), for estimates before
    anything was run: on two CPU cores, or on a GPU where the track needs one."""
    megabytes: dict[str, float] = Field(default_factory=dict)
    """Rough size of each stage's result, likewise."""
    gpu_megabytes: dict[str, float] = Field(default_factory=dict)
    """Rough memory that each stage takes of a GPU, likewise."""

    @model_validator(mode="before")
    @classmethod
    def _follow_others(cls, raw: Any) -> Any:
        """Give attacks that are ``like`` another its prior and options."""
        attacks = raw.get("attacks") if isinstance(raw, dict) else None
        if not isinstance(attacks, dict):
            return raw
        found = dict(attacks)
        for name, own in attacks.items():
            if isinstance(own, dict) and "like" in own:
                other = attacks.get(str(own["like"]))
                if not isinstance(other, dict) or "like" in other:
                    raise ValueError(
                        f"{name!r} is like {own['like']!r}, which has no options of its own here"
                    )
                given = {key: value for key, value in own.items() if key != "like"}
                options = {**other.get("options", {}), **own.get("options", {})}
                found[name] = {**other, **given, "options": options}
        return {**raw, "attacks": found}

    @property
    def tuning_seeds(self) -> tuple[int, ...]:
        """The seeds that settings and attacks are chosen on; no board shows them."""
        return self.standard.seeds if self.standard else TUNING_SEEDS

    def prior_of(self, attack: str) -> str:
        """The prior that ``attack`` takes unless another is asked for."""
        return self.attacks[attack].prior if attack in self.attacks else self.default_prior


def precisions(track: Track) -> list[Precision]:
    """The track's precision of attacks, then the others, one of which a record was made in: it names none."""
    return sorted(get_args(Precision), key=lambda precision: precision != track.attack_precision)


class Variation(_Model):
    """What an experiment or a sweep changes in a track.

    What attacks are measured with stays the same, unless the data change.
    """

    label: str = ""
    """What it is called in tables."""
    architecture: Choice | None = None
    """Of the target."""
    dataset: dict[str, Any] = Field(default_factory=dict)
    """Options of the data set."""
    images_per_class: int | None = Field(default=None, ge=1)
    """Training images of each class."""
    fold: int | None = Field(default=None, ge=1)
    """See :attr:`Recipe.fold`; of reconstructions nothing is measured."""
    metrics: tuple[str, ...] = ()
    """Metric families beside the track's."""

    @classmethod
    def read(cls, variant: str) -> Self:
        """The changes that ``Track.variant`` tells of.

        Raises:
            MiaBenchError: it is nothing that :meth:`of` writes.
        """
        wrong = MiaBenchError(f"no variant of a track is {shortened(variant, 80)!r}")
        try:
            told = cls.model_validate(dict(_changes(variant)))
        except ValueError:
            raise wrong from None
        if told._words(told.metrics, told.architecture, told.dataset) != variant:
            raise wrong
        return told

    def of(self, track: Track) -> Track:
        """The track with the changes; the track itself where there are none."""
        metrics = tuple(name for name in self.metrics if name not in track.metrics)
        target, other = track.target, self.architecture
        if other and other != target.architecture:
            target = target.model_copy(update={"architecture": other})
        else:
            other = None
        given = {"images_per_class": self.images_per_class, "fold": self.fold}
        recipe = target.recipe.model_copy(update={name: value for name, value in given.items() if value})
        target = target.model_copy(update={"recipe": recipe})
        known = track.data.dataset
        dataset = {key: value for key, value in self.dataset.items() if value != known.options.get(key)}
        if not (variant := self._words(metrics, other, dataset)):
            return track
        chosen = known.model_copy(update={"options": {**known.options, **dataset}})
        changed = {
            "metrics": (*track.metrics, *metrics),
            "data": track.data.model_copy(update={"dataset": chosen}),
            "target": target,
            "variant": variant,
        }
        return track.model_copy(update=changed)

    def _words(self, metrics: Iterable[str], architecture: Choice | None, dataset: Mapping[str, Any]) -> str:
        """What changes, as records name it."""
        words = {"metrics": " ".join(metrics)}
        if architecture:
            words["architecture"] = json.dumps(architecture.model_dump(mode="json"), sort_keys=True)
        if dataset:
            words["dataset"] = json.dumps(dataset, sort_keys=True)
        for name in ("images_per_class", "fold"):
            words[name] = str(getattr(self, name) or "")
        return "; ".join(f"{name}: {value}" for name, value in words.items() if value)


def _changes(variant: str) -> Iterator[tuple[str, Any]]:
    """The name and value of each change in ``Track.variant``; raise ValueError for damaged JSON."""
    while variant:
        name, _, rest = variant.partition(": ")
        if name in ("architecture", "dataset"):
            value, end = json.JSONDecoder().raw_decode(rest)
        else:
            text = rest.partition("; ")[0]
            value, end = text.split() if name == "metrics" else text, len(text)
        yield name, value
        variant = rest[end:].removeprefix("; ")


def fold_of(variant: str) -> int | None:
    """The further fold that ``Track.variant`` tells of, if nothing else was changed."""
    with contextlib.suppress(MiaBenchError):
        told = Variation.read(variant)
        if told == Variation(fold=told.fold):
            return told.fold
    return None


def _read(registry: Registry, name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The file of a track, laid over those of the tracks it extends."""
    if name in above:
        raise MiaBenchError(f"track {name!r} extends itself")
    path = Path(str(registry.get("track", name).component))
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    base = raw.pop("extends", None)
    return raw if base is None else _merged(_read(registry, base, (*above, name)), raw)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, table by table; a component with another name keeps no options."""
    merged = dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        merged[key] = value
        if isinstance(before, dict) and isinstance(value, dict):
            same = value.get("name", before.get("name")) == before.get("name")
            merged[key] = _merged(before, value) if same else value
    return merged


def load_track(registry: Registry, name: str) -> Track:
    """Read and check the track ``name``.

    Raises:
        UsageError: the name is unknown.
        MiaBenchError: the file can't be read or doesn't fit the model; the plugin is named.
    """
    entry = registry.get("track", name)
    try:
        track = Track.model_validate(_read(registry, name))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        first = str(error).replace("\n", " ")
        raise MiaBenchError(f"{entry.owner}: {first}") from error
    if track.name != name:
        file = Path(str(entry.component)).name
        raise MiaBenchError(f"track file {file} says {track.name!r}, registered as {name!r}")
    if track.variant:
        raise MiaBenchError(f"{entry.owner}: 'variant' is set by experiments and sweeps only")
    if any(one and one.recipe.fold for one in (track.target, track.evaluation, track.judge)):
        raise MiaBenchError(f"{entry.owner}: 'fold' is set by --fold and --folds only")
    return track


def loadable_tracks(registry: Registry) -> Iterator[Track]:
    """Every track that can be loaded; a broken one must not hide the others."""
    for name in registry.names("track"):
        with contextlib.suppress(MiaBenchError):
            yield load_track(registry, name)
