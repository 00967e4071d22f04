"""Knowledge extraction: what a student learns of the private classes from the reconstructions alone.

Struppek, Hintersdorf and Kersting, ICLR 2024 (arXiv 2310.06549). The student has the architecture of the
evaluation model, initialised anew, and is trained on the reconstructions only. Its accuracy on the private
images says what the reconstructions show of the classes together, also what no single one shows. The paper
trains a ResNet-50 from ImageNet's weights with SGD; here the student begins at random and is trained with
Adam, so numbers differ.
"""

from __future__ import annotations

import copy
from typing import ClassVar

from pydantic import Field

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.dataset import ImageSet
from mia_bench.api.metric import AttackEvidence
from mia_bench.api.progress import no_progress
from mia_bench.models.inference import predict_probabilities
from mia_bench.seeds import seeded
from mia_bench.track import Recipe
from mia_bench_plugins.metrics.evaluation_classifier import leaked_share

with lazy_imports():
    import torch

    from mia_bench import training
    from mia_bench.api import defense
    from mia_bench.api.classifier import Classifier


def reinitialised(model: Classifier) -> Classifier | None:
    """A trainable copy whose parameters are drawn anew; None if a layer can't do that."""
    student = copy.deepcopy(model).requires_grad_(True)
    for layer in student.modules():
        own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        if own and not hasattr(layer, "reset_parameters"):
            return None
        if own:
            layer.reset_parameters()  # type: ignore[operator]
    return student


class KnowledgeExtraction(AttackMetric):
    """Accuracy of a student that is trained on the reconstructions only."""

    summary = "accuracy of a student that is trained on the reconstructions only"
    paper = "Struppek et al., ICLR 2024, arXiv 2310.06549"
    version = "1"
    trial_options: ClassVar = {"epochs": 2}
    quantities: ClassVar[dict[str, Quantity]] = {
        "knowledge_extraction_test": leaked_share(
            "accuracy on held-out private images of a student trained on the reconstructions only",
            paired=True,
        ),
        "knowledge_extraction_train": leaked_share(
            "accuracy on the target's training images of a student trained on the reconstructions only",
            paired=True,
        ),
    }

    class Options(AttackMetric.Options):
        epochs: int = Field(40, ge=1, description="passes over the reconstructions")
        batch_size: int = Field(64, ge=2, description="reconstructions a step")
        learning_rate: float = Field(1e-3, gt=0, description="of Adam at the start")
        shift: int = Field(2, ge=0, description="largest shift of an image, in pixels")
        crop: float = Field(1.0, gt=0, le=1, description="least share of the area of a crop; 1 does not crop")

    options: Options

    @property
    def _recipe(self) -> Recipe:
        options = self.options.model_dump(exclude={"crop"})
        return Recipe(**options, crop=(self.options.crop, 1.0) if self.options.crop < 1 else None)

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Train the student, and test it on the private images of the attacked classes."""
        if len(evidence.images) < 2:
            return dict.fromkeys(self.quantities, "there are no reconstructions to learn from")
        with seeded(0, "knowledge-extraction"):
            student = reinitialised(evidence.evaluation_model)
        if student is None:
            reason = "a layer of the evaluation model can't be initialised anew"
            return dict.fromkeys(self.quantities, reason)
        trained = training.train_classifier(
            student,
            ImageSet(evidence.images, evidence.labels),
            self._recipe,
            defense.Defense(),
            seed=0,
            device=evidence.device,
            progress=no_progress,
        ).model
        found: dict[str, Measurement | str] = {}
        for name in ("test", "train"):
            part: ImageSet = getattr(evidence.splits, name)
            attacked = torch.isin(part.labels, evidence.labels)
            labels = part.labels[attacked]
            probabilities = predict_probabilities(trained, part.images[attacked], device=evidence.device)
            right = (probabilities.argmax(1) == labels).double()
            found[f"knowledge_extraction_{name}"] = Measurement(right.numpy(), labels.numpy())
        return found


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``knowledge-extraction``."""
    register("knowledge-extraction", KnowledgeExtraction)
