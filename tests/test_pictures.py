"""Pictures: written whole or not at all, and made again where they are missing or broken."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from commands import TOY_RUN
from mia_bench import store as store_module
from mia_bench.cli.drawn_strip import Run, captions, to_show
from mia_bench.pictures import (
    PRIVATE,
    StripRow,
    is_whole,
    save_sheet,
    shows_people,
    strip,
    strip_classes,
    strip_row,
    strip_rows,
    write_png,
)
from mia_bench.plugins import host
from mia_bench.record import Record, read_record
from mia_bench.store import Store
from stored import without_hash
from test_leaderboard import make_record

ALL = ("data", "prior", "gallery", "evaluator", "train", "assess", "invert", "measure")


def _removed(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _emptied(path: Path) -> None:
    os.truncate(path, 0)


def _altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _replaced(path: Path) -> None:
    path.write_text("<html>")


@pytest.mark.slow
@pytest.mark.parametrize("harm", [_removed, _cut, _emptied, _altered, _replaced])
def test_a_cached_run_makes_a_broken_picture_again(
    cli, toy, store, tmp_path, harm: Callable[[Path], None]
) -> None:
    store(*ALL)
    (record,) = cli(*TOY_RUN).records
    picture = tmp_path / "store" / "pictures" / f"{record['key']}.png"
    before = picture.read_bytes()
    assert is_whole(picture)
    harm(picture)
    assert not is_whole(picture)
    again = cli(*TOY_RUN)
    assert again.code == 0
    assert "warning" not in again.err
    assert picture.read_bytes() == before


@pytest.mark.slow
def test_a_whole_picture_is_left_alone_and_one_without_its_cell_too(cli, toy, store, tmp_path) -> None:
    root = store(*ALL)
    (record,) = cli(*TOY_RUN).records
    picture = root / "pictures" / f"{record['key']}.png"
    os.utime(picture, (1, 1))
    assert cli(*TOY_RUN).code == 0
    assert picture.stat().st_mtime == 1
    picture.unlink()
    (root / "artifacts" / "measure").rename(tmp_path / "elsewhere")
    again = cli(*TOY_RUN)
    assert (again.code, again.err) == (0, "")
    assert not picture.exists()


def test_a_picture_that_can_not_be_written_leaves_the_one_before(tmp_path, monkeypatch) -> None:
    path = write_png(Image.new("RGB", (64, 64), "red"), tmp_path / "new" / "x.png")
    before = path.read_bytes()

    def killed(place: Path, data: bytes) -> None:
        place.write_bytes(data[: len(data) // 2])
        raise OSError("killed")

    monkeypatch.setattr(store_module, "_write_synced", killed)
    for write in (
        lambda: write_png(Image.new("RGB", (64, 64), "blue"), path),
        lambda: save_sheet(np.zeros((4, 3, 8, 8), np.uint8), path),
    ):
        with pytest.raises(OSError, match="killed"):
            write()
    assert [*path.parent.iterdir()] == [path]
    assert path.read_bytes() == before


def test_what_is_no_file_is_written_to_and_a_link_stays_one(tmp_path) -> None:
    picture, read = Image.new("RGB", (8, 8), "red"), []
    pipe, link = tmp_path / "pipe", tmp_path / "link.png"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_png(picture, pipe)
    reader.join(10)
    link.symlink_to(tmp_path / "target.png")
    write_png(picture, link)
    assert link.is_symlink()
    assert (tmp_path / "target.png").read_bytes() == read[0]


# --- private images, strips ------------------------------------------------------------------


def test_private_images_of_people_who_exist_are_shown_only_when_asked_for(
    cli, toy, undisturbed, tmp_path, monkeypatch
) -> None:
    key, path = next(iter(undisturbed.records)), tmp_path / "x.png"
    show = ("show", key, "--output", path, "--store", undisturbed.store)
    data = host().registry.get("dataset", "synth-faces").load()
    assert not data.real_people
    assert cli(*show).code == 0
    both = path.read_bytes()
    monkeypatch.setattr(data, "real_people", True)
    assert cli(*show).code == 0
    assert path.read_bytes() != both
    assert cli(*show, "--show-private").code == 0
    assert path.read_bytes() == both


def test_data_of_tracks_that_are_not_known_count_as_of_people() -> None:
    record = read_record(make_record())
    assert shows_people(record)  # of a made track, which is not installed


def test_a_strip_shows_the_same_classes_of_every_row() -> None:
    rows = [StripRow(name, strip_row(np.full((3, 3, 8, 8), shade, np.uint8), ["rank 1"] * 3))
            for name, shade in (("none", 0), ("neg-ls", 200))]  # fmt: skip
    picture = strip(rows, "heading")
    assert picture.width > 3 * 64
    # Its rows are found again, also after private images.
    for first in ([], [StripRow(PRIVATE, rows[1].picture)]):
        found = strip_rows(strip([*first, *rows], "heading"), ["none", "neg-ls"])
        assert list(found) == [row.label for row in (*first, *rows)]
        for row in rows:  # a narrow strip has empty columns, too
            assert found[row.label].crop((0, 0, *row.picture.size)).tobytes() == row.picture.tobytes()
    assert strip_rows(picture, []) == strip_rows(Image.new("RGB", (8, 8)), ["none"]) == {}
    shades = {color for _, color in picture.getcolors(2**20) or ()}
    assert {(0, 0, 0), (200, 200, 200)} <= shades
    assert strip_classes(62, 8) == [0, 9, 17, 26, 35, 44, 52, 61]
    assert strip_classes(3, 8) == [0, 1, 2]
    assert strip_classes(1, 8) == [0]


def test_a_strip_prefers_the_run_that_was_published() -> None:
    first, second, third = (
        Record.model_validate(make_record(seed=seed, per_image={"id_rank": [[1.0, 2.0]]}))
        for seed in (1, 2, 0)
    )
    other = first.model_copy(update={"per_image": {"id_rank": [[1.0, 3.0]]}})

    def shown(*found: Record, stored: Sequence[Record]) -> tuple[Record, bool] | None:
        own = {record.key: record for record in stored}
        store = SimpleNamespace(record=lambda track, key: own.get(key), has=lambda stage, key: key in own)
        run = to_show(found, store, "id_rank")
        return run and (run.record, run.again)

    assert shown(first, second, stored=[first, second]) == (first, False)
    assert shown(second, first, stored=[first, second]) == (first, False)
    assert shown(first, second, stored=[other, second]) == (second, False)
    assert shown(first, second, stored=[other]) == (other, True)
    assert shown(first, third, stored=[first]) == (first, False)
    assert shown(first, second, stored=[]) is None


def test_the_strip_of_a_page(cli, toy, undisturbed, tmp_path) -> None:
    folder = tmp_path / "boards"
    options = ("--folder", folder, "--store", undisturbed.store)
    assert cli("leaderboard", "submit", *options).code == 0
    made = cli("leaderboard", "strip", "--track", "toy", *options)
    assert (made.code, made.out.strip()) == (0, str(folder / "strips" / "toy.png")), made.err
    assert is_whole(folder / "strips" / "toy.png")
    assert cli("leaderboard", "build", "--folder", folder).code == 0
    assert "](strips/toy.png)" in (folder / "toy.md").read_text("utf-8")
    check = ("leaderboard", "check", "--folder", folder)
    assert "strips" not in cli(*check).out
    picture = folder / "strips" / "toy.png"
    with Image.open(picture) as drawn:
        said = {name: drawn.info[name] for name in ("cells", "rows", "ranks")}
    cells, rows = said["cells"], said["rows"].splitlines()
    assert len(rows) == len(cells.split()) == len(said["ranks"].split())
    assert not (folder / "strips" / "results").exists()
    renamed = "\n".join([*rows[:-1], "another name"])
    for wrong, words in (
        ({**said, "rows": ""}, "doesn't say what it shows; run 'mia-bench leaderboard strip --track toy'"),
        ({**said, "rows": renamed}, "its rows have other names by now; run"),
        ({**said, "ranks": said["ranks"].replace(said["ranks"][:16], "0" * 16)}, "are in no record; run"),
        ({"cells": "0" * 20, "rows": "none", "ranks": "-"}, "shows cells without records; run"),
    ):
        write_png(Image.new("RGB", (8, 8)), picture, **wrong)
        assert f"toy.png: {words}" in cli(*check).out.replace(f"the ranks of {rows[0]} ", "")
    (folder / "strips" / "toy.png").write_bytes(b"x")
    assert "toy.png: not a picture" in cli(*check).out
    wrong = cli("leaderboard", "strip", "--track", "tyo", *options)
    assert (wrong.code, "did you mean 'toy'" in wrong.err) == (2, True)
    shutil.copytree(undisturbed.store, tmp_path / "partly")
    last = cells.split()[-1]
    shutil.rmtree(tmp_path / "partly" / "artifacts" / "measure" / last)
    (tmp_path / "partly" / "records" / "toy" / f"{last}.json").unlink()
    partly = ("leaderboard", "strip", "--track", "toy", "--folder", folder, "--store", tmp_path / "partly")
    fewer = cli(*partly)
    assert (fewer.code, f"{rows[-1]} is left out" in fewer.err) == (0, True)
    # A row that an earlier picture has stays in it.
    assert cli("leaderboard", "strip", "--track", "toy", *options).code == 0
    with Image.open(folder / "strips" / "toy.png") as whole:
        before = np.asarray(whole)
    again = cli(*partly)
    assert (again.code, again.err) == (0, "")
    with Image.open(folder / "strips" / "toy.png") as kept:
        assert kept.info["rows"].splitlines() == rows
        below = 30  # the heading
        assert (np.asarray(kept)[below:] == before[below:]).all()
    empty = Store(tmp_path / "empty").root
    none = cli("leaderboard", "strip", "--track", "toy", "--folder", folder, "--store", empty)
    assert none.code == 2
    assert "has none of the cells of 'toy' on its page" in none.err
    shutil.copytree(undisturbed.store, tmp_path / "again")
    for path in (tmp_path / "again" / "records" / "toy").glob("*.json"):
        record = json.loads(path.read_text())
        record["per_image"]["id_rank"][0][0] += 1
        path.write_text(json.dumps(without_hash(record)))
    # An earlier picture of the published runs stays; without one the reruns are shown, with their records.
    reruns = ("leaderboard", "strip", "--track", "toy", "--folder", folder, "--store", tmp_path / "again")
    own = folder / "strips" / "results" / "toy"
    assert cli(*reruns).code == 0
    assert not own.exists()
    picture.unlink()
    assert cli(*reruns).code == 0
    with Image.open(picture) as starred:
        assert (np.asarray(starred)[below:] != before[below:]).any()
        assert {path.stem for path in own.iterdir()} == {*starred.info["cells"].split()}
    assert "strips" not in cli(*check).out
    moved = (own / f"{last}.json").rename(tmp_path / "moved.json")
    assert f"toy.png: the ranks of {rows[-1]} are in no record; run" in cli(*check).out
    moved.rename(own / f"{last}.json")
    assert cli(*partly).code == 0  # it has the published runs of all rows but the last
    assert [path.stem for path in own.iterdir()] == [last]
    assert "strips" not in cli(*check).out
    assert cli("leaderboard", "strip", "--track", "toy", *options).code == 0
    with Image.open(picture) as whole:
        assert (np.asarray(whole) == before).all()
    assert not [*own.iterdir()]
    picture.unlink()
    shutil.copy(tmp_path / "again" / "records" / "toy" / f"{last}.json", own / f"{last}.json")
    assert f"{last}.json" in cli(*check).out


@pytest.mark.parametrize(("again", "shown"), [(False, ["rank 3", "rank 1"]), (True, ["rank 3*", "rank 1*"])])
def test_ranks_of_another_run_are_marked(again: bool, shown: list[str]) -> None:
    record = Record.model_validate(make_record(per_image={"id_rank": [[3.0], [2.0], [1.0]]}))
    assert captions(Run(record, "", again), "id_rank", [0, 2]) == shown
    assert captions(Run(record, "", again), "", [0, 2]) == ["", ""]
