"""Checks of reporters: plugins that implement ``mia_bench_cell_finished``."""

from __future__ import annotations

import contextlib
import copy
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, get_args

from etils.epy import lazy_imports

from mia_bench import provenance
from mia_bench.api.metric import Measurement
from mia_bench.cell import FinishedCell
from mia_bench.record import RECORD_SCHEMA, Record, Status
from mia_bench.statistics import estimate
from mia_bench.store import Store
from mia_bench.testing.checks import Problem, check
from mia_bench.testing.isolation import isolated
from mia_bench.testing.trial import Run, Trial, attempt

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor

    from mia_bench.protocol import measurement
    from mia_bench.testing import world as toy

EACH = 2
"""Reconstructions a class."""


def finished_cell(folder: Path, status: Status = "done") -> FinishedCell:
    """A cell of the toy world as reporters get it, in the store ``folder/store``, which is made if missing.

    Samples of the toy prior stand for reconstructions. One metric of the record is null. A cell that is not
    ``done`` has a reason, and neither metrics nor arrays.
    """
    store, done, now = Store(folder / "store"), status == "done", provenance.now()
    key = f"{get_args(Status).index(status):020x}"
    info: dict[str, Any] = {}
    if done:
        images, tensors, info = _measured()
        info["inverted"] = key
        store.save("invert", key, {"images": images}, {})
        store.save("measure", key, tensors, info)
    component = {"distribution": "mia-bench", "version": "1", "options": {}}
    record = Record.model_validate(
        {
            "schema": RECORD_SCHEMA,
            "key": key,
            "track": {"name": "toy-world", "version": 1, "data": "drawn", "protocol": "toy"},
            "defense": {"name": "none", **component},
            "prior": {"name": "toy-prior", **component},
            "attack": {"name": "prior-sample", **component},
            "seed": 0,
            "status": status,
            "reason": None if done else f"a cell that is {status}, for tests",
            "provenance": {
                "mia_bench": provenance.package_version("mia-bench"),
                "git": None,
                "python": provenance.python_version(),
                "torch": provenance.package_version("torch"),
                "device": "cpu",
                "platform": provenance.platform_name(),
                "started": now,
                "finished": now,
            },
            "metrics": info.get("metrics", {}),
            **{name: info.get(name, {}) for name in ("per_class", "class_counts", "per_image")},
            "cost": info.get("costs", {}),
            "notes": info.get("notes", {}),
        }
    )
    store.write_record(record)
    return FinishedCell(record, store)


def _measured() -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
    """Reconstructions, and what their measurement stores: tensors, and the numbers beside them."""
    where = toy.world()
    evidence = where.attack_evidence(torch.device("cpu"), EACH)
    shape = torch.Size((where.classes, EACH, *evidence.images.shape[1:]))
    tensors = measurement.picture_tensors(evidence, shape, seed=0)
    correct = (tensors["judged"] == tensors["classes"][:, None]).double()
    found = estimate(Measurement(correct.flatten().numpy(), evidence.labels.numpy()), share=True)
    return (
        evidence.images.view(shape),
        tensors,
        {
            "metrics": {
                "attack_acc1": vars(found),
                "ece": vars(found.without_interval()),
                "id_acc1": None,
            },
            "per_class": {"attack_acc1": correct.mean(1).tolist()},
            "class_counts": {},
            "per_image": {"attack_hit": correct.int().tolist()},
            "costs": {
                "train_seconds": 1.0,
                "invert_seconds": 0.5,
                "peak_memory_bytes": 1_000_000,
                "target_queries": 0,
            },
            "notes": {"id_acc1": "the toy world's track has no identity encoder"},
            "class_names": list(where.splits.class_names),
        },
    )


class ReporterTrial(Trial[None]):
    """A reporter that is called with cells of the toy world, in an empty folder."""

    advice: ClassVar = {
        "runs": "See mia_bench.cell.FinishedCell; metrics of a record, and their low and high, may be None",
        "again": "Overwrite, or go on with, what is there",
        "unfinished": "Look at record.status first",
        "untouched": "Write elsewhere than in the store's artifacts",
    }
    draws_globally = False

    def compute(self, run: Run) -> None:
        self.call(self.cell)

    def call(self, cell: FinishedCell) -> None:
        """Call it with a cell, as the host does."""
        with contextlib.chdir(self.folder):
            self.component.mia_bench_cell_finished(cell=cell)

    @cached_property
    def folder(self) -> Path:
        """The working directory of its calls; gone after the trial."""
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    @cached_property
    def cell(self) -> FinishedCell:
        """A finished cell."""
        return finished_cell(self.folder)

    @check("reporter")
    def again(self) -> None:
        """It takes a cell again: with ``--rerun`` cells are computed anew."""
        self.rerun()

    @check("reporter")
    def unfinished(self) -> None:
        """It takes cells that failed or were skipped: they have no metrics and no arrays."""
        statuses: tuple[Status, ...] = ("failed", "skipped")
        for status in statuses:
            cell = finished_cell(self.folder, status)
            with isolated(0):
                self.call(cell)

    @check("reporter")
    def untouched(self) -> Iterator[Problem]:
        """It changes neither the record nor what is stored of the cell."""
        cell = self.cell
        _ = self.made
        record, arrays = copy.deepcopy(cell.record), cell.arrays()
        attempt(self.run)
        if cell.record != record:
            yield "it changes the record", "Work on a copy: other reporters get the same object"
            for name in Record.model_fields:
                setattr(cell.record, name, getattr(record, name))
        if not all(np.array_equal(array, arrays[name]) for name, array in cell.arrays().items()):
            yield "it changes what is stored of the cell", self.advice["untouched"]
