"""The verdict table for papers: LaTeX with booktabs, and CSV."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Sequence

from mia_bench.api.metric import Quantity
from mia_bench.leaderboard.aggregate import Shown
from mia_bench.leaderboard.standings import Standing, Standings
from mia_bench.leaderboard.words import accuracy_change, brief, change, remarks, unit_of_points
from mia_bench.recorded_options import options_text
from mia_bench.statistics import Effect, Estimate
from mia_bench.text import one_line

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "Δ": r"$\Delta$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def latex_text(text: str) -> str:
    """``text`` on one line, to be read by LaTeX as it is."""
    return "".join(_SPECIAL.get(character, character) for character in one_line(text))


def latex(decided: Standings) -> str:
    """A ``table`` environment, which needs the package ``booktabs``; its caption has the remarks."""
    board = decided.board
    columns = _columns(decided)
    said = [remarks(row) for row in decided.rows]
    notes = list(dict.fromkeys(itertools.chain.from_iterable(said)))
    marks = [",".join(str(notes.index(words) + 1) for words in some) for some in said]
    rows = [[latex_text(cell(row)) for cell in columns.values()] for row in decided.rows]
    for row, mark in zip(rows, marks, strict=True):
        row[0] += rf"\textsuperscript{{{mark}}}" if mark else ""
    numbered = [rf"\textsuperscript{{{n}}}{latex_text(words)}" for n, words in enumerate(notes, 1)]
    caption = latex_text(_caption(decided)) + (f" Remarks: {', '.join(numbered)}." if notes else "")
    lines = [
        f"% {one_line(board.track.name)}, version {board.track.version}, {_seeds(decided)}; "
        r"needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\begin{tabular}{" + "l" * len(columns) + "}",
        r"\toprule",
        _latex_row(map(latex_text, columns)),
        r"\midrule",
        *map(_latex_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{caption}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _columns(decided: Standings) -> dict[str, Callable[[Standing], str]]:
    board = decided.board
    useful, primary = board.quantities.get(decided.accuracy), board.quantities.get(board.primary)
    columns: dict[str, Callable[[Standing], str]] = {"Defense": lambda row: row.label}
    if useful:
        columns[f"{decided.accuracy}{_arrow(useful)}"] = lambda row: brief(useful, row.accuracy)
        unit = unit_of_points(useful)
        columns[f"Δ accuracy{unit and f' ({unit})'}"] = lambda row: accuracy_change(decided, row)
    if primary:
        columns[f"{board.primary}{_arrow(primary)}"] = lambda row: brief(primary, row.leakage)
        columns["Attack"] = lambda row: board.label(row.section) if row.section else ""
        columns["Δ leakage"] = lambda row: change(primary, row.difference)
    columns["Verdict" if decided.decided else "Role"] = _verdict
    if any(row.letters for row in decided.rows):
        columns["Pairs"] = lambda row: row.letters
    return columns


def _seeds(decided: Standings) -> str:
    """``5 seeds``, ``1 to 5 seeds``."""
    counts = sorted({len(row.shown) for row in decided.rows if row.shown}) or [0]
    ends = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{ends} seed{'s' * (counts[-1] != 1)}"


def _arrow(quantity: Quantity) -> str:
    return {"higher": " ↑", "lower": " ↓"}.get(quantity.better, "")


def _verdict(row: Standing) -> str:
    if row.role != "defense":
        return row.role
    return row.verdict.outcome if row.verdict else ""


def _caption(decided: Standings) -> str:
    board = decided.board
    summary = board.track.summary.rstrip(".")
    held = "other seeds and other classes" if decided.most_seeds > 1 else "other classes"
    text = (
        f"{summary[:1].upper()}{summary[1:]}. Leakage under the strongest attack found on each row; "
        f"95 % intervals for {held} ({_seeds(decided)}); arrows show what is better for the defender."
    )
    if any(row.letters for row in decided.rows):
        text += " Defenses that share a letter can't be told apart."
    defenses = dict.fromkeys(row.defense for row in decided.defenses)
    given = [(name, options_text(board.track.defenses.get(name, {}))) for name in defenses]
    if options := [f"{name} {words}" for name, words in given if words]:
        text += f" Options where a row gives no others: {'; '.join(options)}."
    return text


def csv_lines(tables: Iterable[Standings]) -> list[str]:
    """A line of names, and one for each row: numbers with six digits, empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ("accuracy", "accuracy_difference", "leakage", "leakage_difference", "front_difference")
    ends = [f"{name}{end}" for name in numbers for end in ("", "_low", "_high")]
    words = ("attack", "prior", "verdict", "remarks", "letters")
    writer.writerow(["track", "version", "quantity", "defense", "role", "seeds", *ends, *words])
    for decided in tables:
        writer.writerows(_csv_row(decided, row) for row in decided.rows)
    return text.getvalue().splitlines()


def _csv_row(decided: Standings, row: Standing) -> list[float | str]:
    board, section, verdict = decided.board, row.section, row.verdict if row.role == "defense" else None
    words = [
        board.label(section) if section else "",
        section.prior.name if section else "",
        verdict.text if verdict else "",
        "; ".join(verdict.flags) if verdict else "",
        row.letters,
    ]
    return [
        board.track.name,
        board.track.version,
        board.primary,
        _plain(row.label),
        row.role,
        len(row.shown),
        *_numbers(row.accuracy),
        *_numbers(row.accuracy_difference),
        *_numbers(row.leakage),
        *_numbers(row.difference),
        *_numbers(row.beyond),
        *map(_plain, words),
    ]


def _numbers(found: Shown | Effect | None) -> Sequence[float | str]:
    if isinstance(found, Effect):
        return [_digits(number) for number in (found.value, *found.interval())]
    if isinstance(found, Estimate):
        ends = ("", "") if found.low is None or found.high is None else found.interval
        return [_digits(number) for number in (found.value, *ends)]
    return ["", "", ""]


def _digits(number: float | str) -> float | str:
    return number if isinstance(number, str) else float(f"{number:.6g}")


_FORMULA = re.compile(r"^[=+\-@]")


def _plain(text: str) -> str:
    """``text`` on one line, so that a spreadsheet shows it instead of computing it."""
    shown = one_line(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown
