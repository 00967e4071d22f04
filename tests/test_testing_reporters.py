"""The kit's part for reporters: the cell it makes, and what it finds."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import mia_bench_tensorboard
from mia_bench.cell import FinishedCell
from mia_bench.pictures import cell_picture
from mia_bench.record import read_record
from mia_bench.store import Store
from mia_bench.testing import check_component, checks_of, finished_cell
from mia_bench_plugins.reporters import pictures

SHARED = ("data", "prior", "evaluator", "gallery", "train", "assess")


def test_the_cell_is_like_one_that_was_run(cli, toy, store, tmp_path: Path) -> None:
    place = store(*SHARED)
    given = ("--track", "toy", "--defense", "none", "--attack", "prior-sample", "--format", "json")
    (record,) = cli("run", *given, "--device", "cpu").records
    real, made = FinishedCell(read_record(record), Store(place)), finished_cell(tmp_path)
    assert made.record.model_fields_set == real.record.model_fields_set
    arrays, expected = made.arrays(), real.arrays()
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert (array.dtype, array.ndim) == (expected[name].dtype, expected[name].ndim)
    measured = made.store.info("measure", made.key)
    assert measured.keys() == real.store.info("measure", real.key).keys() - {"run", "origin"}
    assert cell_picture(made).size > (0, 0)


@pytest.mark.parametrize("status", ["done", "failed", "skipped", "interrupted"])
def test_the_record_is_valid_and_stored(tmp_path: Path, status: Any) -> None:
    cell = finished_cell(tmp_path, status)
    record = cell.record
    assert cell.store.record("toy-world", cell.key) == cell.record
    assert bool(record.metrics) == (status == "done") == (record.reason is None)


def test_its_numbers_are_those_of_its_images(tmp_path: Path) -> None:
    cell = finished_cell(tmp_path)
    arrays = cell.arrays()
    right = arrays["judged"] == arrays["classes"][:, None]
    assert cell.record.metrics["attack_acc1"].value == pytest.approx(right.mean())
    assert np.allclose(cell.record.per_class["attack_acc1"], right.mean(1))


@pytest.mark.parametrize("module", [pictures, mia_bench_tensorboard])
def test_ours_have_no_findings(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIA_BENCH_TENSORBOARD", raising=False)
    assert check_component(module) == []


def _raises(cell: FinishedCell) -> None:
    if cell.record.status == "done":
        raise RuntimeError("no")


def _expects_numbers(cell: FinishedCell) -> None:
    print(sum(metric.value for metric in cell.record.metrics.values()))


def _makes_folder(cell: FinishedCell) -> None:
    (cell.store.root / cell.key).mkdir()


def _needs_arrays(cell: FinishedCell) -> None:
    cell.arrays()


def _pops(cell: FinishedCell) -> None:
    cell.record.notes["seen"] = cell.record.notes.get("seen", "") + "!"


def _blackens(cell: FinishedCell) -> None:
    if cell.record.status == "done":
        import torch

        images = torch.tensor(cell.arrays()["reconstructions"])
        cell.store.save(
            "invert", cell.store.info("measure", cell.key)["inverted"], {"images": images // 2}, {}
        )


def _seeds(cell: FinishedCell) -> None:
    np.random.seed(3)  # noqa: NPY002


WRONG = {
    _raises: "runs",
    _expects_numbers: "runs",
    _makes_folder: "again",
    _needs_arrays: "unfinished",
    _pops: "untouched",
    _blackens: "untouched",
    _seeds: "global-state",
}


@pytest.mark.parametrize(("hook", "check"), WRONG.items(), ids=lambda x: getattr(x, "__name__", x))
def test_what_is_wrong_is_found(hook: Callable[[FinishedCell], None], check: str) -> None:
    module = ModuleType("wrong_reporter")
    module.mia_bench_cell_finished = hook  # type: ignore[attr-defined]
    findings = check_component(module)
    assert {finding.check for finding in findings} == {check}, "\n".join(map(str, findings))


def test_every_check_finds_something() -> None:
    assert set(WRONG.values()) == set(checks_of(pictures)) - {"light-import"}


def test_the_command_checks_reporters_of_plugins(cli, broken) -> None:
    fine = cli("plugins", "check", "pictures")
    assert (fine.code, fine.out) == (0, "reporter pictures: fine\n")
    wrong = cli("plugins", "check", "raising-reporter")
    assert wrong.code == 1
    assert "the logging service is down (mia_bench_broken_reporter.py:" in wrong.out
    assert "did you mean 'pictures'" in cli("plugins", "check", "picture").err
