"""Provenance: the commit of this package's checkout or none, and no name of a machine or a person."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mia_bench import provenance
from mia_bench.provenance import anonymous, checkout_commit, git_commit

ROOT = Path(__file__).parent.parent
FILE = Path("mia_bench/provenance.py")

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    checkout_commit.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    names = ("-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false")
    # Hooks of git run with variables that name a repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *names, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def checkout(folder: Path, *files: str | Path) -> Path:
    """A repository with one commit of these files."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "x")
    return folder.resolve()


def commit_of(folder: Path) -> str:
    return git(folder, "rev-parse", "--short=12", "HEAD")


@needs_git
def test_the_commit_is_that_of_the_checkout_and_says_what_changed(tmp_path: Path) -> None:
    root = checkout(tmp_path, FILE, "mia_bench/other.py", "README.md")
    commit = commit_of(root)
    assert checkout_commit(root) == commit
    (root / "untracked.txt").write_text("x")
    checkout_commit.cache_clear()
    assert checkout_commit(root) == commit
    (root / "mia_bench/other.py").write_text("x = 2\n")
    checkout_commit.cache_clear()
    assert checkout_commit(root) == f"{commit}-dirty"


@needs_git
@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_change_that_git_was_told_not_to_see_counts(tmp_path: Path, flag: str) -> None:
    root = checkout(tmp_path, FILE)
    git(root, "update-index", flag, str(FILE))
    (root / FILE).write_text("x = 2\n")
    assert checkout_commit(root) == f"{commit_of(root)}-dirty"


@needs_git
def test_where_it_can_not_be_told_whether_it_changed_it_counts_as_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = checkout(tmp_path, FILE)
    asked = provenance._git

    def slow(root: Path, *arguments: str) -> str:
        if arguments[0] == "status":
            raise subprocess.TimeoutExpired("git", 10)
        return asked(root, *arguments)

    monkeypatch.setattr(provenance, "_git", slow)
    assert checkout_commit(root) == f"{commit_of(root)}-dirty"


@needs_git
def test_no_other_repository_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither that of the environment, nor that one stands in, nor that which the package lies in."""
    other = checkout(tmp_path / "other", "mia_bench/provenance.py")
    root = checkout(tmp_path / "ours", FILE, "y.py")
    right = git_commit()
    monkeypatch.chdir(other)
    for name, value in {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / ".git" / "index"),
        "GIT_CEILING_DIRECTORIES": "/",
    }.items():
        monkeypatch.setenv(name, value)
        checkout_commit.cache_clear()
        assert checkout_commit(root) == commit_of(root)
        assert git_commit() == right
    installed = other / "site-packages"
    (installed / "mia_bench").mkdir(parents=True)
    assert checkout_commit(installed) is None
    unrelated = checkout(tmp_path / "unrelated", "README.md")
    assert checkout_commit(unrelated) is None
    assert checkout_commit(tmp_path) is None


@needs_git
def test_a_checkout_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert checkout_commit(tmp_path.resolve()) is None


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout_commit(ROOT) is None


# --- texts ---------------------------------------------------------------------------------------


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], str]:
    """``anonymous`` for a known user, host and places."""
    monkeypatch.setattr(getpass, "getuser", lambda: "zaphod")
    monkeypatch.setattr(platform, "node", lambda: "heart-of-gold.example.org")
    monkeypatch.setenv("HOME", "/people/zaphod")
    monkeypatch.chdir(tmp_path)
    provenance._names.cache_clear()
    places = {"data": Path("/mnt/big data"), "store": Path("/mnt/store"), "weights": None}
    yield lambda text: anonymous(text, places)
    provenance._names.cache_clear()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "cannot identify image file '/mnt/big data/Ann/1.png'",
            "cannot identify image file '<data>/Ann/1.png'",
        ),
        ("no /mnt/store/records here", "no <store>/records here"),
        ("no /mnt/stores/x.png here", "no <path>/x.png here"),
        ("/people/zaphod/x.png is missing", "<home>/x.png is missing"),
        ("/people/trillian/secret/x.png is missing", "<path>/x.png is missing"),
        ("in /people/trillian/secret", "in <path>"),
        (
            "[Errno 2] No such file: '/people/Tricia McMillan/a b.png'",
            "[Errno 2] No such file: '<path>/a b.png'",
        ),
        ('open("/tmp")', 'open("<path>")'),
        ("~trillian/x/y.png", "<path>/y.png"),
        ("file:///people/trillian/x.png", "<path>/x.png"),
        (r"C:\Users\Ford\data\x.png failed", "<path>/x.png failed"),
        (r"'C:\\Users\\Ford Prefect\\x.png'", "'<path>/x.png'"),
        (r"\\server\share\x.png", "<path>/x.png"),
        ("zaphod may not read it", "<user> may not read it"),
        ("heart-of-gold.example.org refused; heart-of-gold too", "<host> refused; <host> too"),
        # What is no path stays as it is.
        ("https://example.com/a/b.png and 1/2, n/a, and/or, Ann/1.png", None),
        ("loss is nan at step 3 / 7 (my_defense.py:41)", None),
        ("zaphods, /x and //", None),
    ],
)
def test_paths_and_names_are_not_told(named: Callable[[str], str], text: str, told: str | None) -> None:
    assert named(text) == (text if told is None else told)


def test_the_working_folder_is_not_told(named: Callable[[str], str], tmp_path: Path) -> None:
    assert named(f"no {tmp_path}/sub/x.png") == "no <folder>/sub/x.png"


@given(
    st.text(), st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), min_size=2)
)
def test_no_folder_of_an_absolute_path_is_told_whatever_stands_before(text: str, parts: list[str]) -> None:
    path = "/" + "/".join(f"q{part}q" for part in parts)
    told = anonymous(f"{text} {path}")
    assert path not in told
    assert anonymous(told) == told
