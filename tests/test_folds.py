"""Cross-validation: targets of further folds, their records, and the rule that takes the mean."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mia_bench
from mia_bench.api.dataset import Splits
from mia_bench.engine import stages
from mia_bench.errors import DataError, MiaBenchError, UsageError
from mia_bench.leaderboard import pages, records
from mia_bench.leaderboard.board import build_board
from mia_bench.leaderboard.folds import boards_of
from mia_bench.leaderboard.standings import standings
from mia_bench.leaderboard.submission import submit
from mia_bench.leaderboard.sweeps import outcome
from mia_bench.leaderboard.tuning import Tuning, choose
from mia_bench.leaderboard.words import with_sign
from mia_bench.plugins import host
from mia_bench.protocol.data import exchanged
from mia_bench.registry import Registry
from mia_bench.store import Store
from mia_bench.testing.world import world
from mia_bench.track import Track, Variation, load_track
from mia_bench.upkeep.planning import Planner
from stored import record_text
from test_leaderboard import make_record, make_registry, metric, read

# --- the splits ----------------------------------------------------------------------------------


def images_of(part: Any) -> list[tuple[int, bytes]]:
    pairs = zip(part.labels.tolist(), part.images, strict=True)
    return sorted((label, image.numpy().tobytes()) for label, image in pairs)


def test_folds_share_no_validation_image_and_lose_none() -> None:
    splits = world().splits  # 6 images of a class for training, 2 for validation
    folds = [splits, *(exchanged(splits, fold) for fold in (1, 2, 3))]
    every = images_of(splits.train) + images_of(splits.validation)
    seen: set[tuple[int, bytes]] = set()
    for fold in folds:
        assert sorted(images_of(fold.train) + images_of(fold.validation)) == sorted(every)
        assert torch.equal(fold.train.labels, splits.train.labels)
        assert torch.equal(fold.validation.labels, splits.validation.labels)
        assert fold.test is splits.test
        assert seen.isdisjoint(images_of(fold.validation))
        seen |= set(images_of(fold.validation))
    assert seen == set(every)
    assert exchanged(splits, None) is splits


def test_a_fold_that_there_is_not_is_refused() -> None:
    splits = world().splits
    with pytest.raises(DataError, match="no fold 4: training images of 'toy-0' are enough for 3 "):
        exchanged(splits, 4)
    none = replace(
        splits.validation, images=splits.validation.images[:0], labels=splits.validation.labels[:0]
    )
    with pytest.raises(DataError, match="there are no validation images"):
        exchanged(replace(splits, validation=none), 1)


# --- a run ---------------------------------------------------------------------------------------


def test_a_run_of_a_fold_measures_accuracy_alone(toy, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "track": "toy", "defense": "none", "attack": "prior-sample", "seed": 1000, "store": tmp_path
    }  # fmt: skip
    (usual,) = mia_bench.run(**given)
    (first,), (second,) = (mia_bench.run(**given, fold=fold) for fold in (1, 2))
    assert [one.track.variant for one in (usual, first, second)] == ["", "fold: 1", "fold: 2"]
    assert set(first.metrics) == {"test_accuracy", "train_accuracy", "validation_accuracy", "ece"}
    assert first.metrics["validation_accuracy"].n == usual.metrics["validation_accuracy"].n
    assert len({one.key for one in (usual, first, second)}) == 3
    assert Planner().cell(first).key == first.key
    (failed,) = mia_bench.run(**given, fold=9)
    assert failed.status == "failed"
    assert "there is no fold 9" in failed.reason
    registry = host().registry
    done = submit([usual, first, second], tmp_path / "boards", registry)
    assert sorted(path.stem for path in done.written) == sorted(one.key for one in (usual, first, second))
    assert {path.parents[2].name for path in done.written} == {"tuning"}
    assert submit([usual, first, second], tmp_path / "boards", registry).written == []


def test_a_target_of_a_fold_is_trained_and_measured_on_the_images_of_the_fold(
    toy, monkeypatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}

    def told(name: str) -> None:
        run = getattr(stages, name)
        monkeypatch.setattr(stages, name, lambda *given: (seen.update({name: given}), run(*given))[1])

    told("train_target")
    told("measure_target")
    given: dict[str, Any] = {
        "track": "toy", "defense": "none", "attack": "prior-sample", "seed": 1000, "store": tmp_path,
        "jobs": 1,
    }  # fmt: skip
    for fold in (None, 1):
        mia_bench.run(**given, fold=fold)
        for part in ("train_target", "measure_target"):
            (splits,) = (one for one in seen[part] if isinstance(one, Splits))
            if fold is None:
                usual = splits
            assert images_of(splits.validation) == images_of(exchanged(usual, fold).validation)
            assert images_of(splits.train) == images_of(exchanged(usual, fold).train)


def test_a_fold_is_not_attacked(toy, cli, tmp_path: Path) -> None:
    words = ("run", "--track", "toy", "--defense", "none", "--seed", "1000", "--fold", "1")
    for attack in ("ppa", "standard"):
        refused = cli(*words, "--attack", attack)
        assert (refused.code, "give --fold without --attack" in refused.err) == (2, True)
    done = cli(*words)
    assert done.code == 0
    assert "prior-sample" in done.out
    assert "validation_accuracy" in done.out.splitlines()[0]
    assert "target under none, seed 1000, fold 1" in done.err
    (record,) = Store(tmp_path / "store").records("toy")
    exported = cli("export", record.key[:8], tmp_path / "target.safetensors")
    assert (exported.code, "is of a further fold" in exported.err) == (2, True)
    given = tmp_path / "run.toml"
    given.write_text('track = "toy"\ndefense = "none"\nattack = "prior-sample"\nfold = 1\n')
    for command, said in (("sweep", "give --folds N"), ("measure", "no reconstructions to measure")):
        refused = cli(command, "--config", given)
        assert (refused.code, said in refused.err) == (2, True)
    explained = cli("explain", record.key[:8], "-o", "none.epochs=0.5")
    assert (explained.code, "recipe.fold" in explained.out) == (0, False), explained.out


def test_models_of_the_users_own_have_no_folds(toy, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="models of your own have no folds"):
        mia_bench.run(track="toy", target=tmp_path / "own.pt", attack="ppa", fold=1, store=tmp_path)


def test_a_fold_is_a_variant_that_its_records_tell_of() -> None:
    for given in (Variation(fold=2), Variation(fold=2, images_per_class=3)):
        assert Variation.read(given._words((), None, {})) == given
    for wrong in ("fold: 0", "fold: 2; ", "fold: 2; images_per_class: 3"):
        with pytest.raises(MiaBenchError, match="no variant of a track"):
            Variation.read(wrong)


# --- the rule ------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


@pytest.fixture
def track(registry: Registry) -> Track:
    return load_track(registry, "little")


def setting(alpha: float | None, accuracy: float, fold: int = 0, leakage: float = 0.5) -> dict[str, Any]:
    """A setting of ``guard``, or the undefended target, on one fold."""
    name, options = ("plain", {}) if alpha is None else ("guard", {"alpha": alpha})
    attack = "samples" if fold else "aim"
    record = make_record(name, 1000, attack, options=options, gallery=leakage)
    record["metrics"]["validation_accuracy"] = metric(accuracy)
    if fold:
        record["track"] |= {"variant": f"fold: {fold}"}
        record["key"] = f"{fold}{record['key'][1:]}"
        record["metrics"] = {
            name: record["metrics"][name] for name in ("validation_accuracy", "test_accuracy")
        }
        record["per_class"], record["per_image"] = {}, {}
    return record


def chosen(registry: Registry, track: Track, *made: dict[str, Any]) -> Tuning:
    board, *folds = boards_of(registry, track, read(*made))
    found = choose(board, registry, folds)
    assert found is not None
    return found


def test_accuracy_is_the_mean_over_the_folds_that_both_have(registry: Registry, track: Track) -> None:
    plain = [setting(None, 0.9, leakage=0.7), setting(None, 0.8, 1), setting(None, 0.7, 2)]
    strong = [setting(0.1, 0.89, leakage=0.2), setting(0.1, 0.72, 1), setting(0.1, 0.60, 2)]
    weak = [setting(0.2, 0.86, leakage=0.3), setting(0.2, 0.79, 1), setting(0.2, 0.69, 2)]
    once = [setting(0.3, 0.89, leakage=0.4), setting(0.3, 0.79, 1)]
    found = chosen(registry, track, *plain, *strong, *weak, *once)
    assert (found.folds, found.images) == (3, 30)
    assert found.accuracy == pytest.approx(0.8)
    tried = {one.options["alpha"]: one for one in found.choices[0].tried}
    losses = {alpha: (round(one.loss or 0, 9), one.folds) for alpha, one in tried.items()}
    assert losses == {0.1: (0.063333333, 3), 0.2: (0.02, 3), 0.3: (0.01, 2)}
    assert tried[0.3].accuracy == pytest.approx(0.84)  # of easier folds: it is compared on these alone
    at = {choice.loss: choice.setting.options["alpha"] for choice in found.choices[0].choices}
    assert at == {0.01: 0.3, 0.03: 0.2, 0.1: 0.1}
    alone = chosen(registry, track, plain[0], strong[0], weak[0], once[0])
    at = {choice.loss: choice.setting.options["alpha"] for choice in alone.choices[0].choices}
    assert (alone.folds, at) == (1, {0.01: 0.1, 0.03: 0.1, 0.1: 0.1})


def test_a_fold_without_the_undefended_target_counts_for_nobody(registry: Registry, track: Track) -> None:
    found = chosen(registry, track, setting(None, 0.9, leakage=0.7), setting(0.1, 0.9), setting(0.1, 0.1, 1))
    assert (found.folds, found.images) == (1, 10)
    assert found.choices[0].tried[0].loss == pytest.approx(0)


def test_a_setting_that_fails_in_a_fold_is_not_chosen(registry: Registry, track: Track) -> None:
    plain = [setting(None, 0.9, leakage=0.7), setting(None, 0.9, 1)]
    failed = setting(0.1, 0.9, 1) | {"status": "failed", "reason": "diverged", "metrics": {}, "cost": {}}
    made = [
        *plain,
        setting(0.1, 0.9, leakage=0.1),
        failed,
        setting(0.2, 0.9, leakage=0.4),
        setting(0.2, 0.9, 1),
    ]
    found = chosen(registry, track, *made)
    assert {choice.setting.options["alpha"] for choice in found.choices[0].choices} == {0.2}
    board = build_board(registry, track, read(made[0], made[2], made[4]))
    text = pages.page(standings(board), registry, found, sweep=True)
    assert "| `guard` | `alpha=0.1` | – | – | – | – |  | failed: `diverged` |" in text


def test_folds_of_other_versions_are_not_mixed(registry: Registry, track: Track) -> None:
    plain = [setting(None, 0.9, leakage=0.7), setting(None, 0.9, 1)]
    other = setting(0.1, 0.9, 1)
    other["defense"] |= {"version": "7"}
    with pytest.raises(MiaBenchError, match="different versions of the defense 'guard'"):
        boards_of(registry, track, read(*plain, setting(0.1, 0.9), other))


def test_newer_records_push_out_folds_of_older_versions(
    registry: Registry, track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = [setting(None, 0.9), setting(None, 0.8, 1), setting(0.1, 0.9), setting(0.1, 0.8, 1)]
    folder = tmp_path / "boards"
    both = tmp_path / "both"
    for one in (folder, both):
        assert len(submit(read(*older), one, registry).written) == 4
    monkeypatch.setattr(registry.get("defense", "guard").load(), "version", "2")
    newer = setting(0.1, 0.85)
    newer["defense"] |= {"version": "2"}
    newer["key"] = "e" * 20
    with pytest.raises(MiaBenchError, match="1 more that can't stay beside these"):
        submit(read(newer), folder, registry)
    fold = setting(0.1, 0.75, 1)
    fold["defense"] |= {"version": "2"}
    fold["key"] = "f" * 20
    done = submit(read(newer, fold), both, registry)  # the old ones are superseded, cell by cell
    assert sorted(path.stem for path in done.written) == [newer["key"], fold["key"]]
    assert sorted(path.stem for path in done.removed) == sorted([older[2]["key"], older[3]["key"]])
    done = submit(read(newer), folder, registry, replace=True)
    assert [path.stem for path in done.written] == [newer["key"]]
    assert sorted(path.stem for path in done.removed) == sorted([older[2]["key"], older[3]["key"]])


def test_the_page_says_the_folds(registry: Registry, track: Track) -> None:
    made = [setting(None, 0.9, leakage=0.7), setting(None, 0.8, 1), setting(0.1, 0.89), setting(0.1, 0.75, 1)]
    found = chosen(registry, track, *made, setting(0.2, 0.9, leakage=0.6))
    board = build_board(registry, track, read(made[0], made[2]))
    text = pages.page(standings(board), registry, found, sweep=True)
    assert "on 20 validation images; boards use neither these seeds nor these images" in text
    assert "The images are of 2 folds (cross-validation)" in text
    assert "with seed 1000, and other images" in text
    assert "| `guard` | `alpha=0.1` | 0.820 | −3.0 | 2 | 0.500 | `aim` | **3 points**, 10 points |" in text
    assert "| `guard` | `alpha=0.2` | 0.900 | 0.0 | 1 | 0.600 | `aim` | 1 point |" in text


def test_records_of_folds_are_of_sweeps_only(registry: Registry, track: Track, tmp_path: Path) -> None:
    made = [setting(None, 0.9, leakage=0.7), setting(None, 0.8, 1), setting(0.1, 0.89), setting(0.1, 0.8, 1)]
    folder = tmp_path / "boards"
    for record in made:
        path = folder / "tuning" / "results" / "little" / f"{record['key']}.json"
        records.write(path, record_text(record))
    board = make_record("plain", 0)
    records.write(folder / "results" / "little" / f"{board['key']}.json", record_text(board))
    records.build(folder, registry)
    assert "The images are of 2 folds" in (folder / "tuning" / "little.md").read_text()
    runs = [line for line in (folder / "tuning" / "little.md").read_text().splitlines() if "--fold 1" in line]
    assert runs == [
        "mia-bench run --track little --defense guard -o guard.alpha=0.1 --fold 1 --seed 1000",
        "mia-bench run --track little --defense plain --fold 1 --seed 1000",
    ]
    assert records.check(folder, registry) == []
    assert len(records.decide(folder / "tuning", registry, "little").board.records) == 2
    path = folder / "results" / "little" / f"{made[1]['key']}.json"
    records.write(path, record_text(made[1]))
    assert any("its track was changed (fold: 1)" in line for line in records.check(folder, registry))


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_is_cross_validated(toy, cli, tmp_path: Path) -> None:
    words = (
        "sweep", "--track", "toy", "--defense", "neg-ls", "-o", "neg-ls.alpha=-0.1", "-o", "neg-ls.alpha=-1",
        "-o", "none.epochs=0.5", "-o", "none.images=0.5", "--folds", "2", "--output", tmp_path / "figure.svg",
    )  # fmt: skip
    dry = cli(*words, "--dry-run")
    assert "3 cells of track toy, 0 done before" in dry.out.split("fold 1:")[1]
    assert "prior-sample" in dry.out.split("fold 1:")[1]
    done = cli(*words)
    assert done.code == 0, done.err
    made = Store(tmp_path / "store").records("toy")
    assert Counter(record.track.variant for record in made) == {"": 5, "fold: 1": 3}
    found = outcome(host().registry, load_track(host().registry, "toy"), made)
    assert found is not None
    accuracies = {
        (record.track.variant, record.defense.options.get("alpha", record.defense.options.get("epochs"))):
            record.metrics["validation_accuracy"].value
        for record in made if record.defense.options.get("images", 1.0) == 1.0
    }  # fmt: skip
    for row in found.rows[:2]:
        losses = [accuracies[fold, 1.0] - accuracies[fold, row.options["alpha"]] for fold in ("", "fold: 1")]
        assert row.tried is not None
        assert row.tried.loss == pytest.approx(sum(losses) / 2)
        assert f"{with_sign(-50 * sum(losses), 1)} (2 folds)" in done.out
    assert all(row.tried is None for row in found.rows[2:])
