"""Trained priors that come with the package: ``<prior>_<track>.safetensors`` in this folder.

One is used where data and options are those that it says it was trained with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench import Options
from mia_bench_plugins.shipped import shipped_hash

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parent


def file_name(prior: str, track: str) -> str:
    """Name of the file, ``*`` for any track."""
    return f"{prior}_{track}.safetensors".replace("-", "_")


def find(prior: str, source: str, options: Options) -> Path | None:
    """The file that was trained on these data with these options.

    Raises:
        MiaBenchError: one of this prior is not as it was shipped.
    """
    wanted = {"source": source, "options": options.model_dump(mode="json")}
    paths = FOLDER.glob(file_name(prior, "*"))
    return next((path for path in paths if described(path) == wanted), None)


def described(path: Path) -> dict[str, Any]:
    """Data and options that a file says it was trained with; read from its JSON header.

    Raises:
        MiaBenchError: it is not as it was shipped.
    """
    shipped_hash(path)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata = header["__metadata__"]
    return {"source": metadata["source"], "options": json.loads(metadata["options"])}


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in float32."""
    from safetensors.torch import load_file

    return in_float32(load_file(path))


def in_float32(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in half precision widened, the others as they are."""
    import torch

    return {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}
