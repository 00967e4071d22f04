"""The boards of this repository: pages and records agree, and settings are what the sweeps chose."""

import os
from pathlib import Path

import pytest

from mia_bench import jsonfile
from mia_bench.components import resolve, track_options
from mia_bench.config import load_config
from mia_bench.engine.run import prepare
from mia_bench.leaderboard import records
from mia_bench.leaderboard.folds import boards_of
from mia_bench.leaderboard.tuning import choose
from mia_bench.plugins import host
from mia_bench.track import load_track

pytestmark = pytest.mark.slow

BOARDS = Path(__file__).parent.parent / "leaderboards"


def test_every_record_has_a_right_hash() -> None:
    paths = sorted(BOARDS.glob("**/results/*/*.json"))
    assert len(paths) > 600
    for path in paths:
        record = jsonfile.read_object(path)
        assert record["sha256"] == jsonfile.digest(record), path
        assert path.read_text(encoding="utf-8") == jsonfile.file_text(record), path


def test_records_and_pages_are_right() -> None:
    assert records.check(BOARDS, host().registry) == []


@pytest.mark.parametrize("name", records.sweep_names(BOARDS))
def test_settings_of_the_defenses_are_what_the_sweep_chose(name: str) -> None:
    registry = host().registry
    track = load_track(registry, name)
    board, *folds = boards_of(registry, track, records.load(BOARDS / records.TUNING, name))
    tuning = choose(board, registry, folds)
    if tuning is None:
        pytest.skip(f"the sweep of {name} tried no defenses yet")
    for chosen in tuning.choices:
        assert chosen.setting is not None
        assert all(choice.setting.folds == tuning.folds for choice in chosen.choices)
        defaults = track_options(track, "defense", chosen.defense)
        resolved = resolve(registry, "defense", chosen.defense, defaults, {})
        assert resolved.spec()["options"] == chosen.setting.options


@pytest.mark.parametrize("name", ["synth-faces", "lfw", "mnist"])
def test_what_is_measured_now_can_be_on_the_board(name: str, tmp_path: Path) -> None:
    if name != "synth-faces" and not os.environ.get("MIA_BENCH_DATA"):
        pytest.skip("MIA_BENCH_DATA, the root of the data sets, is not set")
    config = load_config({"track": name, "defense": ["none"], "attack": ["ppa"], "store": tmp_path / "store"})
    (cell,) = prepare(config).cells
    protocols = {record.track.protocol for record in records.load(BOARDS, name)}
    assert protocols == {cell.protocol}
    keys = {record.key for record in records.load(BOARDS, name) if record.seed == 0}
    assert cell.key in keys
