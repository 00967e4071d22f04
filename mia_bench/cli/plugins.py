"""``mia-bench plugins``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import click
from tabulate import tabulate

from mia_bench.cli.shared import PathType, set_option
from mia_bench.components import parse_option_values
from mia_bench.device import check_device_form
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.plugins import host
from mia_bench.registry import BASES, KINDS, Entry, Registry
from mia_bench.scaffold import KINDS as SCAFFOLDS
from mia_bench.scaffold import create
from mia_bench.testing import Finding
from mia_bench.testing.conformance import Conformance, check_entry


@click.group("plugins", invoke_without_command=True)
@click.option("--check", is_flag=True, help="Also import every component.")
@click.pass_context
def command(context: click.Context, check: bool) -> None:
    """List every entry point of the group mia_bench: its distribution, version, status and error.

    MIA_BENCH_DISABLE_PLUGINS=a,b leaves plugins out; with MIA_BENCH_STRICT=1 a broken plugin is an
    error.
    """
    if context.invoked_subcommand is not None:
        return
    loaded = host()
    table = [
        (info.name, f"{info.distribution} {info.version}", info.status, info.error or info.module)
        for info in loaded.plugins
    ]
    click.echo(tabulate(table, headers=["plugin", "distribution", "status", "module or error"]))
    problems = loaded.registry.conflicts()
    if check:
        for kind in KINDS:
            for entry in loaded.registry.entries(kind):
                try:
                    if kind != "track":
                        entry.load()
                except MiaBenchError as error:
                    problems.append(str(error))
    for line in problems:
        click.echo(f"problem: {line}", err=True)


@command.command()
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(SCAFFOLDS), default="defense", show_default=True, help="What it is."
)
@click.option(
    "--output",
    type=PathType(),
    default=".",
    show_default="here",
    help="Folder in which the distribution's folder is made.",
)
@click.option("--reuse-name", is_flag=True, help="Allow a name that something installed has.")
def new(name: str, kind: str, output: Path, reuse_name: bool) -> None:
    """Write a distribution with a working plugin called NAME: lower-case words joined by '-'.

    It has a module, a test that makes every check of the conformance kit, and a CI workflow. No file is
    overwritten.
    """
    folder = create(name, kind, output, reuse_name=reuse_name)
    click.echo(f"wrote {folder}; next: pip install -e {folder}, mia-bench plugins check {name}")


@command.command()
@click.argument("name")
@set_option("Set an option; small values make the checks fast.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N or mps.")
@click.option("--data", type=PathType(), help="Root of a data set's files.")
@click.option("--weights", type=PathType(), help="Folder of weight files.")
def check(
    name: str,
    options: dict[str, tuple[str, ...]],
    device: str,
    data: Path | None,
    weights: Path | None,
) -> None:
    """Run NAME in a toy world and print what is wrong with it. Exit code 1 if anything is.

    NAME is a component, kind:component, or a plugin or distribution, which means all of its components and
    its reporter.
    """
    check_device_form(device)
    registry = host().registry
    given = parse_option_values(registry, options, tuple(BASES))
    entries, reporters = _named(registry, name)
    broken = False
    for entry in entries:
        values = given.single(entry.kind, entry.name)
        findings, left_out = check_entry(entry, options=values, device=device, data=data, weights=weights)
        broken |= bool(findings)
        click.echo("\n".join(_report(f"{entry.kind} {entry.name}", findings, left_out)))
    for plugin, module in reporters.items():
        findings, left_out = Conformance(module).findings()
        broken |= bool(findings)
        click.echo("\n".join(_report(f"reporter {plugin}", findings, left_out)))
    if broken:
        sys.exit(1)


def _named(registry: Registry, name: str) -> tuple[list[Entry], dict[str, ModuleType]]:
    """The components of that name, and the reporters by the names of their plugins.

    Raises:
        UsageError: there is none, or two plugins claim the name, or its plugin is broken.
    """
    kind, _, bare = name.rpartition(":")
    everything = [entry for known in KINDS for entry in registry.entries(known)]
    found = [e for e in everything if e.name == bare and kind in ("", e.kind)] or [
        e for e in everything if name in (e.plugin.name, e.plugin.distribution, e.plugin.id)
    ]
    for info in host().broken:
        if name in (info.name, info.distribution, info.id):
            raise UsageError(f"plugin {info.id} is broken: {info.error}")
    reporters = {
        info.name: module
        for info, module in host().implementing("mia_bench_cell_finished")
        if name in (info.name, f"reporter:{info.name}", info.distribution, info.id)
    }
    if not found and not reporters:
        known = {entry.name for entry in everything}
        known |= {word for info in host().plugins for word in (info.name, info.distribution)}
        if _installed(name):
            raise UsageError(f"{name} is installed, but has no entry point of the group mia_bench")
        broken = ", ".join(info.id for info in host().broken)
        raise UsageError(
            f"nothing is called {name!r}; {registry.hint(bare, known)}"
            + (f"; broken, so that its names are unknown: {broken}" if broken else "")
        )
    return [registry.get(entry.kind, entry.name) for entry in found], reporters


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except (PackageNotFoundError, ValueError):
        return False
    return True


def _report(what: str, findings: list[Finding], left_out: dict[str, str]) -> Iterator[str]:
    """The lines about one component or reporter."""
    count = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}"
    yield f"{what}: {count if findings else 'fine'}"
    for finding in findings:
        yield f"  {finding}"
    for reason in dict.fromkeys(left_out.values()):
        names = ", ".join(name for name, why in left_out.items() if why == reason)
        yield f"  ({names} skipped: {reason})"
