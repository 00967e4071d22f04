"""The folder of the experiments: records go in, pages come out.

Layout::

    <folder>/README.md                      the index
    <folder>/<experiment>.md                a page each
    <folder>/figures/<experiment>-*.svg     their figures
    <folder>/results/<track>/<key>.json     records of cells that no board has
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mia_bench.errors import MiaBenchError, StoreError, UsageError
from mia_bench.experiments.analysis import Answer, answer, records_of
from mia_bench.experiments.definition import Experiment, experiment_names, load_experiment
from mia_bench.experiments.pages import FIGURES, figures, index, page
from mia_bench.experiments.planning import Plan, plan_of
from mia_bench.leaderboard.grouping import CellKey
from mia_bench.leaderboard.records import RESULTS, load, record_path, write
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.track import load_track

INDEX = "README.md"


class Published:
    """The records of the experiments, of their own folder and of the boards.

    Args:
        given: further records, which are added to the folder if an experiment needs them.

    Raises:
        UsageError: there are neither records nor boards.
        MiaBenchError: a record is not valid.
    """

    def __init__(self, folder: Path, boards: Path, registry: Registry, given: Iterable[Record] = ()) -> None:
        if not any((place / RESULTS).is_dir() for place in (folder, boards)):
            raise UsageError(f"neither {folder} nor {boards} has records: name the leaderboards by --boards")
        self.folder, self.registry = folder, registry
        self.experiments = [load_experiment(name) for name in experiment_names()]
        tracks = dict.fromkeys(name for one in self.experiments for name in one.tracks)
        self.tracks = {name: load_track(registry, name) for name in tracks}
        self._own = {name: load(folder, name) for name in tracks}
        self._boards = {name: load(boards, name) for name in tracks}
        self._given: dict[str, list[Record]] = {name: [] for name in tracks}
        for record in given:
            if record.track.name in tracks:
                self._given[record.track.name].append(record)

    def write(self) -> list[Path]:
        """Write the pages and the added records, and remove records that no experiment needs.

        Nothing is changed if a page can't be made.

        Returns:
            The files that changed.

        Raises:
            MiaBenchError: records can't be compared.
        """
        texts = self.pages()
        kept = {
            record_path(self.folder, record): record
            for experiment in self.experiments
            for track in experiment.tracks
            for record in self._chosen(experiment, track).values()
            if record not in self._boards[track]
        }
        there = {record_path(self.folder, record) for own in self._own.values() for record in own}
        changed = [path for path, record in kept.items() if write(path, record.file_text())]
        changed += [_remove(path) for path in sorted(there - kept.keys())]
        return changed + [path for path, text in texts.items() if write(path, text)]

    def pages(self) -> dict[Path, str]:
        """The text of every page with its figures."""
        texts: dict[Path, str] = {}
        found: list[tuple[Experiment, list[Answer]]] = []
        for experiment in self.experiments:
            told = [one for track in experiment.tracks if (one := self._answer(experiment, track))]
            found.append((experiment, told))
            texts[self.folder / f"{experiment.name}.md"] = page(experiment, told)
            for one in told:
                drawn = figures(experiment, one)
                texts |= {self.folder / FIGURES / file: svg for file, (_, svg) in drawn.items()}
        return {self.folder / INDEX: index(found), **texts}

    def _answer(self, experiment: Experiment, track: str) -> Answer | None:
        chosen = self._chosen(experiment, track).values()
        return answer(experiment, self._plan(experiment, track), self.registry, self.tracks[track], chosen)

    def _chosen(self, experiment: Experiment, track: str) -> dict[CellKey, Record]:
        """The record of each cell: that of the board, else the newest."""
        plan, protocol = self._plan(experiment, track), self.tracks[track]
        others = records_of(plan, self.registry, protocol, [*self._own[track], *self._given[track]])
        return others | records_of(plan, self.registry, protocol, self._boards[track])

    def _plan(self, experiment: Experiment, track: str) -> Plan:
        plan = plan_of(experiment, self.registry, self.tracks[track], range(experiment.seeds))
        if plan.left_out:
            raise MiaBenchError(f"experiment {experiment.name}, track {track}: {plan.left_out[0].reason}")
        return plan


def _remove(path: Path) -> Path:
    try:
        path.unlink()
    except OSError as error:
        raise StoreError(f"{path} can't be removed: {error.strerror}") from error
    return path
