"""Checks of architectures."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from etils.epy import lazy_imports

from mia_bench.device import autocast
from mia_bench.plugins import describe_error
from mia_bench.seeds import seeded
from mia_bench.testing.checks import Problem, check
from mia_bench.testing.isolation import isolated
from mia_bench.testing.shared import changes
from mia_bench.testing.trial import Attempt, Run, Trial

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from mia_bench.api import classifier
    from mia_bench.models import snapshot
    from mia_bench.protocol import target
    from mia_bench.testing import world as toy

RESOLUTION = 32
"""Of the images; networks that halve them five times take no smaller ones."""


@dataclass(frozen=True)
class Built:
    """An untrained network, and one pass of the toy world's images in eval mode."""

    network: classifier.Classifier
    activations: classifier.Activations


class ArchitectureTrial(Trial[Built]):
    """An architecture whose networks answer images of the toy world."""

    contract = "mia_bench.Architecture and mia_bench.api.classifier.Classifier"
    advice: ClassVar = {
        "repeatable": "Draw from torch's global generator alone",
        "saved": "Build the same with restoring, and keep what answers depend on in parameters or "
        "buffers",
        "bfloat16": "Leave dtypes to autocast",
        "gpu": "Keep tensors in parameters or buffers, and make new ones on the images' device",
    }

    def compute(self, run: Run) -> Built:
        """Build a network and ask it."""
        network = self.build(run)
        with autocast(run.precision, run.device):
            return Built(network, self.ask(network, run))

    def build(self, run: Run, *, restoring: bool = False) -> classifier.Classifier:
        """A network from a seed."""
        context = replace(run.context, resolution=RESOLUTION, weights=self.weights)
        with seeded(run.seed, "init"):
            made = target.build_network(self.make(), run.world.splits, context, restoring=restoring)
        if not isinstance(made, classifier.Classifier):
            raise TypeError(f"build returned {type(made).__name__}, not a Classifier")
        return made.to(run.device)

    def ask(self, network: classifier.Classifier, run: Run) -> classifier.Activations:
        """What a copy of the network answers in eval mode."""
        with seeded(0, "answer"), torch.no_grad():
            return copy.deepcopy(network).eval().activations(self.images(run))

    def images(self, run: Run) -> Tensor:
        """Images ``(N, 3, R, R)`` in [0, 1]."""
        return run.world.enlarged(RESOLUTION).to(run.device)

    def network(self) -> classifier.Classifier:
        """A copy of the network of :attr:`base` in eval mode."""
        return copy.deepcopy(self.base.made.network).eval()

    def loss(self, network: classifier.Classifier, images: Tensor) -> Tensor:
        """Cross-entropy of the test images' classes."""
        labels = toy.world().splits.test.labels.to(self.device)
        with isolated(0):
            return F.cross_entropy(network(images).float(), labels)

    def outcome(self, made: Built) -> Mapping[str, Any]:
        """The weights, and answers."""
        return {**made.network.state_dict(), "its answers": made.activations.logits}

    def restored(self, made: Built) -> Mapping[str, Any]:
        """Answers of a network that was built to be restored, with the same weights."""
        state = {name: tensor.clone() for name, tensor in made.network.state_dict().items()}
        run = replace(self.first, seed=5)
        with isolated(5):
            network = self.build(run, restoring=True)
            network.load_state_dict(state)
            return {"its answers": self.ask(network, run).logits}


@check("model")
def activations(trial: ArchitectureTrial) -> Iterator[Problem]:
    """Finite logits ``(N, C)``, features ``(N, F)``, hidden outputs; forward gives the same logits."""
    made, images = trial.base.made.activations, trial.images(trial.first)
    shape = (len(images), toy.world().classes)
    if tuple(made.logits.shape) != shape:
        problem = f"the logits are {tuple(made.logits.shape)}, not {shape}"
        yield problem, "Make the head as wide as task.num_classes"
    elif not bool(torch.isfinite(made.logits).all()):
        yield "the logits of the untrained network are not finite", "Look at the initialisation"
    if made.features.dim() != 2 or len(made.features) != len(images):
        yield f"the features are {tuple(made.features.shape)}", "Return (N, F) from pool"
    if not made.hidden or any(len(hidden) != len(images) for hidden in made.hidden):
        advice = "Set blocks: defenses such as bido look at their outputs"
        yield "it shows no hidden outputs", advice
    with isolated(0), torch.no_grad():
        answer = trial.network()(images)
    if answer.shape == made.logits.shape and not torch.allclose(answer, made.logits, atol=1e-4):
        yield "forward and activations answer differently", "Override activations, not forward"


@check("model")
def gradients(trial: ArchitectureTrial) -> Iterator[Problem]:
    """Every parameter that is trained, and the images, get finite gradients."""
    network, images = trial.network().train(), trial.images(trial.first).requires_grad_()
    loss = trial.loss(network, images)
    if not loss.requires_grad:
        yield "its answers have no gradient", "Compute logits without detach or no_grad"
        return
    loss.backward()
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    if idle := [name for name, parameter in trained.items() if parameter.grad is None]:
        yield (
            f"nothing trains {', '.join(idle[:3])}",
            "Leave out what the answer does not depend on, or let it require no gradient",
        )
    found = [p.grad for p in (*trained.values(), images) if p.grad is not None]
    if not all(bool(gradient.isfinite().all()) for gradient in found):
        yield "gradients are not finite", "Look for roots and divisions at 0"
    if images.grad is None or not bool(images.grad.any()):
        yield (
            "images get no gradient",
            "Compute logits from the images without detach: white-box attacks follow gradients",
        )


@check("model")
def hooks(trial: ArchitectureTrial) -> Iterator[Problem]:
    """Backward hooks can be set on every layer, as dp-sgd does for per-sample gradients."""
    network, images = trial.network().train(), trial.images(trial.first)
    for module in network.modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_full_backward_hook(lambda *_: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # images need no gradient here
        error = Attempt.of(partial(_backward, trial, network, images)).error
    if error is not None:
        problem = f"with backward hooks it raised {describe_error(error)}"
        yield problem, "Avoid in-place operations (inplace=True, +=)"


def _backward(trial: ArchitectureTrial, network: classifier.Classifier, images: Tensor) -> bool:
    trial.loss(network, images).backward()
    return True


@check("model")
def untouched(trial: ArchitectureTrial) -> Iterator[Problem]:
    """In eval mode answers change nothing, and no image's depends on the others of its batch."""
    made, network = trial.base.made.activations, trial.network()
    image = trial.images(trial.first)[:1]
    before = snapshot.Snapshot.of(network)
    with isolated(0), torch.no_grad():
        attempt = Attempt.of(lambda: network.activations(image).logits)
    yield from changes(before, network, "the network when it answers")
    if attempt.error is not None:
        yield f"one image raised {describe_error(attempt.error)}", "Handle batches of one"
    elif not torch.allclose(attempt.made, made.logits[:1], atol=1e-3):
        yield "an image's logits depend on the others of its batch", "Heed eval mode"
