"""The verdict table elsewhere than on a page: for papers, above a store's cells, and below a run's table."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mia_bench import plugins
from mia_bench.leaderboard import published, records
from mia_bench.leaderboard.export import csv_lines, latex, latex_text
from mia_bench.leaderboard.overview import overview_rows, overviews
from mia_bench.leaderboard.published import (
    SUFFIX,
    published_lines,
    read_published,
    summary_path,
)
from mia_bench.leaderboard.standings import Standings
from mia_bench.leaderboard.summary import summary_text
from mia_bench.registry import Registry
from mia_bench.store import Store
from mia_bench.track import load_track
from stored import write_json
from test_leaderboard import make_record, make_registry, read
from test_standings import BASE, cell, decide, rows

MADE = [*BASE, *rows(("guard", 0.3, 0.9)), *rows(("guard", 0.5, 0.6), options={"alpha": 0.6}),
        *rows(("plain", 0.1, 0.9), attack="samples")]  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


@pytest.fixture
def decided(registry: Registry) -> Standings:
    return decide(registry, *MADE)


# --- for papers ------------------------------------------------------------------------------


def test_a_table_for_latex_has_a_row_a_defense_and_as_many_cells(decided: Standings) -> None:
    text = latex(decided)
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    lines = [line for line in body.splitlines() if line]
    assert [line.split(" & ")[0].split("\\")[0] for line in lines] == ["plain", "guard", "guard alpha=0.6"]
    columns = re.search(r"\\begin\{tabular\}\{(l+)\}", text)
    assert columns is not None
    for line in [*lines, text.split(r"\toprule")[1].split(r"\midrule")[0].strip()]:
        assert line.endswith(r"\\")
        assert len(re.findall(r"(?<!\\)&", line)) == len(columns[1]) - 1
    assert r"$-$0.30 $\pm$ 0.0" in lines[1]
    assert "leaks less & a" in lines[1]
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_a_table_for_latex_has_every_remark_and_the_seeds_of_its_rows(registry: Registry) -> None:
    made = [*rows(("plain", 0.6)), *rows(("guard", 0.3), seeds=3, randomised=True)]
    made += rows(("guard", 0.5), seeds=1, options={"alpha": 0.6}, changed=["alpha"])
    text = latex(decide(registry, *made))
    assert r"guard\textsuperscript{1,2} & " in text
    assert r"guard alpha=0.6\textsuperscript{3} & " in text
    words = ("few seeds", "randomised", "no verdict from one seed")
    notes = [rf"\textsuperscript{{{number}}}{remark}" for number, remark in enumerate(words, 1)]
    assert f"Remarks: {', '.join(notes)}." in text
    assert "intervals for other seeds and other classes (1 to 5 seeds)" in text
    alone = latex(decide(registry, *rows(("plain", 0.6), ("guard", 0.3), seeds=1)))
    assert "intervals for other classes (1 seed)" in alone
    assert "& Role " in alone
    assert "Pairs" not in alone
    assert "letter" not in alone


def test_a_table_for_latex_without_a_finished_cell_has_no_rows(registry: Registry) -> None:
    failed = make_record(status="failed", reason="boom", metrics={}, per_class={})
    assert "(0 seeds)" in latex(decide(registry, failed))


@pytest.mark.parametrize("hostile", ["\\input{/etc/passwd}", "a&b%c#d_e$f^g~h", "{{", "\n\\\\\n", "\x1b<|>"])
def test_text_is_escaped_for_latex(hostile: str) -> None:
    shown = latex_text(hostile)
    assert "\n" not in shown
    rest = re.sub(r"\\(text[a-z]+\{\}|[&%$#_{}])|\$\\?[a-z-]+\$", "", shown)
    assert not set("\\&%$#_{}~^") & set(rest)


def test_a_table_in_csv_has_numbers_in_full(decided: Standings) -> None:
    first, second, third = csv.DictReader(csv_lines([decided]))
    assert [row["role"] for row in (first, second, third)] == ["baseline", "defense", "defense"]
    assert float(second["leakage_difference"]) == pytest.approx(-0.3, abs=1e-5)
    assert float(second["leakage_difference_low"]) < -0.3 < float(second["leakage_difference_high"])
    assert (first["leakage_difference"], first["verdict"]) == ("", "")
    assert third["verdict"].startswith("leaks less, at a cost")
    assert len(csv_lines([decided, decided])) == 7


def test_the_command_prints_tables_and_writes_nothing(
    cli: Callable[..., Any], tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "boards"
    for record in read(*MADE):
        path = records.record_path(folder, record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record.file_text())
    monkeypatch.setattr(plugins.host(), "registry", registry)
    made = cli("leaderboard", "build", "--folder", folder, "--format", "latex", "--track", "little")
    assert (made.code, made.out.count(r"\begin{table}")) == (0, 1), made.err
    assert cli("leaderboard", "build", "--folder", folder, "--format", "csv").out.startswith("track,version,")
    assert not list(folder.glob("*.md"))
    wrong = cli("leaderboard", "build", "--folder", folder, "--format", "csv", "--track", "litle")
    assert (wrong.code, "did you mean 'little'" in wrong.err) == (2, True)
    assert cli("leaderboard", "build", "--folder", folder, "--track", "little").code == 2


# --- above the cells of a store ----------------------------------------------------------------


def test_results_begin_with_a_row_a_defense(registry: Registry) -> None:
    [one] = overviews(read(*MADE), registry)
    assert one.decided is not None
    base, guard, dear = overview_rows(one.decided)
    assert (base["defense"], base["verdict"], base["Δ leakage"]) == ("plain", "baseline", "")
    assert (guard["verdict"], guard["attack"], guard["seeds"]) == ("leaks less", "aim", "5")
    assert dear["verdict"].startswith("leaks less, at a cost; ")
    assert guard["id_gallery_acc1"].startswith("0.30 ")


def test_one_seed_has_no_verdict_and_no_baseline_neither(registry: Registry) -> None:
    [one] = overviews(read(cell("plain", 0, 0.6), cell("guard", 0, 0.3)), registry)
    assert one.decided is not None
    assert overview_rows(one.decided)[1]["verdict"] == "no verdict from one seed"
    [alone] = overviews(read(cell("guard", 0, 0.3)), registry)
    assert alone.decided is not None
    assert overview_rows(alone.decided)[0]["verdict"] == "not comparable with the baseline"


def test_the_newest_record_of_a_cell_counts_and_what_shares_no_board_is_said(registry: Registry) -> None:
    old, new = make_record(gallery=0.1), make_record(gallery=0.5)
    new["key"] = "f" * 20
    new["provenance"]["finished"] = "2027-01-01T00:00:00+00:00"
    [one] = overviews(read(old, new), registry)
    assert one.decided is not None
    assert one.decided.rows[0].leakage.value == pytest.approx(0.5)  # type: ignore[union-attr]
    dated = make_record("guard", gallery=0.2)
    dated["defense"]["version"] = "0"
    [current] = overviews(read(new, dated), registry)
    assert current.decided is not None
    assert [row.label for row in current.decided.rows] == ["plain"]
    [none] = overviews(read(dated), registry)
    assert none.reason == "its cells are of other versions than are installed"
    other = make_record("guard", track={"name": "little", "version": 2, "data": "other", "protocol": "p1"})
    [mixed] = overviews(read(new, other), registry)
    assert mixed.decided is None
    assert "little" in mixed.reason
    assert overviews(read(make_record(status="failed", reason="x", metrics={}, per_class={})), registry) == []


def test_the_command_prints_them_first(
    cli: Callable[..., Any], tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins.host(), "registry", registry)
    store = Store(tmp_path / "made-store")
    for record in MADE:
        write_json(store, record)
    out = cli("results", "--store", store.root).out.splitlines()
    assert out[0] == "little: each row under the one attack that was tried on it"
    assert out[1].split()[:3] == ["defense", "seeds", "test_accuracy"]
    assert out[3].split()[0] == "plain"
    assert any(line.startswith("cell ") for line in out)
    assert json.loads(cli("results", "--store", store.root, "--format", "json").out)


# --- below the table of a run ------------------------------------------------------------------


def ship(registry: Registry, decided: Standings) -> None:
    summary_path(registry, "little").write_text(summary_text(decided), "utf-8")


def test_a_run_is_told_what_the_board_says(registry: Registry, decided: Standings) -> None:
    ours = read(cell("guard", 77, 0.2))
    assert list(published_lines(ours, registry)) == []
    ship(registry, decided)
    lines = list(published_lines(ours, registry))
    assert lines[0] == (
        "published board of little version 2, 5 seeds, id_gallery_acc1 (lower is better for the defender):"
    )
    assert lines[1].startswith("  ceiling 0.97 ± 0.01 (real images), floor 0.10 ")
    assert re.fullmatch(r"  under aim with faces: plain 0\.60 .*, guard 0\.30 .*", lines[2])
    assert lines[3] == "  verdicts under the strongest attack on each: guard leaks less"
    assert len(lines) == 4
    [unknown] = read(cell("guard", 77, 0.2, options={"alpha": 0.9}))
    assert not any("guard" in line for line in published_lines([unknown], registry))
    weaker = read(cell("guard", 77, 0.2, steps=3))
    assert list(published_lines(weaker, registry)) == []  # the board has no such attack
    other = cell("guard", 77, 0.2)
    other["prior"] |= {"options": {"components": 8}, "about": {"changed": ["components"]}}
    assert not any("under aim" in line for line in published_lines(read(other), registry))
    ship(registry, decide(registry, *MADE, other))
    told = "\n".join(published_lines(read(other), registry))
    assert "under aim with faces (components=8): guard 0.20 " in told
    assert "plain" not in told


def test_a_summary_counts_the_seeds_that_finished(registry: Registry) -> None:
    failed = make_record("guard", 5, "aim", status="failed", reason="out of memory", metrics={})
    assert json.loads(summary_text(decide(registry, *MADE, failed)))["seeds"] == 5


def test_a_summary_of_another_version_or_a_broken_one_says_nothing(
    registry: Registry, decided: Standings
) -> None:
    track = load_track(registry, "little")
    ship(registry, decided)
    assert read_published(registry, track) is not None
    assert read_published(registry, track.model_copy(update={"version": 3})) is None
    path = summary_path(registry, "little")
    assert path.name == f"little{SUFFIX}"
    path.write_text("{")
    assert read_published(registry, track) is None
    assert list(published_lines(read(*MADE), registry)) == []


def test_it_stands_below_the_table_of_a_cached_run_and_programs_hear_nothing(
    cli: Callable[..., Any], toy: None, undisturbed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store, path = tmp_path / "boards", tmp_path / "copy", tmp_path / "summary.json"
    shutil.copytree(undisturbed.store, store)
    assert cli("leaderboard", "submit", "--folder", folder, "--store", store).code == 0
    path.write_text(summary_text(records.decide(folder, plugins.host().registry, "toy")), "utf-8")
    monkeypatch.setattr(published, "summary_path", lambda registry, track: path)
    run = ("run", "--track", "toy", "--defense", "neg-ls", "--attack", "ppa", "--device", "cpu", "--store")
    lines = cli(*run, store).out.splitlines()
    [at] = [number for number, line in enumerate(lines) if line.startswith("published board of toy ")]
    assert lines[at + 2].startswith("  under ppa with ")
    assert "none " in lines[at + 2]
    assert "neg-ls " in lines[at + 2]
    told = cli(*run, store, "--format", "json").out
    assert "published" not in told
    assert len(json.loads(told)) == 1


def test_reading_a_summary_needs_no_numpy() -> None:
    program = (
        "import sys, mia_bench.leaderboard.published; "
        "sys.exit(bool({'numpy', 'torch', 'scipy', 'pandas', 'jinja2'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
