"""Models of the user's own: ``run --target``, what may be wrong with their files, and ``export``."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import mia_bench
from mia_bench.api.architecture import NetworkTask
from mia_bench.api.classifier import Activations
from mia_bench.components import resolve
from mia_bench.config import load_config, named_files
from mia_bench.engine.plan import TrackPlan
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.run import prepare, set_up
from mia_bench.engine.sweep import prepare_sweep
from mia_bench.errors import UsageError
from mia_bench.leaderboard import records as boards
from mia_bench.leaderboard.submission import submit
from mia_bench.models.checkpoint_file import fit
from mia_bench.own_models import ModelCard, OwnTarget, origin_warnings
from mia_bench.plugins import host
from mia_bench.record import Record, read_record
from mia_bench.registry import Registry
from mia_bench.results import own_model_doubts, results_table
from mia_bench.store import Store
from mia_bench_plugins.models.networks import Network

pytestmark = pytest.mark.slow

SHARED = ("data", "prior", "gallery", "evaluator")


def registry() -> Registry:
    return host().registry


def network(classes: int = 6, widths: tuple[int, ...] = (8, 16)) -> nn.Module:
    """The toy track's architecture, as a user builds it."""
    torch.manual_seed(0)
    built = registry().get("model", "resnet-small").load()
    return built(built.Options(widths=widths)).build(NetworkTask(classes, 16))


@pytest.fixture
def ready(toy, store) -> Path:
    """A store with all that targets of the toy track share."""
    return store(*SHARED)


def run(store: Path, target, *, attack: str = "toy-label-only", **more) -> list[Record]:
    return mia_bench.run(track="toy", attack=attack, target=target, store=store, device="cpu", **more)


def saved(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


# --- a row of one's own ----------------------------------------------------------------------


def test_a_checkpoint_trained_elsewhere_gets_its_row(ready, cli, tmp_path: Path) -> None:
    """A plain PyTorch loop, DataParallel's prefix, a checkpoint dictionary with the optimiser in it."""
    splits = mia_bench.load_data(track="toy", store=ready)
    images, labels = splits.train.images.float() / 255, splits.train.labels
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(15):
        for batch in torch.randperm(len(labels)).split(16):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()
    right = (model(splits.test.images.float() / 255).argmax(1) == splits.test.labels).float().mean().item()
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(
        {"epoch": 15, "model": state, "optimizer": optimizer.state_dict()}, tmp_path / "My Defense_2.pt"
    )

    done = cli(
        "run", "--track", "toy", "--attack", "toy-label-only", "--device", "cpu", "--format", "json",
        "--target", tmp_path / "My Defense_2.pt", "--defense", "none",
    )  # fmt: skip
    assert done.code == 0, done.err
    baseline, own = done.records
    assert (baseline["defense"]["name"], own["defense"]["name"]) == ("none", "my-defense-2")
    assert own["metrics"]["test_accuracy"]["value"] == pytest.approx(right)
    assert own["cost"]["train_seconds"] is None
    assert own["defense"]["about"]["own_model"] == "unchecked"
    assert "not checked" in own["notes"]["own_model"]
    assert own["defense"]["options"]["sha256"] == own["provenance"]["weights"]["load"][:12]
    assert "own_model" not in baseline["defense"]["about"] or not baseline["defense"]["about"]["own_model"]
    assert read_record(own).to_json() == own

    assert "my-defense-2 (sha256=" in results_table([read_record(own)])
    shown = cli("results", "--track", "toy")
    assert "my-defense-2" in shown.out.split("\n\n")[0]  # in the table of defenses, beside the baseline
    assert cli("show", own["key"][:8], "--output", tmp_path / "p.png").code == 0
    explained = cli("explain", own["key"][:8])
    assert (explained.code, own["provenance"]["weights"]["load"] in explained.out) == (0, True), explained
    kept = cli("store", "gc")
    assert (kept.code, f"load/{own['key']}" in kept.out) == (0, False), kept
    again = cli(
        "run", "--track", "toy", "--attack", "toy-label-only", "--target", tmp_path / "My Defense_2.pt"
    )  # fmt: skip
    assert again.code == 0
    assert "note: my-defense-2 is a model of the user's own" in again.err


def test_rows_are_named_and_the_content_of_a_file_decides(ready, tmp_path: Path) -> None:
    state = network().state_dict()
    first = saved(state, tmp_path / "one.pt")
    second = saved(state, tmp_path / "two.pth")
    third = saved({**state, "head.bias": state["head.bias"] + 1}, tmp_path / "three.pt")
    given = {"first": first, "again": second, "third": third}
    records = run(ready, given)
    keys = {record.defense.name: record.key for record in records}
    assert list(keys) == ["first", "again", "third"]
    assert len(set(keys.values())) == 3
    stored = Store(ready)
    assert len(list((ready / "artifacts" / "load").iterdir())) == 2 + (
        first.read_bytes() != second.read_bytes()
    )
    other = tmp_path / "elsewhere.pt"
    other.write_bytes(first.read_bytes())
    first.unlink()
    (moved,) = run(ready, f"first={other}")
    assert moved.key == keys["first"]
    assert stored.record("toy", keys["first"]) == moved


def test_a_model_is_read_where_its_file_is_when_it_is_computed_again(ready, tmp_path: Path) -> None:
    class Told(ProgressDisplay):
        begun: ClassVar[list[str]] = []

        def stage_begins(self, stage, seconds: float) -> None:
            self.begun.append(stage.name)

    file = saved(network().state_dict(), tmp_path / "mine.pt")
    (first,) = run(ready, {"mine": file})
    (load,) = (ready / "artifacts" / "load").glob("*/meta.json")
    before = load.stat().st_mtime_ns
    (again,) = run(ready, {"mine": file}, rerun="always", display=Told())
    assert again.metrics == first.metrics
    assert load.stat().st_mtime_ns > before
    # The executor, whose nodes may lack the file, gets what needs it.
    assert Told.begun == ["assess", "invert", "measure"]


def test_keys_of_other_cells_are_what_they_were(ready, tmp_path: Path) -> None:
    file = saved(network().state_dict(), tmp_path / "mine.pt")
    keys = []
    for target in ({}, {"mine": file}):
        config = load_config({"track": "toy", "defense": "none", "attack": "ppa", "target": target})
        setup = set_up(config)
        plan = setup.track_plan()
        assert isinstance(plan, TrackPlan)
        planned = plan.cells(setup.grid([]), [])
        keys.append([one.key for one in planned if one.cell.defense.name == "none"])
    assert keys[0] == keys[1] != []


def test_how_a_model_reads_images_is_in_its_keys(ready, tmp_path: Path) -> None:
    file = saved(network().state_dict(), tmp_path / "mine.pt")
    given = {"track": "toy", "attack": "ppa", "target": {"mine": file}, "store": ready}
    ways: tuple[dict[str, Any], ...] = ({}, {"mean": 0.5, "std": 0.5}, {"mean": 0.4, "std": 0.5})
    cells = [prepare(load_config({**given, **way})).cells for way in ways]
    assert len({one.key for (one,) in cells}) == 3


def test_the_standard_set_of_attacks_is_planned_for_own_models_too(toy, tmp_path: Path) -> None:
    file = saved(network().state_dict(), tmp_path / "mine.pt")
    given = {"track": "toy", "attack": "standard", "store": tmp_path / "store"}
    prepared = prepare(load_config({**given, "target": file, "defense": "none"}))
    rows = Counter(planned.cell.defense.name for planned in prepared.cells)
    assert rows["mine"] == rows["none"] > 1
    with pytest.raises(UsageError, match="a sweep trains its targets"):
        prepare_sweep(load_config({**given, "target": file}))


@pytest.mark.slow
def test_another_architecture_trained_as_the_page_on_it_says(ready, monkeypatch, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "own-models.md").read_text("utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIA_BENCH_STORE", str(ready))
    names: dict = {}
    exec(code.replace("synth-faces", "toy"), names)
    (record,) = run(ready, "mine.pt", architecture="torchvision", mean=0, std=1)
    model, test = names["model"].eval(), names["splits"].test
    right = (model(test.images.float() / 255).argmax(1) == test.labels).float().mean().item()
    assert record.metrics["test_accuracy"].value == pytest.approx(right)
    assert record.defense.options["mean"] == [0.0, 0.0, 0.0]
    assert record.defense.options["architecture"]["name"] == "torchvision"


def test_a_network_without_normalize_refuses_another_normalisation(
    ready, monkeypatch, tmp_path: Path
) -> None:
    def activations(self, images):
        x, hidden = images, []
        for block in self.blocks:
            hidden.append(x := block(x))
        features = self.pool(x)
        return Activations(self.head(features), features, tuple(hidden))

    monkeypatch.setattr(Network, "activations", activations)
    (record,) = run(ready, saved(network().state_dict(), tmp_path / "mine.pt"), mean=0.5, std=0.5)
    assert record.status == "failed"
    assert "does not call Classifier.normalize" in record.reason


def test_evaluate_is_the_same_as_a_run(ready, tmp_path: Path) -> None:
    file = saved({"a.b": network().state_dict(), "other": {}}, tmp_path / "mine.pt")
    (record,) = run(ready, file, mean=0.4, std=0.3, target_key="a.b")
    found = mia_bench.evaluate(
        file, track="toy", attack="toy-label-only", store=ready, device="cpu", mean=0.4, std=0.3
    )
    metrics = {name: metric and metric.model_dump() for name, metric in record.metrics.items()}
    assert {name: value and vars(value) for name, value in found.metrics.items()} == metrics
    with pytest.raises(UsageError, match="mean is for the file of a checkpoint"):
        mia_bench.evaluate(network(), track="toy", attack="ppa", store=ready, mean=0.5, std=0.5)


# --- bad input -------------------------------------------------------------------------------


class Evil:
    """Pickled, it creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def bad(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / "bad.pt"
    state = network().state_dict()
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"w": Evil(tmp_path / "executed")}))
    elif kind == "zip with code":
        torch.save({"w": Evil(tmp_path / "executed")}, path)
    elif kind == "module":
        torch.save(network(), path)
    elif kind == "truncated":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "truncated safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "nan":
        saved({**state, "head.bias": torch.full((6,), float("nan"))}, path)
    elif kind == "classes":
        saved(network(classes=9).state_dict(), path)
    elif kind == "shapes":
        saved(network(widths=(8, 24)).state_dict(), path)
    elif kind == "names":
        saved({f"x{i}.{name}": tensor for i, (name, tensor) in enumerate(state.items())}, path)
    elif kind == "two that fit":
        saved({"model": state, "ema": state}, path)
    elif kind == "no weights":
        saved({"epoch": 3, "losses": [1.0]}, path)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "bad.pt can't be read: No such file"),
        ("folder", "is a folder: give the file of a checkpoint in it"),
        ("pickle", r"pickled Python objects, which are not loaded.*torch.save\(model.state_dict"),
        ("zip with code", r"pickled Python objects \((posix|nt).system\), which are not loaded"),
        ("module", r"pickled Python objects \(mia_bench_plugins.*save the weights alone"),
        ("truncated", "is no checkpoint, or was cut off"),
        ("truncated safetensors", "is no safetensors file, or was cut off"),
        ("nan", "weights that are not finite, 1 of 38: head.bias"),
        (
            "classes",
            r"is a model of 9 classes, .*2 of other shapes \(head.weight is \(9, 16\), not \(6, 16\),",
        ),
        ("shapes", r"does not fit: of 38 weights \d+ of other shapes \(.* is \(24, .* and \d+ more\)"),
        ("names", r"does not fit: of 38 weights 32 missing \(.*, .*, .* and 29 more\); 38 unknown"),
        ("two that fit", "has weights that fit under model, ema: choose by --target-key"),
        ("no weights", r"holds no weights by name \(its keys are epoch, losses\): save the weights alone"),
    ],
)
def test_a_bad_file_is_one_line_before_anything_is_computed(
    ready, cli, tmp_path: Path, kind: str, message: str
) -> None:
    path = bad(kind, tmp_path)
    done = cli("run", "--track", "toy", "--attack", "toy-label-only", "--target", path, "--device", "cpu")
    assert done.code == 2, done.err
    line = done.err.strip().splitlines()[-1]
    assert re.search(message, line), line
    assert len(line) < 900
    assert "Traceback" not in done.err
    assert not (tmp_path / "executed").exists()
    assert not (ready / "artifacts" / "load").exists()
    assert not (ready / "artifacts" / "invert").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-key", "modle"], "has no key 'modle'; did you mean 'model'?"),
        (["--target-key", "model.blocks"], "has no key 'model.blocks'"),
        (["--target-key", "optimizer"], "no weights by name under the key 'optimizer'"),
        (["--architecture", "resnet-smal"], "unknown model 'resnet-smal'; did you mean 'resnet-small'"),
        (["--target-defense", "nothing"], "unknown defense 'nothing'"),
        (["--mean", "0.5"], "mean and std go together"),
        (["--mean", "0.5,0.5", "--std", "0.5"], "mean"),
        (["--mean", "0.5", "--std", "0"], "std=0: input should be greater than 0"),
        (["-o", "torchvision.network=resnet18"], "set for the model 'torchvision', which no target is built"),
        (["-o", "none.norm=group"], "an option is set for the defense 'none', which this run does not use"),
    ],
)
def test_a_wrong_option_is_one_line(ready, cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    path = saved({"model": network().state_dict(), "optimizer": {"lr": 1.0}}, tmp_path / "mine.pt")
    given = ["--track", "toy", "--attack", "toy-label-only", "--device", "cpu"]
    done = cli("run", *given, "--target", path, *arguments)
    assert (done.code, message in done.err) == (2, True), done.err


def test_options_of_own_models_need_one(toy, cli) -> None:
    done = cli("run", "--track", "toy", "--target-key", "model")
    assert (done.code, "give their files, target" in done.err) == (2, True)
    done = cli("run", "--track", "toy", "-o", "torchvision.network=resnet18")
    assert (done.code, "are set by the track" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("x/ResNet 18.best.pt", ["resnet-18-best"]),
        (["a=x.pt", "b=x.pt"], ["a", "b"]),
        ({"mine": "x.pt"}, ["mine"]),
        ("x/a=b.pt", ["a-b"]),
        ("x/∆.pt", ["own-model"]),
    ],
)
def test_names_of_rows(given, names: list[str]) -> None:
    assert list(named_files(given)) == names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a.pt", "x/a.pt"], "two targets have the name 'a'"),
        ("My Row=a.pt", "a row's name is lower-case words"),
        ("a=", "is not a file"),
        (3, "must be a file"),
    ],
)
def test_names_that_rows_can_not_have(given, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        named_files(given)


def test_a_row_can_not_have_the_name_of_a_defense(toy, cli, tmp_path: Path) -> None:
    path = saved(network().state_dict(), tmp_path / "none.pt")
    done = cli("run", "--track", "toy", "--target", path)
    assert (done.code, "is the name of a defense: name the row, NAME=" in done.err) == (2, True)


def test_a_configuration_with_targets_is_a_file_that_reads_back(tmp_path: Path) -> None:
    given = {"target": {"a": tmp_path / "a.pt"}, "mean": "0.1,0.2,0.3", "std": 0.5, "target_key": "x.y"}
    config = load_config(given)
    assert config.mean == (0.1, 0.2, 0.3)
    assert config.std == (0.5, 0.5, 0.5)
    file = tmp_path / "run.toml"
    file.write_text(config.to_toml())
    assert load_config({}, file) == config
    assert "target" not in load_config({}).to_toml()


def test_counters_that_only_training_needs_may_be_missing_and_types_may_differ(toy) -> None:
    model = network()
    state = {n: t.half() for n, t in model.state_dict().items() if "num_batches" not in n}
    found = fit({f"_orig_mod.module.{n}": t for n, t in state.items()}, model)
    assert found.keys() == model.state_dict().keys()
    assert all(found[n].dtype == t.dtype for n, t in model.state_dict().items())
    assert torch.equal(found["head.weight"], state["head.weight"].float())


# --- warnings and boards ---------------------------------------------------------------------


def test_a_model_far_below_the_undefended_one_is_warned_of(ready, undisturbed, tmp_path: Path) -> None:
    (own,) = run(ready, saved(network().state_dict(), tmp_path / "mine.pt"))
    baseline = [
        read_record(r)
        for r in undisturbed.records.values()
        if (r["defense"]["name"], r["attack"]["name"]) == ("none", "ppa")
    ]

    def at(record: Record, accuracy: float) -> Record:
        value = record.metrics["test_accuracy"].model_copy(update={"value": accuracy})
        return record.model_copy(update={"metrics": {**record.metrics, "test_accuracy": value}})

    usual = [at(baseline[0], 0.9)]
    (line,) = own_model_doubts([at(own, 0.65)], usual)
    assert "mine: test_accuracy is 0.65, far below the 0.90 of an undefended target" in line
    assert own_model_doubts([at(own, 0.75)], usual) == []
    assert own_model_doubts([at(own, 0.5)], [], {"toy": 0.8}) != []
    (line,) = own_model_doubts([at(own, 0.3)])
    assert "little above answers at random, 1 of 6" in line
    assert own_model_doubts([at(own, 0.5)]) == own_model_doubts(usual) == []


def test_boards_do_not_take_what_nobody_can_run_again(ready, caplog, tmp_path: Path) -> None:
    (own,) = run(ready, saved(network().state_dict(), tmp_path / "mine.pt"))
    folder = tmp_path / "boards"
    assert submit([own], folder, registry()).written == []
    assert "models of your own, which nobody can train again" in caplog.text
    path = boards.record_path(folder, own)
    path.parent.mkdir(parents=True)
    path.write_text(own.file_text())
    boards.build(folder, registry())
    assert any("of a model of somebody's own" in line for line in boards.check(folder, registry()))


# --- export ----------------------------------------------------------------------------------


@pytest.mark.parametrize("defense", ["none", "neg-ls"])
def test_an_exported_target_has_the_numbers_of_its_cell(
    toy, undisturbed, cli, monkeypatch, tmp_path: Path, defense: str
) -> None:
    undisturbed.copy(tmp_path / "store", (*SHARED, "train"))
    (record,) = [
        read_record(r)
        for r in undisturbed.records.values()
        if (r["defense"]["name"], r["attack"]["name"]) == (defense, "ppa")
    ]
    Store(tmp_path / "store").write_record(record)
    monkeypatch.chdir(tmp_path)
    done = cli("export", record.key[:10])
    assert done.code == 0, done.err
    file = Path(f"{defense}-{record.key[:8]}.safetensors")
    assert done.out.split() == [str(file), str(file.with_suffix(".md"))]
    page = file.with_suffix(".md").read_text("utf-8")
    for said in (record.key, f"`{defense}`", "`resnet-small`", "mia_bench.load_target", "test_accuracy: "):
        assert said in page

    (own,) = run(tmp_path / "store", {"mine": file}, attack="ppa")
    assert own.metrics == record.metrics
    assert own.per_class == record.per_class
    assert own.per_image == record.per_image
    assert own.cost.target_queries == record.cost.target_queries
    assert own.defense.about.own_model == "stated"
    assert own.defense.options["defense"]["name"] == defense

    test = mia_bench.load_data(track="toy", store=tmp_path / "store").test
    model = mia_bench.load_target(file)
    with torch.no_grad():
        right = (model(test.images.float() / 255).argmax(1) == test.labels).float().mean().item()
    assert right == pytest.approx(record.metrics["test_accuracy"].value)

    refused = cli("export", own.key[:10])
    assert (refused.code, "is a model of your own" in refused.err) == (2, True)


def test_what_can_not_be_exported_or_loaded(toy, undisturbed, cli, tmp_path: Path) -> None:
    undisturbed.copy(tmp_path / "store", ("data",))
    record = read_record(next(iter(undisturbed.records.values())))
    Store(tmp_path / "store").write_record(record)
    gone = cli("export", record.key)
    assert (gone.code, "is not in the store any more: run it again" in gone.err) == (1, True)
    other = cli("export", record.key, tmp_path / "x.pt")
    assert (other.code, "must end in .safetensors" in other.err) == (2, True)
    save_file(network().state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(UsageError, match="no model card of mia-bench"):
        mia_bench.load_target(tmp_path / "plain.safetensors")
    save_file(network().state_dict(), tmp_path / "odd.safetensors", {"mia_bench": json.dumps({"format": 9})})
    with pytest.raises(UsageError, match="its model card is not one"):
        mia_bench.load_target(tmp_path / "odd.safetensors")


def test_a_file_of_other_data_is_warned_of(ready, undisturbed, tmp_path: Path) -> None:
    part = {"name": "none", "distribution": "mia-bench", "version": "1", "options": {}}
    card = ModelCard(
        cell="c", track="toy", track_version=3, data="d", classes=6, resolution=16, architecture=part,
        defense=part, seed=0,
    )  # fmt: skip
    setup = set_up(load_config({"track": "toy"}))
    own = OwnTarget("defense", {"name": "mine"}, object, None, path=Path("f"), card=card)
    assert own.origin(setup.track, "d") == "stated"
    assert list(origin_warnings([own], setup.track, "d")) == []
    (line,) = origin_warnings([own], setup.track, "e")
    assert line == "f says that it was trained on other images, not on the data of this run"
    other = dataclasses.replace(own, card=card.model_copy(update={"track_version": 2}))
    (line,) = origin_warnings([other], setup.track, "d")
    assert "trained on version 2 of the track 'toy'" in line


def test_a_file_made_with_another_version_of_a_component_is_warned_of(ready, caplog, tmp_path: Path) -> None:
    def part(kind: str, name: str, **more) -> dict[str, object]:
        return {**resolve(registry(), kind, name, {}, {}).spec(), **more}

    state = registry().get("model", "resnet-small").load()
    built = state(state.Options()).build(NetworkTask(6, 16)).state_dict()

    def file(name: str, architecture: dict[str, object], defense: dict[str, object], track: int = 3) -> Path:
        card = ModelCard(
            cell="c", track="toy", track_version=track, data="d", classes=6, resolution=16, seed=0,
            architecture=architecture, defense=defense,
        )  # fmt: skip
        save_file(built, tmp_path / name, {"mia_bench": card.model_dump_json()})
        return tmp_path / name

    same = file("same.safetensors", part("model", "resnet-small"), part("defense", "none"))
    mia_bench.load_target(same)
    assert not caplog.records
    older = part("model", "resnet-small", version="0"), part("defense", "none", distribution="theirs")
    other = file("other.safetensors", *older)
    mia_bench.load_target(other)
    said = [record.getMessage() for record in caplog.records]
    assert re.search(
        r"another architecture 'resnet-small' \(version 0 of mia-bench\) than is installed", said[0]
    )
    assert "another defense 'none' (version 1 of theirs)" in said[1]
    planned = prepare(load_config({"track": "toy", "attack": "ppa", "target": other, "store": ready}))
    assert set(said) <= set(planned.warnings)
    caplog.clear()
    mia_bench.load_target(file("old.safetensors", part("model", "resnet-small"), part("defense", "none"), 2))
    (record,) = caplog.records
    assert "version 2 of the track 'toy', version 3 is installed" in record.getMessage()
    caplog.clear()
    mia_bench.evaluate(other, track="toy", attack="toy-label-only", device="cpu", store=ready)
    assert set(said) <= {record.getMessage() for record in caplog.records}
    # Whoever builds it otherwise knows that.
    given = {"track": "toy", "attack": "ppa", "store": ready, "architecture": "convnet-small"}
    planned = prepare(load_config({**given, "target": other}))
    assert said[0] not in planned.warnings


def test_an_export_replaces_no_page_of_the_users(toy, undisturbed, cli, tmp_path: Path) -> None:
    undisturbed.copy(tmp_path / "store", (*SHARED, "train"))
    record = read_record(next(iter(undisturbed.records.values())))
    Store(tmp_path / "store").write_record(record)
    file, page = tmp_path / "mine.safetensors", tmp_path / "mine.md"
    page.write_text("notes\n")
    refused = cli("export", record.key, file)
    assert (refused.code, f"the model card would replace {page}" in refused.err) == (2, True)
    assert (page.read_text(), file.exists()) == ("notes\n", False)
    page.unlink()
    for _ in range(2):  # its own it replaces
        assert cli("export", record.key, file).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.md", "mine.safetensors", "store"]
