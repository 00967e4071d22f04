"""Time the commands that read records, on thousands of them.

``python docs/measure_records.py [--records 10000]``

The records are those of a committed board, copied with other seeds and strengths: rows of 10 seeds under each
of its attacks. Printed are the seconds of each command, started anew.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from mia_bench import jsonfile
from mia_bench.store import Store

BOARDS = Path(__file__).parent.parent / "leaderboards"
SEEDS = 10


def copies(templates: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """``count`` records: those of one seed, again and again with other seeds and another strength."""
    made: list[dict[str, Any]] = []
    for number in itertools.count():
        for seed, template in itertools.product(range(SEEDS), templates):
            if len(made) == count:
                return made
            record = copy.deepcopy(template)
            record["seed"] = seed
            about = record["defense"].setdefault("about", {})
            options = record["defense"]["options"]
            if number and (about.get("baseline") or not options):
                continue
            if number:
                name = next(iter(options))
                options[name] = 1 / (number + 1)
                about["changed"] = [name]
            record["key"] = hashlib.sha256(f"{number} {seed} {template['key']}".encode()).hexdigest()[:20]
            record.pop(jsonfile.SEAL, None)
            made.append(jsonfile.seal(record))
    raise AssertionError


@click.command()
@click.option("--records", "count", default=10_000)
@click.option("--track", default="synth-faces")
def main(count: int, track: str) -> None:
    """Make the records, and time the commands."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted((BOARDS / "results" / track).iterdir())]
    templates = [one for one in found if one["seed"] == min(other["seed"] for other in found)]
    with tempfile.TemporaryDirectory() as work:
        store, board = Path(work) / "store", Path(work) / "boards"
        Store(store)
        folder = store / "records" / track
        folder.mkdir(parents=True)
        for record in copies(templates, count):
            (folder / f"{record['key']}.json").write_text(jsonfile.file_text(record), "utf-8")
        shutil.copytree(BOARDS, board, ignore=shutil.ignore_patterns("results", "figures", "strips"))
        click.echo(f"{count:,} records of {len(templates)} cells of a seed")
        for arguments in (
            ["results", "--store", store],
            ["leaderboard", "submit", "--store", store, "--track", track, "--folder", board],
            ["leaderboard", "check", "--folder", board],
            ["leaderboard", "build", "--folder", board],
        ):
            began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [sys.executable, "-m", "mia_bench", *map(str, arguments)], capture_output=True
            )
            words = " ".join(str(one) for one in arguments[:2] if not isinstance(one, Path))
            last = (done.stderr or done.stdout).decode().strip().splitlines()[-1:]
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            took = f"{time.perf_counter() - began:.1f} s, {computed:.1f} s of them computing"
            click.echo(f"{words}: {took}; exit code {done.returncode} {last}")


if __name__ == "__main__":
    main()
