"""The short form of ``docs/kill_runs.py``: runs that end in odd ways lose nothing and leave no process."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

if not Path("/proc/self/environ").exists():
    pytest.skip("kill_runs finds processes in /proc", allow_module_level=True)
sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import kill_runs

pytestmark = pytest.mark.thorough

DISTURBED = [
    ("driver: SIGKILL", "--jobs 2"),
    ("driver: closed terminal", "one process"),
    ("guard and driver", "--time-limit"),
    ("worker: SIGKILL", "--jobs 2"),  # this run completes the grid
]


def test_runs_that_end_in_odd_ways_lose_nothing_and_leave_no_process(tmp_path) -> None:
    seed = random.randrange(2**32)
    print(f"kill_runs.Killer(work, {seed})")  # shown when the test fails
    killer = kill_runs.Killer(tmp_path, seed)
    for kind, executor in DISTURBED:
        result = killer.kill(kind, executor)
        assert not result.problems, result
    assert killer.grids >= 1
