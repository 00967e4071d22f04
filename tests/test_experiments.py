"""Experiments: which cells they ask for, how claims are judged, their pages and commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mia_bench.experiments.folder as published
from mia_bench import plugins as plugins_module
from mia_bench.config import load_config
from mia_bench.engine.run import execute
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.experiments.analysis import Answer, answer, judged
from mia_bench.experiments.definition import (
    Experiment,
    experiment_names,
    load_experiment,
    read_experiment,
)
from mia_bench.experiments.pages import figures, index, page
from mia_bench.experiments.planning import cells_of, prepare_experiment
from mia_bench.plugins import host
from mia_bench.record import Record, check_record
from mia_bench.statistics import Effect
from mia_bench.track import load_track

ROOT = Path(__file__).parent.parent

GIVEN: dict[str, Any] = {
    "name": "made",
    "title": "Made",
    "question": "Does it?",
    "method": "By `ppa`.",
    "setting": "Nothing.",
    "axis": "alpha",
    "seeds": 2,
    "tracks": ["toy"],
    "attacks": [{"name": "ppa"}, {"name": "ppa", "options": {"loss": "logit"}}],
    "grid": [
        {"defense": "none", "at": 0.0},
        {"defense": "neg-ls", "options": {"alpha": [-0.5, -0.05]}},
        {"defense": "pos-ls", "options": {"alpha": [0.5]}},
    ],
    "claims": [
        {"text": "Less.", "defense": "neg-ls", "leakage": "less"},
        {"text": "More.", "defense": "pos-ls", "leakage": "more"},
    ],
}


def made(**changes: Any) -> Experiment:
    return Experiment.model_validate({**GIVEN, **changes})


@pytest.fixture(scope="session")
def computed(toy_site: Path, make_once) -> list[Record]:
    """The records of the made experiment on the toy track."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MIA_BENCH_DISABLE_PLUGINS", raising=False)
            patch.syspath_prepend(str(toy_site))
            plugins_module.host.cache_clear()
            config = load_config({"track": "toy", "device": "cpu", "jobs": "1", "store": folder / "store"})
            records = execute(prepare_experiment(made(), config))
            plugins_module.host.cache_clear()
        (folder / "records.json").write_text(json.dumps([record.to_json() for record in records]))

    folder = make_once("experiment", make)
    return [check_record(one, "a record") for one in json.loads((folder / "records.json").read_text())]


def told(experiment: Experiment, records: list[Record]) -> Answer:
    registry = host().registry
    track = load_track(registry, "toy")
    cells = cells_of(experiment, registry, track, range(experiment.seeds), [])
    found = answer(experiment, cells, registry, track, records)
    assert found is not None
    return found


# --- definitions ---------------------------------------------------------------------------------


def test_every_experiment_can_be_planned_on_its_tracks() -> None:
    registry = host().registry
    for name in experiment_names():
        experiment = load_experiment(name)
        for track in experiment.tracks:
            left_out: list[str] = []
            cells = cells_of(experiment, registry, load_track(registry, track), [0, 1], left_out)
            assert left_out == []
            assert len({(one.cell.label) for one in cells}) == len(cells)
            assert [one.cell.seed for one in cells] == sorted(one.cell.seed for one in cells)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 1}, "seeds"),
        ({"grid": [{"defense": "none"}]}, "has either values of 'alpha', or 'at'"),
        ({"grid": [{"defense": "neg-ls", "options": {"alpha": []}}]}, "alpha"),
        ({"claims": [{"text": "?", "defense": "mid", "leakage": "less"}]}, "not in the grid"),
        ({"further": 1}, "further"),
    ],
)
def test_a_definition_that_does_not_fit_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**changes)
    (tmp_path / "broken.toml").write_text("title = ")
    with pytest.raises(MiaBenchError, match=r"experiment broken\.toml: "):
        read_experiment(tmp_path / "broken.toml")
    with pytest.raises(UsageError, match="did you mean 'strength'"):
        load_experiment("strenght")


def test_a_value_that_can_not_be_run_is_left_out_with_the_reason(toy) -> None:
    registry, left_out = host().registry, []
    wrong = made(grid=[*GIVEN["grid"], {"defense": "neg-ls", "options": {"alpha": [0.5]}}])
    cells = cells_of(wrong, registry, load_track(registry, "toy"), [0], left_out)
    assert len(cells) == 4 * 2
    assert len(left_out) == 2
    assert "neg-ls {'alpha': 0.5} × ppa is left out: " in left_out[0]
    assert "less than" in left_out[0]


def test_seeds_that_settings_were_chosen_on_are_refused(toy, tmp_path: Path) -> None:
    config = load_config({"track": "toy", "seed": [1000], "store": tmp_path / "store"})
    with pytest.raises(UsageError, match="seed 1000 is one that settings of 'toy' were chosen on"):
        prepare_experiment(made(), config)


# --- the answer ----------------------------------------------------------------------------------


def effect(value: float, error: float) -> Effect:
    return Effect(value, error, 50.0, 3, 20)


@pytest.mark.parametrize(
    ("effects", "said", "outcome"),
    [
        ([effect(1.0, 0.1), effect(0.3, 0.1)], 1, "seen here"),
        ([effect(-1.0, 0.1), effect(-0.3, 0.1)], -1, "seen here"),
        ([effect(1.0, 0.1), effect(0.1, 0.1)], 1, "unclear"),
        ([effect(1.0, 0.1), effect(-1.0, 0.1)], 1, "unclear"),
        ([effect(-1.0, 0.1), effect(0.0, 0.1)], 1, "not seen here"),
        ([effect(0.0, 0.1)], -1, "not seen here"),
        ([effect(0.0, 0.4)], 1, "unclear"),
        ([], 1, "unclear"),
    ],
)
def test_a_claim_is_seen_only_if_every_attack_shows_it(effects, said: int, outcome: str) -> None:
    assert judged(effects, said, 0.5) == outcome


def test_claims_rest_on_the_mean_over_settings_less_the_baseline(toy, computed: list[Record]) -> None:
    found = told(made(), computed)
    assert found.missing == ()
    assert found.attacks == ("ppa", "ppa (logit)")
    labels = ["neg-ls alpha=-0.5", "neg-ls alpha=-0.05", "none", "pos-ls alpha=0.5"]
    assert [line.label for line in found.lines] == labels
    assert [line.at for line in found.lines] == [-0.5, -0.05, 0.0, 0.5]
    name = found.board.primary

    def means(defense: str, loss: str) -> Any:
        tables = [
            record.per_class[name]
            for record in computed
            if record.defense.name == defense and record.attack.options["loss"] == loss
        ]
        return np.mean(tables)

    less, more = found.tested
    assert (less.settings, more.settings) == (2, 1)
    for loss, label in (("poincare", "ppa"), ("logit", "ppa (logit)")):
        assert less.leakage[label].value == pytest.approx(means("neg-ls", loss) - means("none", loss))
        assert more.leakage[label].value == pytest.approx(means("pos-ls", loss) - means("none", loss))
        assert more.leakage[label].value == pytest.approx(found.lines[3].more[label].value)
    assert less.accuracy is not None
    assert less.missing == 0


def test_with_cells_missing_a_claim_is_unclear(toy, computed: list[Record]) -> None:
    some = [one for one in computed if one.defense.name != "neg-ls" or one.seed == 0]
    found = told(made(), some)
    less, more = found.tested
    assert (less.outcome, less.missing, more.missing) == ("unclear", 4, 0)
    assert len(found.missing) == 4
    assert "4 cells are missing" in page(made(), [found])


def test_without_the_baseline_there_is_no_answer(toy, computed: list[Record]) -> None:
    registry = host().registry
    track = load_track(registry, "toy")
    cells = cells_of(made(), registry, track, [0, 1], [])
    others = [one for one in computed if one.defense.name != "none"]
    assert answer(made(), cells, registry, track, others) is None
    assert answer(made(), cells, registry, track, []) is None


# --- pages and commands --------------------------------------------------------------------------


def test_a_page_holds_the_question_the_answer_and_the_commands(toy, computed: list[Record]) -> None:
    found = told(made(), computed)
    text = page(made(), [found])
    row = "| -0.5 | `neg-ls alpha=-0.5` | 2 |"
    command = "mia-bench experiment run made --track toy"
    for words in ("# Made", "**Question.** Does it?", "By `ppa`.", "*Less.* **", row, command):
        assert words in text
    drawn = figures(made(), found)
    assert sorted(drawn) == ["made-toy-accuracy.svg", "made-toy.svg"]
    assert all(svg.startswith("<svg") for _, svg in drawn.values())
    assert "(figures/made-toy.svg)" in text
    assert "[Made](made.md): Does it?" in index({"made": (made(), [found])})


@pytest.fixture
def only_made(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The made experiment is the only one."""
    monkeypatch.setattr(published, "experiment_names", lambda: ["made"])
    monkeypatch.setattr(published, "load_experiment", lambda name: made())


def test_records_that_a_board_has_are_not_copied(only_made, tmp_path: Path, computed: list[Record]) -> None:
    folder, boards = tmp_path / "experiments", tmp_path / "boards"
    on_board = boards / "results" / "toy" / f"{computed[0].key}.json"
    on_board.parent.mkdir(parents=True)
    on_board.write_text(computed[0].file_text())
    registry = host().registry
    written = published.add(folder, boards, registry, computed)
    assert {path.stem for path in written} == {one.key for one in computed[1:]}
    assert published.add(folder, boards, registry, computed) == []
    names = {path.name for path in published.build(folder, boards, registry)}
    assert names == {"README.md", "made.md", "made-toy.svg", "made-toy-accuracy.svg"}
    assert published.build(folder, boards, registry) == []
    assert "missing" not in (folder / "made.md").read_text()


def test_the_commands_say_what_there_is(cli, tmp_path: Path) -> None:
    listed = cli("experiment", "list")
    assert listed.code == 0
    assert "strength" in listed.out
    planned = cli("experiment", "run", "strength", "--dry-run")
    assert planned.code == 0, planned.err
    assert "pos-ls (alpha=0.5) × ppa" in planned.out
    wrong = cli("experiment", "run", "strenght")
    assert (wrong.code, wrong.err) == (2, "error: no experiment 'strenght'; did you mean 'strength'?\n")
    no_data = cli("experiment", "run", "strength", "--track", "lfw", "--data", tmp_path, "--dry-run")
    assert no_data.code in (1, 2)
    assert no_data.err.startswith("error: ")
    assert no_data.err.count("\n") == 1


def test_the_published_pages_follow_from_the_records() -> None:
    folder = ROOT / "docs" / "experiments"
    found = published.pages(folder, ROOT / "leaderboards", host().registry)
    for path, text in found.items():
        assert path.read_text(encoding="utf-8") == text, path
    drawn = {path for path in found if path.suffix == ".svg"}
    assert set((folder / "figures").glob("*.svg")) == drawn
