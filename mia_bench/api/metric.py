"""Metrics: families of numbers computed from a target or from reconstructions, with per-sample evidence."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from etils.epy import lazy_imports

from mia_bench.api.component import Component

with lazy_imports():
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor, nn

    from mia_bench.api.classifier import Classifier
    from mia_bench.api.dataset import Splits
    from mia_bench.api.encoder import Embed

Array: TypeAlias = "npt.NDArray[np.float64]"
Statistic: TypeAlias = "Callable[[Array], float]"

Direction = Literal["higher", "lower", "neutral"]
"""What is better for the defender."""

Kind = Literal["share", "rank", "bits", "distance", "count", "amount", "number"]
"""What sort of number it is: this sets its bounds and decimals."""

Role = Literal["utility", "leakage", "diagnostic", "reference", "selection"]
"""What boards do with it.

``utility``: what a defense costs. ``leakage``: what an attack recovers. ``diagnostic``: shown beside them,
says nothing about either. ``reference``: depends on no cell, such as what real images reach. ``selection``:
settings are chosen by it, boards don't show it.
"""

_LEAST: dict[Kind, float] = {"rank": 1.0, "number": -math.inf}
"""The least value of kinds that do not begin at 0."""

_FORMATS: dict[Kind, str] = {"share": ".3f", "rank": ".1f", "bits": ".2f"}
"""Format of the kinds that are not shown with four digits."""


@dataclass(frozen=True)
class Quantity:
    """One number that a metric gives, or that a defense reports of its training.

    Attributes:
        description: one line of words.
        better: what is better for the *defender*.
        kind: sets :attr:`bounds` and the decimals of :meth:`format`; ``number`` has no bounds.
        role: where boards show it.
        paired: records keep the mean of each class, so that boards can compare defenses class by class;
            for quantities that are the mean of one value a sample.
        per_image: name under which records keep the value of each sample, class by class, for statistics that
            are no means; empty where they don't.
        ranks: of bits, name under which records keep the ranks in a gallery that they are of: its size, which
            sets the largest value, follows from both.
        ceiling: name of the quantity that says what real held-out images reach in this one.
        oracle: name of the quantity, of the same metric or another, that says what a fit of the prior to real
            held-out images reaches in this one.
        interval: whether it has a 95 % interval. Set it to False where that of a bootstrap would mislead, as
            for a statistic that is biased: then the value stands alone, and no comparison rests on it.
        unfit_below: of a quantity that says how well a judge of reconstructions does its work: runs and pages
            warn where it is below this.
    """

    description: str
    better: Direction = "neutral"
    kind: Kind = "number"
    role: Role = "diagnostic"
    paired: bool = False
    per_image: str = ""
    ranks: str = ""
    ceiling: str = ""
    oracle: str = ""
    interval: bool = True
    unfit_below: float | None = None

    def doubt(self, name: str, value: float) -> str:
        """One line that warns of an unfit judge; empty where the value gives no reason to."""
        if self.unfit_below is None or value >= self.unfit_below:
            return ""
        return (
            f"{name} is {self.format(value)}, below {self.format(self.unfit_below)}: this judge is hardly "
            f"fit for these images, and what it says of leakage is in doubt ({self.description})"
        )

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value that it can have."""
        return _LEAST.get(self.kind, 0.0), 1.0 if self.kind == "share" else math.inf

    def format(self, value: float) -> str:
        """``0.842`` for a share, ``12.0`` for a rank, ``5.31`` for bits, else four digits (``1.234e+04``)."""
        return format(value, _FORMATS.get(self.kind, ".4g"))

    def sort_key(self, value: float) -> float:
        """A number to sort by: the smaller, the better for the defender."""
        return -value if self.better == "higher" else value


def mean(values: Array) -> float:
    """The mean of ``(N,)`` or of the first axis's entries."""
    return float(values.mean())


@dataclass(frozen=True)
class Measurement:
    """Per-sample evidence for one number; the host computes value and interval from it.

    Attributes:
        values: ``(N,)`` or ``(N, D)``, one row a sample.
        groups: ``(N,)`` integers, the class of each sample: the bootstrap resamples classes.
        statistic: from resampled rows to the number; the mean by default.
    """

    values: Array
    groups: npt.NDArray[np.int64]
    statistic: Statistic = mean


@dataclass(frozen=True)
class Gallery:
    """Embeddings that identification ranks against.

    Attributes:
        private: ``(C, D)`` unit-norm centroid of each private class's training images.
        decoys: ``(N, D)`` unit-norm centroid of each decoy identity.
        test: ``(T, D)`` embeddings of the held-out private images, for the ceiling.
        verification: ``(P,)`` 0 or 1: whether the encoder verified a pair of decoy images correctly; empty
            where the decoys have too few images.
    """

    private: Tensor
    decoys: Tensor
    test: Tensor
    verification: Tensor


@dataclass(frozen=True)
class Imitations:
    """What the prior makes of private test images when these are known: see :mod:`mia_bench.protocol.oracle`.

    Attributes:
        images: ``(N, 3, H, W)`` uint8.
        embeddings: ``(N, D)`` unit-norm, by the identity encoder.
        labels: ``(N,)``, the class of each imitated image.
    """

    images: Tensor
    embeddings: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TargetEvidence:
    """What a metric of scope ``target`` sees.

    Attributes:
        target: the deployed model, images in [0, 1] to logits.
        draws: how many times to ask a random target (1 for a deterministic one).
    """

    target: nn.Module
    splits: Splits
    draws: int
    device: torch.device


@dataclass(frozen=True)
class AttackEvidence:
    """What a metric of scope ``attack`` sees.

    Attributes:
        images: ``(N, 3, H, W)`` uint8, the reconstructions.
        labels: ``(N,)`` int64, the class each was made for.
        evaluation_model: classifier of the private classes, of another architecture than the target.
        judge: classifier of the private classes trained on images of their own, on tracks that have one.
        gallery, embed: None with a reason in ``missing`` when the encoder is not available.
        oracle: imitations of test images by the cell's prior; None unless a metric of the track
            ``needs_oracle`` and there is a gallery.
        weights: folder of weight files, if one is configured.
        diagnostics: what the attack says of its steps, by name ``(K, T)``; often empty.
    """

    images: Tensor
    labels: Tensor
    target: nn.Module
    draws: int
    splits: Splits
    evaluation_model: Classifier
    judge: Classifier | None
    gallery: Gallery | None
    embed: Embed | None
    missing: Mapping[str, str]
    device: torch.device
    oracle: Imitations | None = None
    weights: Path | None = None
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """The numbers of a record, by name.

    Attributes:
        values: of the quantities that were computed.
        per_class: mean of each class, of quantities that are ``paired``.
        per_image: value of each sample, class by class.
    """

    values: Mapping[str, float]
    per_class: Mapping[str, Sequence[float]]
    per_image: Mapping[str, Sequence[Sequence[float]]]


class Metric(Component):
    """A family of quantities computed together; subclass :class:`TargetMetric` or :class:`AttackMetric`.

    Attributes:
        quantities: the numbers it gives, by name, in the order in which tables show them.
    """

    quantities: ClassVar[Mapping[str, Quantity]] = {}

    @classmethod
    def contradictions(cls, recorded: Recorded) -> Iterator[str]:
        """What can't be true together of the numbers in a record: a line for each.

        Override it where some quantities follow from others, or from the values of single images.
        """
        yield from ()


class TargetMetric(Metric):
    """A metric of the target alone, computed once a target."""

    @abstractmethod
    def compute(self, evidence: TargetEvidence) -> dict[str, Measurement | str]:
        """A measurement for each name, or the reason (a string) why there is none."""


class AttackMetric(Metric):
    """A metric of reconstructions, computed once a cell.

    Attributes:
        needs_gallery: True when ``gallery`` and ``embed`` are used; tracks without an encoder then
            give null with a reason.
        needs_oracle: True when ``oracle`` is used, which takes a stage of its own for each prior.
    """

    needs_gallery: ClassVar[bool] = False
    needs_oracle: ClassVar[bool] = False

    @abstractmethod
    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """A measurement for each name, or the reason (a string) why there is none."""
