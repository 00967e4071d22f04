"""Measure what the parts of an attack repeat.

``python docs/measure_selection.py [--track lfw] [--store STORE]``

Each part of ``ppa`` samples and scores the same latents before it optimises those of its own classes. Runs a
cell in one process and prints the share of that selection in the attack's time, and the share of what is
repeated. The attack's images are scored in 19 views, not 20, so that a store which has the cell has not its
attack: with such a store, the attack alone is computed.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

import click

import mia_bench
from mia_bench.engine.progress import terminal_progress
from mia_bench_plugins.attacks.ppa import PlugAndPlay


def timed(name: str, spent: Counter[str], calls: Counter[str]) -> None:
    """Let the attack's method add up its time."""
    method = getattr(PlugAndPlay, name)

    def measured(*arguments: object) -> object:
        began = time.perf_counter()
        found = method(*arguments)
        spent[name] += time.perf_counter() - began
        calls[name] += 1
        return found

    setattr(PlugAndPlay, name, measured)


@click.command()
@click.option("--track", default="synth-faces", show_default=True)
@click.option("--store", type=Path)
def main(track: str, store: Path | None) -> None:
    """Run the cell and print the shares."""
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for name in ("invert", "_initial_selection"):
        timed(name, spent, calls)
    with tempfile.TemporaryDirectory() as folder:
        mia_bench.run(
            track=track,
            defense="none",
            attack="ppa",
            options={"ppa.views": [19]},
            jobs=1,
            store=store or folder,
            display=terminal_progress(),
        )
    parts, share = calls["invert"], spent["_initial_selection"] / spent["invert"]
    click.echo(f"{track}: {parts} parts, {spent['invert']:.1f} s; selection {share:.2%} of it")
    click.echo(f"repeated: {share * (parts - 1) / parts:.2%}")


if __name__ == "__main__":
    main()
