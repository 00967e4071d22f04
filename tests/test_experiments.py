"""Experiments: which cells they ask for, how claims are judged, their pages and commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mia_bench
from mia_bench import plugins as plugins_module
from mia_bench.api.metric import Quantity
from mia_bench.cell import FinishedCell
from mia_bench.cli import experiment as command_module
from mia_bench.config import load_config
from mia_bench.engine.rerun import prepare_again
from mia_bench.engine.run import execute
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.experiments import folder as folder_module
from mia_bench.experiments import plane
from mia_bench.experiments.analysis import Answer, Judgement, answer, direction, judged, records_of
from mia_bench.experiments.definition import (
    Experiment,
    experiment_names,
    load_experiment,
    read_experiment,
)
from mia_bench.experiments.folder import Published
from mia_bench.experiments.pages import costs, figures, index, number_rows, page, plane_page
from mia_bench.experiments.planning import Plan, plan_of, prepare_experiment
from mia_bench.leaderboard.admit import changed_checkouts
from mia_bench.leaderboard.board import build_board
from mia_bench.leaderboard.submission import Submission, submit
from mia_bench.leaderboard.verdicts import Margins
from mia_bench.leaderboard.words import change
from mia_bench.plugins import host
from mia_bench.record import MetricValue, Record, check_record
from mia_bench.results import results_table
from mia_bench.statistics import Effect
from mia_bench.store import Store
from mia_bench.track import Variation, load_track
from mia_bench.upkeep.planning import Planner

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent

GIVEN: dict[str, Any] = {
    "name": "made",
    "place": 1,
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
        {"defense": "none", "options": {"epochs": [0.5]}},
    ],
    "claims": [
        {"text": "Less.", "defense": "neg-ls", "says": "less"},
        {"text": "More.", "defense": "pos-ls", "says": "more"},
    ],
}


def made(**changes: Any) -> Experiment:
    return Experiment.model_validate({**GIVEN, **changes})


def run_on_toy(experiment: Experiment, store: Path) -> list[Record]:
    config = load_config({"track": "toy", "device": "cpu", "jobs": "1", "store": store})
    return [record for prepared, _ in prepare_experiment(experiment, config) for record in execute(prepared)]


def kept(make_once: Any, name: str, experiment: Experiment, toy_site: Path) -> list[Record]:
    """The records of an experiment on the toy track, computed once for all processes."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MIA_BENCH_DISABLE_PLUGINS", raising=False)
            patch.syspath_prepend(str(toy_site))
            plugins_module.host.cache_clear()
            records = run_on_toy(experiment, folder / "store")
            plugins_module.host.cache_clear()
        (folder / "records.json").write_text(json.dumps([record.to_json() for record in records]))

    stored = json.loads((make_once(name, make) / "records.json").read_text())
    return [check_record(one, "a record") for one in stored]


@pytest.fixture(scope="session")
def computed(toy_site: Path, make_once) -> list[Record]:
    """The records of the made experiment on the toy track."""
    return kept(make_once, "experiment", made(), toy_site)


def told(experiment: Experiment, records: list[Record]) -> Answer:
    registry = host().registry
    track = load_track(registry, "toy")
    found = answer(experiment, track, plans(experiment), registry, records)
    assert found is not None
    return found


def plans(experiment: Experiment) -> list[Plan]:
    registry = host().registry
    track = load_track(registry, "toy")
    seeds = range(experiment.seeds)
    return [plan_of(experiment, registry, one.of(track), seeds) for one in experiment.variations_on("toy")]


# --- definitions ---------------------------------------------------------------------------------


def test_an_attack_is_run_on_its_tracks(toy) -> None:
    registry = host().registry
    track = load_track(registry, "toy")

    def losses(*tracks: str) -> list[Any]:
        attacks = [{"name": "ppa"}, {"name": "ppa", "options": {"loss": "logit"}, "tracks": tracks}]
        plan = plan_of(made(attacks=attacks, tracks=["toy", "other"]), registry, track, [0])
        return [one.cell.attack.spec()["options"]["loss"] for one in plan.cells]

    assert losses("toy") == losses()
    assert set(losses()) == {"poincare", "logit"}
    assert set(losses("other")) == {"poincare"}


def test_a_claim_about_an_attack_that_is_not_run_on_the_track_is_not_tested(
    toy, computed: list[Record]
) -> None:
    claim = {"text": "Under logit.", "defense": "neg-ls", "says": "less", "attack": {"loss": "logit"}}
    attacks = [{"name": "ppa"}, {"name": "ppa", "options": {"loss": "logit"}, "tracks": ["other"]}]
    changes = {"attacks": attacks, "tracks": ["toy", "other"], "claims": [*GIVEN["claims"], claim]}
    found = told(made(**changes), computed)
    assert [one.claim.text for one in found.tested] == ["Less.", "More."]
    assert "Under logit." not in page(made(**changes), [found], {})
    assert "What surprised" not in page(made(**changes), [found], {})
    assert "**What surprised, and how it was checked.** It did." in page(
        made(**changes, checks="It did."), [found], {}
    )


def test_a_trend_is_between_variants_that_are_run_on_all_tracks() -> None:
    found = varied(variants=[*VARIED["variants"], {"label": "more", "tracks": ["toy"]}])
    assert found.trend_ends == ("2 images", "as it is")
    assert [one.label for one in found.variations_on("toy")][-1] == "more"
    assert len(found.variations_on("other")) == 3


def test_every_experiment_can_be_planned_on_its_tracks() -> None:
    registry = host().registry
    for name in experiment_names():
        experiment = load_experiment(name)
        for track in experiment.tracks:
            plan = plan_of(experiment, registry, load_track(registry, track), [0, 1])
            cells = plan.cells
            assert plan.left_out == ()
            assert len({one.cell.label for one in cells}) == len(cells)
            assert [one.cell.seed for one in cells] == sorted(one.cell.seed for one in cells)


def test_every_experiment_can_be_planned_on_every_track() -> None:
    registry = host().registry
    for experiment in map(load_experiment, experiment_names()):
        for name in registry.names("track"):
            for variation in experiment.variations_on(name):
                track = variation.of(load_track(registry, name))
                plan = plan_of(experiment, registry, track, [0, 1])
                assert plan.left_out == (), (experiment.name, name)
                assert all(one.cell.track.variant == track.variant for one in plan.cells)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 1}, "seeds"),
        ({"grid": [{"defense": "neg-ls", "at": 1, "options": {"alpha": [-1]}}]}, "and 'at' too"),
        ({"grid": [{"defense": "neg-ls", "options": {"alpha": []}}]}, "alpha"),
        ({"claims": [{"text": "?", "defense": "mid", "says": "less"}]}, "not in the grid"),
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


def test_a_value_that_can_not_be_run_is_left_out_with_the_reason(toy, computed: list[Record]) -> None:
    registry = host().registry
    wrong = made(grid=[*GIVEN["grid"], {"defense": "neg-ls", "options": {"alpha": [0.5]}}])
    plan = plan_of(wrong, registry, load_track(registry, "toy"), [0, 1])
    assert len(plan.cells) == 5 * 2 * 2
    (one,) = plan.left_out
    assert one.reason.startswith("neg-ls alpha=0.5 is left out: ")
    assert "less than" in one.reason
    less, more = told(wrong, computed).tested
    assert (less.outcome, less.missing, more.missing) == ("unclear", 1, 0)
    claim = {**GIVEN["claims"][0], "options": {"alpha": -0.5}}
    about_another = wrong.model_copy(update={"claims": made(claims=[claim]).claims})
    assert told(about_another, computed).tested[0].missing == 0


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
        ([effect(-0.2, 0.3)], 1, "not seen here"),  # from -.8 to .4
        ([effect(0.2, 0.3)], 1, "unclear"),
        ([], 1, "unclear"),
        ([Effect(1.0, 0.1, 50.0, 1, 20)], 1, "unclear"),  # one seed
    ],
)
def test_a_claim_is_seen_only_if_every_attack_shows_it(effects, said: int, outcome: str) -> None:
    assert judged(effects, said, 0.5) == outcome


def leaking(records: list[Record], more: dict[str, float]) -> list[Record]:
    """The records with a leakage of about 0.4, and so much more of these defenses, class by class."""
    name, draws, found = told(made(), records).parts[0].board.primary, np.random.default_rng(0), []
    for record in records:
        level = 0.4 + more.get(record.defense.name, 0.0)
        classes = list(level + 0.02 * draws.standard_normal(len(record.per_class[name])))
        value = MetricValue(value=float(np.mean(classes)), low=0.0, high=1.0, n=len(classes))
        update = {
            "per_class": {**record.per_class, name: classes},
            "metrics": {**record.metrics, name: value},
        }
        found.append(record.model_copy(update=update))
    return found


def test_claims_rest_on_the_mean_over_settings_less_the_baseline(toy, computed: list[Record]) -> None:
    records = leaking(computed, {"neg-ls": -0.1})
    found = told(made(), records)
    (part,) = found.parts
    assert found.missing == 0
    assert tuple(part.attacks) == ("ppa", "ppa (logit)")
    labels = ["neg-ls alpha=-0.5", "neg-ls alpha=-0.05", "none", "pos-ls alpha=0.5", "none epochs=0.5"]
    assert [line.label for line in part.lines] == labels
    assert [line.at for line in part.lines] == [-0.5, -0.05, 0.0, 0.5, None]
    name = part.board.primary

    def means(defense: str, loss: str) -> Any:
        tables = [
            record.per_class[name]
            for record in records
            if record.defense.name == defense
            and record.attack.options["loss"] == loss
            and record.defense.options.get("epochs", 1.0) == 1.0
        ]
        return np.mean(tables)

    less, more = found.tested
    assert (less.settings, more.settings) == (2, 1)
    for loss, label in (("poincare", "ppa"), ("logit", "ppa (logit)")):
        assert less.effects[label].value == pytest.approx(means("neg-ls", loss) - means("none", loss))
        assert more.effects[label].value == pytest.approx(means("pos-ls", loss) - means("none", loss))
        assert more.effects[label].value == pytest.approx(part.lines[3].more[label].value)
    assert less.accuracy is not None
    assert less.missing == 0


@pytest.mark.parametrize(
    ("more", "outcomes"),
    [(0.3, ("not seen here", "seen here")), (-0.3, ("seen here", "not seen here"))],
)
def test_less_and_more_are_what_the_claims_say(
    toy, computed: list[Record], more: float, outcomes: tuple[str, str]
) -> None:
    moved = leaking(computed, {"neg-ls": more, "pos-ls": more})
    less, greater = told(made(), moved).tested
    assert (less.outcome, greater.outcome) == outcomes
    assert less.effects["ppa"].value == pytest.approx(more, abs=0.05)
    assert less.beyond["ppa"].value == pytest.approx(more, abs=0.05)  # the whole front leaks 0.4


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_records_of_a_cell_the_newest_counts(toy, computed: list[Record], order: int) -> None:
    older = [
        one.model_copy(update={"provenance": one.provenance.model_copy(update={"finished": "2001-01-01"})})
        for one in leaking(computed, {"neg-ls": 0.3})
    ]
    newer = leaking(computed, {"neg-ls": -0.3})
    (less, _) = told(made(), (older + newer)[::order]).tested
    assert less == told(made(), newer).tested[0]
    assert less.outcome == "seen here"


def test_of_several_records_of_a_cell_those_of_the_conditions_of_most_cells_count(
    toy, computed: list[Record]
) -> None:
    def under(capability: str, records: list[Record]) -> list[Record]:
        changes = {"capability": capability, "finished": "2001-01-01"}
        return [
            one.model_copy(update={"provenance": one.provenance.model_copy(update=changes)})
            for one in records
        ]

    def chosen(records: list[Record], boards: list[Record]) -> tuple[list[str], list[str]]:
        own, on_boards = records_of(plan, registry, track, records, boards)
        return tuple([one.provenance.capability for one in several] for several in (own, on_boards))

    registry = host().registry
    track, (plan,) = load_track(registry, "toy"), plans(made())
    whole, other = under("A", computed), under("B", computed)
    some = [one for one in other if one.seed == 0]
    assert chosen(whole, some) == (["A"] * len(whole), [])
    assert chosen(some, whole) == ([], ["A"] * len(whole))
    assert chosen([], some) == ([], ["B"] * len(some))
    assert chosen(whole[:1], other[1:]) == (["A"], ["B"] * len(other[1:]))
    assert chosen(whole, other) == ([], ["B"] * len(other))  # with equally many those of boards
    assert chosen(other, whole) == ([], ["A"] * len(whole))
    assert chosen(whole, whole) == ([], ["A"] * len(whole))


def test_with_a_seed_missing_a_claim_is_unclear(toy, computed: list[Record]) -> None:
    seen = told(made(), leaking(computed, {"neg-ls": -0.3})).tested[0]
    one_more = told(made(seeds=3), leaking(computed, {"neg-ls": -0.3})).tested[0]
    assert one_more.effects == seen.effects
    assert (seen.outcome, one_more.outcome, one_more.missing) == ("seen here", "unclear", 4)


@pytest.mark.parametrize(
    ("said", "quantity", "better", "sign"),
    [
        ("more", "", "lower", 1),
        ("less", "", "lower", -1),
        # More leakage is less of a distance.
        ("more", "", "higher", -1),
        ("less", "", "higher", 1),
        # Of a quantity that the claim names, more is more.
        ("more", "test_accuracy", "higher", 1),
        ("less", "test_accuracy", "higher", -1),
    ],
)
def test_the_direction_that_a_claim_says(said: str, quantity: str, better: Any, sign: int) -> None:
    claim = made(claims=[{"text": "?", "defense": "neg-ls", "says": said, "quantity": quantity}]).claims[0]
    assert direction(claim, Quantity("?", better=better)) == sign


def test_what_lower_accuracy_explains_is_said() -> None:
    claim, lost = made().claims[0], effect(-0.2, 0.01)
    against = {"ppa": effect(-0.5, 0.1), "gmi": effect(0.5, 0.1), "mirror": effect(0.0, 0.1)}
    margins, bits = Margins(0.5, "bits"), Quantity("leakage", better="lower", kind="bits")
    given = (claim, "", "seen here", 1, 0, "id_bits", bits, {"ppa": lost}, against, lost, margins)
    less = Judgement(*given)
    assert less.verdict == (
        "Seen here, at a cost of accuracy: undefended targets of that accuracy leak more under ppa, "
        "less under gmi, perhaps less, perhaps more, under mirror"
    )
    assert replace(less, accuracy=effect(0.0, 0.1)).verdict == "Seen here"
    assert replace(less, beyond={}).verdict == (
        "Seen here, at a cost of accuracy; not compared with undefended targets of that accuracy"
    )
    assert replace(less, outcome="unclear").verdict == "Unclear"
    assert replace(less, claim=made().claims[1]).verdict == "Seen here"
    mirrored = {name: replace(one, value=-one.value) for name, one in against.items()}
    higher = replace(bits, better="higher")
    assert replace(less, beyond=mirrored, quantity=higher).verdict == less.verdict
    small = replace(less, outcome="not seen here", effects={"ppa": effect(0.1, 0.1), "gmi": effect(0.0, 0.1)})
    assert small.verdict == "Not seen here, at most 0.21 bits"
    opposite = replace(less, outcome="not seen here", effects={"ppa": effect(2.0, 0.1)})
    assert opposite.verdict == "Not seen here, rather the opposite"


def test_a_claim_can_be_about_some_settings(toy, computed: list[Record]) -> None:
    claims = [{"text": "?", "defense": "neg-ls", "says": "less", "options": {"alpha": -0.5}}]
    found = told(made(claims=claims), computed)
    (one,) = found.tested
    assert one.settings == 1
    assert one.effects["ppa"].value == pytest.approx(found.parts[0].lines[0].more["ppa"].value)


def test_what_is_compared_with_no_baseline_is_missing(toy, computed: list[Record]) -> None:
    some = [one for one in computed if one.defense.name != "neg-ls" or one.seed == 0]
    found = told(made(), some)
    less, more = found.tested
    assert (less.outcome, less.missing, more.missing) == ("unclear", 4, 0)
    assert found.missing == 4
    assert "4 cells are missing" in page(made(), [found], {})
    without = [one for one in computed if one.defense.name != "none" or one.seed == 0]
    less, more = told(made(), without).tested
    assert (less.missing, more.missing) == (4, 2)
    elsewhere = [
        one.model_copy(update={"provenance": one.provenance.model_copy(update={"device": "cuda:0: a GPU"})})
        if one.defense.name == "pos-ls" and one.attack.options["loss"] == "logit"
        else one
        for one in computed
    ]
    found = told(made(), elsewhere)
    assert found.missing == 0
    assert (found.tested[1].outcome, found.tested[1].missing) == ("unclear", 2)


def test_without_the_baseline_there_is_no_answer(toy, computed: list[Record]) -> None:
    registry = host().registry
    track = load_track(registry, "toy")
    others = [one for one in computed if one.defense.name != "none"]
    assert answer(made(), track, plans(made()), registry, others) is None
    assert answer(made(), track, plans(made()), registry, []) is None


# --- pages and commands --------------------------------------------------------------------------


def test_a_page_holds_the_question_the_answer_and_the_commands(toy, computed: list[Record]) -> None:
    found = told(made(), computed)
    drawn = figures(made(), found)
    text = page(made(), [found], {"toy": drawn})
    row = "| `neg-ls alpha=-0.5` | 2 |"
    command = "mia-bench experiment run made --track toy"
    for words in ("# Made", "**Question.** Does it?", "By `ppa`.", "*Less.* **", row, command):
        assert words in text
    spent = costs(found)
    assert (spent.cells, spent.attacks) == (
        len(computed),
        round(sum(record.cost.invert_seconds for record in computed) / 60),
    )
    each = {(record.defense.name, str(record.defense.options), record.seed): record for record in computed}
    assert len(each) < len(computed)  # several attacks of each target
    assert spent.training == round(sum(record.cost.train_seconds for record in each.values()) / 60)
    assert (
        f"On `toy` they hold {spent.cells} cells; training their targets took {spent.training} minutes"
        in text
    )
    assert sorted(drawn) == ["made-toy-accuracy.svg", "made-toy.svg"]
    assert all(svg.startswith("<svg") for _, svg in drawn.values())
    assert "(figures/made-toy.svg)" in text
    listed = index([(made(), [found])])
    assert "## [Made](made.md)\n\nDoes it?" in listed
    (line,) = [line for line in listed.splitlines() if "*Less.*" in line]
    assert line.replace("\xa0", " ").endswith(f"**: {effects_in(found)} |")


def test_the_list_has_a_row_for_each_claim_in_each_variant_and_a_column_for_each_track(
    toy, varied_records: list[Record]
) -> None:
    found = told(varied(), varied_records)
    other = replace(
        found, track=found.track.model_copy(update={"name": "other"}), tested=found.tested[1:], missing=3
    )
    lines = index([(varied(), [found, other])]).splitlines()
    start = lines.index("| | `toy` | `other` |")
    rows = [line.split(" | ") for line in lines[start + 2 : start + 9]]
    variants = ("2 images", "wide", "as it is")
    assert [row[0] for row in rows] == [
        *(f"| *{text}* ({variant})" for text in ("Less.", "Turning.") for variant in variants),
        "| *Even less.* (2 images minus as it is)",
    ]
    assert [row[1] == row[2].removesuffix(" |") for row in rows] == [False, *[True] * 6]
    assert lines[start + 10] == "`other`: 3 cells are missing; no claim is decided by them."


def effects_in(found: Answer) -> str:
    """The numbers of the first claim, as the list of experiments shows them."""
    first = found.tested[0]
    return ", ".join(
        f"`{first.name}` {change(first.quantity, effect)} under `{label}`"
        for label, effect in first.effects.items()
    )


@pytest.fixture
def only_made(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The made experiment is the only one."""
    monkeypatch.setattr(folder_module, "load_experiments", lambda: [made()])
    monkeypatch.setattr(command_module, "load_experiment", lambda name: made())


def test_records_of_boards_are_not_copied_and_others_no_longer_needed_are_removed(
    only_made, tmp_path: Path, computed: list[Record]
) -> None:
    folder, boards, registry = tmp_path / "experiments", tmp_path / "boards", host().registry
    with pytest.raises(UsageError, match="name the leaderboards by --boards"):
        Published(folder, boards, registry)
    on_board = boards / "results" / "toy"
    on_board.mkdir(parents=True)
    (on_board / f"{computed[0].key}.json").write_text(computed[0].file_text())
    changed = Published(folder, boards, registry, computed).write()
    results = {path.stem for path in changed if path.suffix == ".json"}
    assert results == {one.key for one in computed[1:]}
    others = {path.name for path in changed if path.suffix != ".json"}
    assert others == {"README.md", "made.md", "made-toy.svg", "made-toy-accuracy.svg"}
    assert Published(folder, boards, registry, computed).write() == []
    assert "missing" not in (folder / "made.md").read_text().partition("A claim is tested")[0]
    (on_board / f"{computed[1].key}.json").write_text(computed[1].file_text())
    assert Published(folder, boards, registry).write() == [folder / "results/toy" / f"{computed[1].key}.json"]
    assert Published(folder, boards, registry).write() == []


def test_a_page_shows_further_tracks_if_asked(
    toy, tmp_path: Path, computed: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = made().model_copy(update={"tracks": ("mnist",)})
    monkeypatch.setattr(folder_module, "load_experiments", lambda: [elsewhere])
    folder, boards = tmp_path / "experiments", tmp_path / "boards"
    (boards / "results").mkdir(parents=True)

    def shown(*tracks: str) -> str:
        pages = Published(folder, boards, host().registry, computed, tracks=tracks).pages()
        return pages[folder / "made.md"]

    assert "## `toy`" not in shown()
    assert shown("toy").count("## `toy`") == shown("toy", "toy").count("## `toy`") == 1
    with pytest.raises(UsageError, match="unknown track 'toi'"):
        shown("toi")


def test_a_record_of_another_protocol_than_most_is_left_out(
    only_made, tmp_path: Path, computed: list[Record]
) -> None:
    folder, boards = tmp_path / "experiments", tmp_path / "boards"
    (boards / "results").mkdir(parents=True)
    track = computed[0].track.model_copy(update={"protocol": "another"})
    given = [*computed[1:], computed[0].model_copy(update={"track": track})]
    Published(folder, boards, host().registry, given).write()
    kept = {path.stem for path in (folder / "results" / "toy").glob("*.json")}
    assert kept == {record.key for record in computed[1:]}


def test_an_experiment_is_run_and_built(only_made, cli, store, tmp_path: Path, monkeypatch) -> None:
    store("data", "prior", "gallery", "evaluator")
    done = cli("experiment", "run", "made", "--device", "cpu", "--jobs", "1", "--store", tmp_path / "store")
    assert done.code == 0, done.err
    assert "neg-ls alpha=-0.5" in done.out
    assert "\nLess. " in done.out
    one = cli("experiment", "run", "made", "--seed", "0", "--device", "cpu", "--store", tmp_path / "store")
    assert "\nMore. Unclear: " in one.out
    (tmp_path / "boards" / "results").mkdir(parents=True)
    where = ("--folder", tmp_path / "experiments", "--boards", tmp_path / "boards")
    with monkeypatch.context() as patch:
        patch.setattr(
            "mia_bench.cli.experiment.changed_checkouts", lambda found: [f"{len(list(found))} doubted"]
        )
        built = cli("experiment", "build", *where, "--store", tmp_path / "store")
    assert (built.code, built.err) == (0, "warning: 20 doubted\n")
    assert "made.md" in built.out
    again = cli("experiment", "build", *where)
    assert (again.out, again.err) == ("", "all pages are up to date\n")


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
    assert no_data.code == 1
    assert no_data.err.startswith("error: ")
    assert no_data.err.count("\n") == 1


def test_the_published_pages_follow_from_the_records() -> None:
    folder = ROOT / "docs" / "experiments"
    published = Published(folder, ROOT / "leaderboards", host().registry)
    assert changed_checkouts(published.records) == []
    found = published.pages()
    for path, text in found.items():
        assert path.read_text(encoding="utf-8") == text, path
    drawn = {path for path in found if path.suffix == ".svg"}
    assert set((folder / "figures").glob("*.svg")) == drawn


# --- variants, further metrics, comparisons of attacks -------------------------------------------

VARIED: dict[str, Any] = {
    "axis": "",
    "figures": ["variants", "forest", "steps", "points"],
    "metrics": ["gradients", "embedding"],
    "show": ["test_accuracy", "attack_acc1", "gradient_cosine", "spread_test"],
    "attacks": [{"name": "ppa"}],
    "grid": [{"defense": "none"}, {"defense": "neg-ls", "options": {"alpha": [-0.5]}}],
    "variants": [
        {"label": "2 images", "images_per_class": 2},
        {"label": "wide", "architecture": {"name": "convnet-small", "options": {"widths": [4, 8]}}},
        {"label": "as it is"},
    ],
    "claims": [
        {"text": "Less.", "defense": "neg-ls", "says": "less"},
        {"text": "Turning.", "defense": "neg-ls", "says": "less", "quantity": "gradient_cosine"},
        {"text": "Even less.", "defense": "neg-ls", "says": "less", "trend": True},
    ],
}


@pytest.fixture(scope="session")
def varied_records(toy_site: Path, make_once) -> list[Record]:
    """The records of an experiment with variants."""
    return kept(make_once, "varied", varied(), toy_site)


def varied(**changes: Any) -> Experiment:
    return made(**{**VARIED, **changes})


def test_variants_that_are_the_same_on_a_track_are_refused(toy, tmp_path: Path) -> None:
    config = load_config({"track": "toy", "store": tmp_path / "store"})
    usual = load_track(host().registry, "toy").data.dataset.options
    name, value = next(iter(usual.items()))
    same = varied(variants=[{"label": "as it is"}, {"label": "another", "dataset": {name: value}}], claims=[])
    with pytest.raises(UsageError, match="variants 'as it is' and 'another' are the same on 'toy'"):
        prepare_experiment(same, config)


def test_each_variant_changes_the_target_alone(toy, varied_records: list[Record]) -> None:
    assert {record.status for record in varied_records} == {"done"}
    found = {record.track.variant for record in varied_records}
    metrics = "metrics: gradients embedding"
    assert found == {
        f"{metrics}; images_per_class: 2",
        f'{metrics}; architecture: {{"name": "convnet-small", "options": {{"widths": [4, 8]}}}}',
        metrics,
    }
    assert len({record.track.protocol for record in varied_records}) == 3
    ceilings = {record.metrics["attack_acc1_ceiling"].value for record in varied_records}
    assert len(ceilings) == 1  # they are measured with one evaluation model
    assert all(record.metrics["gradient_cosine"] for record in varied_records)
    assert all("test_x" in record.per_image for record in varied_records)


def test_the_changes_of_a_variant_are_read_from_its_records(toy, varied_records: list[Record]) -> None:
    experiment, track = varied(), load_track(host().registry, "toy")
    read = {record.track.variant: Variation.read(record.track.variant) for record in varied_records}
    assert {variant: one.of(track).variant for variant, one in read.items()} == {one: one for one in read}
    unlabelled = [one.model_copy(update={"label": ""}) for one in experiment.variations_on("toy")]
    assert all(one in unlabelled for one in read.values())
    assert Variation.read("") == Variation()
    for given in (
        {"images_per_class": 3, "architecture": {"name": "a", "options": {"b": "}; c"}}, "metrics": ("d",)},
        {"dataset": {"a": "};", "b": 3}, "architecture": {"name": "a"}, "fold": 1},
        {"dataset": {"a": {"b": "}; "}}},
        {"architecture": {"name": "a", "options": {"b": "}; dataset: {"}}, "images_per_class": 2},
    ):
        several = Variation(**given)
        assert Variation.read(several.of(track).variant) == several
    for wrong in (
        "steps: 3", "images_per_class: 0", "images_per_class: 2; x", "architecture: {a}", "metrics: a; ",
        'architecture: {"name": "a"}', 'dataset: {"a":1}', "dataset: {}", "metrics:  ",
        "images_per_class: 2\n", "metrics: a  b",
    ):  # fmt: skip
        with pytest.raises(MiaBenchError, match="no variant of a track"):
            Variation.read(wrong)


def test_the_cell_of_a_variant_is_planned_again_from_its_record(
    toy, varied_records: list[Record], tmp_path: Path
) -> None:
    for record in varied_records:
        planned = prepare_again(record, {"device": "cpu", "store": tmp_path})
        assert [one.key for one in planned.cells] == [record.key]
    planner = Planner()
    for record in varied_records:
        assert planner.cell(record).key == record.key


def test_no_board_has_a_variant(toy, varied_records: list[Record], tmp_path: Path) -> None:
    assert submit(varied_records, tmp_path, host().registry) == Submission()
    registry, track = host().registry, load_track(host().registry, "toy")
    with pytest.raises(MiaBenchError, match="its track was changed"):
        build_board(registry, track, varied_records[:1])
    assert Variation().of(load_track(host().registry, "toy")).variant == ""


def test_results_show_variants_and_decide_without_them(
    toy, cli, varied_records: list[Record], computed: list[Record], tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    assert (
        cli("run", "--defense", "none", "--attack", "prior-sample", "--track", "toy", "--store", folder).code
        == 0
    )
    for record in (*varied_records, *computed):
        (folder / "records" / "toy" / f"{record.key}.json").write_text(record.file_text())
    shown = cli("results", "--store", folder)
    assert shown.code == 0
    assert "no verdicts" not in shown.err
    assert "images_per_class: 2" in shown.out
    assert "variant" not in results_table(computed)


def test_claims_are_tested_in_each_variant_and_trends_between_the_first_and_the_last(
    toy, varied_records: list[Record]
) -> None:
    experiment = varied()
    found = told(experiment, varied_records)
    assert [part.variant for part in found.parts] == ["2 images", "wide", "as it is"]
    assert [(one.claim.text, one.variant) for one in found.tested] == [
        *((text, label) for label in ("2 images", "wide", "as it is") for text in ("Less.", "Turning.")),
        ("Even less.", "2 images minus as it is"),
    ]
    first, *_, last, _, trend = found.tested
    assert trend.effects["ppa"].value == pytest.approx(
        first.effects["ppa"].value - last.effects["ppa"].value, abs=1e-6
    )
    train = mia_bench.load_data(track="toy").train
    each = len(train.images) / len(train.labels.unique())
    assert [part.available_images for part in found.parts] == [each] * 3
    turning = found.tested[1]
    assert (turning.name, turning.accuracy is None, turning.beyond) == ("gradient_cosine", False, {})
    text = page(experiment, [found], {})
    for words in (
        "### 2 images",
        "(2 images minus as it is)",
        "`gradient_cosine` under `ppa`",
        "`spread_test`",
    ):
        assert words in text
    drawn = figures(experiment, found)
    assert sorted(drawn) == ["made-toy-points.svg", "made-toy-steps.svg", "made-toy.svg"]
    rows = number_rows(experiment, found.parts[0])
    assert [row["quantity"] for row in rows] == list(experiment.show)
    assert set(rows[0]) == {"quantity", "under", "none", "neg-ls alpha=-0.5", "change, neg-ls alpha=-0.5"}


def test_a_variant_without_a_baseline_is_missing(toy, varied_records: list[Record]) -> None:
    last = [r for r in varied_records if r.track.variant == "metrics: gradients embedding"]
    bases = [r for r in last if r.defense.name == "none"]
    found = told(varied(), [r for r in varied_records if r not in bases])
    assert [part.variant for part in found.parts] == ["2 images", "wide"]
    assert found.missing == 4
    assert not any(one.claim.trend for one in found.tested)
    assert "4 cells are missing" in index([(varied(), [found])])


def test_claims_about_one_setting_have_the_numbers_of_the_table(toy, computed: list[Record]) -> None:
    claim = {"text": "?", "defense": "pos-ls", "says": "more"}
    once, twice = (told(made(claims=[claim] * times), computed) for times in (1, 2))
    line = once.parts[0].lines[3]
    for one in (*once.tested, *twice.tested):
        assert one.effects == dict(line.more)
        assert one.accuracy == line.lost


def test_a_quantity_that_no_metric_gives_is_an_error(toy, varied_records: list[Record]) -> None:
    with pytest.raises(MiaBenchError, match="'nothing', which no metric gives"):
        told(varied(show=["nothing"]), varied_records)
    claims = [{"text": "?", "defense": "neg-ls", "says": "less", "quantity": "nothing"}]
    with pytest.raises(MiaBenchError, match="'nothing', which no metric gives"):
        told(varied(claims=claims), varied_records)


PROBED: dict[str, Any] = {
    "axis": "",
    "figures": ["forest"],
    "compare": "attacks",
    "attacks": [
        {
            "name": "ppa-steps",
            "options": {
                "search": 24, "candidates": 3, "steps": 2, "views": 3,
                "selection": one, "optimisation": one, "final_selection": one,
            },
            "words": f"all on {one}",
        }
        for one in ("undefended", "target")
    ],
    "grid": [{"defense": "neg-ls", "options": {"alpha": [-0.5]}}],
    "claims": [
        {"text": "Less.", "defense": "neg-ls", "says": "less", "attack": {"optimisation": "target"}},
        {"text": "None.", "defense": "neg-ls", "says": "less", "attacks": ["ppa-steps"]},
    ],
}  # fmt: skip


def test_attacks_are_compared_with_the_first_on_the_same_target(toy, tmp_path: Path) -> None:
    experiment = made(**PROBED)
    records = run_on_toy(experiment, tmp_path / "store")
    assert [record.status for record in records] == ["done"] * 4
    assert submit(records, tmp_path / "boards", host().registry) == Submission()
    found = told(experiment, records)
    (part,) = found.parts
    name = part.board.primary
    plain, own = (
        np.mean([r.per_class[name] for r in records if r.attack.options["selection"] == one])
        for one in ("undefended", "target")
    )
    less, every = found.tested
    assert list(part.attacks) == ["all on undefended", "all on target"]
    (label,) = less.effects
    assert label == "all on target"
    assert less.effects[label].value == pytest.approx(own - plain)
    assert every.effects == less.effects
    assert less.missing == every.missing == 0
    assert "the first row for the same target" in page(experiment, [found], {})
    (run,) = mia_bench.run(
        track="toy",
        defense="none",
        attack="ppa",
        options={
            f"ppa.{name}": [str(records[0].attack.options[name])]
            for name in ("search", "candidates", "steps", "views", "learning_rate")
        },
        seed=[1],
        device="cpu",
        store=tmp_path / "store",
    )
    stored = Store(tmp_path / "store")
    images = {
        r.attack.options["selection"]: FinishedCell(r, stored).arrays()["reconstructions"]
        for r in records
        if r.seed == run.seed
    }
    # All steps on the undefended target of this seed are an attack of it.
    assert (images["undefended"] == FinishedCell(run, stored).arrays()["reconstructions"]).all()
    assert (images["undefended"] != images["target"]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": [{"label": "a"}, {"label": "a"}]}, "two variants have one label"),
        ({"axis": ""}, "a figure across an axis needs one"),
        ({"claims": [{"text": "?", "defense": "neg-ls", "says": "less", "trend": True}]}, "several variants"),
        ({"claims": [{"text": "?", "defense": "neg-ls", "says": "less", "attacks": ["gmi"]}]}, "'gmi'"),
        ({"variants": [{"label": "a", "images_per_class": 0}]}, "images_per_class"),
        ({"attacks": [{"name": "ppa", "words": "a"}, {"name": "gmi", "words": "a"}]}, "the same words"),
        ({"attacks": [{"name": "ppa"}], "compare": "attacks"}, "name several"),
        ({"attacks": [{"name": "ppa", "tracks": ["toy"]}]}, "the first attack is run on every track"),
        ({"variants": [{"tracks": ["toy"]}]}, "the first variant is run on every track"),
        ({"attacks": [{"name": "ppa"}, {"name": "gmi", "tracks": ["yot"]}]}, "'yot', which is no track"),
        (
            {"attacks": [{"name": "ppa"}, {"name": "gmi", "tracks": ["toy"]}], "compare": "attacks"},
            "name several",
        ),
    ],
)
def test_a_definition_of_variants_that_does_not_fit_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**changes)


# --- the plane -----------------------------------------------------------------------------------


def smaller_plane(**changes: int) -> plane.Plane:
    """Of less training and fewer steps than the published one."""
    whole = plane.load()
    settings = whole.settings.model_copy(update={"epochs": 30, "steps": 20, **changes})
    return whole.model_copy(update={"settings": settings, "seeds": 2})


SMALLER = smaller_plane()


@pytest.fixture
def small_plane(make_once) -> plane.PlaneRecord:
    def make(folder: Path) -> None:
        made = plane.compute(SMALLER, host().registry, [3, 1], lambda done, total, unit: None)
        (folder / "plane.json").write_text(made.text())

    return plane.read(make_once("plane", make) / "plane.json")


def test_a_plane_of_other_settings_is_refused(small_plane: plane.PlaneRecord) -> None:
    with pytest.raises(MiaBenchError, match="run it again"):
        plane.findings(smaller_plane(steps=21), small_plane)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": [{"defense": "none"}, {"defense": "pos-ls", "options": {"alpha": [0.1, 0.2]}}]}, "several"),
        ({"claims": [{"text": "?", "defense": "none", "quantity": "accuracy", "says": "less"}]}, "'none'"),
        (
            {"claims": [{"text": "?", "defense": "neg-ls", "quantity": "id_bits", "says": "less"}]},
            "'id_bits'",
        ),
        ({"settings": {**SMALLER.settings.model_dump(), "steps": 3}}, "steps"),
        ({"settings": {**SMALLER.settings.model_dump(), "classes": 11}}, "classes"),
        ({"grid": [{"defense": "pos-ls", "options": {"alpha": [0.1]}}]}, "undefended"),
        ({"claims": [{**SMALLER.claims[0].model_dump(), "options": {"alpha": 0.9}}]}, "nothing else"),
    ],
)
def test_a_definition_of_a_plane_that_does_not_fit_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plane.Plane.model_validate({**SMALLER.model_dump(), **changes})


def test_the_plane_compares_each_target_with_the_undefended_one(small_plane: plane.PlaneRecord) -> None:
    found = plane.findings(SMALLER, small_plane)
    assert [one.label for one in found] == ["none", "pos-ls alpha=0.1", "neg-ls alpha=-1"]
    for number, (target, _) in enumerate(SMALLER.targets):
        runs = [run for run in small_plane.runs if run.defense == target]
        assert [run.seed for run in runs] == [3, 1]
        wanted = np.mean([run.means["end_distance"] for run in runs])
        assert found[number].means["end_distance"].value == pytest.approx(wanted)
        assert all(-1 <= value <= 1 for run in runs for value in run.means["gradient_cosine"])
    change = found[1].changes["end_distance"].value
    assert change == pytest.approx(
        found[1].means["end_distance"].value - found[0].means["end_distance"].value
    )
    text = plane_page(SMALLER, small_plane)
    for one in plane.told(SMALLER, found):
        assert one.text in text
    assert plane.figure(SMALLER, small_plane).count("<polyline") == 3 * 5 * plane.DRAWN


RESULTS = Path(__file__).parents[1] / "docs" / "results"


def test_on_other_seeds_the_claims_about_the_plane_have_the_outcomes_that_its_page_says() -> None:
    experiment = plane.load()
    published, other = (
        plane.read(path)
        for path in (
            RESULTS.parent / "experiments" / "results" / "plane.json",
            RESULTS / "plane-other-seeds.json",
        )
    )
    assert {run.seed for run in published.runs}.isdisjoint(run.seed for run in other.runs)
    claims, again = (
        plane.told(experiment, plane.findings(experiment, record)) for record in (published, other)
    )
    assert [one.outcome for one in claims[:2]] == [one.outcome for one in again[:2]]
    assert (claims[2].outcome, again[2].outcome) == ("seen here", "unclear")
    assert again[2].effect.value == pytest.approx(claims[2].effect.value, abs=0.002)


def test_the_check_of_robustness_says_what_its_numbers_say() -> None:
    targets = json.loads((RESULTS / "robustness-apgd.json").read_text())["targets"]

    def said(key: str, *defenses: str) -> str:
        found = [100 * one[key] for one in targets if one["defense"] in defenses]
        assert len(found) == 3 * len(defenses)
        return f"{min(found):.0f} to {max(found):.0f} %"

    text = load_experiment("side-effects").checks
    assert f"({said('robust_2', 'neg-ls')}, without smoothing {said('robust_2', 'none')})" in text
    assert f"({said('robust_1', 'neg-ls', 'none')})" in text


def test_the_surface_is_what_the_network_answers() -> None:
    class Halves(torch.nn.Module):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            x, y = points.unbind(-1)
            return torch.stack([x * 0, x + 1e-3, y * (y > 0) * 100], dim=-1)

    rows = plane._surface(Halves(), 6.0)
    assert len(rows) == len(rows[0]) == plane.CELLS
    assert rows[0] == "2" * plane.CELLS  # the top
    assert set(rows[-1][: plane.CELLS // 2 - 1]) == {"0"}
    assert set(rows[-1][plane.CELLS // 2 + 1 :]) == {"1"}


def test_a_record_of_the_plane_that_was_changed_is_refused(
    small_plane: plane.PlaneRecord, tmp_path: Path
) -> None:
    path = tmp_path / "plane.json"
    path.write_text(small_plane.text().replace('"seed": 1', '"seed": 2', 1))
    with pytest.raises(MiaBenchError, match=r"plane\.json: its hash differs"):
        plane.read(path)
    path.write_text("{}")
    with pytest.raises(MiaBenchError, match="its hash"):
        plane.read(path)
    few = small_plane.model_copy(update={"runs": small_plane.runs[:3]})
    with pytest.raises(MiaBenchError, match="fewer than two seeds"):
        plane.findings(SMALLER, few)


def test_the_plane_is_run_and_built(only_made, cli, tmp_path: Path, monkeypatch) -> None:
    small = smaller_plane(epochs=20, steps=10)
    monkeypatch.setattr(plane, "load", lambda: small)
    store = tmp_path / "store"
    planned = cli("experiment", "run", "plane", "--dry-run", "--store", store)
    assert (planned.code, store.exists()) == (0, False)
    other = cli("experiment", "run", "plane", "--track", "toy", "--store", store)
    assert (other.code, other.err) == (2, "error: experiment 'plane' has no track: leave out --track\n")
    single = cli("experiment", "run", "plane", "--seed", 4, "--store", store)
    assert (single.code, single.err) == (2, "error: an interval needs at least two seeds\n")
    others = cli("experiment", "run", "plane", "--seed", 4, "--seed", 0, "--store", store)
    assert (others.code, "is not kept" in others.err) == (0, True)
    assert not plane.place_in(store).exists()
    done = cli("experiment", "run", "plane", "--store", store)
    assert done.code == 0, done.err
    assert "neg-ls alpha=-1" in done.out
    (tmp_path / "boards" / "results").mkdir(parents=True)
    where = ("--folder", tmp_path / "experiments", "--boards", tmp_path / "boards")
    built = cli("experiment", "build", *where, "--store", store)
    assert built.code == 0, built.err
    for name in ("results/plane.json", "plane.md", "figures/plane.svg"):
        assert (tmp_path / "experiments" / name).exists()
    assert "(plane.md)" in (tmp_path / "experiments" / "README.md").read_text()
    again = cli("experiment", "build", *where)
    assert (again.out, again.err) == ("", "all pages are up to date\n")
