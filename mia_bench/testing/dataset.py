"""Checks of data sets."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.api.dataset import Dataset, Splits
from mia_bench.errors import DataError
from mia_bench.plugins import describe_error
from mia_bench.seeds import derive
from mia_bench.testing.checks import CheckSkipped, Problem, check
from mia_bench.testing.isolation import isolated
from mia_bench.testing.trial import Attempt, Run, Trial

with lazy_imports():
    import torch

    from mia_bench.data import fingerprints
    from mia_bench.protocol import data as protocol
    from mia_bench.testing import world as toy


class DatasetTrial(Trial[Splits]):
    """A data set that is loaded at 16×16 pixels."""

    contract = "mia_bench.Dataset"
    draws_globally = False
    advice: ClassVar = {"repeatable": "Draw by the seed, and sort what is listed"}

    def compute(self, run: Run) -> Splits:
        """Load it.

        Raises:
            CheckSkipped: it reads files, and none are given.
        """
        dataset: Dataset = self.make()
        if dataset.needs_root and self.data is None:
            raise CheckSkipped("it reads files: give their root (data=…, --data)")
        with tempfile.TemporaryDirectory() as folder:
            return dataset.load(
                self.data,
                resolution=toy.RESOLUTION,
                seed=derive(run.seed, "split"),
                progress=run.context.progress,
                scratch=Path(folder) / "scratch",
            )

    def outcome(self, made: Splits) -> Mapping[str, Any]:
        """Images and labels of each part."""
        parts = protocol.present_parts(made).items()
        return {f"{name} images": part.images for name, part in parts} | {
            f"{name} labels": part.labels for name, part in parts
        }


@check("dataset")
def missing_files(trial: DatasetTrial) -> Iterator[Problem]:
    """Where the files are not there, ``fingerprint`` raises a DataError of one line."""
    dataset: Dataset = trial.make()
    if not dataset.needs_root:
        return
    with tempfile.TemporaryDirectory() as folder, isolated(0):
        error = Attempt.of(partial(dataset.fingerprint, Path(folder))).error
    if not isinstance(error, DataError):
        yield (
            f"in an empty folder fingerprint raises {describe_error(error) if error else 'nothing'}",
            "Raise mia_bench.errors.DataError, and say what should lie where",
        )
    elif "\n" in str(error):
        yield "its DataError has several lines", "Say it in one"


def steady(fingerprint: Callable[[], object]) -> Iterator[Problem]:
    """Whether a fingerprint is a text, and the same when it is asked for again."""
    first, second = fingerprint(), fingerprint()
    if first != second or not isinstance(first, str) or not first:
        yield f"its fingerprint is {first!r}, then {second!r}", "Give a hash of what is read"


@check("dataset", name="runs")
def steady_fingerprint(trial: DatasetTrial) -> Iterator[Problem]:
    """Its fingerprint stays the same."""
    _ = trial.base.made
    yield from steady(lambda: trial.make().fingerprint(trial.data))


@check("dataset")
def parts(trial: DatasetTrial) -> Iterator[Problem]:
    """uint8 images of the resolution, int64 labels; every private class has training images."""
    splits = trial.base.made
    try:
        protocol.check_splits(splits, toy.RESOLUTION)
    except DataError as error:
        yield str(error), "See mia_bench.Splits"
    if len(set(splits.class_names)) != len(splits.class_names):
        yield "class_names are not all different", "Name each class once"


@check("dataset")
def disjoint(trial: DatasetTrial) -> Iterator[Problem]:
    """No image is in two parts."""
    prints = {
        name: fingerprints.image_fingerprints(part.images)
        for name, part in protocol.present_parts(trial.base.made).items()
    }
    for first, second in itertools.combinations(prints, 2):
        if count := int(torch.isin(prints[first], prints[second]).sum()):
            yield (
                f"{count} {first} images are {second} images too",
                "Split identities into private, public and decoys first, then images",
            )
