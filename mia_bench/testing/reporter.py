"""Checks of reporters: plugins that implement ``mia_bench_cell_finished``."""

from __future__ import annotations

import contextlib
import copy
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mia_bench import __version__, provenance
from mia_bench.api.component import component_version
from mia_bench.api.metric import Measurement
from mia_bench.cell import FinishedCell
from mia_bench.models.inference import predict_probabilities
from mia_bench.plugins import describe_error
from mia_bench.record import RECORD_SCHEMA, About, Status
from mia_bench.statistics import estimate
from mia_bench.store import Store
from mia_bench.testing.findings import Attempt, Check, Problem
from mia_bench.testing.isolation import TracedTrial
from mia_bench.testing.world import RESOLUTION, ToyPrior, world

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
    toy = {
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
        "defense": {**toy, "name": "none"},
        "prior": {**toy, "name": "toy-prior", "version": component_version(ToyPrior)},
        "attack": {**toy, "name": "prior-sample"},
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


def _measured() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What the measurement of a cell stores: tensors, and what is noted beside them."""
    where, cpu = world(), torch.device("cpu")
    evidence = where.attack_evidence(cpu, EACH)
    answers = predict_probabilities(evidence.target, evidence.images, device=cpu)
    judged = predict_probabilities(evidence.evaluation_model, evidence.images, device=cpu).argmax(1)
    labels, shape = evidence.labels, (where.classes, EACH)
    right = (judged == labels).numpy().astype(float)
    found = estimate(Measurement(right, labels.numpy()))
    tensors = {
        "reconstructions": evidence.images.view(*shape, 3, RESOLUTION, RESOLUTION),
        "classes": torch.arange(where.classes),
        "examples": where.splits.train.images.view(where.classes, -1, 3, RESOLUTION, RESOLUTION),
        "target_confidence": answers[torch.arange(len(labels)), labels].view(shape),
        "judged": judged.view(shape),
    }
    info = {
        "metrics": {"attack_acc1": asdict(found), "id_acc1": None},
        "per_class": {"attack_acc1": right.reshape(shape).mean(1).tolist()},
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


class ReporterTrial(TracedTrial):
    """A reporter that is told of cells of the toy world, in an empty folder."""

    @cached_property
    def folder(self) -> Path:
        """Where it is told of cells; gone after the trial."""
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    @cached_property
    def cell(self) -> FinishedCell:
        """A finished cell."""
        return finished_cell(self.folder)

    @cached_property
    def base(self) -> Attempt[Any]:
        """The first time it is told."""
        return self.tell(self.cell)

    def tell(self, cell: FinishedCell) -> Attempt[Any]:
        """Tell it of a cell, as the host does."""
        reporter: Any = self.component

        def told_of() -> bool:
            with contextlib.chdir(self.folder), self.traced(0):
                reporter.mia_bench_cell_finished(cell=cell)
            return True

        return Attempt.of(told_of)


def runs(trial: ReporterTrial) -> Iterator[Problem]:
    """It takes a finished cell, of which a metric is null."""
    if trial.base.error is not None:
        yield (
            f"of a finished cell it raised {describe_error(trial.base.error)}",
            "Metrics may be None",
        )


def again(trial: ReporterTrial) -> Iterator[Problem]:
    """It takes a cell that it was told of before: with ``--rerun`` cells are computed anew."""
    _ = trial.base.made
    if error := trial.tell(trial.cell).error:
        yield (
            f"told of a cell a second time it raised {describe_error(error)}",
            "Overwrite, or go on with, what is there",
        )


def unfinished(trial: ReporterTrial) -> Iterator[Problem]:
    """It takes cells that failed or were skipped: they have no metrics and no arrays."""
    statuses: tuple[Status, ...] = ("failed", "skipped")
    for status in statuses:
        if error := trial.tell(finished_cell(trial.folder, status)).error:
            yield (
                f"of a cell that is {status} it raised {describe_error(error)}",
                "Look at record['status'] first",
            )


def untouched(trial: ReporterTrial) -> Iterator[Problem]:
    """It changes neither the record nor what is stored of the cell."""
    cell = trial.cell
    _ = trial.base.made
    record, arrays = copy.deepcopy(cell.record), cell.arrays()
    _ = trial.tell(cell).made
    if cell.record != record:
        yield "it changes the record", "Work on a copy: other reporters get the same object"
        cell.record.update(record)
    stored = Attempt.of(cell.arrays)
    if stored.error is not None or any(
        not np.array_equal(array, arrays[name]) for name, array in stored.made.items()
    ):
        yield (
            "it changes what is stored of the cell",
            "Write elsewhere than in the store's artifacts",
        )


def global_state(trial: ReporterTrial) -> Iterator[Problem]:
    """No global generator is drawn from or seeded, and no setting of torch is changed."""
    yield from trial.traces.problems(draws=True)


TRIAL = ReporterTrial

CHECKS: dict[str, Check] = {
    "runs": runs,
    "again": again,
    "unfinished": unfinished,
    "untouched": untouched,
    "global-state": global_state,
}
