"""The folder of the boards: records go in, pages come out, and a check that they agree.

Layout::

    <folder>/README.md                      the index
    <folder>/<track>.md                     a page a track
    <folder>/figures/<track>*.svg           their figures
    <folder>/strips/<track>.png             reconstructions of a run of each row
    <folder>/strips/results/…               records of the runs in them that no board has
    <folder>/results/<track>/<key>.json     the records, as the store writes them
    <folder>/tuning/                        the same for the sweeps that settings were chosen by

Beside the own file of a track that is in the same checkout, a summary is written, which ships with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mia_bench import jsonfile
from mia_bench.errors import MiaBenchError, StoreError, UsageError, did_you_mean
from mia_bench.leaderboard import strips
from mia_bench.leaderboard.admit import changed_checkouts, disagreements, doubts, refusals
from mia_bench.leaderboard.board import Board, build_board
from mia_bench.leaderboard.described import contradictions, known_quantities
from mia_bench.leaderboard.folds import boards_of, by_fold
from mia_bench.leaderboard.pages import TITLE, figures, index, page
from mia_bench.leaderboard.published import summary_path
from mia_bench.leaderboard.standings import Standings, standings
from mia_bench.leaderboard.strongest import strongest
from mia_bench.leaderboard.summary import summary_text
from mia_bench.leaderboard.trainings import not_reproduced
from mia_bench.leaderboard.tuning import choose
from mia_bench.record import Record, check_record
from mia_bench.registry import Registry
from mia_bench.track import load_track

PUBLISHED = "leaderboards"
"""The folder of the boards that a checkout publishes."""

_OF_CHECKOUTS = (".git", "pyproject.toml")
"""What the root of a checkout has."""

INDEX = "README.md"
RESULTS = "results"
TUNING = "tuning"
FIGURES = "figures"
STRIPS = "strips"


def record_path(folder: Path, record: Record) -> Path:
    """The file of a record of the boards in ``folder``."""
    return folder / RESULTS / record.track.name / f"{record.key}.json"


def track_names(folder: Path) -> list[str]:
    """The tracks that have records in ``folder``, sorted; none where only a sweep below it has some."""
    root = folder / RESULTS
    if not root.is_dir() and (folder / TUNING / RESULTS).is_dir():
        return []
    if not root.is_dir():
        raise UsageError(f"there are no records: {root} is not a folder (--folder names another)")
    return [path.name for path in _listing(root) if path.is_dir() and _files(path)]


def check_track(folder: Path, name: str) -> None:
    """Raise UsageError unless there are records of the track ``name`` in ``folder``."""
    if name not in (names := track_names(folder)):
        raise UsageError(f"{folder / RESULTS} has no records of {name!r}; {did_you_mean(name, names)}")


def _files(folder: Path) -> list[Path]:
    return [path for path in _listing(folder) if path.suffix == ".json"] if folder.is_dir() else []


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise StoreError(f"{folder} can't be read: {error.strerror}") from error


def load(folder: Path, track: str) -> list[Record]:
    """The records of one track, checked.

    Raises:
        MiaBenchError: a file is no valid record; the line names it.
    """
    return [read_file(path) for path in _files(folder / RESULTS / track)]


def one_of_each(folder: Path) -> list[Record]:
    """A finished record of each track, which has the protocol that all of its records share."""
    found = []
    for name in track_names(folder):
        for path in _files(folder / RESULTS / name):
            with contextlib.suppress(MiaBenchError):  # check names what can't be read
                record = read_file(path)
                if record.status == "done":
                    found.append(record)
                    break
    return found


def read_file(path: Path) -> Record:
    """One record, checked against its schema and its place.

    Raises:
        MiaBenchError: one line that names the file and what is wrong.
    """
    try:
        data = jsonfile.read_object(path)
    except OSError as error:
        raise MiaBenchError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise MiaBenchError(f"{path}: {error}") from error
    record = check_record(data, str(path))
    if jsonfile.SEAL not in data:
        raise MiaBenchError(f"{path}: it has no {jsonfile.SEAL}, the hash of its fields; submit it again")
    if record.key != path.stem:
        raise MiaBenchError(f"{path}: it holds the record {record.key}, the name must be its key")
    if record.track.name != path.parent.name:
        raise MiaBenchError(f"{path}: it belongs to the track {record.track.name!r}")
    return record


def write(path: Path, text: str) -> bool:
    """Write a file whole or not at all; False when it already says so."""
    if _text(path) == text:
        return False
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"{path} can't be written: {error.strerror}") from error
    return True


def remove(path: Path) -> Path:
    """Remove a file; its path.

    Raises:
        StoreError: it can't be removed.
    """
    try:
        path.unlink()
    except OSError as error:
        raise StoreError(f"{path} can't be removed: {error.strerror}") from error
    return path


def _text(path: Path) -> str | None:
    try:
        return jsonfile.read_file(path).decode("utf-8")
    except (OSError, ValueError):
        return None


def pages(
    folder: Path, registry: Registry, loaded: Mapping[tuple[Path, str], Sequence[Record]] | None = None
) -> dict[Path, str]:
    """The text of every page of the boards in ``folder`` with its figures, and of the sweeps below it.

    ``loaded``: records that were read already, by the folder of their board or sweep and their track.

    Raises:
        MiaBenchError: a record is not valid or can't be on its board.
    """
    sweeps, known = folder / TUNING, loaded or {}
    swept, folds, tunings = {}, {}, {}
    for name in sweep_names(folder):
        found = known.get((sweeps, name)) or load(sweeps, name)
        swept[name], *folds[name] = boards_of(registry, load_track(registry, name), found)
        tunings[name] = choose(swept[name], registry, folds[name])
    texts: dict[Path, str] = {}
    boards = []
    docs = (
        "../docs" if folder.name == PUBLISHED and (folder.parent / "docs" / "findings.md").is_file() else ""
    )
    for name in track_names(folder):
        decided = _decide(_board(folder, name, registry, known.get((folder, name))), swept.get(name))
        drawn = figures(decided)
        texts[folder / f"{name}.md"] = page(
            decided,
            registry,
            tunings.get(name),
            strip=(folder / STRIPS / f"{name}.png").is_file(),
            starred=bool(strip_reruns(folder, name)),
            drawn=drawn,
            docs=docs,
        )
        if summary := _summary_file(folder, registry, decided):
            texts[summary] = summary_text(decided)
        texts |= {folder / FIGURES / file: svg for file, (_, svg) in drawn.items()}
        boards.append(decided)
    texts[folder / INDEX] = index(boards, docs)
    for name, board in swept.items():
        texts[sweeps / f"{name}.md"] = page(
            standings(board), registry, tunings[name], sweep=True, folds=folds[name]
        )
    return texts


def _summary_file(folder: Path, registry: Registry, decided: Standings) -> Path | None:
    """The summary that ships with the track; only the published boards of its own checkout make it."""
    path, folder = summary_path(registry, decided.board.track.name).resolve(), folder.resolve()
    checkout = next(
        (one for one in path.parents if any((one / name).exists() for name in _OF_CHECKOUTS)), None
    )
    installed = {"site-packages", "dist-packages"} & {*path.parts}
    ours = folder.name == PUBLISHED and folder.parent == checkout and not installed
    return path if ours and decided.board.primary and decided.rows else None


def decide(folder: Path, registry: Registry, name: str) -> Standings:
    """The verdicts on the rows of a track, from the records in ``folder`` and of the sweep below it.

    Raises:
        MiaBenchError: a record is not valid or can't be on its board.
    """
    check_track(folder, name)
    swept = _board(folder / TUNING, name, registry) if name in sweep_names(folder) else None
    return _decide(_board(folder, name, registry), swept)


def _decide(board: Board, swept: Board | None) -> Standings:
    return standings(board, strongest(swept, board) if swept else None)


def sweep_names(folder: Path) -> list[str]:
    """The tracks whose settings were chosen by a sweep below ``folder``, sorted."""
    sweeps = folder / TUNING
    return track_names(sweeps) if (sweeps / RESULTS).is_dir() else []


def _board(folder: Path, name: str, registry: Registry, records: Sequence[Record] | None = None) -> Board:
    track, found = load_track(registry, name), records or load(folder, name)
    if folder.name == TUNING:
        return boards_of(registry, track, found)[0]
    return build_board(registry, track, found)


def build(folder: Path, registry: Registry) -> list[Path]:
    """Write all pages, or none if a record is refused; the files that changed.

    Raises:
        MiaBenchError: a record is not valid or can't be on its board.
    """
    return [path for path, text in pages(folder, registry).items() if write(path, text)]


def check(folder: Path, registry: Registry) -> list[str]:
    """What is wrong with the boards in ``folder``, one line each; empty when nothing is.

    Invalid records, records that can't share a board, records made from a changed checkout, seeds
    that settings were chosen on, and pages that differ from what :func:`build` would write.
    """
    blocking, other = [], []
    loaded: dict[tuple[Path, str], list[Record]] = {}
    named = [(folder, name) for name in track_names(folder)]
    named += [(folder / TUNING, name) for name in sweep_names(folder)]
    for place, name in named:
        found = []
        for path in _files(place / RESULTS / name):
            try:
                found.append(read_file(path))
            except MiaBenchError as error:
                blocking.append(str(error))
        try:
            track, refused, apart = load_track(registry, name), [], []
            for changed, same in by_fold(track, found) if place.name == TUNING else [(track, found)]:
                quantities = known_quantities(registry, changed, same)
                refused += refusals(changed, same, quantities)
                apart += not_reproduced(same, quantities)
                wrong = {record.key: list(contradictions(registry, changed, record)) for record in same}
                refused += [f"record {key}: {line}" for key, lines in wrong.items() for line in lines]
            if place.name == TUNING:
                refused = refused or disagreements(found)
        except MiaBenchError as error:
            blocking.append(f"{place / RESULTS / name}: {error}")
        else:
            blocking += [f"{place.name}, track {name!r}: {line}" for line in refused]
            other += [f"{place.name}, track {name!r}: {line}" for line in apart]
        other += [f"{place.name}, track {name!r}: {line}" for line in doubts(found)]
        loaded[place, name] = found
    if not blocking:  # while a record is refused there is no page to compare with
        for name in sweep_names(folder):
            tuned, shown = (loaded.get((place, name), []) for place in (folder / TUNING, folder))
            if shared := sorted({record.seed for record in tuned} & {record.seed for record in shown}):
                on = ", ".join(map(str, shared))
                other.append(f"track {name!r}: settings were chosen on seeds of the board: {on}")
        try:
            other += _check_pages(folder, registry, loaded)
        except MiaBenchError as error:
            blocking.append(str(error))
    return blocking + other


def _check_pages(
    folder: Path, registry: Registry, loaded: Mapping[tuple[Path, str], Sequence[Record]]
) -> list[str]:
    problems = []
    expected = pages(folder, registry, loaded)
    for path, text in expected.items():
        found = _text(path)
        if found is None:
            problems.append(f"{path}: missing; run 'mia-bench leaderboard build'")
        elif found != text:
            problems.append(f"{path}: differs from its records; run 'mia-bench leaderboard build'")
    problems += _check_strips(folder, registry, loaded)
    there = {*folder.glob("*.md"), *(folder / TUNING).glob("*.md")}
    stale = [path for path in sorted(there - expected.keys()) if (_text(path) or "").startswith(TITLE)]
    stale += sorted({*(folder / FIGURES).glob("*.svg")} - expected.keys())
    return problems + [f"{path}: a page without records; remove it" for path in stale]


def strip_reruns(folder: Path, track: str) -> list[Record]:
    """The records of what the track's strip shows of other runs than those published.

    Raises:
        MiaBenchError: a file is no valid record; the line names it.
    """
    return load(folder / STRIPS, track)


def write_strip_reruns(folder: Path, track: str, reruns: Sequence[Record]) -> None:
    """Write them, and remove others.

    Raises:
        StoreError: a file can't be written or removed.
    """
    paths = {record_path(folder / STRIPS, record): record for record in reruns}
    for path, record in paths.items():
        write(path, record.file_text())
    for path in _files(folder / STRIPS / RESULTS / track):
        if path not in paths:
            remove(path)


def _check_strips(
    folder: Path, registry: Registry, loaded: Mapping[tuple[Path, str], Sequence[Record]]
) -> list[str]:
    place = folder / STRIPS
    tracks = {path.stem for path in place.glob("*.png")}
    tracks |= {path.parent.name for path in (place / RESULTS).glob("*/*.json")}
    lines = []
    for track in sorted(tracks):
        try:
            reruns = strip_reruns(folder, track)
        except MiaBenchError as error:
            lines.append(str(error))
            continue
        published = loaded.get((folder, track), ())
        lines += strips.problems(place / f"{track}.png", registry, published, reruns)
        lines += changed_checkouts(reruns)
    return lines
