"""Checks of architectures."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from mia_bench.api.architecture import Architecture, NetworkTask
from mia_bench.api.classifier import Activations, Classifier
from mia_bench.models.snapshot import Snapshot
from mia_bench.plugins import describe_error
from mia_bench.seeds import seeded
from mia_bench.testing.findings import Attempt, Check, Problem, raises
from mia_bench.testing.isolation import TracedTrial, changes, gpu_device, isolated, same_tensors
from mia_bench.testing.world import world

RESOLUTION = 32
"""Of the images; networks that halve them five times take no smaller ones."""


class ModelTrial(TracedTrial):
    """An architecture whose networks answer images of the toy world."""

    @cached_property
    def base(self) -> Attempt[Classifier]:
        """The first network, untrained."""
        return Attempt.of(self.build)

    def build(self, seed: int = 0, *, restoring: bool = False) -> Classifier:
        """A network from a seed, as the host builds it."""
        architecture: Architecture = self.make()
        task = NetworkTask(world().classes, RESOLUTION, restoring, self.weights)
        with self.traced(seed), seeded(seed, "init"):
            made = architecture.build(task)
        if not isinstance(made, Classifier):
            raise TypeError(f"build returned {type(made).__name__}, not a Classifier")
        return made.to(self.device)

    def network(self) -> Classifier:
        """A copy of :attr:`base` in eval mode."""
        return copy.deepcopy(self.base.made).eval()

    def images(self) -> Tensor:
        """Images ``(N, 3, R, R)`` in [0, 1]."""
        return world().enlarged(RESOLUTION).to(self.device)

    @cached_property
    def answer(self) -> Attempt[Activations]:
        """One pass of :attr:`images` in eval mode."""

        def passed() -> Activations:
            with isolated(0), torch.no_grad():
                return self.network().activations(self.images())

        return Attempt.of(passed)

    def loss(self, network: Classifier, images: Tensor) -> Tensor:
        """Cross-entropy of the test images' classes."""
        labels = world().splits.test.labels.to(self.device)
        with isolated(0):
            return F.cross_entropy(network(images).float(), labels)


def runs(trial: ModelTrial) -> Iterator[Problem]:
    """It builds a :class:`Classifier` that answers."""
    if trial.base.error is not None:
        yield f"build raised {describe_error(trial.base.error)}", "See the contract of Architecture"
        return
    if trial.answer.error is not None:
        yield (
            f"a pass raised {describe_error(trial.answer.error)}",
            "See the contract of Classifier",
        )


def activations(trial: ModelTrial) -> Iterator[Problem]:
    """Finite logits ``(N, C)``, features ``(N, F)``, hidden outputs; forward gives the same logits."""
    made, count = trial.answer.made, len(trial.images())
    if tuple(made.logits.shape) != (count, world().classes):
        yield (
            f"the logits are {tuple(made.logits.shape)}, not {(count, world().classes)}",
            "Make the head as wide as task.num_classes",
        )
    elif not bool(torch.isfinite(made.logits).all()):
        yield "the logits of the untrained network are not finite", "Look at the initialisation"
    if made.features.dim() != 2 or len(made.features) != count:
        yield f"the features are {tuple(made.features.shape)}", "Return (N, F) from pool"
    if not made.hidden or any(len(hidden) != count for hidden in made.hidden):
        yield (
            "it shows no hidden outputs",
            "Set blocks: defenses such as bido look at their outputs",
        )
    with isolated(0), torch.no_grad():
        answer = trial.network()(trial.images())
    if answer.shape == made.logits.shape and not torch.allclose(answer, made.logits, atol=1e-4):
        yield "forward and activations answer differently", "Override activations, not forward"


def gradients(trial: ModelTrial) -> Iterator[Problem]:
    """Every parameter that is trained, and the images, get finite gradients."""
    _ = trial.answer.made
    network, images = trial.network().train(), trial.images().requires_grad_()
    loss = trial.loss(network, images)
    if not loss.requires_grad:
        yield "its answers have no gradient", "Compute logits without detach or no_grad"
        return
    loss.backward()
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    idle = [name for name, parameter in trained.items() if parameter.grad is None]
    if idle:
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


def hooks(trial: ModelTrial) -> Iterator[Problem]:
    """Backward hooks can be set on every layer, as dp-sgd does for per-sample gradients."""
    _ = trial.answer.made
    network = trial.network().train()
    for module in network.modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_full_backward_hook(lambda *_: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # images need no gradient here
        yield from raises(
            lambda: trial.loss(network, trial.images()).backward(),
            "with backward hooks it",
            "Avoid in-place operations (inplace=True, +=)",
        )


def untouched(trial: ModelTrial) -> Iterator[Problem]:
    """In eval mode answers change nothing, and no image's depends on the others of its batch."""
    made, network = trial.answer.made, trial.network()
    before = Snapshot.of(network)
    with isolated(0), torch.no_grad():
        attempt = Attempt.of(lambda: network.activations(trial.images()[:1]).logits)
    yield from changes(before, network, "the network when it answers")
    if attempt.error is not None:
        yield f"one image raised {describe_error(attempt.error)}", "Handle batches of one"
    elif not torch.allclose(attempt.made, made.logits[:1], atol=1e-3):
        yield "an image's logits depend on the others of its batch", "Heed eval mode"


def repeatable(trial: ModelTrial) -> Iterator[Problem]:
    """Built again from one seed it has the same weights."""
    trial.to_the_bit()
    if not same_tensors(trial.base.made.state_dict(), trial.build().state_dict()):
        yield "two networks of one seed differ", "Draw from torch's global generator alone"


def seeds(trial: ModelTrial) -> Iterator[Problem]:
    """Another seed gives other weights."""
    if same_tensors(trial.base.made.state_dict(), trial.build(seed=1).state_dict()):
        yield "two networks of different seeds are the same", "Do not seed the initialisation"


def saved(trial: ModelTrial) -> Iterator[Problem]:
    """A network built to be restored takes the weights and answers the same."""
    made = trial.answer.made
    state = {name: tensor.clone() for name, tensor in trial.base.made.state_dict().items()}

    def restored() -> Tensor:
        network = trial.build(seed=5, restoring=True)
        network.load_state_dict(state)
        with isolated(0), torch.no_grad():
            return network.eval().activations(trial.images()).logits

    attempt = Attempt.of(restored)
    if attempt.error is not None:
        yield f"restoring raised {describe_error(attempt.error)}", "Build the same with restoring"
    elif not torch.allclose(attempt.made, made.logits, atol=1e-5):
        yield (
            "a restored network answers something else",
            "Keep what answers depend on in parameters or buffers",
        )


def global_state(trial: ModelTrial) -> Iterator[Problem]:
    """No global generator is seeded, and no setting of torch is changed."""
    yield from trial.traces.problems(draws=False)


def bfloat16(trial: ModelTrial) -> Iterator[Problem]:
    """It answers under autocast to bfloat16."""
    _ = trial.answer.made

    def answer() -> Tensor:
        with torch.autocast(trial.device.type, torch.bfloat16):
            return trial.network().activations(trial.images()).logits

    yield from raises(answer, "in bfloat16 it", "Leave dtypes to autocast")


def gpu(trial: ModelTrial) -> Iterator[Problem]:
    """It answers on a GPU."""
    _ = trial.answer.made
    device = gpu_device()
    yield from raises(
        lambda: trial.network().to(device).activations(trial.images().to(device)),
        "on a GPU it",
        "Keep tensors in parameters or buffers, and make new ones on the images' device",
    )


TRIAL = ModelTrial

CHECKS: dict[str, Check] = {
    "runs": runs,
    "activations": activations,
    "gradients": gradients,
    "hooks": hooks,
    "untouched": untouched,
    "repeatable": repeatable,
    "seeded": seeds,
    "saved": saved,
    "global-state": global_state,
    "bfloat16": bfloat16,
    "gpu": gpu,
}
