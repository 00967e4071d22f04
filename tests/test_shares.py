"""Runs side by side, each with its share of the cells, in one store."""

from __future__ import annotations

from pathlib import Path

import pytest

from mia_bench import hookimpl
from mia_bench.config import RunConfig
from mia_bench.engine.plan import own_share
from mia_bench.engine.run import prepare
from mia_bench.plugins import host

GRID = {"track": "toy", "defense": ["none", "mid", "pos-ls"], "attack": ["ppa", "prior-sample"]}


@pytest.mark.parametrize("count", [1, 2, 3, 6, 11])
def test_shares_are_all_cells_once_and_keep_targets_together(toy, tmp_path: Path, count: int) -> None:
    cells = prepare(RunConfig(**GRID, seeds=2, store=tmp_path)).cells
    shares = [own_share(cells, number, count) for number in range(1, count + 1)]
    assert sorted(cell.key for share in shares for cell in share) == sorted(cell.key for cell in cells)
    assert max(map(len, shares)) - min(map(len, shares)) <= 2
    if count <= 6:
        targets = [{cell.measure.inputs["train"].key for cell in share} for share in shares]
        assert sum(map(len, targets)) == 6


def test_a_run_computes_its_share_and_then_the_whole_is_there(cli, toy, tmp_path: Path) -> None:
    arguments = [
        "run",
        "--track",
        "toy",
        "--defense",
        "none",
        "--defense",
        "pos-ls",
        "--attack",
        "prior-sample",
    ]
    first = cli(*arguments, "--shard", "1/2", "--format", "json")
    second = cli(*arguments, "--shard", "2/2", "--format", "json")
    assert [r["defense"]["name"] for r in first.records] == ["none"]
    assert [r["defense"]["name"] for r in second.records] == ["pos-ls"]
    plan = cli(*arguments, "--dry-run")
    assert "2 cells of track toy, 2 done before" in plan.out
    assert "0 stages to compute" in plan.out


@pytest.mark.slow
def test_the_strongest_attacks_wait_for_other_shares(cli, toy, tmp_path: Path, monkeypatch) -> None:
    arguments = ["run", "--track", "toy", "--defense", "none", "--defense", "pos-ls"]
    arguments += ["--attack", "standard", "--device", "cpu"]
    first = cli(*arguments, "--shard", "1/2")
    assert "run this command again" in first.err
    second = cli(*arguments, "--shard", "2/2")
    assert "strongest attack" in second.out
    planned = cli(*arguments, "--shard", "1/2", "--dry-run")
    assert "phase 2: the strongest against each defense" in planned.out
    assert "no attack finished" not in planned.out
    heard: list[str] = []

    class Listener:
        @hookimpl
        def mia_bench_cell_cached(self, cell) -> None:
            heard.append(cell.record.defense.name)

        mia_bench_cell_finished = mia_bench_cell_cached

    host().manager.register(Listener())
    again = cli(*arguments, "--shard", "1/2")
    assert "strongest attack" in again.out
    assert "run this command again" not in again.err
    assert set(heard) == {"none"}  # the others are cells of the other share


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_what_is_no_share_is_refused(cli, toy, text: str) -> None:
    outcome = cli("run", "--track", "toy", "--shard", text)
    assert outcome.code == 2
    assert f"shard {text!r} is not i/n" in outcome.err
