"""Lose a node of a Ray cluster of four on this machine, and compare what was stored with a local run.

``python docs/lose_node.py [--after 40] [--store STORE] [ARGUMENTS OF mia-bench run …]``

Each node has one core; one is killed when ``--after`` stages are done. What the cluster stored must be what
the local run stored: the hashes of all tensors, all metrics, values by class and notes. With ``--store`` the
local run goes on in that store; by default it begins in an empty one. Exit code 1 if anything differs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
from kill_runs import Looked, look
from ray.cluster_utils import Cluster

NODES = 4


def follow(store: Path, *arguments: str) -> Iterator[int]:
    """Run ``mia-bench run`` and print what it tells; the number of stages done, each time it is more."""
    command = [sys.executable, "-m", "mia_bench", "run", "--device", "cpu", "--store", str(store), *arguments]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    done = 0
    for line in running.stderr or ():
        click.echo(line.rstrip())
        if ": done in " in line:
            yield (done := done + 1)
    if running.wait():
        raise SystemExit(f"{' '.join(command)} failed")


def differences(found: Looked, expected: Looked) -> list[str]:
    """What of the cluster's store the local run stored otherwise, or not at all."""
    artifacts = [key for key, value in found.artifacts.items() if expected.artifacts.get(key) != value]
    records = [key for key in found.records if found.records[key] != expected.records.get(key)]
    return [f"{key} differs" for key in artifacts] + [f"record {key} differs" for key in records]


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--after", default=40, help="Stages after which the node is killed.")
@click.option("--store", type=Path, help="Store of the local run.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(after: int, store: Path | None, arguments: tuple[str, ...]) -> None:
    """Run locally and on the cluster, and compare."""
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        local, remote = store or Path(folder) / "local", Path(folder) / "ray"
        for _ in follow(local, *arguments):
            pass
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        lost = [nodes.add_node(num_cpus=1) for _ in range(NODES - 1)][-1]
        nodes.wait_for_nodes()
        began = time.monotonic()
        try:
            for done in follow(remote, *arguments, "--executor", "ray", "--address", nodes.address):
                if done == after:
                    nodes.remove_node(lost, allow_graceful=False)
                    click.echo(f"a node is lost after {time.monotonic() - began:.0f} s")
        finally:
            nodes.shutdown()
        took = time.monotonic() - began
        found = look(remote, problems)
        problems += differences(found, look(local, problems))
    click.echo(f"{len(found.records)} records and {len(found.artifacts)} artifacts in {took:.0f} s")
    click.echo("\n".join(problems) or "all equal those of the local run")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
