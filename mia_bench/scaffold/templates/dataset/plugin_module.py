"""The data set ``plugin_name``: what it shows, its source, its split."""

from __future__ import annotations

from pathlib import Path

from mia_bench import Dataset, ImageSet, Register, Splits, hookimpl, lazy_imports
from mia_bench.api.progress import Progress
from mia_bench.seeds import generator
from pydantic import Field

with lazy_imports():
    import torch
    from torch.nn import functional as F


PARTS = {"train": 20, "validation": 5, "test": 10, "public": 12, "decoys": 4}
"""Number of images of each class or identity."""


class PluginClass(Dataset):
    """An example: every class is a smooth pattern, its images are that pattern with noise."""

    summary = "an example: coloured patterns, generated on the fly"
    terms = "drawn by this package"
    needs_root = False

    class Options(Dataset.Options):
        """Options: ``-o plugin_name.classes=5``."""

        classes: int = Field(10, ge=2, description="private classes")
        others: int = Field(50, ge=2, description="public identities, and as many decoys")

    options: Options

    def fingerprint(self, root: Path | None) -> str:
        """A constant, as nothing is read. For files, return a hash of their names and sizes."""
        return "drawn"

    def load(
        self, root: Path | None, *, resolution: int, seed: int, progress: Progress, scratch: Path
    ) -> Splits:
        """Draw all parts."""
        made = {}
        for number, part in enumerate(PARTS):
            made[part] = self._part(part, resolution, seed)
            progress(number + 1, len(PARTS), "part")
        return Splits(
            train=made["train"],
            validation=made["validation"],
            test=made["test"],
            public=made["public"],
            decoys=made["decoys"],
            class_names=tuple(f"pattern {number}" for number in range(self.options.classes)),
        )

    def _part(self, part: str, resolution: int, seed: int) -> ImageSet:
        """One part; the private parts share their patterns."""
        private = part not in ("public", "decoys")
        count = self.options.classes if private else self.options.others
        shapes = generator(seed, "private" if private else part)
        patterns = torch.rand(count, 3, 4, 4, generator=shapes)
        smooth = F.interpolate(patterns, (resolution, resolution), mode="bilinear")
        labels = torch.arange(count).repeat_interleave(PARTS[part])
        noise = torch.randn(smooth[labels].shape, generator=generator(seed, "noise", part))
        images = (smooth[labels] + 0.05 * noise).clamp(0, 1)
        return ImageSet((images * 255).round().to(torch.uint8), labels)


@hookimpl
def mia_bench_register_datasets(register: Register) -> None:
    """Register ``plugin_name``."""
    register("plugin_name", PluginClass)
