"""What people see of a run: plain lines in logs, bars on a terminal; both with the time left."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from mia_bench.engine import progress as reporters
from mia_bench.engine.plan import Stage
from mia_bench.engine.progress import PlainProgress, ProgressBars, duration, terminal_progress

STAGE = cast(Stage, SimpleNamespace(label="prior of mine", id=("prior", "1")))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=100.0)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(reporters, "time", made)
    return made


def test_plain_lines_say_what_is_done_and_how_long_it_takes(clock: Any, capsys: Any) -> None:
    plain = PlainProgress()
    plain.begin(2, 90)
    plain.stage_begins(STAGE, 80)
    for done in range(1, 6):
        clock.now += 10
        plain.progress(STAGE, done, 8, "epoch")
    plain.stage_ends(STAGE, 80)
    assert capsys.readouterr().err.splitlines() == [
        "2 stages to compute, about 1 min 30 s",
        "[1/2] prior of mine (about 1 min 20 s)",
        "[1/2] prior of mine: epoch 2 of 8, 1 min 0 s left",  # not oftener than every 15 s
        "[1/2] prior of mine: epoch 4 of 8, 40 s left",
        "[1/2] prior of mine: done in 1 min 20 s",
    ]


def test_time_left_of_a_stage_that_goes_on_follows_from_what_was_done_since(clock: Any, capsys: Any) -> None:
    plain = PlainProgress()
    plain.stage_begins(STAGE, 0)
    clock.now += 20  # looking for what was done before
    plain.progress(STAGE, 4000, 9000, "step")
    clock.now += 20
    plain.progress(STAGE, 4040, 9000, "step")
    assert "step 4040 of 9000, 41 min 20 s left" in capsys.readouterr().err
    plain.progress(STAGE, 0, 300, "image")  # the stage's next part
    clock.now += 30
    plain.progress(STAGE, 100, 300, "image")
    assert "image 100 of 300, 1 min 0 s left" in capsys.readouterr().err


def test_bars_show_the_stage_and_leave_a_line_behind() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    bars = ProgressBars(console)
    now = [0.0]
    bars._bars.get_time = lambda: now[0]  # type: ignore[method-assign]
    bars.begin(1, 10)
    bars.stage_begins(STAGE, 10)
    for done in range(4000, 4100, 10):
        bars.progress(STAGE, done, 5000, "step")
        now[0] += 1.0
    (stage,) = [task for task in bars._bars.tasks if task.description == STAGE.label]
    assert stage.completed == 4090
    assert stage.time_remaining == pytest.approx(91, abs=2)  # 10 a second, not 4,000 at once
    bars._bars.refresh()
    bars.say("a word [in brackets]")
    bars.stage_ends(STAGE, 12.3)
    bars.end()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "a word [in brackets]" in text
    assert "✓ prior of mine (12 s)" in text
    assert "0:01:31" in text


def test_a_log_gets_plain_lines() -> None:
    assert isinstance(terminal_progress(), PlainProgress)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (61, "1 min 1 s"), (7500, "2 h 5 min")],
)
def test_durations_are_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
