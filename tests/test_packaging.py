"""The wheel, installed into a clean environment, brings every built-in."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from oldest import pins

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
LIGHT = (
    "click",
    "etils[epy]",
    "filelock",
    "jinja2",
    "numpy",
    "packaging",
    "platformdirs",
    "pluggy",
    "pydantic",
    "rich",
    "tabulate",
    "tomli-w",
)
"""What listing and the scaffold need; listing must not import torch."""

BESIDE = ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE")


def copied(source: Path, *folders: str) -> Path:
    """These folders of the repository and what stands beside them."""
    for name in folders:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(ROOT / name, source)
    return source


def test_wheel_in_a_clean_environment_lists_every_built_in(tmp_path: Path) -> None:
    source = copied(tmp_path / "source", "mia_bench", "plugins")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    clean = tmp_path / "clean"
    venv.create(clean)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MIA_BENCH"))}
    install = [*pip, "--python", clean / "bin" / "python", "install"]
    subprocess.run([*install, *LIGHT], env=environment, check=True)
    subprocess.run([*install, "--no-deps", wheel], env=environment, check=True)

    def said(*words: str) -> str:
        """What the installed command prints."""
        command = [clean / "bin" / "mia-bench", *words]
        run = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True, "check": True}
        return str(subprocess.run(command, **run).stdout)

    listed = said("list")
    defenses = ("none", "pos-ls", "neg-ls", "mid", "bido", "dp-sgd")
    for name in (*defenses, "prior-sample", "ppa", "gmi", "mirror", "brep-mi"):
        assert f" {name} " in listed
    for name in ("synth-faces", "lfw", "folder", "id_gallery_acc1", "test_accuracy"):
        assert f" {name} " in listed
    made = tmp_path / "made"
    subprocess.run(
        [clean / "bin" / "mia-bench", "plugins", "new", "my-defense", "--output", made],
        env=environment,
        check=True,
    )
    files = {path.name for path in (made / "mia-bench-my-defense").rglob("*")}
    assert {"LICENSE", "pyproject.toml", "ci.yml", ".gitignore"} <= files
    experiments = said("experiment", "list")
    for definition in (ROOT / "mia_bench" / "experiments").glob("*.toml"):
        assert definition.stem in experiments
    [plugins] = clean.glob("lib/*/site-packages/mia_bench_plugins")
    for package in (ROOT / "mia_bench", ROOT / "plugins" / "mia_bench_plugins"):
        for path in package.rglob("*"):
            if path.is_file() and path.parent.name != "__pycache__":
                installed = plugins.parent / path.relative_to(package.parent)
                assert installed.read_bytes() == path.read_bytes(), path
    for folder in ("encoders", "priors"):
        for line in (plugins / folder / "SHA256SUMS").read_text().splitlines():
            expected, _, name = line.partition("  ")
            found = (plugins / folder / name).read_bytes()
            assert hashlib.sha256(found).hexdigest() == expected


def test_the_source_distribution_has_what_stands_beside_the_packages(tmp_path: Path) -> None:
    source = copied(tmp_path / "source", "mia_bench", "plugins", "tests")
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert set(BESIDE) <= names
    assert not any(name.startswith("tests") for name in names)  # they need the whole repository
    assert "mia_bench/experiments/strength.toml" in names


def test_oldest_dependencies_are_the_lower_bounds() -> None:
    given = ["torch>=2.11", "build", "made[extra]>=1.5,!=1.6", "torch>=2.9"]
    assert pins(given) == {"torch": "2.11", "made": "1.5"}
