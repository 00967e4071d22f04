"""What tests of trained priors share: public images, and a task whose training can be stopped."""

from pathlib import Path

import torch

from mia_bench.api.dataset import ImageSet
from mia_bench.api.prior import PriorTask
from mia_bench.store import Store, StoredCheckpoint


def public(count: int = 40) -> ImageSet:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=draws, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count))


class Stopped(Exception):
    pass


def task(
    folder: Path,
    *,
    stop_at: int | None = None,
    weights: Path | None = None,
    looks: list | None = None,
) -> PriorTask:
    """A task on :func:`public`; ``looks`` collects (model, step)."""

    def progress(done: int, total: int, unit: str) -> None:
        if done == stop_at:
            raise Stopped

    torch.manual_seed(0)  # the initial weights; the host does it
    return PriorTask(
        public=public(),
        source="data-key",
        resolution=8,
        generator=torch.Generator().manual_seed(1),
        device=torch.device("cpu"),
        progress=progress,
        checkpoint=StoredCheckpoint(Store(folder), folder / "checkpoint"),
        weights=weights,
        watch=lambda model, step: looks.append((model, step)) if looks is not None else None,
    )
