"""``mia-bench plugins new``: what it writes is linted, typed, installed, tested and run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from installing import MakeOnce, install
from mia_bench.registry import BASES
from mia_bench.scaffold import KINDS, LONGEST, class_name, create
from mia_bench.testing import checks_of
from mia_bench_plugins.reporters import pictures

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
NAMES = {kind: f"made-{kind}" for kind in KINDS}


def run_tool(*command: object, cwd: Path) -> str:
    """What a tool prints; an error if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(ROOT)},  # mypy can't follow an editable installation
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(make_once: MakeOnce) -> Path:
    """A folder with a distribution of each kind, as the command writes it."""
    return make_once("made", lambda folder: [create(name, kind, folder) for kind, name in NAMES.items()])


@pytest.fixture(scope="module")
def made_site(made: Path, make_once: MakeOnce) -> Path:
    """A folder with all of them installed."""
    return make_once("made-site", lambda folder: install(folder, *sorted(made.iterdir())))


@pytest.fixture
def installed(sites, toy_site: Path, made_site: Path) -> None:
    """All of them beside the toy track."""
    sites(made_site, toy_site)


# --- what is written -----------------------------------------------------------------------------


def test_the_command_writes_a_complete_distribution(cli, tmp_path: Path) -> None:
    outcome = cli("plugins", "new", "my-defense", "--output", tmp_path / "deep" / "er")
    assert outcome.code == 0
    folder = tmp_path / "deep" / "er" / "mia-bench-my-defense"
    assert str(folder) in outcome.out
    written = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert written == {
        ".github/workflows/ci.yml", ".gitignore", "LICENSE", "README.md", "pyproject.toml",
        "mia_bench_my_defense.py", "tests/test_mia_bench_my_defense.py",
    }  # fmt: skip
    code = (folder / "tests" / "test_mia_bench_my_defense.py").read_text()
    assert len([line for line in code.splitlines() if line]) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_no_placeholder_is_left(made: Path, kind: str) -> None:
    for path in (made / f"mia-bench-{NAMES[kind]}").rglob("*"):
        assert not path.name.endswith(".j2")
        assert not path.is_file() or not re.search(r"\{[{%]|[%}]\}", path.read_text())


@pytest.mark.newest
def test_ruff_finds_nothing_whatever_the_length_of_the_name(made: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        create("x" if kind == "track" else f"x{kind[0:2]}", kind, tmp_path)
        create(f"{kind}-{'y' * (LONGEST - len(kind) - 1)}", kind, tmp_path)
    for folder in (made, tmp_path):  # each distribution has settings of its own
        run_tool("ruff", "check", "--no-cache", ".", cwd=folder)
        run_tool("ruff", "format", "--no-cache", "--check", ".", cwd=folder)


@pytest.mark.newest
@pytest.mark.thorough
def test_mypy_finds_nothing(made: Path, tmp_path: Path) -> None:
    sources = [path for path in made.rglob("*.py") if "build" not in path.parts]
    assert len(sources) == 2 * len(KINDS)
    configured = made / "mia-bench-made-defense"
    run_tool("mypy", "--strict", "--cache-dir", tmp_path / "cache", *sources, cwd=configured)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("My-Defense", "not lower-case"),
        ("my_defense", "not lower-case"),
        ("-x", "-x"),
        ("3d", "begins with a letter"),
        ("../x", "not lower-case"),
        ("x" * 31, "longer than 30"),
        ("mia-bench-x", "leave out"),
        ("neg-ls", "taken by the defense of plugin mia-bench:label-smoothing"),
        ("label-smoothing", "taken by the plugin mia-bench:label-smoothing"),
        ("ppa", "taken by the attack"),
    ],
)
def test_a_bad_name_is_one_line_and_exit_code_2(cli, tmp_path: Path, name: str, why: str) -> None:
    outcome = cli("plugins", "new", name, "--output", tmp_path / "out")
    assert outcome.code == 2
    assert why in outcome.err.lower()
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_taken_name_can_be_taken_all_the_same(cli, tmp_path: Path) -> None:
    assert cli("plugins", "new", "neg-ls", "--output", tmp_path, "--reuse-name").code == 0


def test_an_existing_folder_is_never_overwritten(cli, tmp_path: Path) -> None:
    kept = tmp_path / "mia-bench-fresh" / "kept"
    kept.parent.mkdir()
    kept.write_text("mine")
    outcome = cli("plugins", "new", "fresh", "--output", tmp_path)
    assert outcome.code == 2
    assert "exists already" in outcome.err
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_made_is_one_line(cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = cli("plugins", "new", "fresh", "--output", tmp_path / "file")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1


def test_class_names_are_no_names_of_the_contract() -> None:
    assert class_name("my-defense", "defense") == "MyDefense"
    assert class_name("erasing", "defense") == "ErasingDefense"
    assert class_name("defense", "defense") == "DefenseDefense"
    assert class_name("attack", "metric") == "MyAttackMetric"
    assert class_name("none", "defense") == "NoneDefense"


# --- what it does --------------------------------------------------------------------------------


def test_installed_they_are_listed_without_torch(spawn, installed) -> None:
    process = spawn("list")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    for kind, name in NAMES.items():
        shown = "made_metric" if name == "made-metric" else name
        listed = re.search(rf"^ +{shown} .*mia-bench-{name}", out, re.MULTILINE)
        assert (listed is None) == (kind == "reporter")
    assert err.splitlines()[-1] == "imported:"


def test_their_own_tests_pass(installed, made: Path) -> None:
    out = run_tool("pytest", "-v", "-p", "no:cacheprovider", ".", cwd=made)
    for kind, name in NAMES.items():
        ids = [f"{check}]" for check in checks_of(BASES[kind])] if kind in BASES else [""]
        if kind == "reporter":
            ids = [f"{check}]" for check in checks_of(pictures)]
        file = f"test_mia_bench_{name.replace('-', '_')}.py::test_"
        for test in ids:
            assert re.search(rf"{file}.*{re.escape(test)} (PASSED|SKIPPED)", out)
    assert "FAILED" not in out


def test_the_check_command_finds_nothing(cli, installed) -> None:
    for name in NAMES.values():
        outcome = cli("plugins", "check", name)
        assert outcome.code == 0, outcome.out
        assert f"{name}: fine" in outcome.out


def test_defense_attack_and_prior_run(cli, installed, store) -> None:
    store("data", "evaluator", "gallery")
    outcome = cli(
        "run", "--track", "toy", "--defense", "made-defense", "--attack", "made-attack",
        "--prior", "made-prior", "--device", "cpu", "--format", "json",
        "-o", "made-defense.weight=0.1", "-o", "made-attack.search=30",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    (record,) = outcome.records
    (line,) = (Path(os.environ["MIA_BENCH_STORE"]) / "made-reporter.jsonl").read_text().splitlines()
    assert json.loads(line)["metrics"].keys() == record["metrics"].keys()
    assert record["status"] == "done"
    assert record["defense"]["options"] == {"weight": 0.1}
    assert record["attack"]["distribution"] == "mia-bench-made-attack"
    assert record["cost"]["target_queries"] == 30


def test_data_set_and_track_are_planned(cli, installed) -> None:
    outcome = cli("run", "--track", "made-track", "--defense", "none", "--attack", "ppa", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "made-track" in outcome.out


def test_plugins_without_a_command_is_as_before(cli, installed) -> None:
    outcome = cli("plugins", "--check")
    assert outcome.code == 0
    assert re.search(r"made-defense +mia-bench-made-defense 0\.1\.0 +ok", outcome.out)
    assert "problem" not in outcome.err
