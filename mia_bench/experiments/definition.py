"""What an experiment is: a question, the cells that answer it, and the claims that they test.

An experiment is a TOML file of this folder, named as the experiment.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mia_bench.errors import MiaBenchError, UsageError, did_you_mean, summarize_error
from mia_bench.track import StandardAttack, Variation

FOLDER = Path(__file__).parent


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Grid(_Model):
    """Settings of a defense."""

    defense: str
    """The registered name."""
    options: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    """Values of its options; several multiply."""
    at: float | None = None
    """Where it stands on the axis, if it does not have that option; beside the axis unless given."""


class Claim(_Model):
    """What somebody says of a defense: it is tested by the mean over settings of it, less the baseline."""

    text: str
    """In a sentence."""
    defense: str
    """The defense that it is of."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options that its settings have; the others of the defense are not meant."""
    attacks: tuple[str, ...] = ()
    """The attacks that it is tested under; all of them unless given."""
    attack: dict[str, Any] = Field(default_factory=dict)
    """Options that these attacks have; the others are not meant."""
    quantity: str = ""
    """What it says grows or falls; the leakage unless given."""
    says: Literal["more", "less"]
    """What it says of that."""
    trend: bool = False
    """Whether it says so of the difference in the first variant, compared with that in the last one of those
    that are run on all tracks."""


class OnTracks(BaseModel):
    """A part of an experiment that may be run on some of its tracks only."""

    tracks: tuple[str, ...] = ()
    """Their names; all of them unless given. The first part of a kind is run on all."""

    def is_on(self, track: str) -> bool:
        """Whether it is run on a track."""
        return not self.tracks or track in self.tracks


class ExperimentAttack(StandardAttack, OnTracks):
    """An attack of every target."""

    words: str = ""
    """What it is called in tables; its name, with what tells it from the others, unless given."""


class ExperimentVariation(Variation, OnTracks):
    """What is changed in the track."""


Figure = Literal["across", "plane", "variants", "forest", "steps", "points"]
"""``across``: leakage along the axis; ``plane``: accuracy against leakage; ``variants``: leakage across the
images a class of the variants; ``forest``: differences under each attack, in each variant, or of each
quantity; ``steps``: what the attacks say of their steps; ``points``: images in a plane of the embedding
space."""


class Experiment(_Model):
    """A question, and what answers it."""

    name: str
    """That of its file."""
    place: int
    """Where it stands in the list."""
    title: str
    """Of its page."""
    question: str
    """In a sentence."""
    method: str
    """In a paragraph."""
    setting: str
    """What differs from the setting in which others made the claims."""
    checks: str = ""
    """What surprised, and how it was checked."""
    axis: str = ""
    """The option along which targets are ordered; none where they differ in more than a number."""
    variants: Annotated[tuple[ExperimentVariation, ...], Field(min_length=1)] = (ExperimentVariation(),)
    """What is changed in the track: the whole grid is run in each."""
    metrics: tuple[str, ...] = ()
    """Metric families that are computed beside the track's."""
    compare: Literal["targets", "attacks"] = "targets"
    """Whether differences are those of a target from the undefended one under the same attack, or those of an
    attack from the first one on the same target."""
    show: tuple[str, ...] = ()
    """Quantities that tables show; accuracy and leakage unless given."""
    forest: tuple[str, ...] = ()
    """Quantities of the figure ``forest``, of one unit; the leakage unless given."""
    figures: tuple[Figure, ...] = ("across", "plane")
    """What is drawn for each track."""
    seeds: Annotated[int, Field(ge=2)]
    """Number of seeds: an interval needs several."""
    tracks: Annotated[tuple[str, ...], Field(min_length=1)]
    """Where it has been run; it can be on any track."""
    attacks: Annotated[tuple[ExperimentAttack, ...], Field(min_length=1)]
    """Of every target; the figure of accuracy shows the first."""
    grid: Annotated[tuple[Grid, ...], Field(min_length=1)]
    """The targets."""
    claims: tuple[Claim, ...]
    """What is tested."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for one in self.grid:
            if one.at is not None and self.axis in one.options:
                raise ValueError(f"a grid of {one.defense!r} has values of {self.axis!r}, and 'at' too")
        for claim in self.claims:
            if claim.defense not in {one.defense for one in self.grid}:
                raise ValueError(f"a claim is of {claim.defense!r}, which is not in the grid")
            if unknown := set(claim.attacks) - {one.name for one in self.attacks}:
                raise ValueError(f"a claim is tested under {min(unknown)!r}, which is not among the attacks")
            if claim.trend and self.trend_ends[0] == self.trend_ends[1]:
                raise ValueError("a trend is one over several variants")
        words = [one.words for one in self.attacks if one.words]
        if len(set(words)) < len(words):
            raise ValueError("two attacks have the same words")
        kinds: dict[str, Sequence[OnTracks]] = {"attack": self.attacks, "variant": self.variants}
        for what, several in kinds.items():
            if several[0].tracks:
                raise ValueError(f"the first {what} is run on every track: it has no 'tracks'")
            if unknown := {name for one in several for name in one.tracks} - set(self.tracks):
                raise ValueError(f"a further {what} is run on {min(unknown)!r}, which is no track of these")
        if self.compare == "attacks" and sum(not one.tracks for one in self.attacks) < 2:
            raise ValueError("attacks are compared with the first: name several")
        if any(one.fold for one in self.variants):
            raise ValueError("in a further fold nothing is attacked: 'fold' is set by --fold only")
        if len({one.label for one in self.variants}) < len(self.variants):
            raise ValueError("two variants have one label")
        if "across" in self.figures and not self.axis:
            raise ValueError("a figure across an axis needs one")
        return self

    def attacks_on(self, track: str) -> list[ExperimentAttack]:
        """The attacks that are run on a track."""
        return [one for one in self.attacks if one.is_on(track)]

    @property
    def trend_ends(self) -> tuple[str, str]:
        """The labels of the variants that a trend is between."""
        everywhere = [one.label for one in self.variants if not one.tracks]
        return everywhere[0], everywhere[-1]

    @property
    def compared_with(self) -> str:
        """What differences are from, in words."""
        return "the undefended target" if self.compare == "targets" else "the first row for the same target"

    def variations_on(self, track: str) -> list[Variation]:
        """The variants that are run on a track, with the further metrics."""
        return [
            Variation(**{**one.model_dump(exclude={"tracks"}), "metrics": self.metrics})
            for one in self.variants
            if one.is_on(track)
        ]


def settings_of(grid: Iterable[Grid]) -> Iterator[tuple[Grid, dict[str, Any]]]:
    """Each setting of a grid: its options have one value each."""
    for one in grid:
        for values in itertools.product(*one.options.values()):
            yield one, dict(zip(one.options, values, strict=True))


WITHOUT_TRACK = "plane"
"""The experiment that is on no track: :mod:`mia_bench.experiments.plane`."""


def experiment_names() -> list[str]:
    """All experiments on tracks, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem != WITHOUT_TRACK)


def load_experiments() -> list[Experiment]:
    """Every experiment on tracks, in the order of their list.

    Raises:
        MiaBenchError: a file is damaged.
    """
    return sorted(map(load_experiment, experiment_names()), key=lambda one: one.place)


def load_experiment(name: str) -> Experiment:
    """Read and check an experiment.

    Raises:
        UsageError: there is none of that name.
        MiaBenchError: its file is damaged.
    """
    if name not in (known := experiment_names()):
        raise UsageError(f"no experiment {name!r}; {did_you_mean(name, known)}")
    return read_experiment(FOLDER / f"{name}.toml")


def read_experiment(path: Path) -> Experiment:
    """Read and check the file of an experiment.

    Raises:
        MiaBenchError: it can't be read, or does not fit.
    """
    return read_definition(Experiment, path, name=path.stem)


Definition = TypeVar("Definition", bound=BaseModel)


def read_definition(kind: type[Definition], path: Path, **given: str) -> Definition:
    """Read and check a file, with what is ``given`` beside it.

    Raises:
        MiaBenchError: it can't be read, or does not fit.
    """
    try:
        return kind.model_validate({**tomllib.loads(path.read_text(encoding="utf-8")), **given})
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise MiaBenchError(f"experiment {path.name}: {summarize_error(error)}") from error
