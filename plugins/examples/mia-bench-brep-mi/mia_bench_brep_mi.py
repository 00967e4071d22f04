r"""BREP-MI, a label-only attack by boundary repulsion.

Kahla, Chen, Just, Jia, *Label-Only Model Inversion Attacks via Boundary Repulsion*, CVPR 2022 (arXiv
2203.01925). Prior samples are drawn until the target labels one as the class ``y``. From there, with ``N``
random directions :math:`u_n` of unit length, each latent moves away from what is not ``y``:

.. math:: z \leftarrow z - \frac{\alpha}{N} \sum_{n:\ T(G(z + R u_n)) \ne y} u_n,
          \qquad \alpha = \min(R/3,\ 3),

and wherever the whole sphere is ``y``, the latent is noted and the radius ``R`` grows by a factor. A walk
ends after ``patience`` steps at one radius, or ``steps`` in all. Its result is the latent noted last, or the
one it has reached where the first sphere never fitted.

As in the authors' code, latents are clipped (the points on the sphere are not), and a step that would leave
the class is not made. Differently: a refused step counts (theirs can go on for ever), ``steps`` bounds the
cost, and a sphere grows when all its points are ``y``, as in the paper; their code asks for more than 7/8,
which with 32 points is ``inside=0.9``.

Every image is a walk of its own from a start of its own. A class with too few starts uses those it has
again, in new directions. For a class without any start a label tells nothing to go by: its images are
**unoptimised prior samples**, and a warning names it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pydantic import Field

from mia_bench import Attack, AttackTask, Reconstructions, Setting, hookimpl, lazy_imports
from mia_bench.hookspecs import Register

with lazy_imports():
    import torch
    from torch import Tensor


log = logging.getLogger("mia_bench.brep_mi")

ROUND = 1000
"""Latents of one round of the search for starts."""

TOGETHER = 256
"""Latents that walk together: it bounds the memory, and results don't depend on the batch size."""

LARGEST = 1e6
"""A radius grows no further: where every image is of the class, nothing would stop it."""


@dataclass
class Walk:
    """Latents under way, all on the device.

    Attributes:
        index: ``(n,)`` which of the latents these are.
        labels: ``(n,)`` the class of each.
        latents, noted: ``(n, D)`` now, and when the radius grew last.
        radius: ``(n,)`` of the sphere.
        waited: ``(n,)`` steps at this radius.
    """

    index: Tensor
    labels: Tensor
    latents: Tensor
    noted: Tensor
    radius: Tensor
    waited: Tensor

    def part(self, chosen: Tensor) -> Walk:
        """Those of a mask ``(n,)``."""
        return Walk(**{name: values[chosen] for name, values in vars(self).items()})


class BoundaryRepulsion(Attack):
    """Moves latents away from what the target labels as another class."""

    summary = "BREP-MI: label-only, latents are repelled by the class's boundary"
    paper = "Kahla et al., CVPR 2022, arXiv 2203.01925"
    version = "1"
    access = "label-only"

    class Options(Attack.Options):
        """Options of ``brep-mi``; the defaults are the authors' but ``search`` and ``steps``."""

        search: int = Field(20_000, ge=1, description="latents asked for at most to find starts")
        points: int = Field(32, ge=1, description="points on the sphere, each step")
        radius: float = Field(2.0, gt=0, le=LARGEST, description="of the first sphere")
        growth: float = Field(1.3, gt=1, description="factor by which the radius grows")
        inside: float = Field(
            1.0, gt=0, le=1, description="share of the points of the class at which it grows"
        )
        patience: int = Field(1000, ge=1, description="steps at one radius after which to end")
        steps: int = Field(
            1000,
            ge=0,
            description="steps of one image at most, points + 1 queries each; 0: starts alone",
        )
        clip: float | None = Field(
            1.5, gt=0, description="largest magnitude of a latent's entries; null: any"
        )

    options: Options

    def skip(self, setting: Setting) -> str | None:
        """Its box fits standard normal latents alone."""
        if self.options.clip is not None and not setting.prior.normal_latents:
            return (
                "brep-mi clips standard normal latents; this prior's are mapped ones (clip=null "
                "lifts it, but radius must fit them)"
            )
        return None

    def invert(self, task: AttackTask) -> Reconstructions:
        """Starts of all classes, then all walks; widest sphere first."""
        classes, each = len(task.classes), task.images_per_class
        latents, found = self._starts(task)
        radius = torch.zeros(classes, each)
        labels = task.classes[found].repeat_interleave(each)
        if len(labels):
            ends, reached = self._walks(task, latents[found].flatten(0, 1), labels)
            latents[found] = ends.unflatten(0, (-1, each))
            radius[found] = reached.view(-1, each)
        order = radius.argsort(dim=1, descending=True, stable=True)
        chosen = latents.gather(1, order[:, :, None].expand_as(latents))
        images = task.prior.pictures(
            chosen.flatten(0, 1), device=task.device, batch_size=task.batch_size
        )
        return Reconstructions(images.unflatten(0, (classes, each)), chosen)

    def _starts(self, task: AttackTask) -> tuple[Tensor, Tensor]:
        """Latents ``(K, M, D)`` on the CPU, and ``(K,)`` which classes they are really labelled as."""
        each = task.images_per_class
        pool, answers, asked = [], [], 0
        counts = torch.zeros(len(task.classes), dtype=torch.int64)
        while asked < self.options.search and counts.min() < each:
            size = min(ROUND, self.options.search - asked)
            pool.append(self._clipped(task.prior.sample(size, task.generator)))
            answers.append(_labels(task, pool[-1].to(task.device)).cpu())
            counts += (answers[-1] == task.classes[:, None]).sum(1)
            asked += size
            task.progress(asked, self.options.search, "sample")
        latents, labels = torch.cat(pool), torch.cat(answers)
        spare = task.prior.sample(len(counts) * each, task.generator).unflatten(0, (-1, each))
        for number, label in enumerate(task.classes):
            own = latents[labels == label][:each]
            if len(own):
                spare[number] = own[torch.arange(each) % len(own)]
        found = counts > 0
        if not found.all():
            names = ", ".join(map(str, task.classes[~found].tolist()))
            log.warning(
                "brep-mi: none of %d prior samples is labelled as class %s; unoptimised prior "
                "samples stand in",
                asked,
                names,
            )
        return spare, found

    def _walks(self, task: AttackTask, starts: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Ends ``(L, D)`` of walks from starts of the classes ``(L,)``, and radii ``(L,)``; CPU."""
        groups = list(zip(starts.split(TOGETHER), labels.split(TOGETHER), strict=True))
        total = len(groups) * self.options.steps
        ended = [
            self._walk(task, start, label, number * self.options.steps, total)
            for number, (start, label) in enumerate(groups)
        ]
        ends, radii = zip(*ended, strict=True)
        return torch.cat(ends), torch.cat(radii)

    def _walk(
        self, task: AttackTask, starts: Tensor, labels: Tensor, done: int, total: int
    ) -> tuple[Tensor, Tensor]:
        """One group of walks; ``done`` of ``total`` steps came before."""
        first = starts.to(task.device)
        size = len(first)
        walk = Walk(
            index=torch.arange(size, device=task.device),
            labels=labels.to(task.device),
            latents=first,
            noted=first,
            radius=torch.full((size,), self.options.radius, device=task.device),
            waited=torch.zeros(size, dtype=torch.int64, device=task.device),
        )
        ends, radii = first.clone(), walk.radius.clone()
        check = self.options.patience  # before this step no walk can end
        for step in range(self.options.steps):
            if step >= check:
                going = walk.waited < self.options.patience
                self._note(walk.part(~going), ends, radii)
                walk = walk.part(going)
                if not len(walk.index):
                    break
                check = step + self.options.patience - int(walk.waited.max())
            self._step(task, walk)
            task.progress(done + step + 1, total, "step")
        self._note(walk, ends, radii)
        return ends.cpu(), radii.cpu()

    def _note(self, walk: Walk, ends: Tensor, radii: Tensor) -> None:
        """Write what walks have come to: what was noted, or the latent where no sphere fitted."""
        grew = walk.radius > self.options.radius
        ends[walk.index] = walk.noted.where(grew[:, None], walk.latents)
        radii[walk.index] = walk.radius

    def _step(self, task: AttackTask, walk: Walk) -> None:
        """Ask about a sphere round each latent, move it and grow its radius; ``points + 1`` queries."""
        options = self.options
        size, width = walk.latents.shape
        directions = torch.randn(size, options.points, width, generator=task.generator)
        directions = (directions / directions.norm(dim=2, keepdim=True)).to(task.device)
        sphere = walk.latents[:, None] + walk.radius[:, None, None] * directions
        answers = _labels(task, sphere.flatten(0, 1)).view(size, options.points)
        outside = (answers != walk.labels[:, None]).to(directions.dtype)
        away = -torch.einsum("np,npd->nd", outside, directions) / options.points
        stride = (walk.radius / 3).clamp(max=3)
        moved = self._clipped(walk.latents + stride[:, None] * away)
        stays = _labels(task, moved) == walk.labels
        grows = (1 - outside).mean(1) >= options.inside
        walk.latents = moved.where(stays[:, None], walk.latents)
        walk.noted = walk.latents.where(grows[:, None], walk.noted)
        walk.radius = (walk.radius * options.growth).clamp(max=LARGEST).where(grows, walk.radius)
        walk.waited = (walk.waited + 1).where(~grows, 0)

    def _clipped(self, latents: Tensor) -> Tensor:
        clip = self.options.clip
        return latents if clip is None else latents.clamp(-clip, clip)


def _labels(task: AttackTask, latents: Tensor) -> Tensor:
    """The target's answers ``(N,)`` to the images of latents ``(N, D)``, all on the device."""
    with torch.no_grad():
        return torch.cat(
            [task.access.labels(task.prior(chunk)) for chunk in latents.split(task.batch_size)]
        )


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    """Register ``brep-mi``."""
    register("brep-mi", BoundaryRepulsion)
