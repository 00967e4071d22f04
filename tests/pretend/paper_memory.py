"""The memory of a GPU that stages of paper scale take, counted with tensors that only know their sizes.

The stages run their real code: a step of training, a batch of everything else. What torch keeps for later,
work space of the libraries and the driver's share, about a gigabyte in all, are not in the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import facenet_pytorch
import pretend_device
import torch
from pretend_device import Accelerator
from torch import Tensor

from mia_bench.api.architecture import NetworkTask
from mia_bench.api.classifier import Classifier
from mia_bench.api.dataset import ImageSet, Splits
from mia_bench.api.defense import BuildContext, Defense
from mia_bench.api.encoder import Embed
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.progress import no_progress
from mia_bench.augment import resized
from mia_bench.models.inference import embed_images, extract_features, predict_probabilities
from mia_bench.plugins import host
from mia_bench.protocol.attack import Budget, run_attack
from mia_bench.protocol.context import Context
from mia_bench.protocol.prior import TrainingMonitor
from mia_bench.protocol.target import Target
from mia_bench.track import ClassifierSpec, Track
from mia_bench.training import train_classifier
from mia_bench_plugins.encoders import facenet
from mia_bench_plugins.priors.stylegan2_model import StyleGAN2
from mia_bench_plugins.priors.stylegan2_networks import Shape

INFERENCE = 512
"""Images that a stage which only looks at them needs to fill its batches."""


class PaperTrack:
    """A track with networks that are nowhere, and no images.

    Args:
        track: of paper scale.
        classes, images: of its data.
        pixels: of the images of the published generator.
    """

    def __init__(self, track: Track, classes: int, images: int, pixels: int) -> None:
        pretend_device.install()
        self.track, self.classes, self.pixels = track, classes, pixels
        self._batch = track.attack_batch_size
        self.device = pretend_device.device()
        self.context = Context(track.data.resolution, 0, self.device)
        self.training_bytes = 0.9 * images * 3 * track.data.resolution**2

    def stages(self, defenses: Sequence[str] = ()) -> dict[str, float]:
        """Bytes by stage, as tracks name them; of training those of the defense that takes most.

        ``defenses``: only these; all unless given.
        """
        defenses = defenses or host().registry.names("defense")
        return {
            "prior": self.prior(),
            "evaluator": self.evaluator(),
            **({"gallery": self.gallery()} if self.track.encoder else {}),
            "train": max(map(self.train, defenses)),
            "assess": self.assess(),
            "invert": self.invert("ppa", search=self._batch, candidates=self._batch, steps=1, views=1),
            "invert.prior-sample": self.invert("prior-sample"),
            "measure": self.measure(),
        }

    # --- stages

    def train(self, name: str) -> float:
        """Training under a defense."""
        component = host().registry.get("defense", name).load()
        defense = component(component.Options(**self.track.defenses.get(name, {})))
        return self._training(self.track.target, defense)

    def evaluator(self) -> float:
        """Training of the evaluation model."""
        return self._training(self.track.evaluation, Defense())

    def prior(self) -> float:
        """Looking at a published prior once."""
        with self._accelerator() as machine, mock.patch("mia_bench.protocol.prior.MONITORED_IMAGES", 40):
            no_images = ImageSet(torch.zeros(0, 3, 1, 1), torch.zeros(0))
            with TemporaryDirectory() as folder, mock.patch("mia_bench.protocol.prior.save_sheet"):
                monitor = TrainingMonitor(no_images, Path(folder), self.context, batch_size=self._batch)
                monitor(self.model(), 0)
        return machine.peak

    def gallery(self) -> float:
        """Embedding a batch."""
        with self._accelerator() as machine:
            embed_images(self._embed(), self._images(INFERENCE), self.device)
        return machine.peak

    def assess(self) -> float:
        """Asking the target."""
        with self._accelerator() as machine:
            predict_probabilities(
                self._classifier(self.track.target), self._images(INFERENCE), device=self.device
            )
        return machine.peak

    def invert(self, name: str, **options: int) -> float:
        """A batch of an attack, of which options make a short one."""
        component = host().registry.get("attack", name).load()
        attack = component(component.Options(**{**self.track.attacks[name].options, **options}))
        part = ImageSet(torch.zeros(1, 3, 1, 1), torch.zeros(1))
        names = tuple(str(number) for number in range(self.classes))
        splits = Splits(part, part, part, part, part, class_names=names)
        budget = Budget(self._batch, 1, self._batch, self.track.attack_precision)
        with self._accelerator() as machine:
            target = self._classifier(self.track.target)
            given = (attack, Target(target, target, False), self.model(), splits, budget, self.context)
            prepared = run_attack(*given, step="prepare").result
            run_attack(*given, step="invert", prepared=prepared)
        return machine.peak

    def measure(self) -> float:
        """Asking evaluation model, encoder and target, all of which are there, and the prior too."""
        with self._accelerator() as machine:
            held = self.model()
            models = [self._classifier(self.track.evaluation), self._classifier(self.track.target)]
            embed = self._embed() if self.track.encoder else None
            images = self._images(INFERENCE)
            for model in models:
                predict_probabilities(model, images, device=self.device)
            extract_features(models[0], images, device=self.device)
            if embed is not None:
                embed_images(embed, images, self.device)
            del held
        return machine.peak

    # --- parts

    def _accelerator(self) -> Accelerator:
        return Accelerator(real=False)

    def _images(self, count: int) -> Tensor:
        return torch.zeros(count, 3, *2 * (self.track.data.resolution,), dtype=torch.uint8)

    def _build(self, spec: ClassifierSpec) -> Classifier:
        component = host().registry.get("model", spec.architecture.name).load()
        architecture = component(component.Options(**spec.architecture.options))
        model: Classifier = architecture.build(
            NetworkTask(self.classes, self.track.data.resolution, restoring=True)
        )
        return model

    def _classifier(self, spec: ClassifierSpec) -> Classifier:
        with torch.device("meta"):
            model = self._build(spec)
        return model.to(self.device).eval().requires_grad_(False)

    def model(self) -> GenerativeModel:
        """The published prior."""
        crop = self.track.priors["stylegan2"].get("crop")
        with torch.device("meta"):
            model = StyleGAN2(Shape(self.pixels), self.track.data.resolution, crop=crop)
        return model.to(self.device).eval().requires_grad_(False)

    def _embed(self) -> Embed:
        with torch.device("meta"):
            model = facenet_pytorch.InceptionResnetV1(pretrained=None, num_classes=facenet.PEOPLE)
        model = model.to(self.device).eval().requires_grad_(False)
        return lambda images: model(2 * resized(images, facenet.SIZE) - 1)

    def _training(self, spec: ClassifierSpec, defense: Defense) -> float:
        """A step, with all training images on the device, as they are while it is made."""
        size = spec.recipe.batch_size
        data = ImageSet(self._images(size), torch.arange(size) % self.classes)
        context = BuildContext(
            self.classes, self.track.data.resolution, data, torch.Generator(), restoring=False
        )
        with torch.device("meta"):
            model = defense.build_model(lambda: self._build(spec), context)
        recipe = spec.recipe.model_copy(update={"epochs": 1})
        with self._accelerator() as machine, _without_accounting(defense):
            train_classifier(model, data, recipe, defense, seed=0, device=self.device, progress=no_progress)
        moments = 2 * sum(4 * parameter.numel() for parameter in model.parameters())  # of Adam, after a step
        return machine.peak - data.images.nbytes + self.training_bytes + moments


def _without_accounting(defense: Defense) -> Any:
    """Without the check of a private training's network, which reads numbers."""
    if "dp_sgd" not in type(defense).__module__:
        return nullcontext()
    return mock.patch("mia_bench_plugins.defenses.private_steps.check_network")
