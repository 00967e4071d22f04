"""The folder of the experiments: records go in, pages come out.

Layout::

    <folder>/README.md                      the index
    <folder>/<experiment>.md                a page each
    <folder>/figures/<experiment>-*.svg     their figures
    <folder>/results/<track>/<key>.json     records of cells that no board has
    <folder>/results/plane.json             the record of the plane
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.experiments import plane
from mia_bench.experiments.analysis import Answer, answer, records_of
from mia_bench.experiments.definition import Experiment, load_experiments
from mia_bench.experiments.pages import figures, index, page, plane_page
from mia_bench.experiments.planning import Plan, plan_of
from mia_bench.leaderboard.grouping import group
from mia_bench.leaderboard.records import FIGURES, INDEX, RESULTS, load, record_path, remove, write
from mia_bench.record import Record
from mia_bench.registry import Registry
from mia_bench.track import Track, load_track


@dataclass(frozen=True)
class _Part:
    """An experiment on a track.

    Attributes:
        plans: in each variant.
        own: the records that no board has.
        records: those, and the boards'.
    """

    experiment: Experiment
    track: Track
    plans: tuple[Plan, ...]
    own: tuple[Record, ...]
    records: tuple[Record, ...]


class Published:
    """The records of the experiments, of their own folder and of the boards.

    Of several records of a cell, see :func:`records_of`.

    Args:
        given: further records, which are added to the folder if an experiment needs them.
        points: a further record of the plane, which takes the place of the folder's.
        tracks: further tracks that the pages show, where there are numbers of them.

    Raises:
        UsageError: there are neither records nor boards.
        MiaBenchError: a record is not valid, or a setting can't be run.
    """

    def __init__(
        self,
        folder: Path,
        boards: Path,
        registry: Registry,
        given: Iterable[Record] = (),
        points: plane.PlaneRecord | None = None,
        tracks: Sequence[str] = (),
    ) -> None:
        if not any((place / RESULTS).is_dir() for place in (folder, boards)):
            raise UsageError(f"neither {folder} nor {boards} has records: name the leaderboards by --boards")
        self.folder, self.registry = folder, registry
        self._plane_file = folder / RESULTS / f"{plane.NAME}.json"
        self._points = points or (plane.read(self._plane_file) if self._plane_file.exists() else None)
        self._plane = plane.load()
        self.experiments = [
            one.model_copy(update={"tracks": tuple(dict.fromkeys((*one.tracks, *tracks)))})
            for one in load_experiments()
        ]
        names = dict.fromkeys(name for one in self.experiments for name in one.tracks)
        self._there = {name: load(folder, name) for name in names}
        on_boards = {name: load(boards, name) for name in names}
        added = group(given, lambda record: record.track.name)
        self._parts = [
            self._part(one, name, on_boards[name], [*self._there[name], *added.get(name, [])])
            for one in self.experiments
            for name in one.tracks
        ]

    def _part(
        self, experiment: Experiment, name: str, on_board: Iterable[Record], others: Iterable[Record]
    ) -> _Part:
        track = load_track(self.registry, name)
        plans: list[Plan] = []
        own: list[Record] = []
        boards: list[Record] = []
        for variation in experiment.variations_on(name):
            changed = variation.of(track)
            plan = plan_of(experiment, self.registry, changed, range(experiment.seeds))
            if plan.left_out:
                raise MiaBenchError(f"experiment {experiment.name}, track {name}: {plan.left_out[0].reason}")
            added, there = records_of(plan, self.registry, changed, others, on_board)
            plans.append(plan)
            own += added
            boards += there
        return _Part(experiment, track, tuple(plans), tuple(own), (*own, *boards))

    def write(self) -> list[Path]:
        """Write the pages and the added records, and remove records that no experiment needs.

        Nothing is changed if a page can't be made.

        Returns:
            The files that changed.

        Raises:
            MiaBenchError: records can't be compared.
        """
        texts = self.pages()
        kept = {record_path(self.folder, record): record for part in self._parts for record in part.own}
        there = {record_path(self.folder, record) for several in self._there.values() for record in several}
        changed = [path for path, record in kept.items() if write(path, record.file_text())]
        if self._points and write(self._plane_file, self._points.text()):
            changed.append(self._plane_file)
        changed += [remove(path) for path in sorted(there - kept.keys())]
        return changed + [path for path, text in texts.items() if write(path, text)]

    @property
    def records(self) -> list[Record]:
        """The records of the folder, with the added ones."""
        return list({record.key: record for part in self._parts for record in part.own}.values())

    def answers(self) -> list[tuple[Experiment, list[Answer]]]:
        """What the records say, for each experiment, on each of its tracks with numbers.

        Raises:
            MiaBenchError: records can't be compared.
        """
        found: dict[str, list[Answer]] = {one.name: [] for one in self.experiments}
        for part in self._parts:
            if told := answer(part.experiment, part.track, part.plans, self.registry, part.records):
                found[part.experiment.name].append(told)
        return [(one, found[one.name]) for one in self.experiments]

    def pages(self) -> dict[Path, str]:
        """The text of every page with its figures."""
        texts: dict[Path, str] = {}
        found = self.answers()
        for experiment, told in found:
            drawn = {one.track.name: figures(experiment, one) for one in told}
            texts[self.folder / f"{experiment.name}.md"] = page(experiment, told, drawn)
            for of_track in drawn.values():
                texts |= {self.folder / FIGURES / file: svg for file, (_, svg) in of_track.items()}
        if self._points:
            texts[self.folder / f"{plane.NAME}.md"] = plane_page(self._plane, self._points)
            texts[self.folder / FIGURES / f"{plane.NAME}.svg"] = plane.figure(self._plane, self._points)
        points = (self._plane, self._points) if self._points else None
        return {self.folder / INDEX: index(found, points), **texts}
