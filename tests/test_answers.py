"""What a command printed is printed again only while nothing has changed that it read."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from mia_bench.cli import answers
from mia_bench.cli.answers import Question
from mia_bench.cli.main import PIPE_CLOSED

pytestmark = pytest.mark.slow

Work = Callable[[], object]
Command = Callable[..., tuple[int, str, str, bool]]

if os.name != "posix":
    pytest.skip("commands are answered again on POSIX systems only", allow_module_level=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(answers, "SETTLED", 0)  # files are made just before
    return tmp_path / "cache" / "answers"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "read").write_text("old")
    (folder / "other").write_text("old")
    return folder


def ask(work: Work, *, repeatable: bool = True) -> None:
    """A command that does some work."""
    question = Question(["x"])
    with question.watching():
        work()
        print("printed")
        if repeatable:
            answers.repeatable()
    question.keep()


def kept() -> bool:
    return Question(["x"]).answer_again()


# --- what is printed again -----------------------------------------------------------------------


def test_both_streams_are_printed_again(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        print("a", end="")
        print("wrong: ä\x85 ", file=sys.stderr)

    ask(work)
    first = capsys.readouterr()
    assert kept()
    assert capsys.readouterr() == first
    assert first == ("aprinted\n", "wrong: ä\x85 \n")


def test_only_a_command_that_says_so_is_answered_again() -> None:
    ask(lambda: None, repeatable=False)
    assert not kept()
    ask(lambda: None)
    assert kept()


def state() -> tuple[object, ...]:
    return sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__, os.stat, os.lstat, os.access


def test_streams_and_looks_are_as_before_afterwards(folder: Path) -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), Question(["x"]).watching():
        1 / len({*before} & {*state()})
    assert state() == before
    with Question(["x"]).watching():
        (folder / "new").touch()
        assert state()[4:] == before[4:]  # nothing is watched any longer
    assert state() == before
    answers.repeatable()  # nothing is asked


def test_a_stream_that_a_command_replaced_stays(capsys: pytest.CaptureFixture[str]) -> None:
    usual, own = sys.stdout, io.StringIO()
    try:
        with Question(["x"]).watching():
            sys.stdout = own
        assert sys.stdout is own
    finally:
        sys.stdout = usual


def test_replaced_functions_can_do_what_they_could(folder: Path) -> None:
    (folder / "link").symlink_to("read")
    with Question(["x"]).watching():
        shutil.copy2(folder / "link", folder / "copy", follow_symlinks=False)
    assert (folder / "copy").is_symlink()


def test_what_was_said_to_be_repeatable_is_not_if_it_goes_on_to_write(folder: Path) -> None:
    question = Question(["x"])
    with question.watching():
        answers.repeatable()
        (folder / "new").touch()
    question.keep()
    assert not kept()


def test_a_module_may_call_its_file_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ([1], Path("x"), 1):
        odd = types.ModuleType("odd")
        odd.__file__ = file  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, "odd", odd)
        ask(lambda: None)
        assert kept()


def test_a_file_that_changed_just_before_keeps_no_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "SETTLED", 10**10)
    edit(folder)
    ask(lambda: (folder / "read").read_text())
    assert not kept()


def test_an_answer_is_for_its_user_alone(cache: Path) -> None:
    ask(lambda: None)
    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


# --- what it depends on --------------------------------------------------------------------------


def edit(folder: Path) -> None:
    (folder / "read").write_text("new")


def edit_keeping_the_times(folder: Path) -> None:
    before = (folder / "read").stat()
    (folder / "read").write_text("new")
    os.utime(folder / "read", ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(folder: Path) -> None:
    (folder / "read").unlink()


def replace(folder: Path) -> None:
    (folder / "other").replace(folder / "read")


def add(folder: Path) -> None:
    (folder / "missing").touch()


@pytest.mark.parametrize(
    ("work", "change"),
    [
        (lambda folder: (folder / "read").read_text(), edit),
        (lambda folder: (folder / "read").read_text(), edit_keeping_the_times),
        (lambda folder: (folder / "read").read_text(), remove),
        (lambda folder: os.close(os.open(folder / "read", os.O_RDONLY)), replace),
        (lambda folder: (folder / "read").exists(), remove),
        (lambda folder: os.path.getsize(folder / "read"), edit),
        (lambda folder: os.lstat(folder / "read"), edit),
        (lambda folder: os.access(folder / "missing", os.R_OK), add),
        (lambda folder: (folder / "missing").is_file(), add),
        (lambda folder: os.path.isdir(folder / "missing"), add),
        (lambda folder: os.listdir(folder), add),
        (lambda folder: os.listdir(os.fsencode(folder)), add),
        (lambda folder: [entry.stat() for entry in os.scandir(folder)], edit),
        (lambda folder: list(folder.glob("r*")), remove),
        (lambda folder: list(folder.iterdir()), replace),
    ],
)
def test_a_change_of_what_was_read_is_seen(
    work: Callable[[Path], object], change: Callable[[Path], None], folder: Path
) -> None:
    ask(lambda: work(folder))
    assert kept()
    change(folder)
    assert not kept()


def test_paths_are_those_of_the_folder_where_the_command_stood(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    ask(lambda: (open("read").close(), os.listdir()))
    assert kept()
    monkeypatch.chdir(folder.parent)
    assert not kept()
    monkeypatch.chdir(folder)
    add(folder)
    assert not kept()


def test_a_module_that_changes_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "module_of_a_command.py").write_text("")
    monkeypatch.syspath_prepend(folder)
    import module_of_a_command  # noqa: F401  before the command is watched

    try:
        ask(lambda: None)
        assert kept()
        (folder / "module_of_a_command.py").write_text("more = 1")
        assert not kept()
    finally:
        del sys.modules["module_of_a_command"]


def test_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(lambda: None)
    monkeypatch.setenv("OLDPWD", "/elsewhere")  # a shell changes it with every command
    assert kept()
    monkeypatch.setenv("SOME_VARIABLE", "x")
    assert not kept()


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (sys, "path", ["/elsewhere"]),
        (sys, "version", "4.0"),
        (sys, "executable", "/elsewhere/python"),
        (sys, "flags", "others"),
        (sys, "warnoptions", ["error"]),
        (sys, "_xoptions", {"dev": True}),
    ],
)
def test_python_counts(where: object, name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(lambda: None)
    monkeypatch.setattr(where, name, value)
    assert not kept()


def test_arguments_and_terminal_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(lambda: None)
    assert not Question(["y"]).answer_again()
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((80, 24)))
    for stream in (0, 2, 1):
        monkeypatch.setattr(os, "isatty", lambda number, stream=stream: number == stream)
        assert not kept()
    ask(lambda: None)
    assert kept()
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((90, 24)))
    assert not kept()


def test_a_file_that_changes_meanwhile_keeps_no_answer(folder: Path) -> None:
    question = Question(["x"])
    time.sleep(0.02)  # the clock of file times lags by up to a tick
    edit(folder)
    with question.watching():
        (folder / "read").read_text()
        answers.repeatable()
    question.keep()
    assert not kept()


# --- what is not answered again ------------------------------------------------------------------


@pytest.mark.parametrize(
    "work",
    [
        lambda folder: (folder / "new").write_text(""),
        lambda folder: (folder / "read").open("a").close(),
        lambda folder: (folder / "read").open("r+").close(),
        lambda folder: (folder / "new").mkdir(),
        lambda folder: os.system("true"),
        lambda folder: (folder / "read").unlink(),
        lambda folder: (folder / "read").rename(folder / "new"),
        lambda folder: subprocess.run([sys.executable, "-c", ""], check=True),
        lambda folder: socket.socket().close(),
        lambda folder: os.listdir(os.open(folder, os.O_RDONLY)),
        lambda folder: os.stat("read", dir_fd=os.open(folder, os.O_RDONLY)),
        lambda folder: sys.stdout.buffer,
        lambda folder: open(1, "w", closefd=False).close(),
        lambda folder: open(2, "w", closefd=False).close(),
        lambda folder: sqlite3.connect(folder / "new").close(),
        lambda folder: sys.stderr.writelines(["a"]),
    ],
)
def test_a_command_that_does_more_than_read_is_not_answered_again(
    work: Callable[[Path], object], folder: Path
) -> None:
    ask(lambda: work(folder))
    assert not kept()


def test_the_source_of_bytecode_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a module that fails, which is not among those that are loaded."""
    module = folder / "module_of_a_command.py"
    module.write_text("raise ValueError('broken')")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def work() -> None:
        with pytest.raises(ValueError, match="broken"):
            import module_of_a_command  # noqa: F401

    work()
    assert list((folder / "__pycache__").iterdir())
    ask(work)
    assert kept()
    module.write_text("right = 1")
    assert not kept()


def test_bytecode_is_not_what_a_command_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "module_of_a_command.py").write_text("")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def work() -> None:
        import module_of_a_command  # noqa: F401

    try:
        ask(work)
    finally:
        sys.modules.pop("module_of_a_command", None)
    assert kept()
    assert list((folder / "__pycache__").iterdir())


def test_what_reads_very_much_is_not_kept(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LARGEST", 10)
    ask(lambda: None)  # with the modules that are loaded
    assert not kept()
    files = {getattr(module, "__file__", None) for module in sys.modules.values()}
    monkeypatch.setattr(answers, "LARGEST", len(files) + 50)
    ask(lambda: None)
    assert kept()
    shutil.rmtree(cache)
    for name in range(100):
        (folder / f"{name}").touch()
    ask(lambda: os.listdir(folder))
    assert not kept()


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"[]", b"\xff", b'{"files": {}, "folders": {}, "printed": [1]}']
)
def test_a_damaged_answer_is_none(damage: bytes, cache: Path) -> None:
    ask(lambda: None)
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    assert not kept()
    ask(lambda: None)
    assert kept()


def test_the_newest_answers_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST", 3)
    for number in range(5):
        question = Question([str(number)])
        with question.watching():
            answers.repeatable()
        question.keep()
    assert len(list(cache.iterdir())) == 3
    assert [Question([str(number)]).answer_again() for number in range(5)] == [False, False, True, True, True]


def test_a_file_in_the_place_of_the_cache_does_no_harm(cache: Path) -> None:
    cache.parent.write_text("")
    ask(lambda: None)
    assert not kept()


# --- the command line ----------------------------------------------------------------------------

START = """
import sys
from mia_bench.cli import main
try:
    main()
finally:
    print("imported:", *sorted({"click", "pydantic"} & set(sys.modules)), file=sys.stderr)
"""


def path_with(site: Path) -> str:
    """For ``PYTHONPATH``; without the folder where other tests write meanwhile, which is listed."""
    return os.pathsep.join([str(site), *(path for path in sys.path if path not in ("", os.getcwd()))])


def starter(site: Path, store: Path) -> Command:
    """Run ``mia-bench`` with the plugins there; also whether it was answered again."""
    newest = max(path.stat().st_ctime for path in site.rglob("*"))
    time.sleep(max(0.0, newest + 2.1 - time.time()))  # what has changed of late is not kept
    (store.parent / "cache" / "answers").mkdir(parents=True, exist_ok=True)  # which changes its parent

    def run(*args: object) -> tuple[int, str, str, bool]:
        done = subprocess.run(
            [sys.executable, "-c", START, *map(str, args)],
            env={**os.environ, "PYTHONPATH": path_with(site), "MIA_BENCH_STORE": str(store)},
            cwd=site,
            capture_output=True,
            text=True,
        )
        *err, imported = done.stderr.splitlines()
        return done.returncode, done.stdout, "\n".join(err), imported == "imported:"

    return run


def repeat(command: Command, *args: object) -> tuple[int, str, str, bool]:
    """Ask until it is answered again: other tests may compile modules meanwhile, which changes folders."""
    for _ in range(3):
        answer = command(*args)
        if answer[3]:
            break
    return answer


@pytest.fixture
def command(toy_site: Path, tmp_path: Path) -> Command:
    """With the toy plugins."""
    return starter(toy_site, tmp_path / "store")


@pytest.fixture
def site(toy_site: Path, tmp_path: Path) -> Path:
    """The toy plugins where they may be changed."""
    return Path(shutil.copytree(toy_site, tmp_path / "site"))


@pytest.mark.slow
@pytest.mark.parametrize("args", [["--help"], ["list", "attacks"], ["describe", "ppa"], ["run", "-h"]])
def test_commands_that_compute_nothing_are_answered_again(args: list[str], command: Command) -> None:
    *first, again = command(*args)
    assert not again
    assert first[0] == 0
    assert repeat(command, *args) == (*first, True)


@pytest.mark.slow
def test_a_run_that_fails_has_its_exit_code(command: Command) -> None:
    failing = (
        "run",
        "--track",
        "toy",
        "--defense",
        "toy-failing",
        "--attack",
        "prior-sample",
        "--device",
        "cpu",
    )
    code, _, err, again = command(*failing)
    assert (code, again) == (1, False)
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("args", [["list", "nothing"], ["describe", "nothing"]])
def test_an_answer_that_is_wrong_usage_is_given_anew(args: list[str], command: Command) -> None:
    assert [command(*args)[::3] for _ in range(3)] == [(2, False)] * 3


@pytest.mark.slow
def test_a_command_with_an_option_like_that_of_help_is_no_help(site: Path, tmp_path: Path) -> None:
    plugin = site / "mia_bench_toy" / "__init__.py"
    plugin.write_text(
        plugin.read_text("utf-8") + "\n@hookimpl\ndef mia_bench_register_commands(cli):\n"
        "    @cli.command(context_settings={'help_option_names': ['--help']})\n"
        "    @click.option('-h', '--host')\n"
        "    def serve(host): print(host)\n",
        "utf-8",
    )
    command = starter(site, tmp_path / "store")
    assert [command("serve", "-h", "a")[::3] for _ in range(3)] == [(0, False)] * 3


TOY = ("run", "--track", "toy", "--defense", "none", "--attack", "prior-sample", "--device", "cpu")


@pytest.mark.slow
def test_a_run_is_answered_again_until_its_store_changes(command: Command, tmp_path: Path) -> None:
    def later() -> tuple[int, str, str, bool]:
        time.sleep(2.1)
        return command(*TOY)

    computed, cached, again = command(*TOY), later(), repeat(command, *TOY)
    assert [one[3] for one in (computed, cached, again)] == [False, False, True]
    assert cached[:3] == again[:3]
    assert cached[:2] == computed[:2]
    (record,) = (tmp_path / "store" / "records" / "toy").glob("*.json")
    content = json.loads(record.read_text("utf-8"))
    record.unlink()
    *measured, repeated = command(*TOY)
    assert not repeated
    assert measured[:2] == [0, cached[1]]
    assert json.loads(record.read_text("utf-8"))["metrics"] == content["metrics"]
    assert command(*TOY, "--seeds", "1")[3] is False
    (picture,) = (tmp_path / "store" / "pictures").iterdir()
    later()
    assert repeat(command, *TOY)[3]
    picture.unlink()
    assert command(*TOY)[3] is False
    assert picture.exists()


@pytest.mark.slow
def test_a_plugin_that_is_changed_or_added_is_seen(site: Path, tmp_path: Path) -> None:
    command = starter(site, tmp_path / "store")
    command("list", "defenses")
    *before, again = repeat(command, "list", "defenses")
    assert again
    changed = site / "mia_bench_toy" / "__init__.py"
    changed.write_text(changed.read_text("utf-8") + "\nraise RuntimeError('broken now')\n", "utf-8")
    *after, again = command("list", "defenses")
    assert not again
    assert "broken now" in after[2]
    assert before != after
    command("list", "defenses")
    added = site / "added-1.0.dist-info"
    added.mkdir()
    (added / "METADATA").write_text("Name: added\nVersion: 1.0\n")
    (added / "entry_points.txt").write_text("[mia_bench]\nadded = no_such_module\n")
    *more, again = command("list", "defenses")
    assert not again
    assert "no_such_module" in more[2]


@pytest.mark.slow
def test_an_answer_that_nobody_reads(command: Command, toy_site: Path, tmp_path: Path) -> None:
    assert command("list", "attacks")[3] is False
    env = {
        **os.environ,
        "PYTHONPATH": path_with(toy_site),
        "MIA_BENCH_STORE": str(tmp_path / "store"),
    }

    def unread(*args: object) -> tuple[int, str, str, bool]:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            done = subprocess.run(
                [sys.executable, "-c", START, *map(str, args)],
                env=env,
                cwd=toy_site,
                stdout=pipe,
                stderr=subprocess.PIPE,
                text=True,
            )
        return done.returncode, "", done.stderr, done.stderr == "imported:\n"

    answer = 0, "", "", False
    for _ in range(3):  # what nobody reads is not kept
        assert repeat(command, "list", "attacks")[3]
        answer = unread("list", "attacks")
        if answer[3]:
            break
    assert answer == (PIPE_CLOSED, "", "imported:\n", True)
