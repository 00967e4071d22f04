"""Measure what the parts of an attack would repeat if each prepared for itself.

``python docs/measure_selection.py [--track lfw] [--store STORE]``

Runs the attacks that prepare something on an undefended target, in one process, and prints the share of the
preparation, which is computed once, in the attack's time, and what the parts would repeat of it otherwise.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

import mia_bench
from mia_bench.engine.progress import terminal_progress
from mia_bench.store import Store

ATTACKS = ("ppa", "mirror", "brep-mi")


@click.command()
@click.option("--track", default="synth-faces", show_default=True)
@click.option("--store", type=Path)
def main(track: str, store: Path | None) -> None:
    """Run the cells and print the shares."""
    with tempfile.TemporaryDirectory() as folder:
        place = store or Path(folder) / "store"
        records = mia_bench.run(
            track=track, defense="none", attack=ATTACKS, jobs=1, store=place, display=terminal_progress()
        )
        for record in records:
            stored = Store(place)
            info = stored.info("invert", stored.info("measure", record.key)["inverted"])
            parts = sum(role.startswith("shard") for role in info["origin"]["inputs"]) or 1
            alone, seconds = info["prepare"]["seconds"], record.cost.invert_seconds
            again = (parts - 1) * alone
            click.echo(f"{track}, {record.attack.name}: {seconds:.1f} s in {parts} parts")
            click.echo(
                f"  preparation {alone / seconds:.1%}; {again / (seconds + again):.1%} would be repeated"
            )


if __name__ == "__main__":
    main()
