"""The folder of the experiments: records go in, pages come out.

Layout::

    <folder>/README.md                      the index
    <folder>/<experiment>.md                a page each
    <folder>/figures/<experiment>-*.svg     their figures
    <folder>/results/<track>/<key>.json     records of cells that no board has
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mia_bench.experiments.analysis import Answer, answer, records_of
from mia_bench.experiments.definition import Experiment, experiment_names, load_experiment
from mia_bench.experiments.pages import FIGURES, figures, index, page
from mia_bench.experiments.planning import Placed, cells_of
from mia_bench.leaderboard.records import load, record_path, write
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.track import Track, load_track

INDEX = "README.md"


def experiments(registry: Registry) -> list[Experiment]:
    """All of them."""
    return [load_experiment(name) for name in experiment_names()]


def cells(experiment: Experiment, registry: Registry, track: Track) -> list[Placed]:
    """The cells of an experiment on its seeds; settings that can't be run are left out."""
    return cells_of(experiment, registry, track, range(experiment.seeds), [])


def add(folder: Path, boards: Path, registry: Registry, given: Iterable[Record]) -> list[Path]:
    """Copy the records of experiments into the folder, but those that the boards have; the new files.

    Raises:
        MiaBenchError: a record there is not valid.
    """
    by_track: dict[str, list[Record]] = {}
    for record in given:
        by_track.setdefault(record.track.name, []).append(record)
    written = []
    for experiment in experiments(registry):
        for name in experiment.tracks:
            track = load_track(registry, name)
            own = records_of(cells(experiment, registry, track), registry, track, by_track.get(name, []))
            there = {record.key for record in _published(folder, boards, name)}
            new = [record for record in own.values() if record.key not in there]
            written += [
                path for record in new if write(path := record_path(folder, record), record.file_text())
            ]
    return written


def _published(folder: Path, boards: Path, track: str) -> list[Record]:
    """The records of a track in the folder and on the boards."""
    return [record for place in (boards, folder) for record in load(place, track)]


def answers(experiment: Experiment, folder: Path, boards: Path, registry: Registry) -> list[Answer]:
    """What the published records say, by track."""
    found = []
    for name in experiment.tracks:
        track = load_track(registry, name)
        own = cells(experiment, registry, track)
        if one := answer(experiment, own, registry, track, _published(folder, boards, name)):
            found.append(one)
    return found


def pages(folder: Path, boards: Path, registry: Registry) -> dict[Path, str]:
    """The text of every page with its figures.

    Raises:
        MiaBenchError: a record is not valid, or records can't be compared.
    """
    texts: dict[Path, str] = {}
    found: dict[str, tuple[Experiment, Sequence[Answer]]] = {}
    for experiment in experiments(registry):
        told = answers(experiment, folder, boards, registry)
        found[experiment.name] = experiment, told
        texts[folder / f"{experiment.name}.md"] = page(experiment, told)
        for one in told:
            texts |= {folder / FIGURES / file: svg for file, (_, svg) in figures(experiment, one).items()}
    return {folder / INDEX: index(found), **texts}


def build(folder: Path, boards: Path, registry: Registry) -> list[Path]:
    """Write all pages; the files that changed."""
    return [path for path, text in pages(folder, boards, registry).items() if write(path, text)]
