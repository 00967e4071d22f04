"""Measures how far a cell's numbers move when it is run again: ``python docs/measure_reruns.py STORE``.

Runs the cell's own stages (target, attack, measurement) ten times: three times with one thread, twice with
two, and with the kernels of other processors. What the whole track shares is taken from the store, and made
there if it is missing. Prints the Markdown table of docs/reproducibility.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import click

CONDITIONS: list[tuple[str, int, dict[str, str]]] = [
    ("one thread", 1, {}),
    ("the same again", 1, {}),
    ("and again", 1, {}),
    ("two threads", 2, {}),
    ("two threads again", 2, {}),
    ("torch without vector instructions", 1, {"ATEN_CPU_CAPABILITY": "default"}),
    ("torch for AVX2", 1, {"ATEN_CPU_CAPABILITY": "avx2"}),
    ("oneDNN for AVX2", 1, {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    ("MKL for AVX2", 1, {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    (
        "all for AVX2",
        1,
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    ),
]
"""In words, the number of threads, and what the environment says of the kernels."""

RUN = """
import sys
from mia_bench import device
from mia_bench.cli import main
from mia_bench.engine import stages
count = int(sys.argv[1])
stages.threads = lambda _: device.threads(count)  # whatever the track says
main(sys.argv[2:])
"""


def rerun(store: Path, arguments: tuple[str, ...], threads: int, environment: dict[str, str]) -> dict:
    """The record of the cell, its own stages computed anew."""
    command = [sys.executable, "-c", RUN, str(threads), "run", *arguments, "--store", str(store)]
    more = ("--device", "cpu", "--jobs", "1", "--rerun", "always", "--format", "json")
    done = subprocess.run(
        [*command, *more], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    (record,) = json.loads(done.stdout)
    return record


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--metric", "names", multiple=True, default=("test_accuracy", "id_bits", "id_acc1"))
@click.option("--log", type=click.Path(path_type=Path), help="File to which each record is added.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(store: Path, names: tuple[str, ...], log: Path | None, arguments: tuple[str, ...]) -> None:
    """Run the cell that ARGUMENTS of ``mia-bench run`` name, after ``--``."""
    found: list[tuple[str, dict[str, float]]] = []
    for words, threads, environment in CONDITIONS:
        record = rerun(store, arguments, threads, environment)
        found.append((words, {name: record["metrics"][name]["value"] for name in names}))
        if log:
            with log.open("a") as file:
                file.write(json.dumps([words, record["provenance"]["capability"], found[-1][1]]) + "\n")
    print(f"| | {' | '.join(f'`{name}`' for name in names)} |\n|---|{'---|' * len(names)}")
    for words, values in found:
        print(f"| {words} | {' | '.join(f'{values[name]:.4f}' for name in names)} |")
    spread = [statistics.stdev(values[name] for _, values in found) for name in names]
    print(f"| standard deviation | {' | '.join(f'{value:.4f}' for value in spread)} |")


if __name__ == "__main__":
    main()
