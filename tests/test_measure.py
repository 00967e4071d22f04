"""``mia-bench measure``: metrics of stored reconstructions, without attacking again."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

SHARED = ("data", "prior", "gallery", "evaluator")
CELLS = ("--track", "toy", "--defense", "none", "--defense", "neg-ls", "--attack", "ppa", "--device", "cpu")


def test_a_metric_of_the_track_has_the_numbers_of_the_run(cli, toy, store, undisturbed) -> None:
    folder = store(*SHARED, "train", "prepare", "invert")
    outcome = cli("measure", *CELLS, "--format", "json")
    assert (outcome.code, outcome.err) == (0, "") or outcome.code == 0
    cells = json.loads(outcome.out)
    assert [cell["defense"]["name"] for cell in cells] == ["none", "neg-ls"]
    for cell in cells:
        record = undisturbed.records[cell["key"]]
        assert cell["metrics"] == record["metrics"]
        assert cell["notes"].items() <= record["notes"].items()
        assert (cell["seed"], cell["track"]) == (0, "toy")
    made = {path.name for path in (folder / "artifacts").iterdir()}
    assert made == {*SHARED, "train", "prepare", "invert", "metric"}  # no target, no attack, no record
    assert not (folder / "records").exists()


def test_numbers_are_kept_and_need_no_images_then(cli, toy, store) -> None:
    folder = store(*SHARED, "train", "invert")
    first = cli("measure", *CELLS, "--metric", "identification", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(first.out)))
    assert [row["defense"] for row in rows] == ["none", "neg-ls"]
    assert float(rows[0]["id_bits_low"]) <= float(rows[0]["id_bits"]) <= float(rows[0]["id_bits_high"])
    shutil.rmtree(folder / "artifacts" / "invert")
    again = cli("measure", *CELLS, "--metric", "identification", "--format", "csv")
    assert (again.code, again.out) == (0, first.out)
    assert (
        "2 cells of track toy: identification"
        in cli("measure", *CELLS, "--metric", "identification", "--dry-run").out
    )


def test_the_table_has_a_column_for_each_quantity_and_cells_without_images_are_named(cli, toy, store) -> None:
    store(*SHARED, "train", "invert")
    outcome = cli("measure", *CELLS, "--attack", "prior-sample", "--metric", "face-distance")
    assert outcome.code == 0
    header, _, *rows = outcome.out.splitlines()
    assert header.split() == ["cell", "defense", "prior", "attack", "seed", "delta_face"]
    assert len(rows) == 2
    assert "[" in rows[0]
    absent = "no reconstructions are stored of 2 cells, left out: none × prior-sample"
    assert absent in outcome.err


@pytest.mark.slow
def test_references_are_columns_only_where_there_is_nothing_else(cli, toy, store) -> None:
    store(*SHARED, "train", "invert")
    header = cli("measure", *CELLS, "--metric", "identification", "--metric", "prior-oracle").out.split("\n")[
        0
    ]
    assert header.split()[5:8] == ["id_bits", "id_acc1", "id_acc5"]
    assert header.split()[-2:] == ["id_bits_oracle", "id_acc1_oracle"]
    assert "ceiling" not in header


def test_options_of_metrics_are_a_part_of_the_key(cli, toy, store) -> None:
    folder = store(*SHARED, "train", "invert")
    for epochs in (1, 2):
        given = ("--metric", "knowledge-extraction", "-o", f"knowledge-extraction.epochs={epochs}")
        outcome = cli("measure", *CELLS, *given)
        assert "knowledge_extraction_test" in outcome.out
        assert len(list((folder / "artifacts" / "metric").iterdir())) == 2 * epochs


def test_weight_files_of_metrics_are_a_part_of_the_key(cli, toy, store, tmp_path: Path) -> None:
    folder = store(*SHARED, "train", "invert")
    (tmp_path / "weights").mkdir()
    given = ("measure", *CELLS, "--metric", "fid", "--weights", tmp_path / "weights")
    outcome = cli(*given)
    assert outcome.code == 0
    assert "inception_v3_google-0cc3c7bd.pth was not found" in outcome.err
    (tmp_path / "weights" / "inception_v3_google-0cc3c7bd.pth").write_bytes(b"another network")
    assert "2 stages to compute" in cli(*given, "--dry-run").out
    outcome = cli(*given)
    assert outcome.code == 1  # and is never taken for the published one
    assert "its SHA-256 begins with" in outcome.err
    assert len(list((folder / "artifacts" / "metric").iterdir())) == 2


def test_a_metric_of_the_target_needs_no_reconstructions(cli, toy, store, undisturbed) -> None:
    store(*SHARED, "train")
    outcome = cli("measure", *CELLS, "--metric", "utility", "--format", "json")
    for cell in json.loads(outcome.out):
        expected = undisturbed.records[cell["key"]]["metrics"]
        assert cell["metrics"]["test_accuracy"] == expected["test_accuracy"]


def test_the_plan_computes_nothing_and_imports_no_torch(toy, store, spawn) -> None:
    folder = store(*SHARED, "train", "invert")
    before = sorted(folder.glob("artifacts/*/*"))
    process = spawn("measure", *CELLS, "--metric", "identification", "--dry-run")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "2 cells of track toy: identification" in out
    assert "2 stages to compute" in out
    assert err.strip().endswith("imported:")
    assert sorted(folder.glob("artifacts/*/*")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ((), 1, "no reconstructions of these cells are stored: 'mia-bench run' makes them"),
        (("--metric", "identifcation"), 2, "did you mean 'identification'"),
        (("-o", "metric:utility.bins=3"), 2, "bins"),
        (("--attack", "nothing"), 2, "'nothing'"),
        (("--metric", "kid", "-o", "knowledge-extraction.epochs=3"), 2, "which is not computed"),
        (("--attack", "standard"), 2, "--attack standard is a set: name the attacks"),
    ],
)
def test_errors_are_one_line(cli, toy, arguments: tuple[str, ...], code: int, line: str) -> None:
    outcome = cli("measure", *CELLS, *arguments)
    assert outcome.code == code
    (error,) = [one for one in outcome.err.splitlines() if one.startswith("error: ")]
    assert line in error


def test_a_metric_that_fails_is_a_note_and_the_others_are_computed(
    cli, toy, store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mia_bench_plugins.metrics.target_confidence import TargetConfidence

    def broken(self, evidence):
        raise RuntimeError("it broke")

    monkeypatch.setattr(TargetConfidence, "compute", broken)
    store(*SHARED, "train", "invert")
    metrics = ("--metric", "target-confidence", "--metric", "evaluation-classifier")
    outcome = cli("measure", *CELLS, *metrics)
    assert outcome.code == 1
    assert "it broke" in outcome.err
    assert "[" in outcome.out.splitlines()[2]
