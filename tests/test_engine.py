"""Grid, plan and executor: what is in a key, what runs once, what a failure stops."""

import dataclasses
import errno
import json
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mia_bench
from mia_bench import jsonfile, provenance
from mia_bench import store as store_module
from mia_bench.api.attack import Attack
from mia_bench.cell import FinishedCell
from mia_bench.components import parse_option_values
from mia_bench.config import RunConfig
from mia_bench.engine import scheduler
from mia_bench.engine import stages as stages_module
from mia_bench.engine.estimate import (
    FALLBACK_SECONDS,
    LOADED_SECONDS,
    CostEstimate,
    CostModel,
    estimates,
    makespan,
)
from mia_bench.engine.plan import STAGE_VERSIONS, PlannedCell, pending_stages
from mia_bench.engine.progress import PlainProgress
from mia_bench.engine.run import execute, prepare
from mia_bench.engine.scheduler import Interrupted
from mia_bench.errors import CorruptArtifact, MiaBenchError, StoreError, UsageError
from mia_bench.record import read_record
from mia_bench.registry import PluginInfo, Registry
from mia_bench.store import Store
from mia_bench.testing import finished_cell
from mia_bench.track import Track
from mia_bench_plugins.attacks.ppa import PlugAndPlay
from mia_bench_plugins.datasets.synth_faces import SynthFaces
from mia_bench_plugins.encoders.synth_encoder import SynthEncoder
from mia_bench_plugins.metrics.identification import Identification
from mia_bench_plugins.metrics.utility import Utility
from mia_bench_plugins.models.convnet_small import ConvNetSmall
from mia_bench_plugins.models.resnet_small import ResNetSmall
from stored import read_json, write_json

SHARED = ("data", "prior", "evaluator", "gallery")
TRAINED = (*SHARED, "train", "assess")
ALL = (*TRAINED, "prepare", "invert", "measure")


@pytest.fixture
def plan(toy, tmp_path: Path) -> Callable[..., list[PlannedCell]]:
    """Plan a toy grid; none against ppa unless told."""

    def make(*options: str, **changes) -> list[PlannedCell]:
        given = {"track": "toy", "defense": ["none"], "attack": ["ppa"], "options": options}
        return prepare(RunConfig(**{**given, "store": tmp_path / "store", **changes})).cells

    return make


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kind of stage is computed."""
    counts: Counter[str] = Counter()
    run_stage = stages_module.run_stage

    def counting(stage, workspace) -> None:
        counts[stage.name] += 1
        run_stage(stage, workspace)

    monkeypatch.setattr(stages_module, "run_stage", counting)
    return counts


def run(tmp_path: Path, defenses, attacks, **more) -> list[dict]:
    records = mia_bench.run(
        track="toy",
        defense=defenses,
        attack=attacks,
        device="cpu",
        store=tmp_path / "store",
        **more,
    )
    return [record.to_json() for record in records]


# --- estimates -----------------------------------------------------------------------------------


def test_estimates_are_of_the_same_component_before(plan, monkeypatch, tmp_path: Path) -> None:
    validate = Track.model_validate
    seconds = {"train": 10, "invert": 20, "invert.ppa": 30}
    monkeypatch.setattr(Track, "model_validate", lambda d: validate({**d, "seconds": seconds}))
    store = Store(tmp_path / "store")
    cells = plan(defense=["none", "mid"], attack=["ppa", "prior-sample"], seeds=[0, 1])
    stages = {
        (cell.cell.defense.name, cell.cell.attack.name, cell.cell.seed): cell.measure.inputs for cell in cells
    }

    def estimated(defense: str, attack: str, seed: int, stage: str) -> float:
        chosen = stages[defense, attack, seed][stage]
        return estimates(store, [chosen])[chosen.id].seconds

    assert estimated("none", "ppa", 0, "invert") == 30
    assert estimated("none", "prior-sample", 0, "invert") == 20
    assert estimated("mid", "ppa", 0, "train") == 10
    assert estimated("mid", "ppa", 0, "gallery") == FALLBACK_SECONDS
    for stage, taken in (
        (stages["mid", "ppa", 0]["train"], 7.0),
        (stages["none", "ppa", 0]["invert"], 5.0),
    ):
        run = {"seconds": taken, "track": "toy", "subject": stage.subject}
        store.save(*stage.id, {}, {"run": run})
    assert estimated("mid", "ppa", 1, "train") == 7
    assert estimated("none", "ppa", 1, "train") == pytest.approx(10 * 0.7)  # this machine's pace
    assert estimated("mid", "ppa", 1, "invert") == 5
    assert estimated("mid", "prior-sample", 1, "invert") == pytest.approx(20 * 5 / 30)


def test_a_prior_whose_weights_are_there_takes_no_training(plan, tmp_path: Path) -> None:
    store, prior = Store(tmp_path / "store"), plan()[0].measure.inputs["invert"].inputs["prior"]
    loaded = dataclasses.replace(prior, spec={**prior.spec, "weights": "abc"})
    estimated = estimates(store, [prior, loaded])
    assert (estimated[prior.id].seconds, estimated[loaded.id].seconds) == (FALLBACK_SECONDS, LOADED_SECONDS)


def test_what_a_stage_took_makes_the_next_estimates(cli, toy, store, monkeypatch) -> None:
    store("data", "evaluator", "gallery", "prior")
    told: list[float] = []
    begins = PlainProgress.stage_begins

    def noted(self, stage, seconds: float) -> None:
        told.extend([seconds] if stage.name == "train" else [])
        begins(self, stage, seconds)

    monkeypatch.setattr(PlainProgress, "stage_begins", noted)
    cli("run", "--track", "toy", "--defense", "none", "--attack", "prior-sample", "--seeds", "2")
    assert told[0] == FALLBACK_SECONDS
    assert 0 < told[1] < FALLBACK_SECONDS


@pytest.mark.parametrize(
    ("seconds", "commit", "said"),
    [(0.0, "1234-dirty", True), (0.0, "1234", False), (1e9, "1234-dirty", False)],
)
def test_a_long_run_from_a_changed_checkout_says_what_its_records_are_worth(
    cli, toy, store, monkeypatch, seconds: float, commit: str, said: bool
) -> None:
    store("data", "evaluator", "gallery", "prior", "prepare")
    monkeypatch.setattr(scheduler, "LONG", seconds)
    monkeypatch.setattr(provenance, "git_commit", lambda: commit)
    done = cli("run", "--track", "toy", "--defense", "none", "--attack", "prior-sample")
    assert (done.code, "note: this checkout has uncommitted changes" in done.err) == (0, said), done.err


def test_estimates_are_of_the_same_settings_where_they_were_computed(plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    long, short, other = (
        plan(option, prior=priors)[0].measure.inputs["invert"]
        for option, priors in (
            ("ppa.steps=3", ()),
            ("ppa.steps=0", ()),
            ("ppa.steps=3", ["wgan-gp"]),
        )
    )
    for stage, seconds in ((long, 90.0), (short, 10.0)):
        run = {"seconds": seconds, "track": "toy", "subject": "ppa", "settings": stage.settings_hash}
        store.save(*stage.id, {}, {"run": run})
    found = estimates(store, [long, short, other])
    assert [(one.seconds, one.source) for one in found.values()] == [
        (90, "earlier runs"),
        (10, "earlier runs"),
        (50, "other settings"),
    ]
    again = plan("ppa.steps=0", seeds=[1])[0].measure.inputs["invert"]
    assert estimates(store, [again])[again.id].seconds == 10


def test_on_a_slower_machine_estimates_adapt_within_one_stage(plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    cells = plan(defense=["none", "mid"], attack=["ppa"], seeds=[0, 1])
    trains = {(c.cell.defense.name, c.cell.seed): c.measure.inputs["train"] for c in cells}
    for defense, seconds in (("none", 10.0), ("mid", 20.0)):
        stage = trains[defense, 0]
        run = {"seconds": seconds, "track": "toy", "subject": defense, "settings": stage.settings_hash}
        store.save(*stage.id, {}, {"run": run})
    model = CostModel(store, trains.values())
    assert model.of(trains["mid", 1]).seconds == 20
    model.learn(trains["none", 1], 30.0)
    assert model.of(trains["mid", 1]).seconds == 60
    found = model.of(trains["none", 0])
    assert (found.seconds, found.source) == (30, "this run")


def test_only_the_latest_runs_count(plan, tmp_path: Path) -> None:
    store, train = Store(tmp_path / "store"), plan()[0].measure.inputs["train"]
    for number in range(20):
        run = {"seconds": 100.0 if number < 11 else 10.0, "track": "toy", "subject": "none"}
        store.save("train", f"{number:020}", {}, {"run": {**run, "finished": f"2026-01-{number + 1:02}"}})
    assert estimates(store, [train])[train.id].seconds == 10


def test_the_time_of_a_plan_is_that_of_its_stages_side_by_side(plan) -> None:
    cells = plan(defense=["none", "mid", "pos-ls"], attack=["prior-sample"])
    todo, _ = pending_stages([cell.measure for cell in cells], lambda name, key: False)
    costs = {"data": 1.0, "train": 10.0, "invert": 2.0}
    seconds = {stage.id: costs.get(stage.name, 0.0) for stage in todo}
    assert makespan(todo, seconds, 1) == 1 + 3 * 12
    assert makespan(todo, seconds, 2) == 1 + 10 + 2 + 10 + 2
    assert makespan(todo, seconds, 9) == 1 + 12


def test_estimates_of_disk_and_gpu_memory_are_of_what_was_measured_before(
    plan, monkeypatch, tmp_path: Path
) -> None:
    validate = Track.model_validate
    rough = {"megabytes": {"invert": 3}, "gpu_megabytes": {"invert": 900, "invert.mine": 1}}
    monkeypatch.setattr(Track, "model_validate", lambda d: validate({**d, **rough}))
    store, invert = Store(tmp_path / "store"), plan()[0].measure.inputs["invert"]
    train = invert.inputs["train"]

    def estimated(stage) -> CostEstimate:
        return estimates(store, [stage])[stage.id]

    nothing = "nothing like it ran"
    assert estimated(train) == CostEstimate(FALLBACK_SECONDS, None, None, nothing)
    assert estimated(invert) == CostEstimate(FALLBACK_SECONDS, 3e6, 900e6, nothing)
    assert estimated(invert.inputs["prepare"]) == CostEstimate(FALLBACK_SECONDS, None, 900e6, nothing)
    tensors = {"images": torch.zeros(1000)}
    for seconds, device in ((5.0, "cpu (2 threads)"), (7.0, "cuda:0: a GPU")):
        run = {"seconds": seconds, "track": "toy", "subject": "ppa", "device": device}
        run |= {"peak_memory": 1000 * seconds}
        store.save("invert", f"{seconds:020}", tensors, {"run": run})
    found = estimated(invert)
    assert found.seconds == 6
    assert found.gpu_memory == 7000  # a process's on a CPU says nothing of a GPU's
    assert found.disk is not None
    assert 4000 < found.disk < 4200


# --- keys ----------------------------------------------------------------------------------------


def test_keys_of_a_cell_and_its_stages_are_20_hexadecimal_digits(plan) -> None:
    (cell,) = plan()
    for stage in cell.measure.upstream():
        assert len(stage.key) == 20
        assert int(stage.key, 16) >= 0


@pytest.mark.parametrize(
    ("options", "unchanged"),
    [
        (["ppa.steps=2"], {"data", "prior", "evaluator", "gallery", "train", "assess"}),
        (["eigenfaces.components=23"], {"data", "evaluator", "gallery", "train", "assess"}),
        (["dataset:synth-faces.noise=0.04"], set()),
    ],
)
def test_option_changes_the_keys_of_what_it_reaches_and_no_other(plan, options, unchanged) -> None:
    keys, changed = ({s.id for s in cells[0].measure.upstream()} for cells in (plan(), plan(*options)))
    assert {name for name, _ in keys & changed} == unchanged


def test_defense_option_changes_the_target_not_the_shared_stages(plan) -> None:
    first, second = (
        {s.id for s in plan(o, defense=["neg-ls"])[0].measure.upstream()}
        for o in ("neg-ls.alpha=-0.05", "neg-ls.alpha=-0.06")
    )
    assert {name for name, _ in first & second} == set(SHARED)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"attack": ["ppa"]}, "ppa.steps=3"),  # the track's default
        ({"attack": ["ppa"]}, "ppa.truncation=0.5"),  # the class's default
        ({"attack": ["ppa"]}, "ppa.betas=[0.1, 0.1]"),
        ({"defense": ["neg-ls"]}, "neg-ls.alpha=-0.05"),
        ({"defense": ["neg-ls"]}, "neg-ls.alpha=-5e-2"),
        ({}, "eigenfaces.components=24"),
    ],
)
def test_default_given_explicitly_is_the_same_cell(plan, changes, option: str) -> None:
    assert plan(option, **changes)[0].key == plan(**changes)[0].key


def test_seed_changes_target_and_attack_but_not_what_the_track_shares(plan) -> None:
    first, second = plan(seeds=[0, 1])
    same = {s.id for s in first.measure.upstream()} & {s.id for s in second.measure.upstream()}
    assert {name for name, _ in same} == set(SHARED)


def test_device_store_and_order_are_not_in_the_key(plan, tmp_path: Path) -> None:
    keys = [cell.key for cell in plan(defense=["none", "neg-ls"], attack=["ppa", "prior-sample"])]
    assert len(set(keys)) == 4
    again = plan(
        defense=["neg-ls", "none"],
        attack=["prior-sample", "ppa"],
        device="cpu",
        store=tmp_path / "elsewhere",
    )
    assert {cell.key for cell in again} == set(keys)
    assert [cell.key for cell in again] != keys


def test_path_of_the_data_is_not_in_the_key_but_its_content_is(plan, make_tree, tmp_path: Path) -> None:
    counts = {f"p{i}": 4 for i in range(6)}
    for name in ("a", "b", "c"):
        make_tree(tmp_path / name, {**counts, **({"p9": 1} if name == "c" else {})})
    keys = [plan(track="toy-folder", data=tmp_path / name)[0].key for name in ("a", "b", "c")]
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]


def test_place_inside_the_data_root_is_not_in_key_or_record(plan, make_tree, tmp_path: Path) -> None:
    counts = {f"p{i}": 4 for i in range(6)}
    for name in ("one", "two"):
        make_tree(tmp_path / "data" / name, counts)
    planned = [
        plan(f"dataset:folder.path={name}", track="toy-folder", data=tmp_path / "data")[0]
        for name in ("one", "two")
    ]
    assert planned[0].key == planned[1].key
    assert "path" not in planned[0].data_fingerprint


def test_protocol_digest_changes_with_what_rows_share_and_nothing_else(plan, monkeypatch) -> None:
    protocol = plan()[0].protocol
    assert len(protocol) == 12
    others = plan("ppa.steps=1", "neg-ls.alpha=-1", defense=["none", "neg-ls"], seeds=[3])
    assert {cell.protocol for cell in others} == {protocol}
    for component in (ResNetSmall, ConvNetSmall, SynthFaces, SynthEncoder, Identification, Utility):
        with monkeypatch.context() as patch:
            patch.setattr(component, "version", "other")
            assert plan()[0].protocol != protocol
    with monkeypatch.context() as patch:
        patch.setattr(SynthEncoder, "fingerprint", lambda self, weights: "other weights")
        assert plan()[0].protocol != protocol


def test_version_of_the_track_or_of_a_stage_changes_the_key(plan, monkeypatch) -> None:
    key = plan()[0].key
    with monkeypatch.context() as patch:
        patch.setitem(STAGE_VERSIONS, "prior", STAGE_VERSIONS["prior"] + 1)
        assert plan()[0].key != key
    assert plan()[0].key == key
    validate = Track.model_validate
    with monkeypatch.context() as patch:
        patch.setattr(Track, "model_validate", lambda data: validate({**data, "version": 4}))
        assert plan()[0].key != key


def test_texts_and_estimates_of_a_track_are_not_in_the_key(plan, monkeypatch) -> None:
    key = plan()[0].key
    validate = Track.model_validate
    words = {"summary": "other words", "protocol": "more", "seconds": {"train": 1000}}
    monkeypatch.setattr(Track, "model_validate", lambda data: validate({**data, **words}))
    assert plan()[0].key == key


def toy_modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "mia_bench_toy"]


def test_source_of_a_plugin_without_a_version_is_in_the_key(
    plan, sites, toy_site: Path, monkeypatch, tmp_path: Path
) -> None:
    shutil.copytree(toy_site, tmp_path / "site")
    for name in toy_modules():
        monkeypatch.delitem(sys.modules, name)
    sites(tmp_path / "site")
    key = plan(defense=["toy-noise"])[0].key
    source = tmp_path / "site" / "mia_bench_toy" / "defense.py"
    text = source.read_text("utf-8")
    source.write_text(text + "\n# edited\n", encoding="utf-8")
    assert plan(defense=["toy-noise"])[0].key != key
    source.write_text(text, encoding="utf-8")
    assert plan(defense=["toy-noise"])[0].key == key
    for name in toy_modules():  # of the copy: other tests must not find them
        del sys.modules[name]


# --- shared stages -------------------------------------------------------------------------------


def test_stages_that_cells_share_are_planned_once(plan) -> None:
    cells = plan(defense=["none", "neg-ls"], attack=["ppa", "toy-prepared"], seeds=[0, 1])
    todo, cached = pending_stages([cell.measure for cell in cells], lambda name, key: False)
    assert cached == []
    assert Counter(stage.name for stage in todo) == {
        **dict.fromkeys(SHARED, 1),
        "train": 4,
        "assess": 4,
        "prepare": 8,
        "invert": 8,
        "measure": 8,
    }
    place = {stage.id: number for number, stage in enumerate(todo)}
    for stage in todo:
        assert all(place[needed.id] < place[stage.id] for needed in stage.inputs.values())


def test_cached_stage_hides_what_is_above_it(plan) -> None:
    (cell,) = plan()
    stored = {s.id for s in cell.measure.upstream() if s.name in ("invert", "assess")}
    todo, cached = pending_stages([cell.measure], lambda *stage: stage in stored)
    assert {stage.name for stage in cached} == {"invert", "assess"}
    assert "prior" not in {stage.name for stage in todo}  # only the attack needed it


def test_a_preparation_changes_no_key(plan, monkeypatch) -> None:
    (cell,) = plan()
    monkeypatch.setattr(PlugAndPlay, "prepare", Attack.prepare)
    (whole,) = plan()
    assert cell.key == whole.key
    assert {stage.id for stage in cell.measure.upstream()} - {s.id for s in whole.measure.upstream()} == {
        cell.measure.inputs["invert"].inputs["prepare"].id
    }


def test_grid_computes_shared_stages_once(toy, store, computed, tmp_path: Path) -> None:
    store("prior")
    records = run(tmp_path, ["none", "toy-noise"], ["prior-sample", "toy-label-only"])
    assert [record["status"] for record in records] == ["done"] * 4
    assert computed == {
        "data": 1,
        "evaluator": 1,
        "gallery": 1,
        "train": 2,
        "assess": 2,
        "invert": 4,
        "measure": 4,
    }


def test_every_defense_meets_the_same_candidates(undisturbed) -> None:
    made = {
        record["defense"]["name"]: FinishedCell(read_record(record), Store(undisturbed.store)).arrays()
        for record in undisturbed.records.values()
        if record["attack"]["name"] == "toy-prepared"
    }
    assert (made["none"]["reconstructions"] == made["neg-ls"]["reconstructions"]).all()


def test_reconstructions_are_stored_once(undisturbed) -> None:
    opened = Store(undisturbed.store)
    for key, record in undisturbed.records.items():
        arrays = FinishedCell(read_record(record), opened).arrays()
        images = opened.arrays("invert", opened.info("measure", key)["inverted"])["images"]
        assert (arrays["reconstructions"] == images).all()
        assert "reconstructions" not in opened.arrays("measure", key)


def test_a_cell_that_an_earlier_version_stored_has_its_reconstructions(tmp_path: Path) -> None:
    cell = finished_cell(tmp_path)
    arrays, info = cell.arrays(), cell.store.info("measure", cell.key)
    shutil.rmtree(cell.store.root / "artifacts" / "invert")
    with pytest.raises(CorruptArtifact, match="invert artifact"):
        cell.arrays()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    cell.store.save("measure", cell.key, tensors, {n: v for n, v in info.items() if n != "inverted"})
    assert all((found == arrays[name]).all() for name, found in cell.arrays().items())


def test_a_record_holds_class_means_that_agree_with_its_metrics(undisturbed) -> None:
    for record in undisturbed.records.values():
        for name in ("attack_acc1", "id_gallery_acc1"):
            means = record["per_class"][name]
            assert len(means) > 2
            average = sum(means) / len(means)
            assert average == pytest.approx(record["metrics"][name]["value"], abs=1e-5)


def test_a_record_names_every_commit_and_device_behind_it(toy, store, tmp_path: Path) -> None:
    folder = store(*ALL)
    run(tmp_path, "none", "ppa")
    for path in folder.glob("artifacts/train/*/meta.json"):
        meta = json.loads(path.read_text())
        meta["info"]["run"] |= {"git": "abc-dirty", "device": "cuda:0: a GPU"}
        path.write_text(jsonfile.file_text(jsonfile.seal(meta)))
    shutil.rmtree(folder / "records")
    (again,) = run(tmp_path, "none", "ppa")
    threads = torch.get_num_threads()
    cpu = f"cpu ({threads} thread{'s' if threads != 1 else ''})"
    assert again["provenance"]["device"] == f"{cpu}, cuda:0: a GPU"
    assert "abc-dirty" in again["provenance"]["git"].split(", ")


def test_a_record_names_the_weights_that_nothing_of_it_trained(undisturbed) -> None:
    for record in undisturbed.records.values():
        assert record["provenance"]["weights"] == {"gallery": SynthEncoder().fingerprint(None)}


def test_the_attack_goes_on_where_its_preparation_ended(toy, monkeypatch, tmp_path: Path) -> None:
    began, ended = {}, {}

    def watched(step: str) -> None:
        method = getattr(PlugAndPlay, step)

        def drawn(attack, task):
            began[step] = [task.generator.get_state(), torch.get_rng_state()]
            torch.rand(3)  # as a target that answers at random does
            result = method(attack, task)
            ended[step] = [task.generator.get_state(), torch.get_rng_state()]
            return result

        monkeypatch.setattr(PlugAndPlay, step, drawn)

    watched("prepare")
    watched("invert")
    run(tmp_path, "none", "ppa")
    for before, after, then in zip(began["prepare"], ended["prepare"], began["invert"], strict=True):
        assert not torch.equal(before, after)
        assert torch.equal(after, then)


def test_a_plugin_that_raises_while_planning_is_named(plan, monkeypatch) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("lost\nits way")

    monkeypatch.setattr(PlugAndPlay, "skip", fails)
    with pytest.raises(MiaBenchError, match="'ppa' of plugin mia-bench: RuntimeError: lost its way"):
        plan()
    monkeypatch.undo()


def test_queries_of_the_preparation_are_counted(undisturbed) -> None:
    queries = {
        record["attack"]["name"]: record["cost"]["target_queries"] for record in undisturbed.records.values()
    }
    assert queries["toy-prepared"] == 8
    # search 40 images plain and mirrored, 24 candidates: 3 steps and 3 views of each
    assert queries["ppa"] == 2 * 40 + 24 * (3 + 3)


# --- failures and skips --------------------------------------------------------------------------


def test_failed_cell_does_not_stop_the_others(toy, store, computed, tmp_path: Path) -> None:
    store(*TRAINED)
    records = run(tmp_path, ["toy-failing", "none"], ["prior-sample", "toy-label-only"])
    assert [r["status"] for r in records] == ["failed", "failed", "done", "done"]
    reason = "train of plugin mia-bench-toy:toy-failing: RuntimeError: toy failure (defense.py:33)"
    assert {r["reason"] for r in records[:2]} == {reason}
    assert records[0]["metrics"] == {}
    assert computed["train"] == 1  # not tried again for the second cell


def test_skipped_attack_has_a_reason_and_computes_nothing(toy, computed, tmp_path: Path) -> None:
    (record,) = run(tmp_path, "none", "toy-needs-critic")
    assert record["status"] == "skipped"
    assert record["reason"] == "needs a prior with a discriminator"
    assert record["metrics"] == {}
    assert computed == {}
    assert read_json(Store(tmp_path / "store"), "toy", record["key"]) == record


# --- reruns --------------------------------------------------------------------------------------


def test_done_cells_are_computed_again_only_with_always(toy, store, computed, tmp_path: Path) -> None:
    store(*TRAINED)
    (first,) = run(tmp_path, "none", "prior-sample")
    assert computed == {"invert": 1, "measure": 1}
    for rerun in ("never", "failed"):
        assert run(tmp_path, "none", "prior-sample", rerun=rerun) == [first]
    assert computed == {"invert": 1, "measure": 1}
    (again,) = run(tmp_path, "none", "prior-sample", rerun="always")
    assert again["metrics"] == first["metrics"]
    # The cell's own stages, not what the whole track shares.
    assert computed == {"train": 1, "assess": 1, "invert": 2, "measure": 2}


def test_interrupted_rerun_loses_nothing(
    toy, store, undisturbed, computed, monkeypatch, tmp_path: Path
) -> None:
    folder = store(*ALL)
    first = run(tmp_path, ["none", "neg-ls"], "ppa")
    artifacts = sorted(folder.glob("artifacts/*/*"))

    def interrupted(*args: object):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(stages_module.COMPUTE, "train", interrupted)
        with pytest.raises(Interrupted) as stopped:
            run(tmp_path, ["none", "neg-ls"], "ppa", rerun="always")
    assert [record.status for record in stopped.value.records] == ["interrupted"]
    assert sorted(folder.glob("artifacts/*/*")) == artifacts
    computed.clear()  # the stage that was interrupted
    assert run(tmp_path, ["none", "neg-ls"], "ppa") == first
    assert computed == {}


def test_failed_rerun_leaves_the_finished_record(toy, store, monkeypatch, tmp_path: Path) -> None:
    folder = store(*ALL)
    (first,) = run(tmp_path, "none", "ppa")

    def fails(*args: object):
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setitem(stages_module.COMPUTE, "invert", fails)
        (again,) = run(tmp_path, "none", "ppa", rerun="always")
    assert again["status"] == "failed"
    assert read_json(Store(folder), "toy", first["key"]) == first


def test_failed_cells_are_tried_again_unless_never(toy, store, computed, tmp_path: Path) -> None:
    store(*SHARED)
    run(tmp_path, "toy-failing", "ppa")
    (kept,) = run(tmp_path, "toy-failing", "ppa", rerun="never")
    assert kept["status"] == "failed"
    assert computed["train"] == 1
    run(tmp_path, "toy-failing", "ppa")  # "failed" is the default
    assert computed["train"] == 2
    run(tmp_path, "toy-failing", "ppa", rerun="always")
    assert computed["train"] == 3


def test_interrupted_cells_go_on_even_with_never(toy, store, tmp_path: Path) -> None:
    folder = store(*ALL)
    (record,) = run(tmp_path, "none", "ppa")
    opened = Store(folder)
    write_json(opened, {**record, "status": "interrupted", "metrics": {}, "reason": "interrupted"})
    (again,) = run(tmp_path, "none", "ppa", rerun="never")
    assert again["status"] == "done"
    assert again["metrics"] == record["metrics"]


def test_finished_artifacts_without_records_give_the_records_back(
    toy, store, computed, undisturbed, tmp_path: Path
) -> None:
    store(*ALL)
    records = run(tmp_path, ["none", "neg-ls"], ["ppa", "toy-prepared"])
    assert computed == {}
    for record in records:
        assert record["metrics"] == undisturbed.records[record["key"]]["metrics"]
        assert record["cost"] == undisturbed.records[record["key"]]["cost"]


def test_record_of_a_newer_schema_is_not_used(
    toy, store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = store(*ALL)
    (record,) = run(tmp_path, "none", "ppa")
    write_json(Store(folder), {**record, "schema": 99})
    with caplog.at_level(logging.WARNING):
        prepared = prepare(RunConfig(track="toy", defense=["none"], attack=["ppa"], store=folder))
    assert len(prepared.open_cells) == 1
    assert "schema 99 is newer" in caplog.text


# --- the rest of the contract --------------------------------------------------------------------


def test_damaged_preparation_behind_a_finished_attack_is_not_looked_at(
    toy, store, computed, undisturbed, tmp_path: Path
) -> None:
    folder = store(*ALL)
    shutil.rmtree(folder / "artifacts" / "measure")
    for meta in (folder / "artifacts" / "prepare").glob("*/meta.json"):
        meta.write_text(meta.read_text()[:40])
    (record,) = run(tmp_path, "none", "toy-prepared")
    assert record["status"] == "done"
    before = undisturbed.records[record["key"]]
    assert record["metrics"] == before["metrics"]
    assert record["cost"] == before["cost"]
    assert computed == {"measure": 1}


def test_store_errors_stop_the_run_at_once(toy, store, tmp_path: Path, monkeypatch) -> None:
    store(*TRAINED)

    def full(*args, **more) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, "_write_synced", full)
    prepared = prepare(RunConfig(track="toy", defense=["none"], attack=["ppa"], store=tmp_path / "store"))
    with pytest.raises(StoreError, match="full"):
        execute(prepared)


def test_several_values_for_what_the_whole_grid_shares_are_refused(plan) -> None:
    with pytest.raises(UsageError, match="dataset 'synth-faces' take one value each"):
        plan("dataset:synth-faces.noise=0.01", "dataset:synth-faces.noise=0.02")


def test_name_of_several_kinds_must_say_which() -> None:
    registry = Registry()
    owner = PluginInfo("both", "somebody", "1", "module")
    registry.add("dataset", "faces", "module:Data", "", owner)
    registry.add("encoder", "faces", "module:Encoder", "", owner)
    with pytest.raises(UsageError, match=r"write dataset:faces.size or encoder:faces.size"):
        parse_option_values(registry, {"faces.size": ["3"]})
    values = parse_option_values(registry, {"encoder:faces.size": ["3"]})
    assert values.single("encoder", "faces") == {"size": "3"}
    assert values.single("dataset", "faces") == {}
