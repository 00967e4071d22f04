"""The plugin host: one door for everybody, and what is broken stays outside."""

import json
import re
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

import mia_bench
from mia_bench import plugins as plugins_module
from mia_bench.api.component import component_version
from mia_bench.errors import UsageError
from mia_bench.plugins import GROUP, Host, host
from mia_bench_plugins.attacks.ppa import PlugAndPlay

BROKEN = {
    "raises-at-import": "ImportError: no module named unobtainium (mia_bench_broken_import.py:1)",
    "exits-at-import": "SystemExit: this plugin ends the process",
    "registers-nonsense": "TypeError: defense 'nonsense': 42 is not a subclass of Defense",
    "misspelled-hook": "TypeError: no hook is called 'mia_bench_register_defences'; did you mean "
    "'mia_bench_register_defenses'",
}
SHARED = ("data", "prior", "evaluator", "gallery")


# --- one door ------------------------------------------------------------------------------------


def test_built_ins_come_in_by_their_entry_points() -> None:
    named = {e.name for e in entry_points(group="mia_bench") if e.dist and e.dist.name == "mia-bench"}
    found = [info for info in host().plugins if info.distribution == "mia-bench"]
    assert {info.name for info in found} == named
    assert {info.status for info in found} == {"ok"}
    registry = host().registry
    assert {"none", "pos-ls", "neg-ls", "bido"} <= set(registry.names("defense"))
    assert {"prior-sample", "ppa"} <= set(registry.names("attack"))
    assert {"synth-faces", "lfw", "folder"} <= set(registry.names("track"))


def test_host_sources_never_mention_the_built_in_package() -> None:
    sources = Path(mia_bench.__file__).parent.rglob("*.py")
    assert [path for path in sources if "mia_bench_plugins" in path.read_text("utf-8")] == []


def test_without_entry_points_the_host_knows_nothing() -> None:
    empty = Host([])
    assert [n for kind in plugins_module.KINDS for n in empty.registry.names(kind)] == []


def test_third_party_distribution_is_listed_with_its_name_and_version(cli, toy) -> None:
    assert re.search(r"toy +mia-bench-toy 1\.2\.3 +ok", cli("plugins").out)
    listed = cli("list")
    for name in ("toy-noise", "toy-label-only", "toy"):
        assert re.search(rf"^ +{name} .*mia-bench-toy", listed.out, re.MULTILINE)


def test_third_party_defense_and_attack_run_and_are_recorded(cli, toy, store) -> None:
    store(*SHARED)
    outcome = cli("run", "--track", "toy", "--defense", "toy-noise", "--attack", "toy-label-only",
                  "--device", "cpu", "--format", "json", "-o", "toy-noise.std=0.05")  # fmt: skip
    assert outcome.code == 0
    (record,) = outcome.records
    assert record["status"] == "done"
    assert record["defense"]["distribution"] == "mia-bench-toy"
    assert record["defense"]["version"].startswith("src-")
    about = record["defense"]["about"]
    assert about["url"] == "https://example.org/toy"
    assert about["summary"] == host().registry.get("defense", "toy-noise").load().summary
    assert (about["changed"], about["baseline"], about["code"]) == (["std"], False, "")
    assert record["attack"]["about"]["access"] == "label-only"
    assert record["defense"]["options"] == {"std": 0.05}
    assert record["cost"]["target_queries"] == 12  # 6 classes, 2 images each, asked once
    assert 0 <= record["metrics"]["test_accuracy"]["value"] <= 1


def test_plugin_command_works_and_is_in_the_help(cli, toy) -> None:
    assert cli("toy-hello").out == "hello\n"
    assert re.search(r"toy-hello +Say hello", cli("--help").out)


def test_one_distribution_seen_twice_is_one_plugin(toy) -> None:
    found = list(entry_points(group="mia_bench"))
    assert len(Host(found + found).plugins) == len(Host(found).plugins)
    assert Host(found + found).registry.conflicts() == []


# --- broken plugins ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN)
def test_broken_plugin_is_listed_with_its_error(cli, broken, name: str) -> None:
    outcome = cli("plugins")
    assert outcome.code == 0
    (line,) = [line for line in outcome.out.splitlines() if line.startswith(name)]
    assert re.search(r"mia-bench-broken 0\.1 +broken", line)
    assert BROKEN[name] in line


@pytest.mark.slow
def test_doctor_names_every_broken_plugin_and_exits_1(cli, broken) -> None:
    outcome = cli("doctor")
    assert outcome.code == 1
    for name in BROKEN:
        assert f"BROKEN plugin mia-bench-broken:{name} is broken" in outcome.out


def test_what_a_broken_plugin_registered_before_it_failed_is_forgotten(broken) -> None:
    assert "fine-name" not in host().registry.names("defense")


def test_everything_else_works_beside_broken_plugins(cli, broken, store) -> None:
    store(*SHARED)
    outcome = cli("run", "--track", "toy", "--defense", "toy-noise", "--attack", "toy-label-only",
                  "--device", "cpu", "--format", "json")  # fmt: skip
    assert outcome.code == 0
    assert [record["status"] for record in outcome.records] == ["done"]
    for name in BROKEN:
        assert f"warning: plugin mia-bench-broken:{name} is broken" in outcome.err
    assert cli("describe", "neg-ls").code == 0
    assert cli("describe", "attack_acc1").code == 0
    assert cli("toy-hello").out == "hello\n"


def test_raising_reporter_only_warns_and_is_named(cli, broken, store, tmp_path) -> None:
    store(*SHARED)
    outcome = cli("run", "--track", "toy", "--defense", "toy-noise", "--attack", "toy-label-only",
                  "--device", "cpu", "--format", "json")  # fmt: skip
    assert outcome.code == 0
    assert (
        "warning: plugin mia-bench-broken:raising-reporter: mia_bench_cell_finished raised "
        "RuntimeError: the logging service is down (mia_bench_broken_reporter.py:"
    ) in outcome.err
    (record,) = outcome.records
    stored = tmp_path / "store" / "records" / "toy" / f"{record['key']}.json"
    assert json.loads(stored.read_text("utf-8")) == record
    # The reporters after it are called all the same.
    assert (tmp_path / "store" / "pictures" / f"{record['key']}.png").exists()


def test_plugin_whose_commands_raise_is_named_and_the_help_still_comes(cli, broken) -> None:
    outcome = cli("--help")
    assert outcome.code == 0
    assert "toy-hello" in outcome.out
    assert "mia-bench-broken:raising-commands" in outcome.err
    assert "no command today" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.slow
def test_list_and_doctor_survive_names_behind_which_nothing_is(cli, broken) -> None:
    listed = cli("list")
    assert listed.code == 0
    assert re.search(r"^ +lazy-metric .*broken", listed.out, re.MULTILINE)
    assert re.search(r"^ +lazy-track .*broken", listed.out, re.MULTILINE)
    assert re.search(r"^ +attack_acc1 ", listed.out, re.MULTILINE)
    found = cli("doctor").out
    assert re.search("BROKEN dataset 'lazy-dataset' of plugin mia-bench-broken:promises-nothing", found)
    assert re.search("BROKEN encoder 'lazy-encoder' of plugin mia-bench-broken:promises-nothing", found)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("dataset", "lazy-dataset", "No module named 'mia_bench_broken_nowhere'"),
        ("encoder", "lazy-encoder", "not a subclass of mia_bench.Encoder"),
    ],
)
def test_using_such_a_name_says_which_plugin_is_to_blame(
    cli, broken, kind: str, name: str, reason: str
) -> None:
    outcome = cli("describe", name)
    assert outcome.code == 1
    assert f"{kind} {name!r} of plugin mia-bench-broken:promises-nothing" in outcome.err
    assert reason in outcome.err
    assert "Traceback" not in outcome.err


def test_plugins_check_imports_every_component(cli, broken) -> None:
    assert "lazy-metric" not in cli("plugins").err
    assert "problem: metric 'lazy-metric' of plugin mia-bench-broken" in cli("plugins", "--check").err


# --- two plugins, one name -----------------------------------------------------------------------


def test_name_claimed_twice_is_an_error_that_names_both(cli, broken) -> None:
    outcome = cli("run", "--track", "toy", "--defense", "none", "--attack", "ppa")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == (
        "error: defense 'none' is claimed by mia-bench:none and mia-bench-broken:claims-none; "
        "give yours another name, or disable one with MIA_BENCH_DISABLE_PLUGINS"
    )
    assert cli("describe", "none").code == 2
    checked = cli("plugins", "check", "claims-none")
    assert (checked.code, "is claimed by mia-bench:none and" in checked.err) == (2, True)


def test_only_the_contested_name_is_unusable(cli, broken) -> None:
    outcome = cli("run", "--track", "toy", "--defense", "neg-ls", "--attack", "ppa", "--dry-run")
    assert outcome.code == 0
    assert "none" in {entry.name for entry in host().registry.entries("defense")}


@pytest.mark.parametrize(
    "disabled",
    ["claims-none", "mia-bench-broken:claims-none", "mia-bench-broken", "other, claims-none"],
)
def test_disabling_one_plugin_frees_the_name(
    cli, broken, monkeypatch: pytest.MonkeyPatch, disabled: str
) -> None:
    monkeypatch.setenv("MIA_BENCH_DISABLE_PLUGINS", disabled)
    plugins_module.host.cache_clear()
    assert host().registry.get("defense", "none").plugin.distribution == "mia-bench"
    assert re.search(r"claims-none +mia-bench-broken 0\.1 +disabled", cli("plugins").out)


def test_disabling_by_distribution_leaves_none_of_its_plugins(
    cli, broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIA_BENCH_DISABLE_PLUGINS", "mia-bench-broken")
    plugins_module.host.cache_clear()
    theirs = [info for info in host().plugins if info.distribution == "mia-bench-broken"]
    assert {info.status for info in theirs} == {"disabled"}
    assert host().problems() == []


def test_disabled_plugin_is_not_imported(broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIA_BENCH_DISABLE_PLUGINS", "raises-at-import")
    plugins_module.host.cache_clear()
    (info,) = [info for info in host().plugins if info.name == "raises-at-import"]
    assert (info.status, info.error) == ("disabled", "")


# --- strict mode ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("list",), ("plugins",), ("run", "--dry-run")])
def test_strict_mode_fails_with_exit_code_2_and_names_every_problem(
    cli, broken, monkeypatch: pytest.MonkeyPatch, arguments
) -> None:
    monkeypatch.setenv("MIA_BENCH_STRICT", "1")
    plugins_module.host.cache_clear()
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    for name in (*BROKEN, "claims-none"):
        assert name in outcome.err


def test_strict_mode_accepts_an_installation_without_problems(
    cli, toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIA_BENCH_STRICT", "1")
    plugins_module.host.cache_clear()
    assert cli("plugins").code == 0


def test_strict_mode_off_by_zero(broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIA_BENCH_STRICT", "0")
    plugins_module.host.cache_clear()
    assert host().broken


def test_strict_mode_raises_in_the_python_interface(broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIA_BENCH_STRICT", "1")
    plugins_module.host.cache_clear()
    with pytest.raises(UsageError, match="raises-at-import"):
        mia_bench.run(track="toy")


def test_a_wrong_name_to_disable_is_told(monkeypatch) -> None:
    monkeypatch.setenv("MIA_BENCH_DISABLE_PLUGINS", "pppa")
    loaded = Host(entry_points(group=GROUP), frozenset({"pppa"}))
    (line,) = [line for line in loaded.problems() if "pppa" in line]
    assert "names 'pppa', which is no plugin; did you mean 'ppa'" in line


def test_version_of_a_subclass_holds_those_of_its_parents_elsewhere(monkeypatch) -> None:
    class Mine(PlugAndPlay):
        version = "7"

    assert component_version(PlugAndPlay) == PlugAndPlay.version
    assert component_version(Mine) == f"7/{PlugAndPlay.version}"
    monkeypatch.setattr(PlugAndPlay, "version", "new")
    assert component_version(Mine) == "7/new"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (
            "def mia_bench_register_attacks(register):\n    pass\n",
            "is the decorator @hookimpl missing",
        ),
        (
            "from mia_bench import hookimpl\n\n\n@hookimpl\n"
            "def mia_bench_register_attacks(registry):\n    pass\n",
            "mia_bench_register_attacks gets (register), it has no argument",
        ),
        (
            "from mia_bench import Attack\n\n\nclass Mine(Attack):\n    access = 'blackbox'\n",
            "there is no access 'blackbox', only white-box, black-box, label-only",
        ),
    ],
)
def test_common_mistakes_are_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, why: str
) -> None:
    (tmp_path / "mistaken_plugin.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mistaken_plugin", raising=False)
    loaded = Host([EntryPoint("mistaken", "mistaken_plugin", "mia_bench")], frozenset())
    (info,) = loaded.broken
    assert why in info.error
    assert "\n" not in info.error
