"""The pages of boards: nothing that a record, a plugin or a track says can break out of its place."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import cmarkgfm
import pytest
from bs4 import BeautifulSoup
from cmarkgfm.cmark import Options as CmarkOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

from mia_bench import Quantity
from mia_bench.errors import MiaBenchError
from mia_bench.experiments.pages import TEMPLATES
from mia_bench.leaderboard import escape, pages
from mia_bench.leaderboard.aggregate import Missing
from mia_bench.leaderboard.board import build_board
from mia_bench.leaderboard.compare import FromBaseline
from mia_bench.leaderboard.standings import standings
from mia_bench.leaderboard.tuning import Tuning
from mia_bench.names import Form
from mia_bench.plugins import host
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.statistics import Effect, Estimate
from mia_bench.text import code, one_line, prose, shell
from mia_bench.track import Recipe, Track, load_track
from test_leaderboard import (
    PARTS,
    chosen,
    make_record,
    make_registry,
    metric,
    planned,
    read,
    swept,
)

HOSTILE = (
    "`",
    "a``b```c",
    "| x |\n| --- |\n| y |",
    "a\\|b\\`c\\",
    "<script>alert(1)</script>",
    "</code><img src=x onerror=alert(1)><!--",
    "[x](javascript:alert(1)) ![y](http://z)",
    "](javascript:alert(1)",
    "$(rm -rf ~); `id` && echo $HOME $x$",
    "'; rm -rf / #",
    "\n```\n# heading\n\n- list\n",
    "~~~\n\nx",
    "\n\n---\n===\n",
    "# heading #",
    "> quote\n1. one\n* two\n+ three\n- four",
    "{role}`x` {#id .class} {{ x }} {% raw %}",
    "(target)=",
    "% comment",
    ":::{note}",
    "**bold** _em_ ~~gone~~ &lt;b&gt; &#60;",
    "\x00\x07\x1b[31m\x85\u2028\u202e\ud800 \ufeff",
    "<https://x.example> www.x.example",
    "HTTP://x.example/a_b* ftp://x a_b@x.example",
    "://x",
    "    indented",
    "--index-url=http://x.example",
    "[^1]: note\n[ref]: http://x",
)
LOUD = (" ".join(HOSTILE), "\n\n".join(reversed(HOSTILE)), "# x", "`", "1. x")
"""All of it, for whole pages."""
PIECES = st.sampled_from([*HOSTILE, "http://", "www.", "a.b", *"`|\\\n#<>[]()*_~&$'\"-+=:%{}! 1.a"])
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=6).map("".join))


PARSERS = {
    "github": MarkdownIt("commonmark").enable(["table", "strikethrough"]),
    "myst": create_md_parser(MdParserConfig(enable_extensions={"attrs_inline"}), RendererHTML),
}
"""As the boards are read in the repository, and in the documentation (docs/conf.py)."""
READ = ("text", "text_special", "code_inline")


SAFE_IN_LINKS = "/:@!$&'()*+,;=?#%[]~._-"


def github(text: str) -> BeautifulSoup:
    """The HTML that GitHub's own reader makes, with everything that it would take out."""
    html = cmarkgfm.github_flavored_markdown_to_html(text, CmarkOptions.CMARK_OPT_UNSAFE)
    return BeautifulSoup(html, "html.parser")


def tokens(text: str, parser: str) -> Iterator[Any]:
    for token in PARSERS[parser].parse(text):
        yield token
        yield from token.children or ()


def visible(text: str, parser: str) -> str:
    """What a reader sees of one block of text."""
    found = list(tokens(text, parser))
    extra = {token.type for token in found} - {"paragraph_open", "paragraph_close", "inline", *READ}
    assert not extra, (text, extra)
    return "".join(token.content for token in found if token.type in READ)


# --- escaping --------------------------------------------------------------------------------


@pytest.mark.parametrize("parser", PARSERS)
@given(text=TEXTS)
def test_prose_and_code_are_read_as_they_are(text: str, parser: str) -> None:
    shown = one_line(text)
    assert visible(prose(text), parser) == shown
    assert visible(f"a {code(text)} b", parser) == f"a {shown} b"
    assert "\n" not in prose(text) + code(text)
    shown.encode()


@pytest.mark.parametrize("parser", PARSERS)
@given(text=TEXTS)
def test_a_value_stays_in_its_cell_item_and_heading(text: str, parser: str) -> None:
    shown = one_line(text)
    for escaped in (prose(text), code(text)):
        page = f"| a | b |\n| --- | --- |\n| {escaped} | c |\n\n- {escaped}\n- d\n\n## {escaped}\n"
        found = list(tokens(page, parser))
        counts = Counter(token.type for token in found)
        assert (counts["td_open"], counts["tr_open"], counts["table_open"]) == (2, 2, 1)
        assert (counts["list_item_open"], counts["bullet_list_open"]) == (2, 1)
        assert counts["heading_open"] == 1
        assert set(counts) <= {
            *(
                "table_open",
                "table_close",
                "thead_open",
                "thead_close",
                "tbody_open",
                "tbody_close",
            ),
            *("tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close"),
            *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
            *("paragraph_open", "paragraph_close", "heading_open", "heading_close"),
            *("inline", *READ),
        }
        lines = [token for token in found if token.type == "inline"]
        seen = ["".join(c.content for c in t.children or () if c.type in READ) for t in lines]
        expected = ["a", "b", shown, "c", shown, "d", shown]
        assert [line for line in seen if line] == [line for line in expected if line]


@given(text=TEXTS)
@settings(max_examples=300)
def test_github_makes_the_same_html(text: str) -> None:
    shown = one_line(text)
    for escaped in (prose(text), code(text)):
        page = github(f"a {escaped} b\n\n| a | b |\n| --- | --- |\n| {escaped} | c |\n\n- {escaped} .\n")
        assert page.find("p").get_text() == f"a {shown} b"
        assert [cell.get_text().strip() for cell in page.find_all("td")] == [shown, "c"]
        assert [item.get_text().strip() for item in page.find_all("li")] == [f"{shown} .".strip()]
        found = {tag.name for tag in page.find_all()}
        assert found <= {"p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code", "a"}
        for link in page.find_all("a"):  # of what looks like an address of mail
            assert link.attrs == {"href": f"mailto:{quote(link.get_text(), safe=SAFE_IN_LINKS)}"}


@given(words=st.lists(TEXTS.filter(lambda text: text.isprintable() or text.isascii()), min_size=1))
@settings(max_examples=30)
def test_a_shell_reads_every_word_as_it_was(words: list[str]) -> None:
    words = [word.replace("\x00", "") for word in words]
    line = " ".join(shell(word) for word in words)
    assert line.isprintable()
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    assert done.stdout.decode().split("\0")[:-1] == words


def test_templates_escape_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(escape, "TEMPLATES", tmp_path)
    (tmp_path / "a.md.j2").write_text(
        "{% macro m(x) %}*{{ x }}*{% endmacro %}{{ m(v) }} {{ [v, v]|join(', ') }} {{ v|upper }} "
        "{{ v ~ v }}\n```sh\n{% include 'a.sh.j2' %}```\n"
    )
    (tmp_path / "a.sh.j2").write_text("run {{ v }} {{ [v, 1] }}  # {{ v|comment }}\n")
    environment = escape.make_environment()
    text = environment.get_template("a.md.j2").render(v="a|`b`\n$c")
    assert text == (
        "*a&#124;\\`b\\` \\$c* a&#124;\\`b\\` \\$c, a&#124;\\`b\\` \\$c A&#124;\\`B\\` \\$C "
        "a&#124;\\`b\\` \\$ca&#124;\\`b\\` \\$c\n"
        "```sh\nrun $'a|`b`\\U0000000a$c' $'a|`b`\\U0000000a$c' 1  # a|`b` $c\n```\n"
    )
    with pytest.raises(Exception, match="is undefined"):
        environment.get_template("a.md.j2").render()


def test_no_template_goes_round_the_escaping() -> None:
    for path in (*escape.TEMPLATES.iterdir(), *TEMPLATES.iterdir()):
        text = path.read_text("utf-8")
        assert not re.search(r"\|\s*safe|autoescape|Markup| ~ ", text), path.name


# --- whole pages -----------------------------------------------------------------------------

BASE = [
    make_record(defense, seed, attack)
    for defense in ("plain", "guard")
    for seed in (0, 1)
    for attack in ("aim", "samples")
]
for _record in BASE:
    _record["metrics"]["made"] = metric(1)
    _record["notes"] |= {"data": "an image is missing"}
    for _kind in ("defense", "prior", "attack"):
        _about = {"summary": "what it is", "paper": "Somebody", "access": "all", "code": "1 abc"}
        if _record[_kind]["name"] == "samples":
            _about |= {"reference": "floor"}
        if _record[_kind]["name"] == "plain":
            _about |= {"baseline": True}
        _record[_kind]["about"] = _about
BASE[-1] |= {"status": "failed", "reason": "it broke", "metrics": {}, "per_class": {}}

Path_ = tuple[Any, ...]


def texts(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, bool]]:
    """Where strings are in a record: values, and keys of its tables."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from texts(below, (*path, key))
            if path and path[-1] in ("options", "metrics", "notes"):
                yield (*path, key), True
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from texts(below, (*path, number))
    elif isinstance(value, str):
        yield path, False


PLACES = sorted({place for record in BASE for place in texts(record)}, key=repr)


def put(made: list[dict[str, Any]], place: tuple[Path_, bool], text: str) -> list[dict[str, Any]]:
    """``text`` at a place of those records that have it."""
    path, is_key = place
    changed = copy.deepcopy(made)
    for record in changed:
        inner: Any = record
        try:
            for step in path[:-1]:
                inner = inner[step]
            if is_key:
                inner[text] = inner.pop(path[-1])
            elif isinstance(inner[path[-1]], str):
                inner[path[-1]] = text
        except (KeyError, IndexError):
            continue
    return changed


def unchecked(*made: dict[str, Any]) -> list[Record]:
    """The records, with any text for names."""
    with patch.object(Form, "matches", lambda form, name: True):
        return read(*made)


def made_pages(registry: Registry, track: Track, made: list[dict[str, Any]]) -> list[str]:
    """The page and the index; none where these records can't be on a board.

    Names may be anything here, too: pages don't rely on the forms that records are checked for.
    """
    try:
        board = build_board(registry, track, unchecked(*made))
    except (MiaBenchError, ValueError):
        return []
    return [pages.page(standings(board), registry), pages.index([standings(board)])]


def structure(text: str) -> tuple[Any, ...]:
    """What must not depend on words: blocks, links, rows, lines of code and the commands in them."""
    text.encode()
    found = list(tokens(text, "github"))
    assert {t.type for t in found} == {t.type for t in tokens(text, "myst")}
    links = [t.attrs.get("href", t.attrs.get("src")) for t in found if t.type in ("link_open", "image")]
    commands = []
    for token in found:
        if token.type == "fence":
            for line in token.content.splitlines():
                words = shlex.split(line, comments=True)
                package = words[:2] == ["pip", "install"] or (not words and line.startswith("# "))
                commands.append("a package" if package else " ".join(words[:2]))
    counts = Counter(t.type for t in found if t.type not in (*READ, "softbreak"))
    html = Counter(tag.name for tag in github(text).find_all() if tag.name not in ("a", "code"))
    return counts, html, len(links), [link for link in links if link and ":" in link], sorted(commands)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return make_registry(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def track(registry: Registry) -> Track:
    return load_track(registry, "little")


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place[0])))
def test_no_text_of_a_record_changes_the_structure(
    registry: Registry, track: Track, place: tuple[Path_, bool]
) -> None:
    harmless = [structure(text) for text in made_pages(registry, track, put(BASE, place, "word"))]
    for text in LOUD:
        found = made_pages(registry, track, put(BASE, place, text))
        if found or harmless:
            assert [structure(one) for one in found] == harmless, text


def test_the_places_are_reached(registry: Registry, track: Track) -> None:
    shown = [
        place
        for place in PLACES
        if any("xyzzy" in page for page in made_pages(registry, track, put(BASE, place, "xyzzy")))
    ]
    values = {path[-1] for path, is_key in shown if not is_key}
    assert {"name", "reason", "summary", "paper", "access", "reference", "distribution"} < values
    assert {"device", "finished", "data", "attack_acc5"} < values
    assert {path[0] for path, is_key in shown if is_key} == {"metrics", "defense", "attack"}


# Names that records have are left out: two of them would be one.
@pytest.mark.slow
@given(place=st.sampled_from(PLACES), text=TEXTS.filter(lambda text: text.strip() not in str(BASE)))
@settings(max_examples=60, deadline=None)
def test_no_made_up_text_changes_the_structure(
    place: tuple[Path_, bool], text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    registry = make_registry(tmp_path_factory.mktemp("made-up"))
    track = load_track(registry, "little")
    harmless = [structure(one) for one in made_pages(registry, track, put(BASE, place, "word"))]
    found = made_pages(registry, track, put(BASE, place, text))
    if found and harmless:
        assert [structure(one) for one in found] == harmless


def hostile_track(track: Track, text: str) -> Track:
    """The track with ``text`` wherever its file has free text."""

    def changed(value: Any, path: Path_ = ()) -> Any:
        if isinstance(value, dict):
            free = bool(path) and path[-1] == "options"
            inner = {key: changed(below, (*path, key)) for key, below in value.items()}
            return {text: text} if free else inner
        keep = ("name", "precision", "attack_precision", "prior", "default_prior", "metrics")
        return text if isinstance(value, str) and not set(keep) & set(path[-2:]) else value

    return Track.model_validate(changed(track.model_dump(mode="python")))


def test_no_text_of_a_track_changes_the_structure(registry: Registry, track: Track) -> None:
    def page(text: str) -> tuple[Any, ...]:
        spoken = hostile_track(track, text)
        board = dataclasses.replace(build_board(registry, track, read(*BASE)), track=spoken)
        return structure(pages.page(standings(board), registry))

    assert {str(page(text)) for text in LOUD} == {str(page("word"))}


def test_no_text_of_a_plugin_changes_the_structure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def page(text: str) -> tuple[Any, ...]:
        for (kind, _), component in PARTS.items():
            for attribute in ("summary", "paper"):
                monkeypatch.setattr(component, attribute, text, raising=False)
            if kind == "metric":
                spoken = {
                    name: dataclasses.replace(quantity, description=text)
                    for name, quantity in component.quantities.items()
                }
                monkeypatch.setattr(component, "quantities", spoken)
        registry = make_registry(tmp_path)
        silent = [make_record(), make_record("guard", 1)]  # of these the classes are asked
        return structure(
            pages.page(
                standings(build_board(registry, load_track(registry, "little"), read(*silent))), registry
            )
        )

    assert {str(page(text)) for text in LOUD} == {str(page("word"))}


def test_no_text_of_a_sweep_changes_the_structure(registry: Registry, track: Track) -> None:
    found = chosen(registry, track, swept(0.1, 0.9, 0.3), swept(0.2, 0.9, 0.2), swept(0.3, 0.1, 0.2))
    assert found is not None

    def page(text: str, *, sweep: bool) -> tuple[Any, ...]:
        [choice] = found.choices
        renamed = {
            one.options["alpha"]: dataclasses.replace(
                one, options={text: one.options["alpha"], "x": text}, attack=text, reason=text
            )
            for one in choice.tried
        }
        choices = tuple(
            dataclasses.replace(
                one, setting=renamed[one.setting.options["alpha"]], further=({text: 0, "x": 1},)
            )
            for one in choice.choices
        )
        spoken = dataclasses.replace(
            choice, defense=text, tried=tuple(renamed.values()), choices=choices, attacks=(text,)
        )
        tuning: Tuning = dataclasses.replace(found, choices=(spoken,))
        board = build_board(registry, track, read(*BASE))
        return structure(pages.page(standings(board), registry, tuning, sweep=sweep))

    for sweep in (False, True):
        assert {str(page(text, sweep=sweep)) for text in LOUD} == {str(page("word", sweep=sweep))}


def test_commands_keep_options_of_any_text(registry: Registry, track: Track) -> None:
    for text in HOSTILE:
        option = text.replace("\x00", "").encode("utf-8", "ignore").decode()
        made = [make_record("foreign", options={"text": option})]
        page = pages.page(standings(build_board(registry, track, read(*made))), registry)
        [line] = [line for line in page.splitlines() if line.startswith("mia-bench run ")]
        done = subprocess.run(
            ["bash", "-c", line.replace("mia-bench run", "printf '%s\\0'", 1)],
            capture_output=True,
            check=True,
            env={"LC_ALL": "C.UTF-8"},
        )
        assert f"foreign.text={option}" in done.stdout.decode().split("\0")


def test_what_is_no_package_is_not_installed(registry: Registry, track: Track) -> None:
    made = make_record("foreign")
    for name in ("--index-url=http://x", "evil @ http://x", "a\npip install b", "../x", "-r x"):
        made["defense"]["distribution"] = name
        text = pages.page(standings(build_board(registry, track, unchecked(made))), registry)
        lines = [line for line in text.splitlines() if line.startswith("pip")]
        assert lines == ["pip install made-dist  # its records name no address"]
        assert f"# {one_line(name)} is not the name of a package" in text


# --- what pages say --------------------------------------------------------------------------


def test_no_field_of_a_recipe_is_forgotten(registry: Registry, track: Track) -> None:
    class Longer(Recipe):
        sharpness: tuple[float, float] = (0.25, 0.75)

    recipe = Longer(**track.target.recipe.model_dump())
    target = track.target.model_copy(update={"recipe": recipe})
    board = build_board(registry, track, read(make_record()))
    spoken = track.model_copy(update={"target": target})
    text = pages.page(standings(dataclasses.replace(board, track=spoken)), registry)
    [line] = [line for line in text.splitlines() if line.startswith("- target: ")]
    assert "sharpness=[0.25, 0.75]" in line
    assert all(f"{name}=" in line for name in Recipe.model_fields)
    assert "`net` (`widths=[8, 16]`)" in line
    [other] = [line for line in text.splitlines() if line.startswith("- evaluation model: ")]
    assert "epochs=5," in other
    assert "sharpness" not in other


@pytest.mark.parametrize(
    ("kind", "estimate", "text"),
    [
        ("share", Estimate(0.8421, 0.801, 0.88, 3), "0.842 [0.801, 0.880]"),
        ("rank", Estimate(11.04, 8, 19.96, 3), "11.0 [8.0, 20.0]"),
        ("distance", Estimate(153.27, 140, 171.2, 3), "153.3 [140, 171.2]"),
        ("amount", Estimate(8, 8, 8, 1), "8"),
        ("share", Estimate(1, 1, 1, 1), "1.000 [1.000, 1.000]"),
        ("share", Estimate(0.0567, None, None, 3), "0.057"),
    ],
)
def test_numbers_are_written_by_their_kind(kind: Any, estimate: Estimate, text: str) -> None:
    assert pages.show(Quantity("", kind=kind), estimate) == text


def test_a_difference_of_nothing_has_no_minus() -> None:
    found = FromBaseline(Effect(-0.0001, 0.1275, math.inf, 1, 99), (0,))
    assert pages.difference(found) == "+0.000 [-0.250, +0.250]"


def test_reasons_have_a_footnote_each(registry: Registry, track: Track) -> None:
    [section] = build_board(registry, track, read(make_record())).sections
    rows = [
        dataclasses.replace(section.rows[0], metrics={str(n): Missing(f"reason {n % 30}")}) for n in range(31)
    ]
    letters = pages.footnotes(rows, [str(n) for n in range(31)])
    assert list(letters)[:2] == ["reason 0", "reason 1"]
    assert (letters["reason 0"], letters["reason 25"], letters["reason 26"]) == ("a", "z", "a1")
    assert len(letters) == 30


def test_templates_name_no_component_and_no_quantity() -> None:
    found = host().registry
    names = {
        name
        for kind in ("defense", "attack", "prior", "metric", "encoder", "dataset", "track")
        for name in found.names(kind)
    } - {"none", "folder", "utility", "gradients", "embedding", "calibration"}  # plain words too
    for name in found.names("metric"):
        names |= set(found.get("metric", name).load().quantities)
    text = " ".join(path.read_text("utf-8") for path in escape.TEMPLATES.iterdir())
    words = set(re.findall(r"[A-Za-z0-9_-]+", text))
    assert names & words == set()


def test_a_page_is_one_command_away_from_its_cells(registry: Registry, track: Track) -> None:
    text = pages.page(standings(build_board(registry, track, read(make_record("guard", 3)))), registry)
    [command] = [line for line in text.splitlines() if line.startswith("mia-bench run ")]
    assert {(cell[0], cell[3]) for cell in planned(registry, track, command)} == {("guard", 3)}
