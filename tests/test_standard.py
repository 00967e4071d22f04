"""``--attack standard``: the whole set on the tuning seeds, then the strongest on the seeds of the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import mia_bench
from mia_bench.config import RunConfig
from mia_bench.engine import stages, standard
from mia_bench.engine.run import Prepared, execute, prepare
from mia_bench.engine.standard import outcome_table
from mia_bench.record import Record
from mia_bench.registry import PluginInfo, Registry
from mia_bench.testing import check_track
from mia_bench.track import Standard, StandardAttack, Track, load_track
from mia_bench_plugins.attacks.ppa import PlugAndPlay

RUN = ("run", "--track", "toy", "--attack", "standard", "--device", "cpu")


@pytest.fixture(scope="module")
def finished(toy_site: Path, make_once: Callable[..., Path]) -> Path:
    """A store in which a third-party defense met the standard set on seed 3."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(toy_site))
            mia_bench.plugins.host.cache_clear()
            given = {"track": "toy", "defense": "toy-noise", "attack": "standard", "seed": 3}
            mia_bench.run(**given, device="cpu", store=folder)  # type: ignore[arg-type]
            mia_bench.plugins.host.cache_clear()

    return make_once("standard", make)


def planned(store: Path, **more: object) -> Prepared:
    given = {"track": "toy", "defense": "toy-noise", "attack": "standard", "seed": 3, "store": store}
    return prepare(RunConfig(**{**given, **more}))  # type: ignore[arg-type]


def cells(records: list[Record]) -> list[tuple[str, dict, int, str]]:
    return [
        (r.attack.name, {k: r.attack.options[k] for k in r.attack.about.changed}, r.seed, r.status)
        for r in records
    ]


@pytest.mark.slow
def test_the_set_meets_tuning_seeds_and_the_strongest_the_seeds_of_the_run(toy, finished: Path) -> None:
    prepared = planned(finished)
    assert not prepared.open_cells
    assert prepared.chosen
    records = execute(prepared)
    assert cells(records) == [
        ("ppa", {"steps": 0}, 1000, "done"),
        ("ppa", {}, 1000, "done"),
        ("toy-label-only", {}, 1000, "done"),
        ("toy-needs-critic", {}, 1000, "skipped"),
        ("ppa", {}, 3, "done"),
        ("ppa", {"steps": 0}, 3, "done"),
    ]
    assert prepared.standard is not None
    [outcome] = prepared.standard.outcomes(prepared.cached)
    assert outcome.defense == "toy-noise"
    leakage = {one.attack.label: one.leakage for one in outcome.strongest.candidates}
    name = outcome.strongest.quantity
    told = {r.attack.name: r.metrics[name].value for r in records[1:3]}  # type: ignore[union-attr]
    assert (leakage["ppa"], leakage["toy-label-only"]) == (told["ppa"], told["toy-label-only"])
    assert outcome.strongest.candidates[-1].reason == "seed 1000: needs a prior with a discriminator"
    assert outcome.values == {
        "ppa (steps=0)": records[5].metrics[name].value,  # type: ignore[union-attr]
        "ppa": records[4].metrics[name].value,  # type: ignore[union-attr]
    }
    assert "| toy-noise | ppa (steps=0)" in " ".join(
        outcome_table(prepared.standard, records, "markdown").split()
    )


def test_an_attack_that_lacks_a_seed_of_the_run_has_no_number(toy, finished: Path) -> None:
    for seeds, there in (((3,), True), ((3, 4), False)):
        prepared = planned(finished, seed=seeds)
        assert prepared.standard is not None
        [outcome] = prepared.standard.outcomes(prepared.cached)
        assert outcome.strongest.chosen is not None
        assert (outcome.values["ppa"] is not None) == there


def test_every_defense_is_compared_with_the_undefended_target(toy, finished: Path, monkeypatch) -> None:
    compare, calls = standard.compare, []

    def told(*given):
        calls.append((given[-1], compare(*given)))
        return calls[-1][1]

    monkeypatch.setattr(standard, "compare", told)
    prepared = planned(finished, defense=("toy-noise", "none"))
    assert prepared.standard is not None
    first, second = prepared.standard.outcomes(prepared.cached)
    [(nothing, undefended), (baseline, noise)] = calls
    assert nothing is None
    assert baseline is undefended
    assert (first.defense, first.strongest, second.strongest) == ("toy-noise", noise, undefended)


def test_suspected_masking_is_a_remark_in_the_table_and_explained_below(
    toy, cli, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*RUN, "--defense", "toy-noise", "--seed", 3, "--store", finished)
    assert "masking" not in cli(*words).out
    compare = standard.compare
    masked = "toy-label-only recovers 0.300; ppa 0.200"
    monkeypatch.setattr(standard, "compare", lambda *given: replace(compare(*given), masking=masked))
    shown = cli(*words)
    assert shown.out.splitlines()[2].endswith("gradient masking suspected")
    [note] = [line for line in shown.err.splitlines() if "masking" in line]
    assert note.startswith("note: toy-noise: gradient masking suspected: ")
    assert "; ppa " in note


def test_what_is_not_known_yet_is_planned_as_the_most_it_can_be(toy, tmp_path: Path) -> None:
    prepared = planned(tmp_path / "store", defense=("none", "toy-noise"), seed=(3, 4))
    assert not prepared.chosen
    assert len(prepared.cells) == 2 * 4 + 2 * 2
    assert prepared.standard is not None
    assert prepared.standard.further({}) == []
    assert [[len(cells) for cells in several] for several in prepared.standard.possible.values()] == [
        [2, 2, 2]
    ] * 2


def test_a_run_that_was_stopped_goes_on_with_the_strongest(
    toy, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    last = planned(store).cells[-1]
    (store / "records" / "toy" / f"{last.key}.json").unlink()
    shutil.rmtree(store / "artifacts" / "measure" / last.key)
    computed: list[str] = []
    run_stage = stages.run_stage
    monkeypatch.setattr(
        stages, "run_stage", lambda stage, space: computed.append(stage.name) or run_stage(stage, space)
    )
    prepared = planned(store)
    assert prepared.open_cells == [prepared.cells[-1]]
    assert [record.status for record in execute(prepared)] == ["done"] * 3 + ["skipped"] + ["done"] * 2
    assert computed == ["measure"]


@pytest.mark.slow
def test_what_is_run_again_is_computed_once(
    toy, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    computed: list[str] = []
    run_stage = stages.run_stage
    monkeypatch.setattr(
        stages, "run_stage", lambda stage, space: computed.append(stage.key) or run_stage(stage, space)
    )
    execute(planned(store, rerun="always"))
    assert computed
    assert len(set(computed)) == len(computed)


def test_the_command_prints_both_phases_and_one_table(toy, cli, finished: Path, tmp_path: Path) -> None:
    phase = "phase 1: 4 attacks on seed 1000, 1 default attack on seed 3\n"
    dry = cli(*RUN, "--defense", "toy-noise", "--seed", 3, "--dry-run")
    assert dry.code == 0
    assert phase in dry.out
    assert "  ppa (default)\n  toy-label-only\n" in dry.out
    assert (
        "phase 2: the strongest against each defense on seed 3, if no default one: up to 1 cell more"
        in dry.out
    )
    assert "phase 2: up to about " in dry.out
    known = cli(*RUN, "--defense", "toy-noise", "--seed", 3, "--dry-run", "--store", finished)
    assert "phase 2: the strongest against each defense on seed 3\n  toy-noise: ppa (steps=0)\n" in known.out
    assert "6 cells of track toy, 6 done before" in known.out
    shown = cli(*RUN, "--defense", "toy-noise", "--seed", 3, "--store", finished)
    assert shown.code == 0
    assert shown.out.split()[:3] == ["defense", "strongest", "attack"]
    assert phase in shown.err
    records = cli(*RUN, "--defense", "toy-noise", "--seed", 3, "--store", finished, "--format", "json")
    assert [record["seed"] for record in json.loads(records.out)] == [1000] * 4 + [3, 3]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--attack", "ppa"], "give it without another attack"),
        (["--prior", "eigenfaces"], "give it without a prior"),
        (["-o", "ppa.steps=2"], "options of the attack 'ppa' can't be set"),
        (["-o", "eigenfaces.components=8"], "options of the prior 'eigenfaces' can't be set"),
        (["--seed", "1000"], "seed 1000 is a tuning seed"),
        (["--track", "toy-lfw"], "track 'toy-lfw' has no standard set of attacks (tracks that have one:"),
    ],
)
def test_what_does_not_go_with_the_set_is_said(
    toy, cli, tmp_path: Path, more: list[str], message: str
) -> None:
    outcome = cli(*RUN, "--defense", "none", "--data", tmp_path, *more)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_no_attack_can_have_the_name_of_the_set(toy, cli) -> None:
    registry, plugin = Registry(), PluginInfo("mine", "mine-dist", "1", "mine")
    with pytest.raises(ValueError, match="'standard' is reserved"):
        registry.add("attack", "standard", PlugAndPlay, "", plugin)
    registry.add("defense", "standard", "mine:Defense", "", plugin)
    outcome = cli("run", "--track", "toy", "--attack", "standart")
    assert outcome.code == 2
    assert "did you mean 'standard'" in outcome.err


def test_a_set_that_names_what_is_not_installed_is_an_error(toy, monkeypatch, tmp_path: Path) -> None:
    original = load_track(mia_bench.plugins.host().registry, "toy")
    assert original.standard is not None
    for attack, reason in (
        (StandardAttack(name="nothing", default=True), "unknown attack 'nothing'"),
        (StandardAttack(name="ppa", options={"speed": 3}, default=True), "no option 'speed'"),
        (StandardAttack(name="ppa", prior="nothing", default=True), "unknown prior 'nothing'"),
    ):
        standard = original.standard.model_copy(update={"attacks": (attack,)})
        wrong: Track = original.model_copy(update={"standard": standard})
        monkeypatch.setattr("mia_bench.engine.run.load_track", lambda *_, wrong=wrong: wrong)
        with pytest.raises(
            mia_bench.errors.MiaBenchError, match="the standard set of track 'toy': "
        ) as raised:
            planned(tmp_path / "store")
        assert reason in str(raised.value)


def test_describe_shows_the_set_and_the_kit_checks_it(toy, cli, monkeypatch) -> None:
    text = cli("describe", "toy").out
    assert (
        "standard set of attacks, version 1, tuning seeds 1000:\n    ppa (steps=0)\n    ppa (default)\n"
        in text
    )
    track = load_track(mia_bench.plugins.host().registry, "toy")
    wrong = Standard(version=1, attacks=(StandardAttack(name="ppa", options={"speed": 3}, default=True),))
    changed = track.model_copy(update={"standard": wrong})
    monkeypatch.setattr("mia_bench.testing.track.load_track", lambda *_: changed)
    [finding] = check_track("toy")
    assert "standard set, ppa (speed=3): ppa has no option 'speed'" in finding.problem
