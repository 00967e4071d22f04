"""``mia-bench experiment``: what papers claim, each one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mia_bench.cli.plan import print_plan
from mia_bench.cli.shared import PathType, config_options, store_option, uncollected
from mia_bench.config import OF_TARGETS, RunConfig, load_config
from mia_bench.engine.progress import counted, terminal_progress
from mia_bench.engine.run import execute
from mia_bench.errors import UsageError
from mia_bench.experiments import plane
from mia_bench.experiments.analysis import Answer, answer
from mia_bench.experiments.definition import Experiment, load_experiment, load_experiments
from mia_bench.experiments.folder import Published
from mia_bench.experiments.pages import number_rows
from mia_bench.experiments.planning import prepare_experiment
from mia_bench.leaderboard.admit import changed_checkouts
from mia_bench.leaderboard.records import write
from mia_bench.leaderboard.words import brief, change
from mia_bench.plugins import host
from mia_bench.results import doubts, read_store, text_table
from mia_bench.store import Store
from mia_bench.terminal import say, say_lines, warn
from mia_bench.track import load_track

_SET = {"defense", "attack", "prior", "options", "rerun", "shard", "format", "allow_partial", "target"}
_OTHERS = _SET | {"fold", "track", "seeds", *OF_TARGETS}
_KEYS = tuple(name for name in RunConfig.model_fields if name not in _OTHERS)
"""The keys of a run but those that the experiment sets, those with other defaults here, and ``fold``."""


@click.group("experiment")
def command() -> None:
    """Run the experiments that test what papers claim, and write their pages."""


@command.command("list")
def list_() -> None:
    """List the experiments."""
    rows = []
    for one in load_experiments():
        name = one.name
        rows.append({"name": name, "question": one.question, "tracks": ", ".join(one.tracks)})
    rows.append({"name": plane.NAME, "question": plane.load().question, "tracks": "none: points in a plane"})
    say_lines(text_table(rows))


@command.command()
@click.argument("name")
@config_options(
    track="Track to run it on.  [default: the first of the experiment's]",
    seeds="Number of seeds: 0 … N-1.  [default: the experiment's]",
)
@config_options(*_KEYS)
@click.option("--dry-run", is_flag=True, help="Print the plan, and stop.")
def run(name: str, dry_run: bool, **options: Any) -> None:
    """Run the cells of the experiment NAME on a track, and print what they say.

    Everything is cached, as by mia-bench run: a run that was stopped goes on with the same command.
    """
    if name == plane.NAME:
        if options["track"] is not None:
            raise UsageError(f"experiment {name!r} has no track: leave out --track")
        _run_plane(load_config(options), dry_run=dry_run)
        return
    experiment = load_experiment(name)
    if options["track"] is None:
        options["track"] = experiment.tracks[0]
    planned = prepare_experiment(experiment, load_config(options))
    warn(dict.fromkeys(line for prepared, _ in planned for line in (*prepared.warnings, *prepared.left_out)))
    if options["track"] not in experiment.tracks:
        shown, more = ", ".join(experiment.tracks), f"'mia-bench experiment build --track {options['track']}'"
        say(f"note: the page of {name} shows {shown}; {more} adds this track", err=True)
    if dry_run:
        variations = experiment.variations_on(options["track"])
        for variation, (prepared, _) in zip(variations, planned, strict=True):
            if variation.label:
                say(f"{variation.label}:")
            print_plan(prepared)
        return
    records = [record for prepared, _ in planned for record in execute(prepared, terminal_progress())]
    registry, plans = host().registry, [plan for _, plan in planned]
    found = answer(experiment, load_track(registry, options["track"]), plans, registry, records)
    if found:
        _print(experiment, found)
    else:
        say("there are no numbers of accuracy and leakage to compare")
    warn(doubts(records))
    if any(prepared.left_out for prepared, _ in planned) or any(
        record.status == "failed" for record in records
    ):
        sys.exit(1)


def _run_plane(config: RunConfig, *, dry_run: bool) -> None:
    """Compute the plane, and keep its record in the store if it is of the experiment's seeds."""
    experiment = plane.load()
    usual = tuple(range(experiment.seeds))
    seeds = config.given_seeds or usual
    if len(seeds) < 2:
        raise UsageError("an interval needs at least two seeds")
    if dry_run:
        say(f"{len(experiment.targets)} targets on {len(seeds)} seeds, less than 2 seconds a seed")
        return
    store = Store(config.store)
    store.check_writable()
    total = len(experiment.targets) * len(seeds)
    with click.progressbar(length=total, label="targets", file=sys.stderr) as bar:
        record = plane.compute(experiment, host().registry, seeds, lambda done, total, unit: bar.update(1))
    if seeds == usual:
        write(plane.place_in(store.root), record.text())
    else:
        say("note: the record of other seeds than the experiment's is not kept", err=True)
    found = plane.findings(experiment, record)
    rows = []
    for one in found:
        row = {"target": one.label}
        for name, quantity in plane.QUANTITIES.items():
            row[name] = brief(quantity, one.shown(name))
            row[f"change of {name}"] = change(quantity, one.changes.get(name))
        rows.append(row)
    say_lines(text_table(rows))
    for claim in plane.told(experiment, found):
        said = "not seen here, rather the opposite" if claim.opposite else claim.outcome
        say(f"{claim.text} {said.capitalize()}: {change(plane.QUANTITIES[claim.name], claim.effect)}")


def _print(experiment: Experiment, found: Answer) -> None:
    """The numbers of each variant, and a line for each claim."""
    for part in found.parts:
        if part.variant:
            say(f"{part.variant}:")
        say_lines(text_table(number_rows(experiment, part)))
    for one in found.tested:
        missing = f" ({counted(one.missing, 'missing number')})" if one.missing else ""
        under = [
            f"{change(one.quantity, effect)}{f' under {label}' if label else ''}"
            for label, effect in one.effects.items()
        ]
        said = " ".join(filter(None, [one.variant and f"[{one.variant}]", one.claim.text, one.verdict]))
        say(": ".join(filter(None, [said + missing, ", ".join(under)])))


@command.command()
@click.option(
    "--folder",
    type=PathType(file_okay=False),
    default=Path("docs/experiments"),
    show_default=True,
    help="Folder of the pages and of results/<track>/<key>.json.",
)
@click.option(
    "--boards",
    type=PathType(file_okay=False),
    default=Path("leaderboards"),
    show_default=True,
    help="Folder of the leaderboards, whose records count too.",
)
@click.option(
    "--track", "tracks", multiple=True, metavar="NAME", help="Show this track, too; repeat for several."
)
@store_option
@uncollected()
def build(folder: Path, boards: Path, tracks: tuple[str, ...], store: Path | None) -> None:
    """Write the pages from the records; with --store, add the records of a store first."""
    given = read_store(store) if store else []
    points = plane.place_in(Store(store).root) if store else None
    kept = plane.read(points) if points and points.exists() else None
    published = Published(folder, boards, host().registry, given, kept, tracks)
    changed = published.write()
    for path in changed:
        say(path)
    written = {path.stem for path in changed}
    warn(changed_checkouts(record for record in published.records if record.key in written))
    if not changed:
        say("all pages are up to date", err=True)
