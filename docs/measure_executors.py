"""Time grids under each executor: ``python docs/measure_executors.py``.

Each run is a command of its own, on an empty store:

- a grid of two defenses on ``synth-faces`` with ``--jobs 1`` and with ``--jobs 2``;
- what a stage costs with each executor, in a grid whose stages compute next to nothing: how much longer a run
  with 200 cells takes than one with 40, by stage;
- a grid of 1,000 cells whose records are all there.

The times are those of the clock: measure on a machine that does nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from kill_runs import EXECUTORS, install, python_path

FEW, MANY, CACHED = 40, 200, 1000


def run(store: Path, *arguments: str) -> float:
    """The seconds that ``mia-bench run`` takes."""
    command = [sys.executable, "-m", "mia_bench", "run", "--device", "cpu", "--store", str(store), *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    return time.perf_counter() - began


def side_by_side(work: Path) -> None:
    """Print what a second process saves."""
    grid = ("--track", "synth-faces", "--defense", "none", "--defense", "neg-ls", "--attack", "ppa")
    one, two = (run(work / f"jobs-{jobs}", *grid, "--jobs", str(jobs)) for jobs in (1, 2))
    click.echo(f"2 defenses × ppa on synth-faces: --jobs 1 {one:.0f} s, --jobs 2 {two:.0f} s")
    click.echo(f"so two processes are {one / two:.2f} times as fast as one")


def small(cells: int) -> list[str]:
    """A grid of so many cells, of images that are drawn from a prior."""
    values = (f"prior-sample.truncation={0.5 + number / 10_000:g}" for number in range(cells))
    options = [word for value in values for word in ("-o", value)]
    return ["--track", "kill-runs", "--defense", "none", "--attack", "prior-sample", *options]


def stages(store: Path) -> int:
    """How many artifacts lie there."""
    return sum(1 for _ in (store / "artifacts").glob("*/[!.]*/meta.json"))


def each_stage(work: Path) -> None:
    """Print what a stage costs with each executor."""
    for name, arguments in EXECUTORS.items():
        stores = [work / f"{name}-{cells}" for cells in (FEW, MANY)]
        few = run(stores[0], *small(FEW), *arguments)
        many = run(stores[1], *small(MANY), *arguments)
        more = stages(stores[1]) - stages(stores[0])
        click.echo(
            f"{name}: {FEW} cells {few:.1f} s, {MANY} cells {many:.1f} s: "
            f"{1000 * (many - few) / more:.1f} ms for each of {more} stages"
        )


def cached(work: Path) -> None:
    """Print what it takes to find that nothing is left to do."""
    store = work / "cached"
    first, again = (run(store, *small(CACHED)) for _ in range(2))
    click.echo(f"{CACHED:,} cells, all cached: {again:.1f} s (computing them took {first:.0f} s)")


@click.command()
def main() -> None:
    """Run everything and print it."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        install(work / "site")
        os.environ["PYTHONPATH"] = python_path(work / "site")
        for part in (each_stage, cached, side_by_side):
            part(work)


if __name__ == "__main__":
    main()
