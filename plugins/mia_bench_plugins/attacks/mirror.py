r"""MIRROR's black-box attack, a genetic search among the latents of a prior.

An, Tao, Xu, Liu, Shen, Yao, Xu, Zhang, *MIRROR: Model Inversion for Deep Learning Network with High
Fidelity*, NDSS 2022. It needs the target's probabilities :math:`p_y` alone.

1. **Start.** Of ``search`` truncated samples of the prior, the ``population`` likeliest of each class.
2. **Generations.** The best member stays. The parents of every other are drawn with probabilities in
   proportion to their :math:`p_y`. Each entry of a child is that of its first parent with probability
   :math:`p_y^{(1)} / (p_y^{(1)} + p_y^{(2)})`, else that of the second. With probability ``mutation`` it is
   shifted by :math:`\mathcal U(-s, s)\,\sigma`, and then clipped to :math:`\mu \pm c\,\sigma`, where
   :math:`\mu` and :math:`\sigma` are the entry's mean and standard deviation over the samples and :math:`c`
   is ``clip``.
3. **End.** The best members of the last generation are returned.

All of this happens in P (Zhu et al., arXiv 2012.09036), where the last activation of the prior's mapping
network, a leaky ReLU, is undone; without a mapping network these are the latents themselves.

As in the authors' code, ``s`` starts at ``scale``; here it is multiplied by ``decay`` in every generation.
Every child has shifts of its own here, where their code draws them once for all children of a generation, and
the starts are clipped, too, before the target is asked about them.
Unlike in their code, a search never ends early, so that its budget is exact: ``search`` queries, and
``population - 1`` in each generation of each population. Their code mixes the parents' entries by log
probabilities, which prefers the worse parent.

Each class has ``populations`` that exchange nothing; the starts are dealt out among them. All populations of
all classes are asked about together. For a target that answers at random, probabilities are averaged over
``eot`` answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field, model_validator

from mia_bench import Attack, AttackTask, Reconstructions, Register, Setting, hookimpl, lazy_imports
from mia_bench.memory import upload

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from mia_bench.api.generative import GenerativeModel


@dataclass(frozen=True)
class Space:
    """P, and the part of it that is searched.

    Attributes:
        slope: of the mapping network's last activation for negative numbers; 1 without one.
        mean, spread: of each entry over samples of the prior, ``(D,)``.
        reach: how many times its spread an entry may be from its mean.
    """

    slope: float
    mean: Tensor
    spread: Tensor
    reach: float

    @classmethod
    def of(cls, prior: GenerativeModel, samples: Tensor, reach: float) -> Space:
        """The space of a prior, from latents ``(N, D)`` that it sampled."""
        points = F.leaky_relu(samples, 1 / prior.latent_slope)
        return cls(prior.latent_slope, points.mean(0), points.std(0, correction=0), reach)

    def points(self, latents: Tensor) -> Tensor:
        """Points of latents ``(..., D)``, clipped."""
        return self.clipped(F.leaky_relu(latents, 1 / self.slope))

    def latents(self, points: Tensor) -> Tensor:
        """Latents of points ``(..., D)``."""
        return F.leaky_relu(points, self.slope)

    def clipped(self, points: Tensor) -> Tensor:
        """Points ``(..., D)``, each entry within its reach."""
        margin = self.reach * self.spread
        return points.clamp(self.mean - margin, self.mean + margin)


def crossed(points: Tensor, fitness: Tensor, children: int, generator: torch.Generator) -> Tensor:
    """Children ``(R, C, D)`` of populations ``(R, P, D)`` with fitness ``(R, P)``, log probabilities."""
    parents = torch.multinomial(fitness.softmax(1), 2 * children, replacement=True, generator=generator)
    first, second = parents.split(children, dim=1)
    # p1 / (p1 + p2), from logarithms
    share = (fitness.gather(1, first) - fitness.gather(1, second)).sigmoid()
    chosen = torch.rand(*first.shape, points.shape[2], generator=generator) < share[:, :, None]
    rows = torch.arange(len(points))[:, None]
    return torch.where(chosen, points[rows, first], points[rows, second])


def mutated(
    points: Tensor, space: Space, scale: float, probability: float, generator: torch.Generator
) -> Tensor:
    """Points ``(R, C, D)`` with some entries shifted by up to ``scale`` times their spread, clipped."""
    shifted = torch.rand(points.shape, generator=generator) < probability
    noise = (2 * torch.rand(points.shape, generator=generator) - 1) * (scale * space.spread)
    return space.clipped(points + noise * shifted)


class GeneticSearch(Attack):
    """A genetic search of latents for the target's probability of the class."""

    summary = "MIRROR: black-box, genetic search of latents by the target's probabilities"
    paper = "An et al., NDSS 2022"
    version = "1"
    access = "black-box"
    trial_options: ClassVar = {"search": 24, "population": 4, "generations": 2}

    class Options(Attack.Options):
        """Options of ``mirror``; the defaults are the authors' but ``search``, ``decay`` and ``clip``."""

        search: int = Field(2000, ge=1, description="latents sampled for the first generation")
        truncation: float = Field(0.7, ge=0, le=1, description="of the latents sampled")
        population: int = Field(100, ge=2, description="members of a population")
        populations: int = Field(1, ge=1, description="populations of a class, each by itself")
        generations: int = Field(100, ge=0, description="generations; 0: the first one alone")
        mutation: float = Field(0.1, ge=0, le=1, description="probability that an entry is shifted")
        scale: float = Field(0.1, ge=0, description="largest shift at first, in standard deviations")
        decay: float = Field(0.98, gt=0, le=1, description="factor of the scale, each generation")
        clip: float = Field(1.0, gt=0, description="largest distance from the mean, in standard deviations")
        eot: int = Field(8, ge=1, description="answers averaged where the target answers at random")

        @model_validator(mode="after")
        def _enough_samples(self) -> GeneticSearch.Options:
            if self.population * self.populations > self.search:
                needed = f"population={self.population} times populations={self.populations}"
                raise ValueError(f"{needed} exceed search={self.search}")
            return self

    options: Options

    def skip(self, setting: Setting) -> str | None:
        members = self.options.population * self.options.populations
        if setting.images_per_class > members:
            return (
                f"the populations of a class have {members} members, fewer than the "
                f"{setting.images_per_class} images a class that the track asks for"
            )
        return None

    def prepare(self, task: AttackTask) -> dict[str, Tensor]:
        """The start, once for all classes.

        Returns ``samples`` ``(S, D)`` of the prior; ``best`` ``(N, K)``, the positions of the best ones for
        each of ``classes`` ``(K,)``, best first; and ``fitness`` ``(N, K)``, their log probabilities.
        """
        options = self.options
        samples = task.prior.sample(options.search, task.generator, truncation=options.truncation)
        space = Space.of(task.prior, samples, options.clip)
        rows = [
            self._logarithms(task, space, chunk)[:, task.classes]
            for chunk in space.points(samples).split(task.batch_size)
        ]
        best = torch.cat(rows).topk(options.population * options.populations, dim=0)
        found = {"best": best.indices, "fitness": best.values}
        return {"classes": task.classes, "samples": samples, **found}

    def invert(self, task: AttackTask) -> Reconstructions:
        space, points, fitness = self._start(task)
        labels = task.classes.repeat_interleave(self.options.populations)[:, None]
        children, scale = self.options.population - 1, self.options.scale
        for generation in range(self.options.generations):
            born = crossed(points, fitness, children, task.generator)
            born = mutated(born, space, scale, self.options.mutation, task.generator)
            born_fitness = self._fitness(task, space, born, labels.expand(-1, children))
            best = fitness.argmax(1, keepdim=True)
            elite = points.gather(1, best[:, :, None].expand(-1, -1, points.shape[2]))
            points = torch.cat([elite, born], dim=1)
            fitness = torch.cat([fitness.gather(1, best), born_fitness], dim=1)
            scale *= self.options.decay
            task.progress(generation + 1, self.options.generations, "generation")
        return task.reconstructions(space.latents(self._best(task, points, fitness)))

    def _start(self, task: AttackTask) -> tuple[Space, Tensor, Tensor]:
        """The space, and the first populations ``(R, P, D)`` with their fitness ``(R, P)``.

        The populations of a class follow each other; the best samples are dealt out among them.
        """
        each = (self.options.population, self.options.populations)
        samples = task.state["samples"]
        space = Space.of(task.prior, samples, self.options.clip)
        rows = task.rows(task.state["classes"])
        best, fitness = (
            task.state[name].T[rows].unflatten(1, each).transpose(1, 2).flatten(0, 1)
            for name in ("best", "fitness")
        )
        return space, space.points(samples)[best], fitness

    def _fitness(self, task: AttackTask, space: Space, points: Tensor, labels: Tensor) -> Tensor:
        """Log probabilities of the labels ``(R, C)`` for points ``(R, C, D)``."""
        rows, index = points.flatten(0, 1), labels.flatten()[:, None]
        batches = zip(rows.split(task.batch_size), index.split(task.batch_size), strict=True)
        answers = [self._logarithms(task, space, chunk).gather(1, label) for chunk, label in batches]
        return torch.cat(answers).view(labels.shape)

    def _logarithms(self, task: AttackTask, space: Space, points: Tensor) -> Tensor:
        """Log probabilities ``(N, C)`` of the images of points ``(N, D)``, on the CPU."""
        with torch.no_grad():
            images = task.prior(upload(space.latents(points), task.device))
            probabilities = task.access.probabilities(images, draws=self.options.eot).float().cpu()
        return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()

    def _best(self, task: AttackTask, points: Tensor, fitness: Tensor) -> Tensor:
        """The best points ``(K, M, D)`` of each class, as many of each of its populations, best first."""
        populations, width = self.options.populations, points.shape[2]
        each = -(-task.images_per_class // populations)
        best = fitness.topk(each, dim=1)
        chosen = points.gather(1, best.indices[:, :, None].expand(-1, -1, width))
        chosen = chosen.view(len(task.classes), populations * each, width)
        order = best.values.view(len(task.classes), -1).topk(task.images_per_class, dim=1).indices
        return chosen.gather(1, order[:, :, None].expand(-1, -1, width))


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    register("mirror", GeneticSearch)
