"""Checks of reporters: plugins that implement ``mia_bench_cell_finished``."""

from __future__ import annotations

import contextlib
import copy
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from etils.epy import lazy_imports

from mia_bench import __version__, provenance
from mia_bench.api.metric import Measurement
from mia_bench.cell import FinishedCell
from mia_bench.plugins import describe_error
from mia_bench.record import RECORD_SCHEMA, About, Status
from mia_bench.statistics import estimate
from mia_bench.store import Store
from mia_bench.testing.checks import Problem, check
from mia_bench.testing.isolation import isolated
from mia_bench.testing.trial import Attempt, Run, Trial

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor

    from mia_bench.protocol import measurement
    from mia_bench.testing import world as toy

EACH = 2
"""Reconstructions a class."""


def finished_cell(folder: Path, status: Status = "done") -> FinishedCell:
    """A cell of the toy world as reporters get it, in the store ``folder/store``, made if it is not there.

    Samples of the toy prior stand for reconstructions. A metric of its record is null, as some always are;
    a cell that is not ``done`` has neither metrics nor arrays, but a reason.
    """
    store = Store(folder / "store")
    done = status == "done"
    made: dict[str, Any] = {"metrics": {}, "per_class": {}, "costs": {}, "notes": {}}
    key = f"{('done', 'failed', 'skipped', 'interrupted').index(status):020x}"
    if done:
        tensors, made = _measured()
        store.save("measure", key, tensors, made)
    plain = {
        "distribution": "mia-bench",
        "version": "1",
        "options": {},
        "about": About().model_dump(),
    }
    now = provenance.now()
    record = {
        "schema": RECORD_SCHEMA,
        "key": key,
        "track": {"name": "toy-world", "version": 1, "data": "drawn", "protocol": "toy"},
        "defense": {**plain, "name": "none"},
        "prior": {**plain, "name": "toy-prior", "version": toy.ToyPrior.version},
        "attack": {**plain, "name": "prior-sample"},
        "seed": 0,
        "status": status,
        "reason": None if done else f"a cell that is {status}, for tests",
        "metrics": made["metrics"],
        "per_class": made["per_class"],
        "cost": made["costs"],
        "provenance": {
            "mia_bench": __version__,
            "git": None,
            "python": provenance.python_version(),
            "torch": torch.__version__,
            "device": "cpu",
            "platform": provenance.platform_name(),
            "started": now,
            "finished": now,
            "weights": {},
        },
        "notes": made["notes"],
    }
    store.write_record(record)
    return FinishedCell(record, store)


def _measured() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the measurement of a cell stores: tensors, and what is noted beside them."""
    where = toy.world()
    evidence = where.attack_evidence(torch.device("cpu"), EACH)
    shape = torch.Size((where.classes, EACH, *evidence.images.shape[1:]))
    tensors = measurement.picture_tensors(evidence, shape, seed=0)
    correct = (tensors["judged"] == tensors["classes"][:, None]).double()
    found = estimate(Measurement(correct.flatten().numpy(), evidence.labels.numpy()))
    info = {
        "metrics": {"attack_acc1": asdict(found), "id_acc1": None},
        "per_class": {"attack_acc1": correct.mean(1).tolist()},
        "costs": {
            "train_seconds": 1.0,
            "invert_seconds": 0.5,
            "peak_memory_bytes": 1_000_000,
            "target_queries": 0,
        },
        "notes": {"id_acc1": "the toy world's track has no identity encoder"},
        "class_names": list(where.splits.class_names),
    }
    return tensors, info


class ReporterTrial(Trial[bool]):
    """A reporter that is called with cells of the toy world, in an empty folder."""

    action = "a finished cell"
    contract = "mia_bench.cell.FinishedCell; metrics of a record may be None"
    draws_globally = False

    def compute(self, run: Run) -> bool:
        """Call it with a finished cell."""
        return self.call(self.cell)

    def call(self, cell: FinishedCell) -> bool:
        """Call it with a cell, as the host does."""
        with contextlib.chdir(self.folder):
            self.component.mia_bench_cell_finished(cell=cell)
        return True

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
def again(trial: ReporterTrial) -> Iterator[Problem]:
    """It takes a cell again: with ``--rerun`` cells are computed anew."""
    _ = trial.base.made
    if error := Attempt.of(trial.run).error:
        problem = f"called a second time with a cell it raised {describe_error(error)}"
        yield problem, "Overwrite, or go on with, what is there"


@check("reporter")
def unfinished(trial: ReporterTrial) -> Iterator[Problem]:
    """It takes cells that failed or were skipped: they have no metrics and no arrays."""
    statuses: tuple[Status, ...] = ("failed", "skipped")
    for status in statuses:
        with isolated(0):
            cell = finished_cell(trial.folder, status)
            error = Attempt.of(partial(trial.call, cell)).error
        if error is not None:
            problem = f"called with a cell that is {status} it raised {describe_error(error)}"
            yield problem, "Look at record['status'] first"


@check("reporter")
def untouched(trial: ReporterTrial) -> Iterator[Problem]:
    """It changes neither the record nor what is stored of the cell."""
    cell = trial.cell
    _ = trial.base.made
    record, arrays = copy.deepcopy(cell.record), cell.arrays()
    _ = Attempt.of(trial.run).made
    if cell.record != record:
        yield "it changes the record", "Work on a copy: other reporters get the same object"
        cell.record.update(record)
    stored = Attempt.of(cell.arrays)
    if stored.error is not None or any(
        not np.array_equal(array, arrays[name]) for name, array in stored.made.items()
    ):
        advice = "Write elsewhere than in the store's artifacts"
        yield "it changes what is stored of the cell", advice
