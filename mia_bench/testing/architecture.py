"""Checks of architectures."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.device import autocast
from mia_bench.seeds import seeded
from mia_bench.testing.checks import Problem, check
from mia_bench.testing.isolation import isolated
from mia_bench.testing.trial import Run, Trial

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from mia_bench.api import classifier
    from mia_bench.api.classifier import Activations, Classifier
    from mia_bench.protocol import measurement, target
    from mia_bench.testing import world as toy

RESOLUTION = 32
"""Of the images; networks that halve them five times take no smaller ones."""


@dataclass(frozen=True)
class Built:
    """An untrained network, images ``(N, 3, R, R)``, and what it answers to them in eval mode."""

    network: Classifier
    images: Tensor
    activations: Activations


class ArchitectureTrial(Trial[Built]):
    """An architecture whose networks answer images of the toy world."""

    advice: ClassVar = {
        "runs": "See mia_bench.Architecture and mia_bench.api.classifier.Classifier",
        "hooks": "Avoid in-place operations (inplace=True, +=)",
        "untouched": "Work on copies, heed eval mode, and handle batches of one",
        "repeatable": "Draw from torch's global generator alone",
        "saved": "Build the same with restoring, and keep what answers depend on in parameters or buffers",
        "bfloat16": "Leave dtypes to autocast",
        "gpu": "Keep tensors in parameters or buffers, and make new ones on the images' device",
    }

    def compute(self, run: Run) -> Built:
        return self.ask(self.build(run), run)

    def build(self, run: Run, *, restoring: bool = False) -> Classifier:
        """A network from a seed."""
        context = replace(run.context, resolution=RESOLUTION, weights=self.weights)
        splits, make = run.world.splits, self.make()
        with seeded(run.seed, "init"):
            made = target.build_network(make, splits, context, restoring=restoring)
        if not isinstance(made, classifier.Classifier):
            raise TypeError(f"build returned {type(made).__name__}, not a Classifier")
        return made.to(run.device)

    def ask(self, network: Classifier, run: Run) -> Built:
        """The network with what a copy of it answers in eval mode."""
        images = run.world.enlarged(RESOLUTION).to(run.device)
        with seeded(0, "answer"), torch.no_grad(), autocast(run.precision, run.device):
            answer = copy.deepcopy(network).eval().activations(images)
        return Built(network, images, answer)

    def backward(self, *, hooks: bool = False) -> tuple[Classifier, Tensor]:
        """A copy of the network after a backward pass, and the images, with gradients.

        Args:
            hooks: set a backward hook on every layer; images get no gradient.
        """
        made, labels = self.made, toy.world().splits.test.labels.to(self.device)
        network = copy.deepcopy(made.network).train()
        images = made.images.clone().requires_grad_(not hooks)
        for module in network.modules() if hooks else ():
            if any(True for _ in module.parameters(recurse=False)):
                module.register_full_backward_hook(lambda *_: None)
        with isolated(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns where images need no gradient
            F.cross_entropy(network(images).float(), labels).backward()
        return network, images

    def outcome(self, made: Built) -> Mapping[str, Any]:
        return {**made.network.state_dict(), "its answers": made.activations.logits}

    def restored(self, made: Built) -> Mapping[str, Any]:
        run = replace(self.first, seed=5)
        with isolated(5):
            network = self.build(run, restoring=True)
            network.load_state_dict(made.network.state_dict())
            return {"its answers": self.ask(network, run).activations.logits}

    @check("model")
    def activations(self) -> Iterator[Problem]:
        """Finite logits ``(N, C)``, features ``(N, F)``, hidden outputs; forward gives the same logits."""
        built = self.made
        made, count, classes = built.activations, len(built.images), toy.world().classes
        if tuple(made.logits.shape) != (count, classes):
            problem = f"the logits are {tuple(made.logits.shape)}, not {(count, classes)}"
            yield problem, "Make the head as wide as task.num_classes"
        elif not bool(torch.isfinite(made.logits).all()):
            yield "the logits of the untrained network are not finite", "Check the initialisation"
        if made.features.dim() != 2 or len(made.features) != count:
            yield f"the features are {tuple(made.features.shape)}", "Return (N, F) from pool"
        if not made.hidden or any(len(hidden) != count for hidden in made.hidden):
            yield "it shows no hidden outputs", "Set blocks: some defenses need the blocks' outputs"
        with isolated(0), torch.no_grad():
            answer = copy.deepcopy(built.network).eval()(built.images)
        if answer.shape == made.logits.shape and not torch.allclose(answer, made.logits, atol=1e-4):
            yield "forward and activations answer differently", "Override activations, not forward"

    @check("model")
    def gradients(self) -> Iterator[Problem]:
        """Every parameter that is trained, and the images, get finite gradients."""
        network, images = self.backward()
        trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
        if idle := [name for name, parameter in trained.items() if parameter.grad is None]:
            advice = "Remove what the answer does not depend on, or set requires_grad to False"
            yield f"{', '.join(idle[:3])} get no gradient", advice
        found = [p.grad for p in (*trained.values(), images) if p.grad is not None]
        if not all(bool(gradient.isfinite().all()) for gradient in found):
            yield "gradients are not finite", "Look for roots and divisions at 0"
        if images.grad is None or not bool(images.grad.any()):
            advice = "Compute logits from the images without detach: white-box attacks follow gradients"
            yield "images get no gradient", advice

    @check("model")
    def hooks(self) -> None:
        """Backward hooks can be set on every layer, as per-sample gradients need them."""
        self.backward(hooks=True)

    @check("model")
    def untouched(self) -> Iterator[Problem]:
        """In eval mode answers change nothing, and no image's depends on the others of its batch."""
        made = self.made
        network, splits = copy.deepcopy(made.network).eval(), toy.world().splits
        unmodified = measurement.assert_evidence_unmodified({"network": network}, splits)
        with isolated(0), torch.no_grad(), unmodified:
            logits = network.activations(made.images[:1]).logits
        if not torch.allclose(logits, made.activations.logits[:1], atol=1e-3):
            yield "an image's logits depend on the rest of its batch", "Heed eval mode"
