"""Checks of data sets."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.api.dataset import Dataset, Splits
from mia_bench.seeds import derive
from mia_bench.testing.checks import CheckSkipped, Problem, check
from mia_bench.testing.trial import Run, Trial, reported_by

with lazy_imports():
    import torch

    from mia_bench.data import fingerprints
    from mia_bench.protocol import data as protocol
    from mia_bench.testing import world as toy


class DatasetTrial(Trial[Splits]):
    """A data set that is loaded at 16×16 pixels."""

    draws_globally = False
    advice: ClassVar = {
        "runs": "See mia_bench.Dataset",
        "repeatable": "Draw by the seed, and sort what is listed",
    }

    def compute(self, run: Run) -> Splits:
        dataset: Dataset = self.make()
        if dataset.needs_root and self.data is None:
            raise CheckSkipped("it reads files, and their root is not given (data=…, --data)")
        with tempfile.TemporaryDirectory() as folder:
            return dataset.load(
                self.data,
                resolution=toy.RESOLUTION,
                seed=derive(run.seed, "split"),
                progress=run.context.progress,
                scratch=Path(folder) / "scratch",
            )

    def outcome(self, made: Splits) -> Mapping[str, Any]:
        parts = protocol.present_parts(made).items()
        images = {f"{name} images": part.images for name, part in parts}
        return images | {f"{name} labels": part.labels for name, part in parts}

    @check("dataset")
    def parts(self) -> Iterator[Problem]:
        """uint8 images of the resolution, int64 labels; every private class has training images."""
        names = self.made.class_names
        with reported_by("parts", "See mia_bench.Splits"):
            protocol.check_splits(self.made, toy.RESOLUTION)
        if len(set(names)) != len(names):
            yield "class_names are not all different", "Name each class once"

    @check("dataset")
    def disjoint(self) -> Iterator[Problem]:
        """No image is in two parts."""
        prints = {
            name: fingerprints.image_fingerprints(part.images)
            for name, part in protocol.present_parts(self.made).items()
        }
        for first, second in itertools.combinations(prints, 2):
            if count := int(torch.isin(prints[first], prints[second]).sum()):
                advice = "Split identities into private, public and decoys first, then images"
                yield f"{count} {first} images are {second} images too", advice
