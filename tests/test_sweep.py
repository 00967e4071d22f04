"""``mia-bench sweep``: which cells it asks for, what it says of them, and its figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from mia_bench import Defense
from mia_bench.config import load_config
from mia_bench.engine.run import Prepared
from mia_bench.engine.sweep import prepare_sweep
from mia_bench.errors import UsageError
from mia_bench.leaderboard.aggregate import Missing
from mia_bench.leaderboard.sweeps import figure, outcome, rows_of
from mia_bench.registry import Registry
from mia_bench.statistics import Estimate
from mia_bench.track import Track, load_track
from test_leaderboard import make_record, make_registry, metric, part, read

SMALL = ("-o", "neg-ls.alpha=-0.1", "-o", "neg-ls.alpha=-1", "-o", "none.epochs=0.5", "-o", "none.images=0.5")


def planned(tmp_path: Path, *options: str, **given: Any) -> Prepared:
    chosen = {"track": "toy", "defense": ["neg-ls"], "options": options, "store": tmp_path / "store", **given}
    return prepare_sweep(load_config(chosen))


def settings(prepared: Prepared) -> list[str]:
    return list(dict.fromkeys(one.cell.defense.label for one in prepared.cells))


# --- the cells -----------------------------------------------------------------------------------


def test_a_defense_is_swept_over_its_strengths_beside_the_undefended_front(toy, tmp_path: Path) -> None:
    prepared = planned(tmp_path)
    found = settings(prepared)
    assert found[:3] == ["neg-ls (alpha=-0.01)", "neg-ls", "neg-ls (alpha=-0.1)"]
    assert found[7:9] == ["none", "none (epochs=0.7)"]
    assert "none (images=0.4)" in found
    assert {one.cell.seed for one in prepared.cells} == {1000}  # those of the track's set
    assert {one.cell.attack.label for one in prepared.cells} == {"ppa"}  # its default attacks


def test_without_names_all_defenses_that_state_strengths_are_swept(toy, tmp_path: Path) -> None:
    names = {label.partition(" ")[0] for label in settings(planned(tmp_path, defense=[]))}
    assert names == {"none", "neg-ls", "pos-ls", "mid", "bido", "dp-sgd"}  # the toy defenses state none


def test_given_values_replace_strengths_and_the_matched_baseline_is_run_too(toy, tmp_path: Path) -> None:
    given = ("dp-sgd.epsilon=8", "dp-sgd.epsilon=50", "none.epochs=0.5", "dp-sgd.learning_rate=0.01")
    prepared = planned(tmp_path, *given, defense=["dp-sgd"], seeds=2)
    assert settings(prepared) == [
        "dp-sgd (epsilon=8.0, learning_rate=0.01)",
        "dp-sgd (learning_rate=0.01)",
        "none",
        "none (epochs=0.5)",
        "none (images=0.7)",
        "none (images=0.4)",
        "none (norm=group)",
    ]
    assert [one.cell.seed for one in prepared.cells] == [0] * 7 + [1] * 7
    front = planned(tmp_path, "none.epochs=0.5", "none.images=0.5", defense=["none"])
    assert settings(front) == ["none", "none (epochs=0.5)", "none (images=0.5)"]
    product = planned(tmp_path, defense=["bido"])
    assert len([label for label in settings(product) if label.startswith("bido")]) == 6


def test_attacks_are_those_given_or_the_whole_set(toy, tmp_path: Path) -> None:
    several = planned(tmp_path, *SMALL[1::2], "ppa.steps=1", attack=["ppa", "toy-label-only"])
    assert {one.cell.attack.label for one in several.cells} == {"ppa (steps=1)", "toy-label-only"}
    whole = planned(tmp_path, *SMALL[1::2], attack=["standard"])
    assert len({one.cell.attack.label for one in whole.cells}) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"defense": ["toy-noise"]},
            "'toy-noise' states no strengths to sweep over: give values, -o toy-noise.",
        ),
        (
            {"options": ["mid.beta=1"]},
            "an option is set for the defense 'mid', which this sweep does not use",
        ),
        ({"attack": ["standard"], "options": ["ppa.steps=1"]}, "options of the attack 'ppa' can't be set"),
        ({"attack": ["standard", "ppa"]}, "give it alone"),
        ({"track": "synth-faces", "attack": ["pppa"]}, "unknown attack 'pppa'"),
    ],
)
def test_what_can_not_be_swept_is_said(toy, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    options = given.pop("options", ())
    with pytest.raises(UsageError) as raised:
        planned(tmp_path, *options, **given)
    assert message in str(raised.value)


def test_strengths_of_another_form_are_refused() -> None:
    with pytest.raises(TypeError, match="strengths"):
        type("Wrong", (Defense,), {"strengths": {"alpha": 0.1}})


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_prints_a_table_and_draws_a_figure(toy, cli, tmp_path: Path) -> None:
    path = tmp_path / "figure.svg"
    words = ("sweep", "--track", "toy", "--defense", "neg-ls", *SMALL, "--device", "cpu", "--output", path)
    dry = cli(*words, "--dry-run")
    assert dry.code == 0
    assert "5 cells of track toy, 0 done before" in dry.out
    done = cli(*words)
    assert done.code == 0
    table = done.out.splitlines()
    assert table[0].split()[0] == "setting"
    assert [line.split("  ")[0] for line in table[2:7]] == [
        "neg-ls alpha=-0.1",
        "neg-ls alpha=-1.0",
        "none",
        "none epochs=0.5",
        "none images=0.5",
    ]
    assert table[-1] == f"figure: {path}"
    assert ET.fromstring(path.read_text()).tag.endswith("svg")
    again = cli(*words, "--format", "json")
    assert len(json.loads(again.out)) == 5
    assert "stages to compute" not in again.err


# --- the outcome, from records -------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


@pytest.fixture
def track(registry: Registry) -> Track:
    return load_track(registry, "little")


def swept(
    defense: str, accuracy: float, leakage: dict[str, float], seed: int, **more: Any
) -> list[dict[str, Any]]:
    """A setting under several attacks."""
    made = []
    for number, (attack, value) in enumerate(leakage.items()):
        record = make_record(defense, seed, gallery=value, **more)
        if record["status"] == "done":
            record["metrics"]["validation_accuracy"] = metric(accuracy)
        steps = {"steps": 7} if attack == "aim" else {"steps": 8}
        made.append(record | {"attack": part("aim", **steps), "key": f"{record['key'][:-1]}{number}"})
    return made


def test_each_setting_is_shown_under_its_strongest_attack(registry: Registry, track: Track) -> None:
    made = []
    for seed in (1000, 1001):
        made += swept("plain", 0.9, {"aim": 0.6, "other": 0.5}, seed)
        made += swept("guard", 0.85, {"aim": 0.2, "other": 0.4}, seed, options={"alpha": 0.5})
        made += swept("guard", 0.8, {"aim": 0.3, "other": 0.1}, seed, options={"alpha": 0.9})
    failed = {"status": "failed", "reason": "it broke", "metrics": {}, "per_class": {}}
    made += swept("guard", 0, {"aim": 0}, 1000, options={"alpha": 2.0}, **failed)
    found = outcome(registry, track, read(*made))
    assert found is not None
    assert (found.accuracy.title, found.leakage.title) == ("validation_accuracy", "id_gallery_acc1")
    shown = [(row.label, row.role, row.attack) for row in found.rows]
    assert shown == [
        ("guard alpha=0.5", "defense", "aim (steps=8)"),
        ("guard alpha=0.9", "defense", "aim"),
        ("guard alpha=2.0", "defense", ""),
        ("plain", "front", "aim"),
    ]
    leakages = [row.leakage.value for row in found.rows if isinstance(row.leakage, Estimate)]
    assert leakages == pytest.approx([0.4, 0.3, 0.6])
    assert found.rows[2].leakage == Missing("it broke")
    table = rows_of(found)
    assert table[2] == {
        "setting": "guard alpha=2.0",
        "validation_accuracy": "–",
        "Δ (points)": "",
        "id_gallery_acc1": "–",
        "under": "",
        "chosen at": "",
        "reason": "it broke",
    }
    # The rule counts the track's own attack only: at ten points the second leaks more under it.
    assert [row["chosen at"] for row in table] == ["1, 3, 10 points", "", "", ""]
    svg = ET.fromstring(figure(found))
    titles = [one.text for one in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert {"guard alpha=0.5", "guard alpha=0.9", "plain"} <= set(titles)
    assert "guard alpha=2.0" not in titles


def test_without_numbers_there_is_no_outcome(registry: Registry, track: Track) -> None:
    failed = {"status": "failed", "reason": "it broke", "metrics": {}, "per_class": {}}
    assert outcome(registry, track, read(make_record("plain", 1000, **failed))) is None
