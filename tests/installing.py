"""Distributions that tests install, and folders that they fill once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


def install(target: Path, *distributions: Path) -> None:
    """Install the sources of distributions into a folder with pip."""
    with tempfile.TemporaryDirectory() as work:  # building leaves files beside the sources
        ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        sources = [shutil.copytree(path, Path(work) / path.name, ignore=ignored) for path in distributions]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
             "--disable-pip-version-check", "--target", target, *sources],
            check=True,
            capture_output=True,
        )  # fmt: skip


def on_path(patch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Put folders on the path of the processes that tests start."""
    old = [path for path in [os.environ.get("PYTHONPATH")] if path]
    patch.setenv("PYTHONPATH", os.pathsep.join([*map(str, folders), *old]))


MakeOnce = Callable[[str, Callable[[Path], object]], Path]
