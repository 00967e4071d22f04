"""Plugins that are wrong on purpose, each in one way: ``WRONG`` says which check finds it."""

import itertools
import os
from collections.abc import Callable
from dataclasses import replace

from pydantic import Field

from mia_bench import (
    Architecture,
    Attack,
    AttackMetric,
    Dataset,
    Defense,
    Encoder,
    ImageSet,
    Measurement,
    Prior,
    Quantity,
    Reconstructions,
    Splits,
)

WRONG: list[tuple[type, str]] = []
counter = itertools.count(1)


def wrong(check: str) -> Callable[[type], type]:
    def note(component: type) -> type:
        WRONG.append((component, check))
        return component

    return note


# --- defenses ------------------------------------------------------------------------------------


class RightDefense(Defense):
    summary = "plain"
    paper = "none"

    def report(self, setup):
        return super().report(setup)


@wrong("summary")
class NoSummary(RightDefense):
    summary = ""


@wrong("paper")
class NoPaper(RightDefense):
    paper = ""


@wrong("baselines")
class FrontOfADefense(RightDefense):
    front_options = ("epochs",)

    class Options(Defense.Options):
        epochs: float = Field(1.0, gt=0, le=1, description="share of the epochs")


@wrong("baselines")
class FrontWithoutOption(RightDefense):
    baseline = True
    front_options = ("epochs",)


@wrong("baselines")
class UnmatchedName(RightDefense):
    matched = ("nothing", {})


@wrong("baselines")
class UnmatchedOption(RightDefense):
    matched = ("none", {"norm": "instance"})


@wrong("baselines")
class MatchedDefense(RightDefense):
    matched = ("mid", {})


@wrong("strengths")
class StrengthWithoutOption(RightDefense):
    strengths = {"weight": (1.0, 2.0)}  # noqa: RUF012


@wrong("strengths")
class StrengthBeyondLimits(RightDefense):
    strengths = {"weight": (1.0, -1.0)}  # noqa: RUF012

    class Options(Defense.Options):
        weight: float = Field(1.0, ge=0, description="of the penalty")


@wrong("options")
class Undescribed(RightDefense):
    class Options(Defense.Options):
        weight: float = Field(1.0, ge=0)


@wrong("options")
class Unlimited(RightDefense):
    class Options(Defense.Options):
        pair: tuple[float, float] = Field((1.0, 1.0), description="two numbers")


@wrong("overrides")
class Misspelled(RightDefense):
    def los(self, step):
        return super().loss(step)


@wrong("overrides")
class Capital(RightDefense):
    def Loss(self, step):
        return super().loss(step)


@wrong("overrides")
class Worded(RightDefense):
    def training_loss(self, step):
        return super().loss(step)


@wrong("overrides")
class Idle(Defense):
    summary = "plain"
    paper = "none"


@wrong("runs")
class Exiting(RightDefense):
    def loss(self, step):
        raise SystemExit(3)


@wrong("runs")
class Raising(RightDefense):
    def loss(self, step):
        raise RuntimeError("no")


@wrong("runs")
class NarrowAnswers(RightDefense):
    def deploy(self, model):
        from torch import nn

        class Narrow(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, images):
                return self.model(images)[:, :2]

        return Narrow()


@wrong("loss")
class VectorLoss(RightDefense):
    def loss(self, step):
        from torch.nn import functional as F

        return F.cross_entropy(step.outputs.logits, step.labels, reduction="none")


@wrong("loss")
class NumberLoss(RightDefense):
    def loss(self, step):
        return super().loss(step).item()


@wrong("loss")
class DoubleLoss(RightDefense):
    def loss(self, step):
        return super().loss(step).double()


@wrong("augment")
class TooBright(RightDefense):
    def augment(self, images, generator):
        return images * 2


@wrong("gradients")
class Exploding(RightDefense):
    def loss(self, step):
        return super().loss(step) * float("inf")


@wrong("gradients")
class RootAtZero(RightDefense):
    def loss(self, step):
        return super().loss(step) + (step.outputs.logits * 0).sum().sqrt()


class Wrapped(RightDefense):
    """Deploys a module round the network; ``answer`` makes logits of (module, images)."""

    def deploy(self, model):
        import torch
        from torch import nn

        answer = self.answer

        class Wrapper(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model
                self.register_buffer("seen", torch.zeros(()))

            def forward(self, images):
                return answer(self, images)

        return Wrapper()


@wrong("served")
class SecretlyRandom(Wrapped):
    def answer(self, module, images):
        import torch

        logits = module.model(images)
        return logits + torch.randn_like(logits)


@wrong("served")
class RememberingTarget(Wrapped):
    def answer(self, module, images):
        module.seen += 1
        return module.model(images)


@wrong("saved")
class Forgetful(Wrapped):
    bias = 0.0

    def prepare_training(self, setup):
        self.bias = 1.0
        return setup

    def answer(self, module, images):
        return module.model(images) * (1 + self.bias)


@wrong("repeatable")
class Counting(RightDefense):
    def loss(self, step):
        return super().loss(step) * (1 + 0.5 * (next(counter) % 7))


class Weighting(RightDefense):
    """Gives every step a little more weight."""

    def prepare_training(self, setup):
        self.steps = 0
        return setup

    def loss(self, step):
        self.steps += 1
        return super().loss(step) * (1 + 0.1 * self.steps)


class KeepsItsSteps(Weighting):
    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


@wrong("resumed")
class ForgetsItsSteps(Weighting):
    pass


@wrong("seeded")
class DeafAugmentation(RightDefense):
    def augment(self, images, generator):
        import torch

        torch.rand(3, generator=generator)
        return images


@wrong("global-state")
class NumpyNoise(RightDefense):
    def loss(self, step):
        import numpy as np

        return super().loss(step) * (1 + 0.1 * np.random.rand())


@wrong("global-state")
class GlobalNoise(RightDefense):
    def augment(self, images, generator):
        import torch

        return (images + 0.1 * torch.randn_like(images)).clamp(0, 1)


@wrong("global-state")
class Reseeding(RightDefense):
    def prepare_training(self, setup):
        import torch

        torch.manual_seed(0)
        return setup


@wrong("private-data")
class ReadingData(RightDefense):
    def prepare_training(self, setup):
        os.listdir(os.environ["MIA_BENCH_DATA"])
        return setup


@wrong("report")
class NanReport(RightDefense):
    def report(self, setup):
        return {"epsilon": float("nan")}


@wrong("few-images")
class NeedsFour(RightDefense):
    def loss(self, step):
        if len(step.labels) < 4:
            raise ValueError("too few")
        return super().loss(step)


@wrong("bfloat16")
class NeedsFloat(RightDefense):
    def loss(self, step):
        step.outputs.logits.detach().cpu().numpy()  # NumPy has no bfloat16
        return super().loss(step)


# --- attacks -------------------------------------------------------------------------------------


def sampled(task, generator=None):
    count = len(task.classes) * task.images_per_class
    latents = task.prior.sample(count, generator or task.generator)
    latents = latents + 0.01 * task.classes.repeat_interleave(task.images_per_class)[:, None]
    shape = (len(task.classes), task.images_per_class)
    images = task.prior.render(latents, device=task.device)
    return Reconstructions(images.unflatten(0, shape), latents.unflatten(0, shape))


def pictures(task):
    return sampled(task).images.flatten(0, 1).to(task.device)


class RightAttack(Attack):
    summary = "samples"
    paper = "none"
    access = "white-box"

    def invert(self, task):
        return sampled(task)


@wrong("runs")
class ReturnsNothing(RightAttack):
    def invert(self, task):
        return None


@wrong("images")
class OneTooFew(RightAttack):
    def invert(self, task):
        return Reconstructions(sampled(task).images[:, 1:])


@wrong("images")
class OutOfRange(RightAttack):
    def invert(self, task):
        return Reconstructions(sampled(task).images * 2 - 1)


@wrong("threat-model")
class Nosy(RightAttack):
    access = "label-only"

    def invert(self, task):
        task.access.probabilities(pictures(task))
        return sampled(task)


@wrong("threat-model")
class Digging(RightAttack):
    access = "black-box"

    def invert(self, task):
        (cell,) = task.access._ask.__closure__
        images = pictures(task).requires_grad_()
        task.access._queries += len(images)
        cell.cell_contents(images).sum().backward()
        return sampled(task)


@wrong("queries")
class Uncounted(RightAttack):
    def invert(self, task):
        task.access.model(pictures(task))
        return sampled(task)


@wrong("untouched")
class Mutating(RightAttack):
    def invert(self, task):
        import torch

        with torch.no_grad():
            for parameter in task.access.model.parameters():
                parameter.mul_(1.5)
        return sampled(task)


@wrong("untouched")
class TrainMode(RightAttack):
    def invert(self, task):
        task.access.model.train()
        return sampled(task)


@wrong("untouched")
class PaintsPublic(RightAttack):
    def invert(self, task):
        task.public.images.zero_()
        return sampled(task)


@wrong("private-data")
class OpensPhotographs(RightAttack):
    def invert(self, task):
        from pathlib import Path

        list(Path(os.environ["MIA_BENCH_DATA"]).rglob("*.jpg"))
        return sampled(task)


@wrong("private-data")
class KnowsThem(RightAttack):
    def invert(self, task):
        from mia_bench.testing.world import world

        private, shape = world().splits.train.images, (len(task.classes), task.images_per_class)
        return Reconstructions(private[: shape[0] * shape[1]].unflatten(0, shape))


@wrong("repeatable")
class Unseeded(RightAttack):
    def invert(self, task):
        import torch

        generator = torch.Generator()
        generator.seed()
        return sampled(task, generator)


@wrong("seeded")
class OwnSeed(RightAttack):
    def invert(self, task):
        import torch

        torch.rand(3, generator=task.generator)
        return sampled(task, torch.Generator().manual_seed(0))


@wrong("global-state")
class GlobalDraws(RightAttack):
    def invert(self, task):
        import torch

        images = sampled(task).images
        return Reconstructions((images + 0.1 * torch.randn(images.shape)).clamp(0, 1))


@wrong("global-state")
class PythonDraws(RightAttack):
    def invert(self, task):
        import random

        return Reconstructions(sampled(task).images * random.random())


@wrong("global-state")
class ChangesThreads(RightAttack):
    def invert(self, task):
        import torch

        torch.set_grad_enabled(False)
        return sampled(task)


@wrong("saved")
class UnstorableState(RightAttack):
    def prepare(self, task):
        return {"number": 3}


@wrong("saved")
class RemembersPreparing(RightAttack):
    shade = 1.0

    def prepare(self, task):
        self.shade = 0.5
        return {}

    def invert(self, task):
        return Reconstructions(sampled(task).images * self.shade)


@wrong("by-class")
class FirstClasses(RightAttack):
    """Takes the attacked classes for the first ones."""

    def invert(self, task):
        task.access.labels(pictures(task))
        return sampled(replace(task, classes=task.classes - task.classes[0]))


@wrong("by-class")
class Diligent(RightAttack):
    """Asks about the classes that it was not asked about, too."""

    def invert(self, task):
        for _ in range(1 + 4 * (task.access.num_classes - len(task.classes))):
            task.access.labels(pictures(task))
        return sampled(task)


@wrong("by-class")
class Picky(RightAttack):
    def invert(self, task):
        if task.classes[0]:
            raise ValueError("the first class is missing")
        return sampled(task)


@wrong("few-images")
class ManyClasses(RightAttack):
    def invert(self, task):
        if len(task.classes) < 3:
            raise ValueError("too few")
        return sampled(task)


@wrong("random-target")
class AsksTwice(RightAttack):
    def invert(self, task):
        import torch

        again = [task.access.probabilities(task.public.images[:4] / 255) for _ in range(2)]
        assert torch.equal(*again), "the target changed its mind"
        return sampled(task)


@wrong("bfloat16")
class HalfBlind(RightAttack):
    def invert(self, task):
        task.access.activations(pictures(task)).logits.detach().cpu().numpy()
        return sampled(task)


class OnceOnly(RightAttack):
    """Found by the check of GPUs, where another run fails."""

    runs = 0

    def invert(self, task):
        type(self).runs += 1
        if self.runs > 1:
            raise RuntimeError("a second time")
        return sampled(task)


# --- priors --------------------------------------------------------------------------------------


class RightPrior(Prior):
    """The toy prior, with what ``change`` does to its model."""

    summary = "toy"
    paper = "none"
    has_discriminator = True

    def fit(self, task):
        from mia_bench.testing.world import ToyPrior

        return ToyPrior().fit(task)

    def build(self, state, *, resolution):
        from mia_bench.testing.world import ToyImageModel

        model = ToyImageModel(state["mean"], state["basis"], resolution).eval()
        return self.change(model) or model

    def change(self, model):
        return None


@wrong("runs")
class NoModel(RightPrior):
    def change(self, model):
        from torch import nn

        return nn.Identity()


@wrong("model")
class Training(RightPrior):
    def change(self, model):
        return model.train()


@wrong("model")
class NoDiscriminator(RightPrior):
    has_discriminator = False


@wrong("latents")
class Untruncated(RightPrior):
    def change(self, model):
        sample = type(model).sample
        model.sample = lambda count, generator, *, truncation=1.0: sample(model, count, generator)


@wrong("project")
class FlatProjection(RightPrior):
    def change(self, model):
        model.project = lambda images: images.new_zeros(len(images))


@wrong("project")
class FarProjection(RightPrior):
    def change(self, model):
        model.project = lambda images: images.new_full((len(images), model.latent_dim), 50.0)


@wrong("images")
class Signed(RightPrior):
    def change(self, model):
        forward = model.forward
        model.forward = lambda latents: forward(latents) * 2 - 1


@wrong("gradients")
class NoGradient(RightPrior):
    def change(self, model):
        forward = model.forward
        model.forward = lambda latents: forward(latents).detach()


@wrong("private-data")
class SawPrivate(RightPrior):
    def fit(self, task):
        from mia_bench.data.fingerprints import image_fingerprints
        from mia_bench.testing.world import world

        seen = image_fingerprints(world().splits.train.images)
        return {**super().fit(task), "trained_on": seen}


@wrong("private-data")
class OpensData(RightPrior):
    def fit(self, task):
        os.scandir(os.environ["MIA_BENCH_DATA"]).close()
        return super().fit(task)


@wrong("repeatable")
class Drifting(RightPrior):
    def fit(self, task):
        state = super().fit(task)
        return {**state, "mean": state["mean"] + 0.01 * next(counter)}


@wrong("seeded")
class DeafPrior(RightPrior):
    def fit(self, task):
        import torch

        torch.rand(3, generator=task.generator)
        return super().fit(task)


@wrong("global-state")
class NumpyPrior(RightPrior):
    def fit(self, task):
        import numpy as np

        np.random.seed(0)
        return super().fit(task)


class Stepping(RightPrior):
    """Adds noise to the mean in four steps."""

    def fit(self, task):
        import torch

        state, step = super().fit(task), 0
        if kept := task.checkpoint.load():
            state, step = self.restored(task, kept)
        while step < 4:
            noise = torch.randn(state["mean"].shape, generator=task.generator)
            state = {**state, "mean": state["mean"] + 0.01 * noise}
            step += 1
            draws = task.generator.get_state()
            task.checkpoint.save({**state, "step": torch.tensor(step), "draws": draws})
            task.progress(step, 4, "step")
        return state

    def restored(self, task, kept):
        task.generator.set_state(kept.pop("draws"))
        return kept, int(kept.pop("step"))


@wrong("resumed")
class ForgetsDraws(Stepping):
    def restored(self, task, kept):
        kept.pop("draws")
        return kept, int(kept.pop("step"))


@wrong("saved")
class Memory(RightPrior):
    shift = 0.0

    def fit(self, task):
        self.shift = 1.0
        return super().fit(task)

    def change(self, model):
        model.mean = model.mean + self.shift


@wrong("few-images")
class NeedsTen(RightPrior):
    def fit(self, task):
        task.public.images[9]
        return super().fit(task)


@wrong("bfloat16")
class FloatOnly(RightPrior):
    def change(self, model):
        forward = model.forward

        def strict(latents):
            (latents @ latents.T).detach().cpu().numpy()
            return forward(latents)

        model.forward = strict


# --- metrics -------------------------------------------------------------------------------------


class RightMetric(AttackMetric):
    """The target's confidence."""

    summary = "confidence"
    quantities = {"number": Quantity("the target's confidence", "lower", "share")}  # noqa: RUF012

    def values(self, evidence):
        from mia_bench.models.inference import predict_probabilities

        rows = predict_probabilities(evidence.target, evidence.images, device=evidence.device)
        return rows.gather(1, evidence.labels[:, None]).squeeze(1).double().numpy()

    def compute(self, evidence):
        return {"number": Measurement(self.values(evidence), evidence.labels.numpy())}


@wrong("names")
class NoDescription(RightMetric):
    quantities = {"number": Quantity("", "lower", "share")}  # noqa: RUF012


@wrong("names")
class NoDirection(RightMetric):
    quantities = {"number": Quantity("the target's confidence", "up")}  # noqa: RUF012


@wrong("runs")
class OtherName(RightMetric):
    def compute(self, evidence):
        return {"other": next(iter(super().compute(evidence).values()))}


@wrong("measurements")
class PlainNumber(RightMetric):
    def compute(self, evidence):
        return {"number": float(self.values(evidence).sum())}


@wrong("measurements")
class PairedMedian(RightMetric):
    quantities = {"number": Quantity("confidence", "lower", "share", paired=True)}  # noqa: RUF012

    def compute(self, evidence):
        groups = evidence.labels.numpy()
        return {"number": Measurement(self.values(evidence), groups, max)}


@wrong("names")
class NoCeiling(RightMetric):
    quantities = {"number": Quantity("confidence", ceiling="real")}  # noqa: RUF012


@wrong("measurements")
class OtherGroups(RightMetric):
    def compute(self, evidence):
        return {"number": Measurement(self.values(evidence), evidence.labels[1:].numpy())}


@wrong("untouched")
class Awakening(RightMetric):
    def compute(self, evidence):
        computed = super().compute(evidence)
        evidence.target.train()
        return computed


@wrong("untouched")
class Painting(RightMetric):
    def compute(self, evidence):
        computed = super().compute(evidence)
        evidence.images.zero_()
        return computed


@wrong("repeatable")
class Growing(RightMetric):
    def values(self, evidence):
        return super().values(evidence) * next(counter)


@wrong("global-state")
class NumpyMetric(RightMetric):
    def values(self, evidence):
        import numpy as np

        return super().values(evidence) * (1 + 0.1 * np.random.rand())


@wrong("global-state")
class NumpyOnce(RightMetric):
    seeded = False

    def values(self, evidence):
        import numpy as np

        if not NumpyOnce.seeded:
            np.random.seed(3)
            NumpyOnce.seeded = True
        return super().values(evidence)


@wrong("nan")
class LikeliestOfNothing(RightMetric):
    def values(self, evidence):
        import torch

        from mia_bench.api.images import to_float

        with torch.no_grad():
            logits = evidence.target(to_float(evidence.images).to(evidence.device))
        return (logits.argmax(1).cpu() == evidence.labels).double().numpy()


@wrong("no-samples")
class ZeroOfNothing(RightMetric):
    def compute(self, evidence):
        import numpy as np

        if not len(evidence.images):
            return {"number": Measurement(np.zeros(1), np.zeros(1, dtype=np.int64))}
        return super().compute(evidence)


@wrong("no-samples")
class DividesByNothing(RightMetric):
    def compute(self, evidence):
        1 / len(evidence.images)
        return super().compute(evidence)


@wrong("no-encoder")
class TrustsTheEncoder(RightMetric):
    needs_gallery = True

    def compute(self, evidence):
        evidence.embed(evidence.images.float() / 255)
        return super().compute(evidence)


@wrong("few-images")
class NeedsMany(RightMetric):
    def compute(self, evidence):
        if 0 < len(evidence.images) < 3:
            raise ValueError("too few")
        return super().compute(evidence)


# --- data sets -----------------------------------------------------------------------------------


class RightDataset(Dataset):
    """The toy world's."""

    summary = "toy"
    terms = "none"
    needs_root = False

    def fingerprint(self, root):
        return "toy"

    def load(self, root, **more):
        from mia_bench.testing.world import world

        return self.change(world().splits)

    def change(self, splits):
        return splits


@wrong("terms")
class NoTerms(RightDataset):
    terms = ""


@wrong("missing-files")
class RawError(RightDataset):
    needs_root = True
    layout = "<data>/list.txt"
    origin = "nowhere"

    def fingerprint(self, root):
        return (root / "list.txt").read_text()


@wrong("runs")
class Unloadable(RightDataset):
    def change(self, splits):
        raise RuntimeError("no")


@wrong("runs")
class ChangingFingerprint(RightDataset):
    def fingerprint(self, root):
        return str(next(counter))


@wrong("parts")
class Floats(RightDataset):
    def change(self, splits):
        from dataclasses import replace

        return replace(splits, train=ImageSet(splits.train.images.float() / 255, splits.train.labels))


@wrong("parts")
class MissingClass(RightDataset):
    def change(self, splits) -> Splits:
        from dataclasses import replace

        return replace(splits, class_names=(*splits.class_names, "nobody"))


@wrong("disjoint")
class Overlapping(RightDataset):
    def change(self, splits):
        from dataclasses import replace

        return replace(splits, test=splits.train)


@wrong("repeatable")
class Restless(RightDataset):
    def change(self, splits):
        from dataclasses import replace

        images = splits.test.images.roll(next(counter), 2)
        return replace(splits, test=ImageSet(images, splits.test.labels))


@wrong("global-state")
class Shuffling(RightDataset):
    def change(self, splits):
        import random

        random.shuffle([1, 2, 3])
        return splits


# --- architectures -------------------------------------------------------------------------------


class RightModel(Architecture):
    """The toy world's network, with ``methods`` of its own and what ``change`` does to it."""

    summary = "toy"

    def build(self, task):
        from mia_bench.testing.world import ToyNetwork

        network = type("Network", (ToyNetwork,), self.methods())(task.num_classes)
        return self.change(network) or network

    def methods(self):
        return {}

    def change(self, network):
        return None


@wrong("runs")
class NoClassifier(RightModel):
    def change(self, network):
        from torch import nn

        return nn.Identity()


@wrong("activations")
class WideHead(RightModel):
    def change(self, network):
        from torch import nn

        network.head = nn.Linear(16, 5)


@wrong("activations")
class TwoAnswers(RightModel):
    def methods(self):
        return {"forward": lambda network, images: network.activations(images).logits + 1}


@wrong("gradients")
class IdleLayer(RightModel):
    def change(self, network):
        from torch import nn

        network.auxiliary = nn.Linear(2, 2)


@wrong("gradients")
class DetachedImages(RightModel):
    def methods(self):
        from mia_bench.api.classifier import Classifier

        return {"activations": lambda net, images: Classifier.activations(net, images.detach())}


@wrong("hooks")
class InPlace(RightModel):
    def change(self, network):
        from torch import nn

        network.blocks[0][2] = nn.ReLU(inplace=True)


@wrong("untouched")
class BatchMeans(RightModel):
    def methods(self):
        def pool(network, hidden):
            rows = hidden.mean(dim=(2, 3))
            return rows - rows.mean(0) / 2

        return {"pool": pool}


@wrong("untouched")
class CountsPasses(RightModel):
    def methods(self):
        def pool(network, hidden):
            network.passes += 1
            return hidden.mean(dim=(2, 3))

        return {"pool": pool}

    def change(self, network):
        import torch

        network.register_buffer("passes", torch.zeros(()))


@wrong("repeatable")
class OwnDraws(RightModel):
    def change(self, network):
        import torch

        generator = torch.Generator()
        generator.seed()
        torch.nn.init.normal_(network.head.weight, generator=generator)


@wrong("seeded")
class Fixed(RightModel):
    def change(self, network):
        for parameter in network.parameters():
            parameter.data.fill_(0.1)


@wrong("saved")
class ScaledByDraw(RightModel):
    def methods(self):
        return {"pool": lambda network, hidden: hidden.mean(dim=(2, 3)) * network.scale}

    def change(self, network):
        import torch

        network.scale = torch.rand(())


@wrong("global-state")
class SetsThreads(RightModel):
    def change(self, network):
        import torch

        torch.set_num_threads(torch.get_num_threads() + 1)


@wrong("bfloat16")
class ThroughNumPy(RightModel):
    def change(self, network):
        network.head.register_forward_hook(lambda *seen: seen[2].detach().numpy().sort())


# --- encoders ------------------------------------------------------------------------------------


class RightEncoder(Encoder):
    """Thumbnails."""

    summary = "thumbnails"
    terms = "no weights"

    def fingerprint(self, weights):
        return "thumbnails"

    def load(self, weights, *, device):
        from torch.nn import functional as F

        return lambda images: self.change(F.adaptive_avg_pool2d(images, 4).flatten(1) - 0.5)

    def change(self, rows):
        from torch.nn import functional as F

        return F.normalize(rows, dim=1)


@wrong("terms")
class NoLicence(RightEncoder):
    terms = ""


@wrong("missing-files")
class AnyFolder(RightEncoder):
    def fingerprint(self, weights):
        return super().fingerprint(weights) if weights is None else str(next(weights.iterdir()))


@wrong("runs")
class Shapeless(RightEncoder):
    def change(self, rows):
        raise ValueError("no")


@wrong("runs")
class NewEachTime(RightEncoder):
    def fingerprint(self, weights):
        return str(next(counter))


@wrong("embeddings")
class AnyNorm(RightEncoder):
    def change(self, rows):
        return 2 * super().change(rows)


@wrong("embeddings")
class DoubleRows(RightEncoder):
    def change(self, rows):
        return super().change(rows).double()


@wrong("alone")
class Whitened(RightEncoder):
    def change(self, rows):
        return super().change(rows - rows.mean(0) / 2)


@wrong("sizes")
class AsLargeAsImages(RightEncoder):
    def load(self, weights, *, device):
        return lambda images: self.change(images.flatten(1) - 0.5)


@wrong("repeatable")
class RandomProjection(RightEncoder):
    def load(self, weights, *, device):
        embed, number = super().load(weights, device=device), next(counter)
        return lambda images: embed(images ** (1 + number % 7))


@wrong("global-state")
class SeedsWhenLoaded(RightEncoder):
    def load(self, weights, *, device):
        import numpy as np

        np.random.seed(0)
        return super().load(weights, device=device)


@wrong("global-state")
class SeedsNumPy(RightEncoder):
    def change(self, rows):
        import numpy as np

        np.random.seed(0)
        return super().change(rows)
