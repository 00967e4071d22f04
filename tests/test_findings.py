"""The page of findings: its numbers are those of the records."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mia_bench.leaderboard import records
from mia_bench.leaderboard.export import csv_lines
from mia_bench.plugins import host
from mia_bench.statistics import Effect

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import findings  # noqa: E402

pytestmark = pytest.mark.slow


def test_the_page_follows_from_the_records() -> None:
    """``python docs/findings.py`` writes it anew."""
    assert (ROOT / "docs" / "findings.md").read_text(encoding="utf-8") == findings.text()


def test_numbers_are_those_of_the_board() -> None:
    decided = records.decide(ROOT / "leaderboards", host().registry, "lfw")
    board = findings.Boards(decided)
    header, *lines = [line.split(",") for line in csv_lines([decided])]
    (row,) = [dict(zip(header, line, strict=False)) for line in lines if line[3] == "mid"]
    value, low, high = (-float(row[f"leakage_difference{end}"]) for end in ("", "_high", "_low"))
    assert board.less("mid") == f"{value:.2f} [{low:.2f}, {high:.2f}]"
    assert board.percent("mid") == f"{100 * float(row['accuracy']):.0f}"
    assert board.fewer("mid") == board.fewer("mid", row["attack"])
    assert board.fewer("mid") != board.fewer("mid", "gmi")
    with pytest.raises(ValueError, match="unpack"):
        board.less("nothing")


def test_numbers_are_rounded_and_signed() -> None:
    effect = Effect(-0.4567, 0.1, 10.0, seeds=5, classes=60)
    low, high = effect.interval()
    assert findings.interval(effect) == f"−0.46 [−{-low:.2f}, −{-high:.2f}]"
    assert findings.interval(effect, sign=-1) == f"0.46 [{-high:.2f}, {-low:.2f}]"
    assert findings.interval(effect, scale=100, decimals=1, unit="points").startswith("−45.7 points [−")
    assert findings.number(-0.001, 2) == "0.00"


def test_paragraphs_are_wrapped_and_tables_are_not() -> None:
    long = "word " * 40
    text = findings.wrapped(f"# {long}\n\n{long}\n\n| {long} |\n\n- {long}\n- two\n")
    assert f"# {long}\n" in text
    assert f"| {long} |" in text
    assert "\n  word" in text
    assert text.endswith("\n- two\n")
