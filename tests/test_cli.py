"""The command line: what it prints where, what it computes, how it ends."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import mia_bench
from mia_bench.paths import data_roots
from mia_bench.plugins import host
from mia_bench.registry import KINDS
from mia_bench.track import Track
from stored import record_text

SHARED = ("data", "prior", "evaluator", "gallery")
TRAINED = (*SHARED, "train", "assess")
ALL = (*TRAINED, "prepare", "invert", "measure")
CELL = ("--track", "toy", "--defense", "none", "--attack", "ppa", "--device", "cpu")


def nothing_imported(err: str) -> bool:
    return err.splitlines()[-1] == "imported:"


# --- help, list, describe, plugins, doctor -------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("list",), ("plugins",), ("run", "--help"), ("describe", "ppa"), ("--version",)],
)
def test_what_computes_nothing_imports_no_torch(spawn, toy, arguments) -> None:
    process = spawn(*arguments)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out
    assert nothing_imported(err)


def test_help_names_every_command_and_says_how_to_start(cli) -> None:
    outcome = cli("--help")
    assert outcome.code == 0
    assert outcome.err == ""
    for command in (
        "run",
        "sweep",
        "list",
        "describe",
        "plugins",
        "doctor",
        "show",
        "results",
        "leaderboard",
    ):
        assert re.search(rf"^  {command} ", outcome.out, re.MULTILINE)
        assert cli(command, "--help").code == 0
    assert "mia-bench run --defense neg-ls --attack ppa" in " ".join(outcome.out.split())


@pytest.mark.parametrize("group", ["", "data", "prior", "leaderboard"])
def test_a_bare_group_prints_its_help(cli, group: str) -> None:
    words = group.split()
    bare, asked = cli(*words), cli(*words, "--help")
    assert bare.out == asked.out
    assert "Commands:\n" in bare.out
    assert (bare.err, bare.code, asked.code) == ("", 0, 0)


def test_python_runs_the_package(toy) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mia_bench", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"mia-bench, version {mia_bench.__version__}\n"


def test_version(cli) -> None:
    assert cli("--version").out.strip().endswith(mia_bench.__version__)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("defenses", "neg-ls"),
        ("attacks", "ppa"),
        ("tracks", "synth-faces"),
        ("datasets", "lfw"),
        ("priors", "eigenfaces"),
        ("metrics", "id_gallery_acc1"),
    ],
)
def test_list_of_one_kind_has_it_and_no_other(cli, kind: str, name: str) -> None:
    outcome = cli("list", kind)
    assert outcome.code == 0
    titles = [line.strip() for line in outcome.out.splitlines() if line[:1] not in ("", " ")]
    assert titles == [kind]
    assert re.search(rf"^ +{name} ", outcome.out, re.MULTILINE)


def registered() -> list[str]:
    return [f"{kind}:{name}" for kind in KINDS for name in host().registry.names(kind)]


@pytest.mark.parametrize("name", registered())
def test_describe_every_registered_name(cli, name: str) -> None:
    outcome = cli("describe", name)
    assert outcome.code == 0
    kind, _, bare = name.partition(":")
    assert outcome.out.startswith(f"{bare} ({kind},")
    assert "None" not in outcome.out


def test_describe_shows_paper_options_defaults_and_bounds(cli) -> None:
    text = cli("describe", "neg-ls").out
    assert "ICLR 2024" in text
    assert re.search(r"alpha +number +-0\.05 +< 0 ", text)
    assert re.search(r'schedule +ramp\|constant +"ramp"', text)
    assert "-o neg-ls.OPTION=VALUE" in text


def test_describe_a_track_says_its_threads(cli) -> None:
    assert "\n  CPU threads of every stage: 1\n" in cli("describe", "synth-faces").out
    assert "CPU threads" not in cli("describe", "facescrub").out


def test_describe_a_metric_by_the_name_in_the_record(cli) -> None:
    assert cli("describe", "delta_eval").out.startswith("evaluation-classifier (metric")


def test_describe_shows_both_kinds_where_a_name_has_two(cli) -> None:
    text = cli("describe", "lfw").out
    assert "lfw (dataset," in text
    assert "lfw (track," in text


def test_doctor_reports_versions_devices_store_and_missing_data(cli, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("MIA_BENCH_DATA", raising=False)
    outcome = cli("doctor")
    assert outcome.code == 0
    for part in (f"mia-bench {mia_bench.__version__}", "torch", "CPU with", "0 records"):
        assert part in outcome.out
    assert "no data root" in outcome.out
    assert not re.search("^BROKEN", outcome.out, re.MULTILINE)


def test_doctor_finds_data_sets_under_the_root(cli, make_tree, tmp_path) -> None:
    make_tree(tmp_path / "data" / "lfw", {"Ann": 2, "Bob": 1})
    assert "data set lfw: found" in cli("doctor", "--data", tmp_path / "data").out


@pytest.mark.slow
def test_doctor_exits_1_when_the_store_cannot_be_used(cli, tmp_path) -> None:
    (tmp_path / "file").write_text("no store")
    outcome = cli("doctor", "--store", tmp_path / "file")
    assert outcome.code == 1
    assert re.search(f"^BROKEN .*{tmp_path / 'file'}", outcome.out, re.MULTILINE)


# --- run -----------------------------------------------------------------------------------------


def test_dry_run_computes_nothing_and_tells_cached_from_open(spawn, toy, store) -> None:
    folder = store(*SHARED)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    process = spawn("run", *CELL, "--dry-run")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert nothing_imported(err)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    states = {
        line.split()[0]: "cached" if " cached" in line else "to compute"
        for line in out.splitlines()
        if re.search(" (cached|to compute)", line) and "stages" not in line
    }
    assert states == {
        **dict.fromkeys(SHARED, "cached"),
        **dict.fromkeys(("train", "assess", "prepare", "invert", "measure"), "to compute"),
    }
    assert re.search(r"5 stages to compute, about \d", out)
    assert str(folder) in out


def test_dry_run_tells_disk_space_and_gpu_memory_where_something_is_known(cli, toy, monkeypatch) -> None:
    assert "disk:" not in cli("run", *CELL, "--dry-run").out
    validate = Track.model_validate
    rough = {"megabytes": {"train": 5700, "invert": 300}, "gpu_megabytes": {"train": 24000}}
    monkeypatch.setattr(Track, "model_validate", lambda d: validate({**d, **rough}))
    plan = cli("run", *CELL, "--dry-run")
    assert "disk: about 6.0 GB, " in plan.out
    assert "GPU memory: up to about 24 GB; attacks halve their batches until they fit" in plan.out
    assert re.search(r"train .*to compute +30 s +nothing like it ran +5\.7 GB +24 GB", plan.out)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    assert "warning: the disk is too small for all of it" in cli("run", *CELL, "--dry-run").err


def test_dry_run_of_a_finished_grid_has_nothing_to_compute(cli, toy, store) -> None:
    store(*TRAINED)
    assert cli("run", *CELL).code == 0
    outcome = cli("run", *CELL, "--dry-run")
    assert "1 cell of track toy, 1 done before" in outcome.out
    assert "0 stages to compute" in outcome.out


def test_second_run_computes_nothing_imports_no_torch_and_prints_the_same(cli, spawn, toy, store) -> None:
    store(*TRAINED)
    first = cli("run", *CELL, "--format", "json")
    assert first.code == 0
    assert "attack none × ppa, seed 0: done" in first.err
    # The toy data have few people: said where something is computed, and in tables.
    few = "40 public people, fewer than 100"
    assert sum(line.startswith("warning: ") and few in line for line in first.err.splitlines()) == 1
    assert few in first.records[0]["notes"]["gallery"]
    table = cli("run", *CELL)
    assert sum(few in line for line in table.err.splitlines()) == 1
    assert table.err.startswith("warning: ")
    process = spawn("run", *CELL, "--format", "json")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0
    assert json.loads(out) == first.records
    assert err == "imported:\n"


def test_json_alone_is_on_standard_output(cli, toy, store) -> None:
    store(*TRAINED)
    outcome = cli("run", *CELL, "--format", "json")
    assert isinstance(json.loads(outcome.out), list)
    assert "stages to compute" in outcome.err


def test_table_and_markdown(cli, toy, store) -> None:
    store(*TRAINED)
    table = cli("run", *CELL)
    assert re.search(r"none +ppa +eigenfaces +0 +done ", table.out)
    (picture,) = re.findall(r"pictures: (.*\.png)", table.out)
    with Image.open(picture) as image:
        assert image.format == "PNG"
    markdown = cli("run", *CELL, "--format", "markdown").out
    assert markdown.startswith("| cell ")
    assert "pictures" not in markdown


def test_repeated_option_multiplies_the_grid(cli, toy, store) -> None:
    store(*TRAINED)
    outcome = cli("run", *CELL, "-o", "ppa.steps=0", "-o", "ppa.steps=2", "--format", "json")
    assert outcome.code == 0
    assert [record["attack"]["options"]["steps"] for record in outcome.records] == [0, 2]
    # search 40 images, plain and mirrored; then 24 candidates: 2 steps, and 3 views of each.
    assert [r["cost"]["target_queries"] for r in outcome.records] == [80, 80 + 24 * (2 + 3)]


def test_same_value_written_twice_is_one_cell(cli, toy, store) -> None:
    store(*TRAINED)
    values = ("-o", "ppa.steps=0", "-o", "ppa.truncation=0.5", "-o", "ppa.truncation=0.50")
    outcome = cli("run", *CELL, *values, "--format", "json")
    assert len(outcome.records) == 1


def test_every_setting_of_a_grid_has_a_label_of_its_own(cli, toy) -> None:
    grid = (
        "neg-ls.alpha=-0.1",
        "neg-ls.alpha=-0.2",
        "eigenfaces.components=8",
        "eigenfaces.components=9",
    )
    plan = cli("run", "--track", "toy", "--defense", "neg-ls", "--attack", "ppa", "--dry-run",
               *[word for option in grid for word in ("-o", option)]).out  # fmt: skip
    for stage, count in {"train": 2, "assess": 2, "prior": 2, "invert": 4, "measure": 4}.items():
        labels = re.findall(rf"^{stage} +(.*?)  +to compute", plan, re.MULTILINE)
        assert len(set(labels)) == len(labels) == count
    assert "target under neg-ls (alpha=-0.2), seed 0" in plan
    assert "neg-ls (alpha=-0.2) × ppa with eigenfaces (components=8), seed 0: to run" in plan


def test_seeds_and_lists_multiply_the_grid(cli, toy) -> None:
    out = cli("run", "--track", "toy", "--defense", "none", "--defense", "neg-ls", "--attack", "ppa",
              "--attack", "prior-sample", "--seeds", "3", "--dry-run").out  # fmt: skip
    assert "12 cells of track toy" in out
    assert len(set(re.findall(r"^  ([0-9a-f]{8})  ", out, re.MULTILINE))) == 12
    chosen = cli("run", *CELL, "--seed", "4", "--seed", "7", "--seed", "4", "--dry-run").out
    assert re.findall(r"seed (\d): to run", chosen) == ["4", "7"]


def test_no_names_mean_all_of_them(cli) -> None:
    out = cli("run", "--dry-run").out
    pairs = {(d, a) for d in ("none", "pos-ls", "neg-ls", "bido") for a in ("prior-sample", "ppa")}
    assert pairs <= set(re.findall(r"^  \w{8}  (\S+) × (\S+), seed 0", out, re.MULTILINE))


def test_kind_and_name_form_of_an_option(cli, toy) -> None:
    plain = cli("run", *CELL, "-o", "ppa.steps=1", "--dry-run").out
    assert cli("run", *CELL, "-o", "attack:ppa.steps=1", "--dry-run").out == plain
    outcome = cli("run", *CELL, "-o", "defense:ppa.steps=1", "--dry-run")
    assert outcome.code == 2
    assert "no plugin 'ppa'" in outcome.err


# --- --config ------------------------------------------------------------------------------------


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_config_says_the_same_as_the_command_line(cli, toy, tmp_path) -> None:
    path = config(
        tmp_path,
        """
        track = "toy"
        defense = ["none", "neg-ls"]
        attack = "ppa"
        seeds = 2
        [options.ppa]
        steps = [0, 2]
        betas = "[0.2, 0.3]"
        [options.neg-ls]
        schedule = "constant"
        """,
    )
    by_file = cli("run", "--config", path, "--dry-run")
    by_hand = cli("run", "--track", "toy", "--defense", "none", "--defense", "neg-ls", "--attack",
                  "ppa", "--seeds", "2", "-o", "ppa.steps=0", "-o", "ppa.steps=2", "-o",
                  "ppa.betas=[0.2, 0.3]", "-o", "neg-ls.schedule=constant", "--dry-run")  # fmt: skip
    assert by_file.code == 0
    assert by_file.out == by_hand.out
    assert "8 cells" in by_file.out


def test_command_line_wins_over_the_config(cli, toy, tmp_path) -> None:
    text = """
    track = "toy"
    defense = ["none", "neg-ls"]
    attack = ["ppa"]
    seed = [5]
    [options.ppa]
    steps = 2
    """
    outcome = cli("run", "--config", config(tmp_path, text), "--defense", "none", "--seeds", "1",
                  "-o", "ppa.steps=0", "--dry-run")  # fmt: skip
    assert re.findall(r"^  \w{8}  (.*): to run", outcome.out, re.MULTILINE) == [
        "none × ppa (steps=0), seed 0"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("track = ", "run.toml: "),
        ('defence = "none"', "no key 'defence'; did you mean 'defense'"),
        ("track = 3", "track=3: "),
        ("seeds = 'two'", "seeds=two: "),
        ("seeds = true", "seeds=True: "),
        ("seeds = 0", "seeds=0: "),
        ("seed = ['a']", "seed=a: "),
        ("seed = [-1]", "seed=-1: "),
        ("defense = [1]", "defense=1: "),
        ("seed = [1]\nseeds = 2", "give either seed or seeds"),
        ("options = 3", "options must be a table"),
        ("[options]\nppa = 3", "option 'ppa=3' is not PLUGIN.KEY=VALUE"),
        ("[options.ppa]\nstep = 3", "ppa has no option 'step'; did you mean 'steps'?"),
        ("track = 'toi'", "unknown track 'toi'; did you mean 'toy'?"),
        ("format = 'xml'", "format 'xml'; known: json, markdown, table"),
        ("rerun = 'sometimes'", "no rerun 'sometimes'; known: always, failed, never"),
        ("device = 'gpu'", "no device 'gpu'"),
        ("time_limit = 0", "time_limit=0: "),
        ("allow_partial = 3", "allow_partial=3: "),
        ("data = 'nowhere'", "the data root nowhere is not a folder"),
    ],
)
def test_error_in_the_config_is_one_line(cli, toy, tmp_path, text: str, message: str) -> None:
    outcome = cli("run", *CELL[2:6], "--config", config(tmp_path, text), "--dry-run")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert message in outcome.err
    looked_up = ("[options.ppa]", "track = 't")  # of names, after the file was read
    assert ("error: --config" in outcome.err) != text.startswith(looked_up)


def test_missing_config_is_one_line(cli, tmp_path) -> None:
    outcome = cli("run", "--config", tmp_path / "none.toml")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert "none.toml" in outcome.err


def test_shown_config_says_the_same_as_the_command_line(cli, toy, tmp_path) -> None:
    words = ("--track", "toy", "--defense", "none", "--defense", "neg-ls", "--attack", "ppa", "--seed", 4,
             "-o", "ppa.steps=0", "-o", "ppa.steps=2", "-o", "ppa.betas=[0.2, 0.3]", "-o",
             "attack:ppa.truncation=0.5", "--time-limit", 1.5, "--store", tmp_path / 'é "x"')  # fmt: skip
    shown = cli("run", *words, "--show-config")
    assert (shown.code, shown.err) == (0, "")
    path = config(tmp_path, shown.out)
    assert cli("run", "--config", path, "--show-config").out == shown.out
    plan = cli("run", "--config", path, "--dry-run")
    assert plan.code == 0
    assert plan.out == cli("run", *words, "--dry-run").out
    assert cli("run", "--config", path, "--seeds", 2, "--show-config").out.count("seeds = 2") == 1


def test_command_line_turns_off_what_the_config_turns_on(cli, tmp_path) -> None:
    path = config(tmp_path, "compile = true\nallow_partial = true\n")
    shown = cli("run", "--config", path, "--no-compile", "--show-config").out
    assert "compile = false" in shown
    assert "allow_partial = true" in shown


# --- show ----------------------------------------------------------------------------------------


def test_show_writes_a_readable_picture(cli, toy, undisturbed, tmp_path) -> None:
    key = next(iter(undisturbed.records))
    path = tmp_path / "cell.png"
    outcome = cli("show", key[:8], "--output", path, "--store", undisturbed.store)
    assert (outcome.code, outcome.out.strip()) == (0, str(path))
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(2**20)) > 500
        whole = picture.height
    assert cli("show", key, "--output", path, "--rows", "2", "--store", undisturbed.store).code == 0
    with Image.open(path) as picture:
        assert picture.height < whole


def test_show_needs_no_torch(spawn, toy, undisturbed, tmp_path) -> None:
    key = next(iter(undisturbed.records))
    process = spawn("show", key, "--output", tmp_path / "x.png", "--store", undisturbed.store)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0
    assert nothing_imported(err)


def test_show_of_a_key_that_is_not_there(cli, undisturbed, tmp_path) -> None:
    outcome = cli("show", "zzz", "--store", undisturbed.store)
    assert outcome.code == 2
    assert "no cell's key begins with 'zzz'; 4 cells: see mia-bench results" in outcome.err
    assert "there is no store at" in cli("show", "zzz").err
    cli("run", "--dry-run")
    assert "the store is empty" in cli("show", "zzz").err


def test_show_of_an_ambiguous_key_names_the_candidates(cli, undisturbed, store, tmp_path) -> None:
    folder = store()
    record = next(iter(undisturbed.records.values()))
    (folder / "records" / "toy").mkdir(parents=True)
    keys = [record["key"][:10] + end for end in ("a" * 10, "b" * 10)]
    for key in keys:
        path = folder / "records" / "toy" / f"{key}.json"
        path.write_text(record_text({**record, "key": key}))
    outcome = cli("show", record["key"][:6])
    assert outcome.code == 2
    assert "2 cells' keys begin with" in outcome.err
    for key in keys:
        assert key[:12] in outcome.err


def test_show_where_it_cannot_write_is_one_line(cli, undisturbed, tmp_path) -> None:
    key = next(iter(undisturbed.records))
    for output in (tmp_path / "no" / "folder.png", tmp_path / ("x" * 300 + ".png")):
        outcome = cli("show", key, "--output", output, "--store", undisturbed.store)
        assert outcome.code == 2
        assert len(outcome.err.splitlines()) == 1


def test_show_of_a_cell_that_is_not_done_says_why(cli, toy, store) -> None:
    store(*SHARED)
    outcome = cli("run", "--track", "toy", "--defense", "toy-failing", "--attack", "ppa",
                  "--device", "cpu", "--format", "json")  # fmt: skip
    (record,) = outcome.records
    shown = cli("show", record["key"])
    assert shown.code == 2
    assert (
        "is failed: train of plugin mia-bench-toy:toy-failing: RuntimeError: toy failure (defense.py:33)"
        in shown.err
    )


# --- exit codes and wrong names ------------------------------------------------------------------


def test_exit_code_1_when_a_cell_failed(cli, toy, store) -> None:
    store(*SHARED)
    outcome = cli("run", "--track", "toy", "--defense", "toy-failing", "--attack", "ppa",
                  "--device", "cpu", "--format", "json")  # fmt: skip
    assert outcome.code == 1
    (record,) = outcome.records
    assert record["status"] == "failed"
    assert (
        record["reason"]
        == "train of plugin mia-bench-toy:toy-failing: RuntimeError: toy failure (defense.py:33)"
    )
    assert "FAILED toy-failing × ppa, seed 0: train of plugin" in outcome.err
    assert "Traceback" not in outcome.err


def test_exit_code_0_when_a_cell_is_skipped(cli, toy, store) -> None:
    store(*SHARED)
    outcome = cli("run", "--track", "toy", "--defense", "none", "--attack", "toy-needs-critic",
                  "--format", "json")  # fmt: skip
    assert outcome.code == 0
    (record,) = outcome.records
    assert (record["status"], record["reason"]) == (
        "skipped",
        "needs a prior with a discriminator",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rum",), "no command 'rum'; did you mean 'run'"),
        (
            ("run", "--track", "sinth-faces"),
            "unknown track 'sinth-faces'; did you mean 'synth-faces'",
        ),
        (("run", "--defense", "negls"), "unknown defense 'negls'; did you mean 'neg-ls'"),
        (("run", "--attack", "pppa"), "unknown attack 'pppa'; did you mean 'ppa'?"),
        (("run", "--prior", "eigenface"), "unknown prior 'eigenface'; did you mean 'eigenfaces'?"),
        (("run", "-o", "neg-ls.alfa=-1"), "neg-ls has no option 'alfa'; did you mean 'alpha'?"),
        (("run", "-o", "neg-sl.alpha=-1"), "no plugin 'neg-sl'; did you mean 'neg-ls'"),
        (("run", "-o", "none.alpha=-1"), "none has no option 'alpha'; known: epochs, groups, images, norm"),
        (("run", "-o", "synth-encoder.alpha=-1"), "synth-encoder has no options (got 'alpha')"),
        (("run", "-o", "neg-ls.alpha"), "option 'neg-ls.alpha' is not PLUGIN.KEY=VALUE"),
        (("run", "-o", "defence:neg-ls.alpha=-1"), "no kind 'defence'; did you mean 'defense'"),
        (("run", "--defense", "none", "-o", "neg-ls.alpha=-1"), "which this run does not use"),
        (("run", "--rerun", "allways"), "no rerun 'allways'; did you mean 'always'?"),
        (("run", "--executor", "dask"), "no executor 'dask'; known: local, ray"),
        (("run", "--format", "xml"), "no format 'xml'; known: json, markdown, table"),
        (("run", "--seeds", "0"), "seeds=0: "),
        (("run", "--seed", "-1"), "seed=-1: "),
        (("run", "--seeds", "2", "--seed", "1"), "give either seed or seeds"),
        (("run", "--defence", "none"), "--defense"),
        (("run", "--store", ""), "store=: input should be a path"),
        (("show", "abc", "--store", ""), "a path can't be empty"),
        (("run", "--device", "gpu"), "no device 'gpu': use auto, cpu, cuda, cuda:N or mps"),
        (("describe", "negls"), "nothing is called 'negls'; did you mean 'neg-ls'"),
        (("describe",), "NAME"),
        (("list", "defences"), "defenses"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(cli, arguments, message: str) -> None:
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_debug_shows_the_traceback(spawn) -> None:
    _, plain = spawn("run", "--track", "nowhere").communicate(timeout=240)
    assert "Traceback" not in plain
    _, debug = spawn("--debug", "run", "--track", "nowhere").communicate(timeout=240)
    assert "Traceback" in debug


def test_kind_before_the_plugin_makes_no_other_option(cli, toy, tmp_path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('track = "toy"\ndefense = "none"\nattack = "ppa"\n[options.ppa]\nsteps = 5\n')
    plan = cli("run", "--config", config, "-o", "attack:ppa.steps=7", "--dry-run")
    assert plan.code == 0, plan.err
    assert "1 cell of track toy" in plan.out
    assert "steps=7" in plan.out


def test_weights_beside_a_data_root_given_from_inside_are_found(monkeypatch, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "weights").mkdir()
    monkeypatch.delenv("MIA_BENCH_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path / "data")
    assert data_roots(Path()).weights == tmp_path / "weights"


def test_what_can_not_be_on_the_board_is_told_before_the_work(
    cli, toy, make_tree, monkeypatch, tmp_path
) -> None:
    monkeypatch.delenv("MIA_BENCH_WEIGHTS", raising=False)
    make_tree(tmp_path / "data" / "lfw", {f"p{i}": 30 for i in range(3)} | {f"q{i}": 1 for i in range(9)},
              size=(250, 250))  # fmt: skip
    plan = cli("run", "--track", "lfw", "--defense", "none", "--attack", "ppa", "--dry-run", "--data",
               tmp_path / "data", "-o", "lfw.decoys=3")  # fmt: skip
    assert plan.code == 0, plan.err
    assert "warning: mobilefacenet.onnx was not found" in plan.err
    assert "these are not the data of the protocol" in plan.err
