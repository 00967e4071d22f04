"""``mia-bench plugins``."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from mia_bench.cli.shared import PathType, config_options
from mia_bench.components import parse_option_values
from mia_bench.config import flatten_options
from mia_bench.device import check_device_form
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.plugins import host
from mia_bench.provenance import package_version
from mia_bench.registry import BASES, KINDS, Entry, Registry
from mia_bench.scaffold import KINDS as SCAFFOLDS
from mia_bench.scaffold import create
from mia_bench.terminal import say, say_lines, table
from mia_bench.testing import Finding
from mia_bench.testing.conformance import REPORTS, Conformance, check_entry


@click.group("plugins", invoke_without_command=True)
@click.option("--check", is_flag=True, help="Also import every component.")
@click.pass_context
def command(context: click.Context, check: bool) -> None:
    """List, check and create plugins.

    Without a command it lists every entry point of the group mia_bench: its distribution, version, status and
    error. MIA_BENCH_DISABLE_PLUGINS=a,b leaves plugins out; with MIA_BENCH_STRICT=1 a broken plugin is an
    error.
    """
    if context.invoked_subcommand is not None:
        return
    loaded = host()
    rows = [
        (info.name, f"{info.distribution} {info.version}", info.status, info.error or info.module)
        for info in loaded.plugins
    ]
    say_lines(table(rows, ["plugin", "distribution", "status", "module or error"]))
    problems = [*loaded.unreadable, *loaded.registry.conflicts(), *loaded.remarks]
    for kind in BASES if check else ():
        for entry in loaded.registry.entries(kind):
            try:
                entry.load()
            except MiaBenchError as error:
                problems.append(str(error))
    for line in problems:
        say(f"problem: {line}", err=True)


@command.command()
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(SCAFFOLDS),
    default="defense",
    show_default=True,
    help="Kind of the component.",
)
@click.option(
    "--output",
    type=PathType(),
    default=".",
    show_default="here",
    help="Where to make the distribution's folder.",
)
@click.option("--reuse-name", is_flag=True, help="Allow the name of something installed.")
def new(name: str, kind: str, output: Path, reuse_name: bool) -> None:
    """Write a distribution with a working plugin.

    NAME is that of the component: lower-case words joined by '-'. The distribution mia-bench-NAME has a
    module, a test that makes every check of the conformance kit, and a CI workflow. No file is overwritten.
    """
    folder = create(name, kind, output, reuse_name=reuse_name)
    say(f"wrote {folder}; next: pip install -e {folder}, mia-bench plugins check {name}")


@command.command()
@click.argument("name")
@config_options(options="Set an option; small values make the checks fast.")
@click.option(
    "--device", default="cpu", show_default=True, metavar="DEVICE", help="cpu, cuda, cuda:N or mps."
)
@click.option("--data", type=PathType(), help="Root of a data set's files.")
@click.option("--weights", type=PathType(), help="Folder of weight files.")
def check(name: str, options: tuple[str, ...] | None, **settings: Any) -> None:
    """Run NAME in a toy world and print what is wrong with it.

    NAME is a component, kind:component, or a plugin or distribution, which means all of its components and
    its reporter. Exit code 1 if anything is wrong.
    """
    check_device_form(settings["device"])
    registry = host().registry
    given = parse_option_values(registry, flatten_options(options or ()), tuple(BASES))
    entries, reporters = _named(registry, name)
    given.refuse_others([(entry.kind, entry.name) for entry in entries])
    broken = False
    for entry in entries:
        values = given.single(entry.kind, entry.name)
        broken |= _report(f"{entry.kind} {entry.name}", *check_entry(entry, options=values, **settings))
    for plugin, module in reporters.items():
        broken |= _report(f"reporter {plugin}", *Conformance(module).findings())
    if broken:
        sys.exit(1)


def _named(registry: Registry, name: str) -> tuple[list[Entry], dict[str, ModuleType]]:
    """The components of that name, and the reporters by the names of their plugins.

    Raises:
        UsageError: there is none, or two plugins claim the name, or its plugin is broken.
    """
    loaded = host()
    for info in loaded.broken:
        if name in (info.name, info.distribution, info.id):
            raise UsageError(f"plugin {info.id} is broken: {info.error}")
    kind, _, bare = name.rpartition(":")
    everything = [entry for known in KINDS for entry in registry.entries(known)]
    found = [e for e in everything if e.name == bare and kind in ("", e.kind)] or [
        e for e in everything if name in (e.plugin.name, e.plugin.distribution, e.plugin.id)
    ]
    reporters = {
        info.name: module
        for info, module in loaded.implementing(REPORTS)
        if name in (info.name, f"reporter:{info.name}", info.distribution, info.id)
    }
    if found or reporters:
        return [registry.get(entry.kind, entry.name) for entry in found], reporters
    if claims := registry.conflicts(name):
        raise UsageError("; ".join(claims))
    if name and package_version(name):
        raise UsageError(f"{name} is installed, but has no entry point of the group mia_bench")
    known = {entry.name for entry in everything}
    known |= {word for info in loaded.plugins for word in (info.name, info.distribution)}
    broken = ", ".join(info.id for info in loaded.broken)
    raise UsageError(
        f"nothing is called {name!r}; {registry.hint(bare, known)}"
        + (f"; broken, so that its names are unknown: {broken}" if broken else "")
    )


def _report(what: str, findings: list[Finding], skipped: dict[str, str]) -> bool:
    """Print what was found in one component or reporter, and return whether anything was."""
    count = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}"
    say(f"{what}: {count if findings else 'fine'}")
    for finding in findings:
        say(f"  {finding}")
    for reason in dict.fromkeys(skipped.values()):
        names = ", ".join(name for name, why in skipped.items() if why == reason)
        say(f"  ({names} skipped: {reason})")
    return bool(findings)
