"""Checks of data sets."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch

from mia_bench.api.dataset import Dataset, ImageSet, Splits
from mia_bench.data.fingerprints import image_fingerprints
from mia_bench.errors import DataError
from mia_bench.models.snapshot import equal
from mia_bench.plugins import describe_error
from mia_bench.seeds import derive
from mia_bench.testing.common import steady
from mia_bench.testing.findings import Attempt, Check, NotMade, Problem
from mia_bench.testing.isolation import TracedTrial, isolated
from mia_bench.testing.world import RESOLUTION, quiet

_PRIVATE = ("train", "validation", "test", "judging")
_PARTS = (*_PRIVATE, "public", "decoys")


class DatasetTrial(TracedTrial):
    """A data set that is loaded at 16×16 pixels."""

    @cached_property
    def base(self) -> Attempt[Splits]:
        """The first loading."""
        return Attempt.of(self.load)

    def load(self) -> Splits:
        """Load it, as the host does.

        Raises:
            NotMade: it reads files, and none are given.
        """
        dataset: Dataset = self.make()
        if dataset.needs_root and self.data is None:
            raise NotMade("it reads files: give their root (data=…, --data)")
        with self.traced(0), tempfile.TemporaryDirectory() as folder:
            return dataset.load(
                self.data,
                resolution=RESOLUTION,
                seed=derive(0, "split"),
                progress=quiet,
                scratch=Path(folder) / "scratch",
            )


def parts_of(splits: Splits, names: tuple[str, ...] = _PARTS) -> dict[str, ImageSet]:
    """The parts that are there, by name."""
    found = {name: getattr(splits, name) for name in names}
    return {name: part for name, part in found.items() if part is not None}


def missing_files(trial: DatasetTrial) -> Iterator[Problem]:
    """Where the files are not there, ``fingerprint`` raises a DataError of one line."""
    dataset: Dataset = trial.make()
    if not dataset.needs_root:
        return
    with tempfile.TemporaryDirectory() as folder, isolated(0):
        attempt = Attempt.of(lambda: dataset.fingerprint(Path(folder)))
    if not isinstance(attempt.error, DataError):
        what = describe_error(attempt.error) if attempt.error else "nothing"
        yield (
            f"in an empty folder fingerprint raises {what}",
            "Raise mia_bench.errors.DataError, and say what should lie where",
        )
    elif "\n" in str(attempt.error):
        yield "its DataError has several lines", "Say it in one"


def runs(trial: DatasetTrial) -> Iterator[Problem]:
    """It loads, and its fingerprint stays the same."""
    if trial.base.error is not None:
        yield f"load raised {describe_error(trial.base.error)}", "See the contract of Dataset"
        return
    yield from steady(lambda: trial.make().fingerprint(trial.data), "Give a hash of what is read")


def parts(trial: DatasetTrial) -> Iterator[Problem]:
    """uint8 images of the resolution, int64 labels; every private class has training images."""
    splits = trial.base.made
    classes = splits.num_classes
    for name, part in parts_of(splits).items():
        shape = (len(part), 3, RESOLUTION, RESOLUTION)
        if part.images.dtype != torch.uint8 or tuple(part.images.shape) != shape:
            found = f"{part.images.dtype} {tuple(part.images.shape)}"
            yield f"the {name} images are {found}, not uint8 {shape}", "Resize to resolution"
        if part.labels.dtype != torch.int64 or part.labels.dim() != 1:
            yield f"the {name} labels are {part.labels.dtype}", "Give int64 of shape (N,)"
        elif name in _PRIVATE and len(part) and not 0 <= _widest(part) < classes:
            yield f"the {name} labels are not below {classes}", "Number classes as class_names"
    if classes < 2 or len(set(splits.class_names)) != classes:
        yield "class_names are fewer than two, or not all different", "Name each class once"
    if len(splits.train.labels.unique()) != classes:
        yield "a private class has no training image", "Leave it out of class_names"
    if not len(splits.test):
        yield "there are no test images", "Keep some of every class"


def _widest(part: ImageSet) -> int:
    return int(part.labels.max()) if int(part.labels.min()) >= 0 else -1


def disjoint(trial: DatasetTrial) -> Iterator[Problem]:
    """No image is in two parts."""
    prints = {
        name: image_fingerprints(part.images) for name, part in parts_of(trial.base.made).items()
    }
    for first, second in itertools.combinations(prints, 2):
        if count := int(torch.isin(prints[first], prints[second]).sum()):
            yield (
                f"{count} {first} images are {second} images too",
                "Split identities into private, public and decoys first, then images",
            )


def repeatable(trial: DatasetTrial) -> Iterator[Problem]:
    """Loaded again it is the same."""
    first, second = parts_of(trial.base.made), parts_of(trial.load())
    same = first.keys() == second.keys() and all(
        equal(part.images, second[name].images) and equal(part.labels, second[name].labels)
        for name, part in first.items()
    )
    if not same:
        yield "loaded twice with one seed it differs", "Draw by the seed, and sort what is listed"


def global_state(trial: DatasetTrial) -> Iterator[Problem]:
    """No global generator is drawn from or seeded, and no setting of torch is changed."""
    yield from trial.traces.problems(draws=True)


TRIAL = DatasetTrial

CHECKS: dict[str, Check] = {
    "missing-files": missing_files,
    "runs": runs,
    "parts": parts,
    "disjoint": disjoint,
    "repeatable": repeatable,
    "global-state": global_state,
}
