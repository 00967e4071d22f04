"""What every step of the protocol needs beside its objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mia_bench.api.checkpoint import NO_CHECKPOINT, Checkpoint
from mia_bench.api.progress import Progress, no_progress


@dataclass(frozen=True)
class Context:
    """Where a step is computed, and what its random numbers are derived from.

    Attributes:
        resolution: height and width of the images.
        seed: of the cell, or of the track for what all its cells share.
        device: where to compute.
        progress: called now and then by what takes long.
        weights: folder of weight files; None where none is set.
        checkpoint: keeps the state of what takes long.
    """

    resolution: int
    seed: int
    device: torch.device
    progress: Progress = no_progress
    weights: Path | None = None
    checkpoint: Checkpoint = NO_CHECKPOINT
