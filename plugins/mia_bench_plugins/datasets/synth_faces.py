"""Procedural faces: identities and nuisances are known latents, so that every metric can be verified.

The latents of private identities have a smaller spread, which makes them hard to tell apart; public
identities and decoys are drawn from the whole population.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from mia_bench import Dataset, Register, Splits, hookimpl, lazy_imports
from mia_bench.api.dataset import ImageSet
from mia_bench.api.progress import Progress
from mia_bench.seeds import generator

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench_plugins.datasets import face_renderer


class SynthFaces(Dataset):
    """Faces drawn by :mod:`mia_bench_plugins.datasets.face_renderer`."""

    summary = "procedural faces, rendered on the spot; nobody is private"
    version = "1"
    terms = "made by this package; no real person is shown"
    real_people = False
    needs_root = False

    class Options(Dataset.Options):
        identities: int = Field(40, ge=2, description="private identities")
        spread: float = Field(0.5, gt=0, le=1, description="spread of the private identities")
        train: int = Field(20, ge=1, description="training images of each")
        validation: int = Field(5, ge=0, description="validation images of each")
        test: int = Field(10, ge=1, description="test images of each")
        nuisance: float = Field(1.0, ge=0, description="strength of pose, light and expression")
        noise: float = Field(0.05, ge=0, description="standard deviation of the sensor noise")
        public_identities: int = Field(600, ge=2, description="identities behind the prior")
        public_images: int = Field(12, ge=1, description="images of each of them")
        decoys: int = Field(1000, ge=1, description="identities kept for the gallery")
        decoy_images: int = Field(4, ge=1, description="images of each decoy")

    options: Options

    def fingerprint(self, root: Path | None) -> str:
        return "rendered"

    def load(
        self, root: Path | None, *, resolution: int, seed: int, progress: Progress, scratch: Path
    ) -> Splits:
        options = self.options
        private = self.identities(seed, "private", options.identities, options.spread)
        public = self.identities(seed, "public", options.public_identities, 1.0)
        decoys = self.identities(seed, "decoys", options.decoys, 1.0)
        parts = {
            "train": (private, options.train),
            "validation": (private, options.validation),
            "test": (private, options.test),
            "public": (public, options.public_images),
            "decoys": (decoys, options.decoy_images),
        }
        made = []
        for part, (identities, each) in parts.items():
            made.append(self.photograph(identities, each, resolution, seed, part))
            progress(len(made), len(parts), "part")
        train, validation, test, public_images, decoy_images = made
        names = tuple(f"person-{i:02d}" for i in range(options.identities))
        return Splits(train, validation, test, public_images, decoy_images, names)

    def identities(self, seed: int, role: str, count: int, spread: float) -> Tensor:
        """Identity latents ``(count, K)`` of one role."""
        return face_renderer.sample_identities(count, generator(seed, "identities", role), spread)

    def photograph(self, identities: Tensor, each: int, resolution: int, seed: int, part: str) -> ImageSet:
        """``each`` uint8 images of every identity, with nuisances drawn for this part."""
        labels = torch.arange(len(identities)).repeat_interleave(each)
        rng = generator(seed, "nuisances", part)
        nuisances = face_renderer.sample_nuisances(len(labels), rng, self.options.nuisance)
        images = []
        for rows in torch.arange(len(labels)).split(2048):
            clean = face_renderer.render(identities[labels[rows]], nuisances[rows], resolution)
            noisy = face_renderer.add_noise(clean, rng, self.options.noise)
            images.append((noisy * 255).round().to(torch.uint8))
        return ImageSet(torch.cat(images), labels)


@hookimpl
def mia_bench_register_datasets(register: Register) -> None:
    register("synth-faces", SynthFaces)
