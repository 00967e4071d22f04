"""What the reporter writes, as TensorBoard itself reads it."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mia_bench_tensorboard
from mia_bench.cell import FinishedCell
from mia_bench.pictures import cell_picture
from mia_bench.record import read_record
from mia_bench.testing import Conformance, finished_cell
from mia_bench_tensorboard import mia_bench_cell_finished, run_folder

test_conformance = Conformance(mia_bench_tensorboard)


def cell(folder: Path, **more: Any) -> FinishedCell:
    """The toy world's, with numbers that are known."""
    made = finished_cell(folder)
    stored = made.record.model_dump(mode="json", by_alias=True)
    record = {
        **stored,
        "prior": {**stored["prior"], "name": "eigen-faces"},
        "seed": 3,
        "metrics": {
            "test_accuracy": {"value": 0.75, "low": 0.5, "high": 0.875, "n": 8},
            "ece": {"value": 0.25, "low": None, "high": None, "n": 8},
            "delta_face": None,
        },
        "cost": {"train_seconds": 1.5, "invert_seconds": None, "target_queries": 12345},
        "provenance": {**stored["provenance"], "finished": "2026-01-02T03:04:05+00:00"},
        "notes": {"delta_face": "no encoder"},
        **more,
    }
    return FinishedCell(read_record(record), made.store)


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


@pytest.fixture(autouse=True)
def _default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIA_BENCH_TENSORBOARD", raising=False)


def test_numbers_intervals_and_costs_are_scalars(tmp_path: Path) -> None:
    done = cell(tmp_path)
    mia_bench_cell_finished(done)
    name = f"none-prior-sample-eigen-faces-seed3-{done.key}"
    events = read(tmp_path / "store/tensorboard/toy-world" / name)
    found = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    assert {tag: [event.value for event in values] for tag, values in found.items()} == {
        "test_accuracy/value": [0.75],
        "test_accuracy/low": [0.5],
        "test_accuracy/high": [0.875],
        "ece/value": [0.25],
        "cost/train_seconds": [1.5],
        "cost/target_queries": [12345],
    }
    assert found["cost/train_seconds"][0].wall_time == 1767323045
    (notes,) = events.Tensors("notes")
    assert notes.tensor_proto.string_val[0].decode() == "- delta_face: no encoder"


def test_the_picture_is_the_cells(tmp_path: Path) -> None:
    done = cell(tmp_path)
    mia_bench_cell_finished(done)
    (image,) = read(run_folder(done)).Images("picture")
    found = Image.open(io.BytesIO(image.encoded_image_string))
    expected = cell_picture(done)
    assert (image.width, image.height) == found.size == expected.size
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_a_cell_computed_anew_replaces_its_run(tmp_path: Path) -> None:
    mia_bench_cell_finished(cell(tmp_path))
    again = cell(tmp_path, cost={"train_seconds": 2.5}, notes={})
    mia_bench_cell_finished(again)
    (event,) = read(run_folder(again)).Scalars("cost/train_seconds")
    assert event.value == 2.5
    assert len(list(run_folder(again).iterdir())) == 1
    mia_bench_cell_finished(cell(tmp_path, status="failed"))
    assert list(run_folder(again).iterdir()) == []


def test_the_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIA_BENCH_TENSORBOARD", str(tmp_path / "else"))
    mia_bench_cell_finished(cell(tmp_path))
    assert len(list((tmp_path / "else/toy-world").iterdir())) == 1
    assert not (tmp_path / "store/tensorboard").exists()


def test_importing_it_imports_neither_tensorboard_nor_torch() -> None:
    code = "import sys, mia_bench_tensorboard; print({'tensorboard', 'torch'} & set(sys.modules))"
    path = [str(Path(sys.modules["mia_bench_tensorboard"].__file__ or "").parent), *sys.path]
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "set()\n"
