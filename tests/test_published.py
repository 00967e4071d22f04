"""The boards of this repository: pages and records agree, and settings are what the sweeps chose."""

from pathlib import Path

import pytest

from mia_bench.engine.grid import resolve, track_options
from mia_bench.leaderboard import records
from mia_bench.plugins import host
from mia_bench.tracks.track import load_track

BOARDS = Path(__file__).parent.parent / "leaderboards"
SWEEPS = BOARDS / records.TUNING


@pytest.mark.parametrize("folder", [BOARDS, SWEEPS], ids=["boards", "sweeps"])
def test_records_and_pages_are_right(folder: Path) -> None:
    assert records.check(folder, host().registry) == []


@pytest.mark.parametrize("name", records.track_names(SWEEPS))
def test_settings_of_the_defenses_are_what_the_sweep_chose(name: str) -> None:
    registry = host().registry
    track = load_track(registry, name)
    tuning = records.load_tuning(BOARDS, name, registry)
    if tuning is None:
        pytest.skip(f"no sweep of the defenses of {name} yet")
    for choice in tuning.choices:
        defaults = track_options(track, "defense", choice.defense)
        resolved = resolve(registry, "defense", choice.defense, defaults, {})
        assert resolved.spec()["options"] == choice.chosen.options


def test_no_tuning_seed_is_on_a_board() -> None:
    for name in records.track_names(SWEEPS):
        tuned = {record.seed for record in records.load(SWEEPS, name)}
        assert tuned.isdisjoint(record.seed for record in records.load(BOARDS, name))
