r"""BREP-MI, a label-only attack by boundary repulsion.

Kahla, Chen, Just, Jia, *Label-Only Model Inversion Attacks via Boundary Repulsion*, CVPR 2022 (arXiv
2203.01925). Prior samples are drawn until the target labels one as the class ``y``. From there, with ``N``
random directions :math:`u_n` of unit length, each latent moves away from points of other classes:

.. math:: z \leftarrow z - \frac{\alpha}{N} \sum_{n:\ T(G(z + R u_n)) \ne y} u_n,
          \qquad \alpha = \min(R/3,\ 3),

and when the whole sphere is ``y``, the latent is recorded and the radius ``R`` grows by a factor. A walk ends
after ``patience`` steps at one radius, or ``steps`` in total. Its result is the latent recorded last, or its
final latent if no sphere was inside the class.

As in the authors' code, latents are clipped (the points on the sphere are not), and a step that would leave
the class is rejected. Unlike in their code, a rejected step counts (theirs may never end), ``steps`` bounds
the cost, and a sphere grows when all its points are ``y``, as in the paper (their code requires more than
7/8, which with 32 points is ``inside=0.9``).

Every image is a separate walk from its own start. A class with too few starts reuses them, in new directions.
The images of a class without any start are **unoptimised prior samples**, and a warning names it.

The walks of all classes go on together. An attack costs at most ``search`` queries, and ``steps`` times
``points + 1`` for each image. ``radius`` and ``clip`` are the authors' for standard normal latents of 100
dimensions; with more, a sphere of the same radius is smaller along any direction. If the target answers at
random, every label is one draw.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from mia_bench import Attack, AttackTask, Reconstructions, Register, Setting, hookimpl, lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor


log = logging.getLogger("mia_bench.brep_mi")

ROUND = 1000
"""Latents per round of the search for starts."""

GROUP = 256
"""Latents that walk together, which bounds the memory; results do not depend on the batch size."""

LARGEST = 1e6
"""Limit of the radius, in case every image is of the class."""


@dataclass
class Walk:
    """The state of walks that have not ended, on the device.

    Attributes:
        index: position of each latent in its group, ``(n,)``.
        labels: the class of each, ``(n,)``.
        latents, recorded: current latents, and those when the radius last grew, ``(n, D)``.
        radius: of the sphere, ``(n,)``.
        waited: steps at this radius, ``(n,)``.
    """

    index: Tensor
    labels: Tensor
    latents: Tensor
    recorded: Tensor
    radius: Tensor
    waited: Tensor

    def select(self, mask: Tensor) -> Walk:
        """The walks of a mask ``(n,)``."""
        return Walk(**{name: values[mask] for name, values in vars(self).items()})


class BoundaryRepulsion(Attack):
    """Latents move away from points that the target labels as other classes."""

    summary = "BREP-MI: label-only, latents are repelled by the class's boundary"
    paper = "Kahla et al., CVPR 2022, arXiv 2203.01925"
    version = "2"
    access = "label-only"
    trial_options: ClassVar = {"search": 200, "points": 4, "steps": 3}

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
        if self.options.clip is not None and not setting.prior.normal_latents:
            return (
                "brep-mi clips standard normal latents; this prior's are mapped ones (clip=null "
                "lifts it, but radius must fit them)"
            )
        return None

    def prepare(self, task: AttackTask) -> dict[str, Tensor]:
        """Find starts, once for all classes.

        Returns ``starts`` ``(K, M, D)`` of ``classes`` ``(K,)``, and a mask ``found`` ``(K,)`` of the classes
        that have any.
        """
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
        return {"classes": task.classes, "starts": spare, "found": found}

    def invert(self, task: AttackTask) -> Reconstructions:
        """Make all walks; images with the largest radius come first."""
        classes, each = len(task.classes), task.images_per_class
        rows = task.rows(task.state["classes"])
        latents, found = task.state["starts"][rows], task.state["found"][rows]
        radius = torch.zeros(classes, each)
        labels = task.classes[found].repeat_interleave(each)
        if len(labels):
            ends, reached = self._walks(task, latents[found].flatten(0, 1), labels)
            latents[found] = ends.unflatten(0, (-1, each))
            radius[found] = reached.view(-1, each)
        order = radius.argsort(dim=1, descending=True, stable=True)
        return task.reconstructions(latents.gather(1, order[:, :, None].expand_as(latents)))

    def _walks(self, task: AttackTask, starts: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Final latents ``(L, D)`` and radii ``(L,)`` on the CPU of walks for labels ``(L,)``."""
        groups = list(zip(starts.split(GROUP), labels.split(GROUP), strict=True))
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
        """Make one group of walks; ``done`` of ``total`` steps precede, for the progress report."""
        first = starts.to(task.device)
        size = len(first)
        walk = Walk(
            index=torch.arange(size, device=task.device),
            labels=labels.to(task.device),
            latents=first,
            recorded=first,
            radius=torch.full((size,), self.options.radius, device=task.device),
            waited=torch.zeros(size, dtype=torch.int64, device=task.device),
        )
        ends, radii = first.clone(), walk.radius.clone()
        check = self.options.patience  # no walk can end before this step
        for step in range(self.options.steps):
            if step >= check:
                going = walk.waited < self.options.patience
                self._write_results(walk.select(~going), ends, radii)
                walk = walk.select(going)
                if not len(walk.index):
                    break
                check = step + self.options.patience - int(walk.waited.max())
            self._step(task, walk)
            task.progress(done + step + 1, total, "step")
        self._write_results(walk, ends, radii)
        return ends.cpu(), radii.cpu()

    def _write_results(self, walk: Walk, ends: Tensor, radii: Tensor) -> None:
        """Write the recorded latents, or the current ones if the radius never grew."""
        grew = walk.radius > self.options.radius
        ends[walk.index] = walk.recorded.where(grew[:, None], walk.latents)
        radii[walk.index] = walk.radius

    def _step(self, task: AttackTask, walk: Walk) -> None:
        """Query a sphere around each latent, move it and grow its radius; ``points + 1`` queries."""
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
        walk.recorded = walk.latents.where(grows[:, None], walk.recorded)
        walk.radius = (walk.radius * options.growth).clamp(max=LARGEST).where(grows, walk.radius)
        walk.waited = (walk.waited + 1).where(~grows, 0)

    def _clipped(self, latents: Tensor) -> Tensor:
        clip = self.options.clip
        return latents if clip is None else latents.clamp(-clip, clip)


def _labels(task: AttackTask, latents: Tensor) -> Tensor:
    """The target's labels ``(N,)`` of the images of latents ``(N, D)``, on the device."""
    with torch.no_grad():
        return torch.cat([task.access.labels(task.prior(chunk)) for chunk in latents.split(task.batch_size)])


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    register("brep-mi", BoundaryRepulsion)
