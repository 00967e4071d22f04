"""Image trees: which identity becomes what, how images are read and split."""

import errno
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mia_bench import store as store_module
from mia_bench.api.inventory import Inventory
from mia_bench.api.options import parse_options
from mia_bench.data import trees
from mia_bench.data.classes import central_square
from mia_bench.data.trees import Decoded, Tree, check_headers, decode, scan_tree, split_by_identity
from mia_bench.errors import DataError, StoreError, UsageError
from mia_bench_plugins.datasets.folder import Folder
from mia_bench_plugins.datasets.lfw import CROP, LFW, crop_face
from mia_bench_plugins.datasets.stanford_dogs import whole

PARTS = ("train", "validation", "test", "public", "decoys")


def quiet(done: int, total: int, unit: str) -> None:
    pass


def load(dataset, root: Path, seed: int = 0, resolution: int = 8):
    return dataset.load(root, resolution=resolution, seed=seed, progress=quiet, scratch=root / "no")


def folder(**options) -> Folder:
    return Folder(Folder.Options(**{"min_images": 3, **options}))


def lfw(**options) -> LFW:
    return LFW(LFW.Options(**{"private_min": 6, "public_max": 3, "decoys": 2, **options}))


def prints(part) -> set[bytes]:
    return {image.numpy().tobytes() for image in part.images}


COUNTS = {"Ann": 9, "Bob": 12, "Cyd": 7, "Dan": 5, "Eve": 3, "Fay": 2, "Gus": 1, "Hal": 1}


@pytest.fixture
def tree(make_tree, tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree", COUNTS)


# --- folder: the choices -------------------------------------------------------------------------


def test_folder_private_are_the_identities_with_most_images(tree: Path) -> None:
    roles = folder().choose(scan_tree(tree, "tree"), seed=0)
    assert list(roles.private) == ["Ann", "Bob", "Cyd", "Dan"]  # half of eight


def test_folder_every_identity_has_exactly_one_role(tree: Path) -> None:
    roles = folder().choose(scan_tree(tree, "tree"), seed=0)
    assert sorted([*roles.private, *roles.public, *roles.decoys]) == sorted(COUNTS)
    assert len(roles.decoys) == 1  # a third of the four others, rounded down


@pytest.mark.parametrize(
    ("options", "private"),
    [
        ({"max_identities": 2}, ["Ann", "Bob"]),
        ({"min_images": 8}, ["Ann", "Bob"]),
        ({"min_images": 6}, ["Ann", "Bob", "Cyd"]),
    ],
)
def test_folder_limits_of_the_choice(tree: Path, options, private: list[str]) -> None:
    assert list(folder(**options).choose(scan_tree(tree, "tree"), 0).private) == private


def test_folder_limit_of_decoys(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "many", {f"p{i}": 5 if i < 6 else 2 for i in range(18)})
    tree = scan_tree(root, "many")
    assert len(folder().choose(tree, 0).decoys) == 4
    assert len(folder(max_decoys=2).choose(tree, 0).decoys) == 2


def test_folder_decoys_are_drawn_by_the_seed(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "many", {f"p{i:02d}": 4 if i < 6 else 2 for i in range(18)})
    tree = scan_tree(root, "many")
    drawn = {folder().choose(tree, seed).decoys[0] for seed in range(8)}
    assert len(drawn) > 1
    assert folder().choose(tree, 3) == folder().choose(tree, 3)


def test_folder_says_what_it_chose(tree: Path) -> None:
    (note,) = load(folder(max_images=6), tree).notes
    assert "private: the 4 identities with most images (5 to 12, 6 used at most)" in note
    assert "3 identities for the prior and 1 decoys" in note


def test_folder_with_too_few_identities_says_what_would_help(tree: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 8 identities have 11 images or more.*min_images"):
        load(folder(min_images=11), tree)


# --- splits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["folder", "lfw"])
def test_no_image_is_in_two_parts_and_none_is_lost(make_tree, tmp_path: Path, dataset: str) -> None:
    if dataset == "lfw":
        root, made = tmp_path, lfw()
        make_tree(tmp_path / "lfw", COUNTS, size=(250, 250))
        expected = 9 + 12 + 7 + (3 + 2 + 1 + 1)  # Dan has too few to be private, too many to be public
    else:
        root, made = make_tree(tmp_path / "tree", COUNTS), folder()
        expected = sum(COUNTS.values())
    splits = load(made, root)
    parts = [prints(getattr(splits, name)) for name in PARTS]
    assert sum(len(part) for part in parts) == len(set().union(*parts)) == expected
    assert sum(len(getattr(splits, name)) for name in PARTS) == expected


@pytest.mark.parametrize("dataset", ["folder", "lfw"])
def test_same_seed_same_splits_other_seed_others(make_tree, tmp_path: Path, dataset: str) -> None:
    make_tree(tmp_path / "lfw", COUNTS, size=(250, 250))
    root, made = (tmp_path, lfw()) if dataset == "lfw" else (tmp_path / "lfw", folder())
    first, again, other = (load(made, root, seed) for seed in (5, 5, 6))
    for name in PARTS:
        assert torch.equal(getattr(first, name).images, getattr(again, name).images)
        assert torch.equal(getattr(first, name).labels, getattr(again, name).labels)
    assert prints(first.test) != prints(other.test)


def test_labels_number_the_private_identities_and_name_the_others(tree: Path) -> None:
    splits = load(folder(), tree)
    assert splits.class_names == ("Ann", "Bob", "Cyd", "Dan")
    for name in ("train", "test"):
        assert set(getattr(splits, name).labels.tolist()) == {0, 1, 2, 3}
    others = [set(splits.public.labels.tolist()), set(splits.decoys.labels.tolist())]
    assert not others[0] & others[1]
    assert min(others[0] | others[1]) == 4


def test_an_image_keeps_the_label_of_its_folder(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", COUNTS)
    splits = load(folder(), root)
    for label, name in enumerate(splits.class_names):
        paths = scan_tree(root, "tree").paths(name)
        own = decode(paths, central_square, 8, quiet).images
        known = {image.numpy().tobytes() for image in own}
        for part in ("train", "validation", "test"):
            images = getattr(splits, part).images[getattr(splits, part).labels == label]
            assert {image.numpy().tobytes() for image in images} <= known


@pytest.mark.parametrize("dataset", ["folder", "lfw"])
def test_limit_of_images_of_a_private_identity(make_tree, tmp_path: Path, dataset: str) -> None:
    make_tree(tmp_path / "lfw", COUNTS, size=(250, 250))
    root, made = (tmp_path, lfw) if dataset == "lfw" else (tmp_path / "lfw", folder)
    splits = load(made(max_images=6), root)
    counted = Counter(
        label for name in ("train", "validation", "test") for label in getattr(splits, name).labels.tolist()
    )
    assert max(counted.values()) == 6


def test_the_images_of_an_identity_with_too_many_are_drawn(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", COUNTS)
    made = [load(folder(max_images=6), root, seed=seed) for seed in (0, 1)]
    first = [path for name in made[0].class_names for path in scan_tree(root, "tree").paths(name)[:6]]
    usual = prints(decode(first, central_square, 8, quiet))
    kept = [prints(one.train) | prints(one.validation) | prints(one.test) for one in made]
    assert kept[0] != kept[1]
    assert all(len(usual) == len(one) and usual != one for one in kept)


def test_shares_within_each_identity() -> None:
    labels = torch.arange(3).repeat_interleave(20)
    images = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 3, 2, 2)
    parts = split_by_identity(images, labels, torch.Generator().manual_seed(0))
    for part, each in zip(parts, (15, 2, 3), strict=True):
        assert part.labels.bincount().tolist() == [each] * 3
    assert len(set().union(*(set(part.images[:, 0, 0, 0].tolist()) for part in parts))) == 60


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_small_identities_keep_a_training_and_a_test_image(count: int) -> None:
    images, labels = torch.zeros(count, 3, 2, 2, dtype=torch.uint8), torch.zeros(count).long()
    train, validation, test = split_by_identity(images, labels, torch.Generator().manual_seed(0))
    assert len(train) >= 1
    assert len(test) >= 1
    assert len(train) + len(validation) + len(test) == count


# --- LFW -----------------------------------------------------------------------------------------


def test_lfw_roles_by_the_number_of_images(make_tree, tmp_path: Path) -> None:
    make_tree(tmp_path / "lfw", COUNTS, size=(250, 250))
    splits = load(lfw(), tmp_path)
    assert splits.class_names == ("Ann", "Bob", "Cyd")
    assert len(set(splits.public.labels.tolist())) == 2  # Eve, Fay, Gus, Hal; two of them decoys
    assert len(set(splits.decoys.labels.tolist())) == 2


def test_lfw_reads_the_face_box() -> None:
    picture = np.zeros((250, 250, 3), np.uint8)
    left, upper, right, lower = CROP
    picture[upper:lower, left:right] = 255
    face = np.asarray(crop_face(Image.fromarray(picture)))
    assert face.shape == (134, 134, 3)
    assert face.min() == 255


def test_lfw_that_is_not_complete_says_so(make_tree, tmp_path: Path) -> None:
    make_tree(tmp_path / "lfw", COUNTS)
    with pytest.raises(DataError, match=r"1 identities have 10 images or more.*complete"):
        load(lfw(private_min=10), tmp_path)
    with pytest.raises(DataError, match="4 public identities are too few for 4 decoys"):
        load(lfw(decoys=4), tmp_path)


def test_lfw_never_makes_one_identity_private_and_public() -> None:
    with pytest.raises(UsageError, match="public_max must be below private_min"):
        parse_options("lfw", LFW.Options, {"private_min": "5", "public_max": "5"})


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("L", "png"), ("RGB", "png"), ("RGBA", "png"), ("1", "bmp"), ("RGB", "JPEG")],
)
def test_kinds_of_images_that_are_read(make_tree, tmp_path: Path, mode: str, suffix: str) -> None:
    root = make_tree(tmp_path / "t", COUNTS, name="{number}." + suffix, mode=mode)
    splits = load(folder(), root)
    assert splits.train.images.shape[1:] == (3, 8, 8)
    assert splits.train.images.dtype == torch.uint8
    assert splits.train.images.float().std() > 5
    if mode == "L":
        assert torch.equal(splits.train.images[:, 0], splits.train.images[:, 2])


def test_grey_values_survive_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (20, 20), 137).save(path)
    assert decode([path], central_square, 8, quiet).images.unique().tolist() == [137]


def test_central_square_is_in_the_middle() -> None:
    picture = np.zeros((4, 10, 3), np.uint8)
    picture[:, 3:7] = 200
    assert np.asarray(central_square(Image.fromarray(picture))).min() == 200


def test_unreadable_images_are_named_and_the_others_keep_their_place(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"Ann": 30})
    (root / "Ann" / "Ann_0003.jpg").write_bytes(b"no image")
    decoded = decode(scan_tree(root, "t").paths("Ann"), central_square, 8, quiet)
    assert decoded.index == [i for i in range(30) if i != 2]
    assert len(decoded.images) == 29
    (file,) = decoded.left_out
    assert (file.name, file.reason) == ("Ann/Ann_0003.jpg", "unreadable")


def test_too_many_unreadable_images_are_an_error(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"Ann": 10})
    (root / "Ann" / "Ann_0003.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 10 images can't be read, the first is Ann/Ann_0003"):
        decode(scan_tree(root, "t").paths("Ann"), central_square, 8, quiet)


def test_truncated_jpeg_is_unreadable(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"Ann": 30})
    path = root / "Ann" / "Ann_0007.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert len(decode(scan_tree(root, "t").paths("Ann"), central_square, 8, quiet).images) == 29


# --- going on after a stop -----------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_at(number: int):
    def progress(done: int, total: int, unit: str) -> None:
        if done >= number:
            raise Stop

    return progress


@pytest.fixture
def many(make_tree, tmp_path: Path, monkeypatch) -> list[Path]:
    """30 images in blocks of 8; progress is told of each; one is unreadable."""
    monkeypatch.setattr(trees, "BLOCK", 8)
    monkeypatch.setattr(trees, "EVERY", 1)
    root = make_tree(tmp_path / "many", {"Ann": 30})
    (root / "Ann" / "Ann_0003.jpg").write_bytes(b"no image")
    return scan_tree(root, "t").paths("Ann")


@pytest.fixture
def opened(monkeypatch) -> list[Path]:
    """The images read so far."""
    paths, original = [], trees.read_image
    monkeypatch.setattr(trees, "read_image", lambda path, *how: (paths.append(path), original(path, *how))[1])
    return paths


def same(one: Decoded, other: Decoded) -> bool:
    assert (one.index, one.left_out) == (other.index, other.left_out)
    return torch.equal(one.images, other.images)


def test_stopped_decoding_goes_on_where_it_was(many: list[Path], opened: list[Path], tmp_path: Path) -> None:
    whole = decode(many, central_square, 8, quiet)
    assert len(whole.images) == 29
    scratch = tmp_path / "scratch"
    with pytest.raises(Stop):
        decode(many, central_square, 8, stop_at(20), scratch)
    assert len(list(scratch.iterdir())) == 2
    opened.clear()
    told: list[int] = []
    again = decode(many, central_square, 8, lambda done, *_: told.append(done), scratch)
    assert opened.count(many[16]) == 1
    assert sorted(opened) == many[16:]
    assert told[0] == 16
    assert same(again, whole)
    opened.clear()
    assert same(decode(many, central_square, 8, quiet, scratch), whole)
    assert not opened


@pytest.mark.parametrize("damage", ["changed", "cut", "empty"])
def test_damaged_block_is_decoded_again(
    many: list[Path], opened: list[Path], tmp_path: Path, damage: str, caplog
) -> None:
    whole = decode(many, central_square, 8, quiet, tmp_path / "scratch")
    opened.clear()
    path = tmp_path / "scratch" / trees._block_name(many[8:16], 8)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"changed": bytes(data), "cut": data[:-9], "empty": b""}[damage])
    again = decode(many, central_square, 8, quiet, tmp_path / "scratch")
    assert sorted(opened) == many[8:16]
    assert same(again, whole)
    assert "are damaged; they are decoded again" in caplog.text


def test_half_written_block_is_not_taken(
    many: list[Path], opened: list[Path], tmp_path: Path, monkeypatch
) -> None:
    write, calls = store_module._write_synced, []

    def killed(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(data[: len(data) // 2])
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_write_synced", killed)
        with pytest.raises(KeyboardInterrupt):
            decode(many, central_square, 8, quiet, tmp_path / "scratch")
    opened.clear()
    again = decode(many, central_square, 8, quiet, tmp_path / "scratch")
    assert sorted(opened) == many[8:]
    assert same(again, decode(many, central_square, 8, quiet))


def test_another_list_or_size_takes_nothing_of_the_first(many: list[Path], tmp_path: Path) -> None:
    decode(many, central_square, 8, quiet, tmp_path / "scratch")
    for paths, resolution in ((many[1:], 8), (many, 6)):
        found = decode(paths, central_square, resolution, quiet, tmp_path / "scratch")
        assert same(found, decode(paths, central_square, resolution, quiet))


def test_short_lists_leave_nothing(many: list[Path], tmp_path: Path) -> None:
    decode(many[4:19], central_square, 8, quiet, tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_disk_full_while_decoding_is_one_line(many: list[Path], tmp_path: Path, monkeypatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "_write_synced", full)
    with pytest.raises(StoreError, match="is full; what is finished is kept"):
        decode(many, central_square, 8, quiet, tmp_path / "scratch")


# --- listing -------------------------------------------------------------------------------------


def test_only_images_in_identity_folders_are_listed(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"Ann": 2})
    (root / "readme.txt").write_text("x")
    (root / "loose.jpg").write_text("x")
    (root / "Ann" / "notes.txt").write_text("x")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "a.jpg").write_text("x")
    (root / "empty").mkdir()
    (root / "Ann" / "folder.jpg").mkdir()
    (root / "Ann" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    tree = scan_tree(root, "t")
    assert [name for name, _ in tree.images["Ann"]] == ["Ann_0001.jpg", "Ann_0002.jpg"]
    assert list(tree.images) == ["Ann"]


def test_fingerprint_is_of_names_and_contents_not_of_the_place(make_tree, tmp_path: Path) -> None:
    first = make_tree(tmp_path / "a", {"Ann": 2, "Bob": 1})
    second = make_tree(tmp_path / "b", {"Ann": 2, "Bob": 1})
    fingerprint = scan_tree(first, "a").fingerprint()
    assert scan_tree(second, "b").fingerprint() == fingerprint
    (second / "Ann" / "Ann_0001.jpg").rename(second / "Ann" / "Ann_0009.jpg")
    renamed = scan_tree(second, "b").fingerprint()
    image = first / "Ann" / "Ann_0001.jpg"
    image.write_bytes(image.read_bytes()[:-1] + b"x")  # same size
    assert len({fingerprint, renamed, scan_tree(first, "a").fingerprint()}) == 3


def reasons(tree: Tree) -> dict[str, str]:
    return {file.name: file.reason for file in tree.left_out}


def test_every_file_is_listed_or_left_out_with_the_reason(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data" / "t", {"Ann": 2, "Bob": 1})
    (root / "loose.jpg").write_text("x")
    (root / "readme.txt").write_text("x")
    (root / "Ann" / "notes.txt").write_text("x")
    (root / "Ann" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "Ann" / "round").symlink_to("round")
    os.mkfifo(root / "Ann" / "pipe.jpg")
    (root / "Cyd").mkdir()
    (root / "Cyd" / "a.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "Dan").mkdir()
    tree = scan_tree(root, "t", tmp_path / "data")
    assert reasons(tree) == {
        "t/loose.jpg": "outside the folders of identities",
        "t/Ann/notes.txt": "no image",
        "t/Ann/gone.jpg": "dangling links",
        "t/Ann/round": "dangling links",
        "t/Ann/pipe.jpg": "no regular file",
        "t/Cyd/a.jpg": "dangling links",
    }
    assert tree.empty == ("Cyd", "Dan")
    assert {identity: len(files) for identity, files in tree.images.items()} == {"Ann": 2, "Bob": 1}


def test_files_of_the_system_are_no_images_and_no_news(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"Ann": 2})
    image = (root / "Ann" / "Ann_0001.jpg").read_bytes()
    (root / "__MACOSX" / "Ann").mkdir(parents=True)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._Ann_0001.jpg", ".hidden.jpg"):
        (root / "Ann" / name).write_bytes(image)
        (root / name).write_bytes(image)
        (root / "__MACOSX" / "Ann" / name).write_bytes(image)
    tree = scan_tree(root, "t")
    assert [name for name, _ in tree.images["Ann"]] == ["Ann_0001.jpg", "Ann_0002.jpg"]
    assert (list(tree.images), tree.left_out, tree.empty) == (["Ann"], (), ())


def test_images_lie_at_any_depth_and_links_are_followed(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"Ann": 2})
    elsewhere = make_tree(tmp_path / "elsewhere", {"more": 2})
    deep = root / "Ann" / "2024" / "take1"
    deep.mkdir(parents=True)
    (root / "Ann" / "Ann_0002.jpg").rename(deep / "b.jpg")
    (root / "Ann" / "linked").symlink_to(elsewhere / "more")
    (root / "Bob").symlink_to(elsewhere / "more")
    (root / "Ann" / "c.jpg").symlink_to(elsewhere / "more" / "more_0001.jpg")
    (deep / "up").symlink_to(root)  # a circle
    tree = scan_tree(root, "t")
    assert [name for name, _ in tree.images["Ann"]] == [
        "2024/take1/b.jpg", "Ann_0001.jpg", "c.jpg", "linked/more_0001.jpg", "linked/more_0002.jpg",
    ]  # fmt: skip
    assert len(tree.images["Bob"]) == 2
    assert len(decode(tree.paths("Ann"), whole, 8, quiet).index) == 5


def test_headers_decide_who_has_how_many_images(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", {"Ann": 22, "Bob": 20, "Cyd": 1})
    for number in (1, 2, 3):
        Image.new("RGB", (9, 3)).save(root / "Ann" / f"Ann_{number:04d}.jpg")
    (root / "Bob" / "Bob_0004.jpg").write_text("<html>")
    Image.new("RGB", (3, 3)).save(root / "Cyd" / "Cyd_0001.jpg")
    tree = check_headers(scan_tree(root, "t"), smallest=4)
    assert {identity: len(files) for identity, files in tree.images.items()} == {"Ann": 19, "Bob": 19}
    assert tree.empty == ("Cyd",)
    assert Counter(reasons(tree).values()) == {"too small": 4, "unreadable": 1}


def test_every_file_is_counted_once(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", COUNTS | {"Ida": 40})
    (root / "Ida" / "Ida_0003.jpg").write_bytes((root / "Ida" / "Ida_0003.jpg").read_bytes()[:-200])
    (root / "Ann" / "notes.txt").write_text("x")
    (root / "Gus" / "Gus_0001.jpg").unlink()
    (root / "Gus" / "Gus_0001.jpg").symlink_to(tmp_path / "nowhere")
    made = folder(max_images=8)
    inventory = load(made, root).inventory
    assert inventory is not None
    left_out = sum(group.count for group in inventory.left_out.values())
    assert inventory.found == sum(COUNTS.values()) + 40 + 1
    assert inventory.used + inventory.unused + left_out == inventory.found
    assert inventory.used == sum(sum(people.values()) for people in inventory.people.values())
    assert inventory.vanished is not None
    assert inventory.vanished.examples == ("Gus",)
    assert inventory.warnings()[-1] == "1 identity is lost, as no image of theirs is read: Gus"
    outline = made.outline(root, resolution=8)
    assert outline.people["private"].keys() == inventory.people["private"].keys()
    assert outline.found == inventory.found
    assert Inventory.stored({"inventory": json.loads(inventory.model_dump_json())}) == inventory


def test_outline_gives_the_sizes_of_the_parts(make_tree, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", COUNTS)
    parts = folder(max_images=8).outline(root, resolution=8).parts
    splits = load(folder(max_images=8), root)
    assert parts == {
        "train": len(splits.train),
        "validation": len(splits.validation),
        "test": len(splits.test),
        "public and decoys": len(splits.public) + len(splits.decoys),
    }


def test_a_tree_without_an_image_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "Ann").mkdir()
    (tmp_path / "Ann" / "a.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "Ann" / "b.txt").write_text("x")
    with pytest.raises(DataError, match=r"files \(1 dangling links; 1 no image\)"):
        scan_tree(tmp_path, "t")


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_root_without_a_tree_is_named(tmp_path: Path, what: str) -> None:
    root = tmp_path / what
    if what == "empty":
        root.mkdir()
    elif what == "file":
        root.write_text("x")
    with pytest.raises(DataError, match=str(root)):
        scan_tree(root, "data")


def test_image_that_can_not_be_opened_is_the_machines_fault_not_the_datas(
    make_tree, monkeypatch, tmp_path: Path
) -> None:
    make_tree(tmp_path / "d", {"a": 3, "b": 3})
    paths = sorted((tmp_path / "d").rglob("*.jpg"))
    read = Path.read_bytes

    def crowded(path: Path) -> bytes:
        if path == paths[2]:
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", crowded)
    with pytest.raises(DataError, match=r"^a/a_0003.jpg can't be read: Too many open files"):
        decode(paths, whole, 8, lambda *_: None)


def test_rotation_in_the_file_is_undone(tmp_path: Path) -> None:
    upright = Image.new("RGB", (8, 8), "black")
    upright.paste("white", (0, 0, 8, 4))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: show it turned a quarter to the right
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "t.png", exif=exif)
    found = decode([tmp_path / "t.png"], whole, 8, lambda *_: None)
    assert int(found.images[0, 0, 0, 4]) == 255
    assert int(found.images[0, 0, 7, 4]) == 0


def test_name_that_is_no_utf8_is_read_like_any_other(make_tree, tmp_path: Path) -> None:
    make_tree(tmp_path / "d", {"a": 2})
    strange = os.fsencode(tmp_path / "d") + b"/caf\xe9"
    os.rename(tmp_path / "d" / "a", strange)
    tree = scan_tree(tmp_path / "d", "folder")
    assert len(tree.fingerprint()) == 16
    assert len(decode(tree.paths(next(iter(tree.images))), whole, 8, lambda *_: None).index) == 2


def test_lfw_photograph_of_another_size_is_not_cropped_somewhere_else() -> None:
    with pytest.raises(ValueError, match="100×250 pixels, not 250×250"):
        crop_face(Image.new("RGB", (100, 250)))
