"""One configuration: the same keys, values and messages on the command line, in a file and in Python."""

import inspect
import tempfile
from pathlib import Path
from typing import Any

import click
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

import mia_bench
from mia_bench.cli.run import command
from mia_bench.config import RunConfig, load_config
from mia_bench.errors import UsageError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
KEYS = WORDS.map(lambda text: text.replace(".", "-"))
PATHS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0~$"), min_size=1, max_size=60
)  # 240 bytes: a name may have 255
SEED_LISTS = st.lists(st.integers(0, 2**62), min_size=1, max_size=3)
VALUES = TEXT | st.integers() | st.floats() | st.booleans() | st.lists(st.floats(0, 1), min_size=1)
VALID: dict[str, st.SearchStrategy[Any]] = {
    "track": TEXT,
    "defense": TEXT | st.lists(TEXT, max_size=3),
    "attack": st.lists(TEXT, max_size=3),
    "prior": st.lists(TEXT, max_size=3),
    "options": st.dictionaries(
        WORDS, st.dictionaries(KEYS, VALUES | st.lists(VALUES, min_size=1), max_size=3), max_size=3
    )
    | st.dictionaries(st.tuples(WORDS, KEYS).map(".".join), TEXT, max_size=3),
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:12", "mps"]),
    "jobs": st.integers(1) | st.just("auto"),
    "time_limit": st.floats(0, exclude_min=True, allow_infinity=False) | st.integers(1, 99),
    "precision": st.sampled_from(["float32", "tf32", "bfloat16"]),
    "compile": st.booleans(),
    "store": PATHS,
    "data": st.sampled_from([".", ".."]),
    "weights": PATHS,
    "rerun": st.sampled_from(["never", "failed", "always"]),
    "allow_partial": st.booleans(),
    "format": st.sampled_from(["table", "json", "markdown"]),
}
SEEDS = st.fixed_dictionaries({"seeds": st.integers(1, 9) | SEED_LISTS}) | st.fixed_dictionaries(
    {"seed": st.integers(0, 9) | SEED_LISTS}
)


def configs() -> st.SearchStrategy[dict[str, Any]]:
    """Valid values of any of the keys."""
    return st.tuples(st.fixed_dictionaries({}, optional=VALID), st.just({}) | SEEDS).map(
        lambda parts: parts[0] | parts[1]
    )


def write(folder: str, text: str) -> Path:
    path = Path(folder) / "run.toml"
    path.write_bytes(text.encode())
    return path


@given(configs())
def test_a_file_says_what_the_configuration_says(values: dict[str, Any]) -> None:
    config = load_config(values)
    with tempfile.TemporaryDirectory() as folder:
        assert load_config({}, write(folder, config.to_toml())) == config
        assert load_config({}, write(folder, tomli_w.dumps(values))) == config


LETTERS = st.text(st.sampled_from("abcdxyz"), min_size=1, max_size=6)
FRACTIONS = st.floats(0.1, 99).filter(lambda number: number % 1 > 0)
WRONG = st.one_of(
    st.tuples(st.sampled_from(["seeds", "jobs"]), st.integers(max_value=0) | FRACTIONS | LETTERS),
    st.tuples(st.just("seed"), st.integers(max_value=-1) | FRACTIONS | LETTERS),
    st.tuples(
        st.just("time_limit"),
        st.floats(max_value=0) | st.just(float("inf")) | st.integers(max_value=0) | LETTERS,
    ),
    st.tuples(st.sampled_from(["precision", "rerun", "device"]), LETTERS | st.just("bfloat61")),
    st.tuples(st.just("data"), LETTERS.map("nowhere/{}".format)),
    st.tuples(st.just("store"), st.just("")),
    st.tuples(st.just("options"), LETTERS.map(lambda text: [text]) | LETTERS.map(lambda text: [f"{text}=3"])),
)  # fmt: skip


def message(*arguments: Any, **keywords: Any) -> str:
    call = arguments[0]
    with pytest.raises(UsageError) as caught:
        call(*arguments[1:], **keywords)
    return str(caught.value)


@given(WRONG)
def test_a_wrong_value_has_one_message(wrong: tuple[str, Any]) -> None:
    key, value = wrong
    flag, text = f"--{key.replace('_', '-')}", value
    if key == "options":
        flag, text = "-o", value[0]
    by_hand = message(command.main, [flag, str(text), "--show-config"], standalone_mode=False)
    in_python = message(mia_bench.run, **{key: value})
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, tomli_w.dumps({key: value}))
        in_file = message(load_config, {}, path)
    assert by_hand == in_python
    assert in_file == f"--config {path}: {by_hand}"
    assert "\n" not in by_hand


def test_the_three_ways_have_the_same_keys() -> None:
    keys = set(RunConfig.model_fields)
    options = {one.name for one in command.params if isinstance(one, click.Option)}
    assert options == keys | {"config", "show_config", "dry_run"}
    parameters = inspect.signature(mia_bench.run).parameters
    assert set(parameters) == keys - {"format"} | {"display"}
    defaults = RunConfig()
    assert parameters["jobs"].default is None  # 1 here, as more need a guard in the user's script
    for key in keys - {"format", "seeds", "store", "data", "weights", "options", "jobs", "target"}:
        assert parameters[key].default == getattr(defaults, key), key
    assert all(field.description for field in RunConfig.model_fields.values())


def test_paths_are_expanded_and_come_from_the_environment(cli, toy, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HERE", "here")
    assert load_config({"store": "~/$HERE/store"}).store == tmp_path / "here" / "store"
    for name in ("STORE", "DATA", "WEIGHTS"):
        monkeypatch.setenv(f"MIA_BENCH_{name}", f"~/{name}")
    (tmp_path / "DATA").mkdir()
    config = load_config({})
    assert config.store == tmp_path / "STORE"
    assert (config.roots.data, config.roots.weights) == (tmp_path / "DATA", tmp_path / "WEIGHTS")
    assert load_config({"weights": "~/other"}).roots.weights == tmp_path / "other"
    monkeypatch.delenv("MIA_BENCH_WEIGHTS")
    assert config.weights == tmp_path / "WEIGHTS"
    assert load_config({}).roots.weights == tmp_path / "weights"
    made = cli("run", "--track", "toy", "--defense", "toy-failing", "--attack", "ppa", "--device", "cpu",
               "--store=~/$HERE")  # fmt: skip
    assert made.code == 1
    assert (tmp_path / "here" / "records").is_dir()
    assert "toy-failing" in cli("results", "--store=~/$HERE").out


def test_a_wrong_value_of_the_environment_is_not_the_file_s(monkeypatch, tmp_path: Path) -> None:
    path = write(str(tmp_path), "track = 'toy'\n")
    monkeypatch.setenv("MIA_BENCH_DATA", "nowhere")
    assert message(load_config, {}, path) == "the data root nowhere is not a folder"


def test_partial_data_are_allowed_from_python(toy, make_tree, tmp_path: Path) -> None:
    """``allow_partial`` reaches the data set's option, which a track without that option refuses."""
    with pytest.raises(UsageError, match="has no option 'allow_partial'"):
        mia_bench.run(track="toy", store=tmp_path, allow_partial=True)
