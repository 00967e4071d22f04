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
EXPERIMENTS = ROOT / "docs" / "experiments"
sys.path.insert(0, str(ROOT / "docs"))

import findings  # noqa: E402


@pytest.mark.slow
def test_the_page_follows_from_the_records() -> None:
    """``python docs/findings.py`` writes it anew."""
    assert (ROOT / "docs" / "findings.md").read_text(encoding="utf-8") == findings.text()


@pytest.mark.slow
def test_numbers_are_those_of_the_board() -> None:
    decided = records.decide(ROOT / "leaderboards", host().registry, "lfw")
    board = findings.Boards(decided)
    header, *lines = [line.split(",") for line in csv_lines([decided])]
    (row,) = [dict(zip(header, line, strict=False)) for line in lines if line[3] == "mid"]
    value, low, high = (-float(row[f"leakage_difference{end}"]) for end in ("", "_high", "_low"))
    assert board.less("mid") == f"{value:.2f} [{low:.2f}, {high:.2f}]"
    assert board.percent("mid") == f"{100 * float(row['accuracy']):.0f}"
    assert board.short("mid") == board.short("mid", row["attack"])
    assert board.short("mid") != board.short("mid", "gmi")
    one, other = board.pair("neg-ls", "mid"), board.pair("mid", "neg-ls")
    assert (one.split()[0], other.split()[0]) == (other.split()[0].strip("−"), f"−{one.split()[0]}")
    with pytest.raises(ValueError, match="the text says more of a difference of -0"):
        board.more("mid")
    with pytest.raises(ValueError, match="lfw has no row 'nothing'"):
        board.less("nothing")
    (row,) = [one for one in decided.rows if one.label == "mid"]
    assert row.verdict is not None
    said = row.verdict.front.removesuffix(" the undefended front")
    assert board.beyond("mid", "less", said) == findings.interval(row.beyond, says="less")
    with pytest.raises(ValueError, match=r"of 'mid' is said '.*', not 'nothing'"):
        board.beyond("mid", "less", "nothing")
    assert board.fronts() == str(len(decided.against_front))
    with pytest.raises(ValueError, match="lfw has no attack 'nothing'"):
        board.less("mid", "nothing")


@pytest.mark.slow
def test_numbers_are_those_of_the_experiments_pages() -> None:
    found = findings.Experiments()

    def page(name: str) -> str:
        return (EXPERIMENTS / f"{name}.md").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")

    def cells(name: str, begin: str, heading: str = "# ") -> list[str]:
        lines = page(name).partition(heading)[2].splitlines()
        (line, *_) = [line for line in lines if line.startswith(begin)]
        return [cell.strip() for cell in line.strip("|").split("|")]

    strong = "strength", "lfw", "neg-ls alpha=-1"
    row = cells("strength", "| `neg-ls alpha=-1` |", "## `lfw`")
    assert found.change(*strong) == row[5]
    assert found.beyond(*strong, "more") == row[6].lstrip("+")
    assert found.points(*strong) == f"{100 * float(row[3].strip('−').split()[0]):.0f}"
    turning = "gradients", "synth-faces", "neg-ls alpha=-1.0", "gradient_cosine"
    assert found.less(*turning) == cells("gradients", "| `gradient_cosine`")[5].lstrip("−")
    nearest = cells("embedding", "| `reconstruction_nearest`", "## `lfw`")
    assert found.level("embedding", "lfw", "none", "reconstruction_nearest") == nearest[1]
    assert f"`id_bits` {found.trend('little-data', 'synth-faces')} under" in page("little-data")
    assert f"`id_bits` {found.mean('strength', 'synth-faces', 0)} under" in page("strength")
    with pytest.raises(ValueError, match="the text says more"):
        found.more(*strong)


def test_numbers_are_rounded_and_signed() -> None:
    effect = Effect(-0.4567, 0.1, 10.0, seeds=5, classes=60)
    low, high = effect.interval()
    assert findings.interval(effect) == f"−0.46 [−{-low:.2f}, −{-high:.2f}]"
    assert findings.interval(effect, says="less") == f"0.46 [{-high:.2f}, {-low:.2f}]"
    assert findings.interval(effect, scale=100, decimals=1, unit="points").startswith("−45.7 points [−")
    with pytest.raises(ValueError, match="the text says more"):
        findings.interval(effect, says="more")
    assert findings.number(-0.001, 2) == "0.00"


def test_paragraphs_are_wrapped_and_tables_are_not() -> None:
    long = "word " * 40
    text = findings.wrapped(f"# {long}\n\n{long}\n\n{long}\n| {long} |\n\n1. {long}\n\n- {long}\n- two\n")
    assert f"# {long}\n" in text
    assert f"\n{long}\n| {long} |\n" in text
    assert f"\n1. {long}\n" in text
    assert "\n  word" in text
    assert text.endswith("\n- two\n")
