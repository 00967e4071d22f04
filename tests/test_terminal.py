"""What is printed: any text, any encoding, any stream; one line for what is wrong, the right exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from mia_bench import terminal, text
from mia_bench.cli import group
from mia_bench.cli.main import PIPE_CLOSED
from mia_bench.engine import progress
from mia_bench.errors import MiaBenchError, summarize_error
from mia_bench.record import Record
from mia_bench.results import results_table
from mia_bench.store import Store
from test_leaderboard import make_record
from test_pages import HOSTILE, TEXTS, unchecked

HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")
MORE = (
    "\x1b]0;title\x07",
    "\x9b31m",
    "\r\x1b[2K",
    "a\u0301" + "\u0301" * 50,
    "\u2066x\u2069",
    "[/x]",
    "[bold]",
)
ANY = st.one_of(TEXTS, st.lists(st.sampled_from([*HOSTILE, *MORE]), max_size=4).map("".join))


def harmless(printed: str, *, ends: str = "\n") -> bool:
    return not [c for c in printed if unicodedata.category(c) in HARMFUL and c not in ends]


# --- text ----------------------------------------------------------------------------------------


@given(given=ANY)
def test_text_for_a_terminal_is_harmless(given: str) -> None:
    for made in (text.one_line(given), text.unbroken(given)):
        assert harmless(made, ends="")
        assert "\n" not in made
        made.encode()
    assert harmless(text.lines(given))
    assert text.lines(given).count("\n") == given.count("\n")
    assert text.one_line(text.one_line(given)) == text.one_line(given)


@given(given=st.text(alphabet=st.characters(categories=("L", "N", "P", "S"))))
def test_words_are_shown_as_they_are(given: str) -> None:
    assert text.one_line(given) == text.unbroken(given) == given


def test_marks_are_not_piled_up() -> None:
    assert text.one_line("e\u0301x\u0323\u0301\u0308") == "e\u0301x\u0323\u0301\u0308"
    assert len(text.one_line("x" + "\u0301" * 1000)) == 4


@given(given=ANY)
def test_errors_are_one_harmless_line(given: str) -> None:
    for shown in (str(MiaBenchError(given)), summarize_error(ValueError(given))):
        assert harmless(shown, ends="")


# --- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "cp437"])
@given(given=ANY)
def test_any_text_is_printed_in_any_encoding(encoding: str, given: str) -> None:
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding=encoding, errors="mia_bench.ascii", newline="\n")
    print(text.lines(given), "– … × ✓ ≥ ↓", file=stream, flush=True)
    shown = data.getvalue().decode(encoding)
    assert harmless(shown)
    if encoding == "ascii":
        assert shown.endswith(" - ... x ok >= v\n")


def mia_bench(*words: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in bash, as ``$RUN words`` with what ``shell`` puts behind."""
    command = f'"{sys.executable}" -m mia_bench "$@" {shell}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "bash", *words],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env={**os.environ, "MIA_BENCH_STRICT": "0", **environment},
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "shell", "environment", "code", "err"),
    [
        (["list"], "", {"PYTHONIOENCODING": "ascii"}, 0, None),
        (["run", "--dry-run"], "", {"PYTHONIOENCODING": "latin-1"}, 0, None),
        (["list"], "", {"PYTHONIOENCODING": "cp1252", "COLUMNS": "20", "TERM": "dumb"}, 0, None),
        (["list"], ">/dev/full", {}, 1, "standard output can't be written: No space left on device"),
        (["--help"], ">/dev/full", {}, 1, "standard output can't be written: No space left on device"),
        (["list"], ">&-", {}, 1, "standard output can't be written: Bad file descriptor"),
        (["list", "attacks"], "2>/dev/full", {}, 0, None),
        (["lst"], "2>/dev/full", {}, 2, None),
        (["lst"], "2>&-", {}, 2, None),
        (["list"], "<&- 2>&1 | head -1", {}, PIPE_CLOSED, None),
        (["describe", "ppa"], "2>&1 | true", {}, PIPE_CLOSED, None),
    ],
)  # fmt: skip
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_streams(
    words: list[str], shell: str, environment: dict[str, str], code: int, err: str | None
) -> None:
    done = mia_bench(*words, shell=shell, **environment)
    assert done.returncode == code, done.stderr
    assert done.stderr == (f"error: {err}\n" if err else "")
    if "head" in shell:
        assert done.stdout.count("\n") == 1


def test_a_run_that_nobody_reads_is_interrupted(spawn, toy, store, tmp_path: Path) -> None:
    store("data", "prior", "evaluator", "gallery")
    process = spawn("run", "--track", "toy", "--defense", "none", "--attack", "ppa", "--device", "cpu")
    with process:
        process.stderr.readline()
        process.stderr.close()
        assert process.wait(240) == PIPE_CLOSED
    (path,) = (tmp_path / "store" / "records" / "toy").glob("*.json")
    assert json.loads(path.read_text())["status"] == "interrupted"


# --- wrong words ---------------------------------------------------------------------------------

ODD = (
    "*",
    "/tmp",
    "..",
    "",
    "a/b",
    "a\nb",
    "a\x1b[31mb",
    "-",
    "x" * 10_000,
    "[/x]",
    "\u202ex",
    "ｘ",
    "a b",
    "\udcff",
)
WRONG = [
    ["run", "--track", "{}", "--dry-run"],
    ["run", "--defense", "{}", "--dry-run"],
    ["run", "--device", "{}", "--dry-run"],
    ["run", "--format", "{}", "--dry-run"],
    ["run", "--seeds", "{}", "--dry-run"],
    ["run", "-o", "{}", "--dry-run"],
    ["run", "-o", "ppa.{}=1", "--dry-run"],
    ["run", "-o", "ppa.steps={}", "--dry-run"],
    ["results", "--track", "{}"],
    ["describe", "{}"],
    ["show", "nothing{}"],
    ["list", "{}"],
    ["plugins", "new", "{}"],
    ["plugins", "check", "{}"],
    ["data", "check", "{}"],
    ["prior", "fetch", "{}"],
    ["leaderboard", "submit", "--track", "{}"],
    ["nothing{}"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_wrong_word_is_one_line_and_exit_code_2(cli, words: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MIA_BENCH_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Store(tmp_path / "store")
    for odd in ODD:
        outcome = cli(*[word.replace("{}", odd) for word in words])
        if outcome.code == 0 and words[:2] == ["run", "--format"]:
            continue  # a dry run prints no records
        assert outcome.code == 2, (odd, outcome)
        assert outcome.out == ""
        (line,) = outcome.err.splitlines()
        assert line.startswith("error: ")
        assert harmless(line, ends="")
        assert len(line) < group.LONGEST + 20


@pytest.mark.parametrize("place", ["store", "data", "weights", "config"])
@pytest.mark.parametrize("odd", ["x" * 5000, "a\x00b"], ids=["long", "null"])
def test_a_path_that_is_none(cli, place: str, odd: str) -> None:
    outcome = cli("run", f"--{place}", odd, "--dry-run")
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert harmless(line, ends="")
    assert len(line) < 300


def test_what_no_code_foresaw_is_one_line(cli, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("odd\n\x1b[31m")

    monkeypatch.setattr(group.cli, "invoke", fail)
    outcome = cli("list")
    assert outcome.code == 1
    assert re.fullmatch(
        r"error: ValueError: odd \ufffd\[31m \(test_terminal\.py:\d+\) \(mia-bench --debug .*\)\n",
        outcome.err,
    )


# --- records on a terminal and in files ----------------------------------------------------------


def hostile_records(words: str) -> list[Record]:
    failed = make_record(status="failed", reason=words, metrics={}, cost={}, notes={words: words})
    failed["defense"] |= {"name": words, "options": {words: words}, "version": words}
    done = make_record()
    done["metrics"][words] = done["metrics"]["attack_acc1"]
    return unchecked(failed, done)


@given(words=ANY)
@settings(max_examples=50)
def test_records_as_tables(words: str) -> None:
    records = hostile_records(words)
    shown = results_table(records)
    assert harmless(shown)
    assert len(shown.splitlines()) == 6  # the table, a blank line, and what one seed means
    markdown = results_table(records, "markdown")
    assert harmless(markdown)
    found = MarkdownIt("commonmark").enable("table").parse(markdown)
    kinds = [token.type for token in found]
    columns = markdown.splitlines()[1].count("|") - 1
    assert (kinds.count("tr_open"), kinds.count("td_open")) == (3, 2 * columns)
    inner = {child.type for token in found for child in token.children or ()}
    assert inner <= {"text", "text_special"}


@given(words=ANY)
@settings(max_examples=50)
def test_records_as_csv_and_json(words: str) -> None:
    records = hostile_records(words)
    rows = list(csv.DictReader(io.StringIO(results_table(records, "csv"))))
    assert len(rows) == 2
    for row in rows:
        assert not (row["reason"] or " ").startswith(("=", "+", "-", "@"))
        assert harmless(row["reason"] + row["defense_options"])
    written = results_table(records, "json")
    assert written.isascii()
    assert [record["reason"] for record in json.loads(written)] == [text.encodable(words), None]


# --- progress ------------------------------------------------------------------------------------


class FakeStage:
    """As much of a stage as a progress display asks for."""

    id = ("train", "x")

    def __init__(self, label: str) -> None:
        self.label = label


@given(words=ANY)
@settings(max_examples=30)
def test_progress_bars_show_any_words(words: str) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=2000, highlight=False, emoji=False)
    bars = progress.ProgressBars(console)
    stage = FakeStage(words)
    bars.begin(1, 1.0)
    bars.stage_begins(stage, 1.0)  # type: ignore[arg-type]
    bars.progress(stage, 1, 2, words)  # type: ignore[arg-type]
    bars.stage_ends(stage, 1.0)  # type: ignore[arg-type]
    bars.say(words)
    bars.end()
    assert harmless(out.getvalue())


def test_bars_only_where_a_terminal_can_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress.terminal_progress(), progress.PlainProgress)


# --- nothing goes round --------------------------------------------------------------------------


def test_everything_is_printed_by_one_module() -> None:
    """``click.echo`` and ``print`` would pass on what a terminal obeys."""
    package = Path(terminal.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"click\.(echo|secho)\(|(?<![\w.])print\(|\.print\(|stream\.write\(", line)
        and "code = f" not in line
    }
    assert found == {"streams.py", "cli/answers.py", "plugins.py", "cli/list.py", "engine/progress.py"}
