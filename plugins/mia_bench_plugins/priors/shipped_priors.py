"""Trained priors that come with the package: ``<prior>_<track>.safetensors`` in this folder.

A file is used if the data and options are those of its training, which its metadata name, or if the data are
known to have the same public images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mia_bench import Options, lazy_imports
from mia_bench_plugins.shipped import shipped_hash

with lazy_imports():
    import safetensors.torch
    import torch
    from torch import Tensor

FOLDER = Path(__file__).parent

SAME_PUBLIC = {"ae80901ccbcd6ef03aae": "a8c5198171117acdce83"}
"""Keys of data with the public images that a file was trained on, and the key that the file names: here
``synth-faces`` with 60 training images a person."""


def file_name(prior: str, track: str) -> str:
    """Name of the file; the track ``*`` gives a pattern for all tracks."""
    return f"{prior}_{track}.safetensors".replace("-", "_")


def find(prior: str, source: str, options: Options) -> Path | None:
    """The file for these data and options, if any; raise MiaBenchError if a file of the prior is damaged."""
    wanted = {"source": SAME_PUBLIC.get(source, source), "options": options.model_dump(mode="json")}
    paths = FOLDER.glob(file_name(prior, "*"))
    return next((path for path in paths if training_of(path) == wanted), None)


def training_of(path: Path) -> dict[str, Any]:
    """Data and options of a file's training, from its JSON header; raise MiaBenchError if it is damaged."""
    shipped_hash(path)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata = header["__metadata__"]
    return {"source": metadata["source"], "options": json.loads(metadata["options"])}


def find_hash(prior: str, source: str, options: Options) -> str | None:
    """SHA-256 of the file from :func:`find`, if there is one."""
    path = find(prior, source, options)
    return shipped_hash(path) if path else None


def load(prior: str, source: str, options: Options) -> dict[str, Tensor] | None:
    """The tensors of the file from :func:`find`, in float32, if there is one."""
    path = find(prior, source, options)
    return in_float32(safetensors.torch.load_file(path)) if path else None


def in_float32(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert float16 tensors to float32; other tensors unchanged."""
    return {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}
