"""``mia-bench plugins``."""

from __future__ import annotations

import click


@click.command("plugins", short_help="List the plugins and what is wrong with broken ones.")
@click.option("--check", is_flag=True, help="Also import every component.")
def command(check: bool) -> None:
    """List every entry point of the group mia_bench: its distribution, version, status and error.

    MIA_BENCH_DISABLE_PLUGINS=a,b leaves plugins out; with MIA_BENCH_STRICT=1 a broken plugin is an
    error.
    """
    from tabulate import tabulate

    from mia_bench.errors import MiaBenchError
    from mia_bench.plugins import host
    from mia_bench.registry import KINDS

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
