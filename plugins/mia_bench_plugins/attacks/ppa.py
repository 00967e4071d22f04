r"""Plug & Play Attacks.

Struppek, Hintersdorf, De Almeida Correia, Adler, Kersting, *Plug & Play Attacks: Towards Robust and
Flexible Model Inversion Attacks*, ICML 2022 (arXiv 2201.12179). Three stages:

1. **Initial selection.** Sample ``search`` truncated latents, score each by the target's softmax
   averaged over the image and its mirror image, keep the best ``candidates`` of each class.
2. **Optimisation.** Adam on each candidate's latent for ``steps`` steps of a random resized crop,
   minimising the Poincaré distance between the L1-normalised logits :math:`u = o/\|o\|_1` and the
   one-hot label :math:`v` clipped to :math:`[0, 1-10^{-4}]`:

   .. math:: \operatorname{arccosh}\Bigl(1 + \frac{2\|u-v\|^2}{(1-\|u\|^2)(1-\|v\|^2)}\Bigr).

   ``loss`` chooses others, for logits ``o`` and the class ``y``: cross-entropy, the margin
   :math:`-o_y + \max_{j\ne y} o_j` of PLG-MI (Yuan et al., AAAI 2023, arXiv 2302.09814), and the logit
   :math:`-o_y` of LOMMA (Nguyen et al., CVPR 2023, arXiv 2304.01669) without its regulariser. The gradient
   is averaged over ``augment_average`` crops of the image at each step, which is the
   transformation-averaged alignment of AlignMI (NeurIPS 2025).
3. **Final selection.** Of the results keep those with the highest mean target confidence over
   ``views`` random crops.

With ``steps=0`` the best images of the initial selection are returned. Unlike in the authors' code, the
latents that are scored are the ones that are optimised, and each image has its own crops; theirs share one in
a batch. The initial selection is made once for all classes, which are then optimised together in full
batches. For a stochastic target, gradients and scores are averaged over ``eot`` answers (expectation over
transformation, Athalye et al., ICML 2018).

Diagnostics, of each step before it is taken: ``loss``, ``gradient_norm`` in the latent space, and
``gradient_cosine``, that between this gradient and the one of the step before (NaN at the first step, and
where one of them is 0); means over the candidates of a class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mia_bench import Attack, AttackTask, Reconstructions, Register, Setting, hookimpl, lazy_imports
from mia_bench.api.access import AccessLevel
from mia_bench.api.options import Share
from mia_bench.augment import random_resized_crop
from mia_bench.memory import upload

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

Area = Annotated[float, Field(gt=0, le=1)]
Range = tuple[Area, Area]


def poincare_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Poincaré distance of each row ``(N,)``, in float32 or better: in bfloat16 the denominator is 0.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)`` int64.
    """
    logits = _precise(logits)
    u = logits / logits.abs().sum(1, keepdim=True).clamp_min(1e-12)
    v = (F.one_hot(labels, logits.shape[1]).to(logits.dtype) - 1e-4).clamp(0, 1)
    squares = ((u - v) ** 2).sum(1)
    # u reaches the unit sphere if a single logit is not 0: keep away from the boundary.
    inside_u = (1 - (u**2).sum(1)).clamp_min(1e-6)
    inside_v = 1 - (v**2).sum(1)
    return torch.acosh(1 + 2 * squares / (inside_u * inside_v) + 1e-7)


def cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row ``(N,)``, in float32 or better; arguments as of :func:`poincare_loss`."""
    return F.cross_entropy(_precise(logits), labels, reduction="none")


def max_margin_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit less that of the class ``(N,)``; arguments as of :func:`poincare_loss`."""
    logits, index = _precise(logits), labels[:, None]
    return logits.scatter(1, index, -torch.inf).amax(1) - logits.gather(1, index).squeeze(1)


def logit_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The negative logit of the class ``(N,)``; arguments as of :func:`poincare_loss`."""
    return -_precise(logits).gather(1, labels[:, None]).squeeze(1)


def _precise(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


Step = Literal["selection", "optimisation", "final_selection"]

Loss = Literal["poincare", "cross-entropy", "max-margin", "logit"]

LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "poincare": poincare_loss,
    "cross-entropy": cross_entropy_loss,
    "max-margin": max_margin_loss,
    "logit": logit_loss,
}


class PlugAndPlay(Attack):
    """Search, optimise and select latents of a public image prior."""

    summary = "Plug & Play: search, optimise and select latents of a public prior"
    paper = "Struppek et al., ICML 2022, arXiv 2201.12179"
    version = "1"
    access: ClassVar[AccessLevel] = "white-box"
    trial_options: ClassVar = {"search": 24, "candidates": 3, "steps": 2, "views": 3}

    class Options(Attack.Options):
        """Options of ``ppa``; the defaults are the paper's for FaceScrub."""

        search: int = Field(2000, ge=1, description="latents sampled for the initial selection")
        candidates: int = Field(200, ge=1, description="latents kept and optimised a class")
        truncation: float = Field(0.5, ge=0, le=1, description="of the latents sampled")
        steps: int = Field(50, ge=0, description="optimisation steps; 0: initial selection only")
        learning_rate: float = Field(0.005, gt=0, description="of Adam, in the latent space")
        betas: tuple[Share, Share] = Field((0.1, 0.1), description="of Adam, each below 1")
        loss: Loss = Field("poincare", description="identity loss")
        augment_average: int = Field(1, ge=1, description="crops of an image that a step averages over")
        crop: Range = Field((0.9, 1.0), description="area range of the random crops while optimising")
        views: int = Field(100, ge=1, description="random crops that score the final selection")
        views_crop: Range = Field(
            (0.5, 0.9), description="area range of those crops (ratio 0.8 to 1.2, with mirroring)"
        )
        eot: int = Field(8, ge=1, description="answers averaged where the target answers at random")

        @model_validator(mode="after")
        def _enough_candidates(self) -> PlugAndPlay.Options:
            if self.candidates > self.search:
                raise ValueError(f"candidates={self.candidates} exceed search={self.search}")
            for low, high in (self.crop, self.views_crop):
                if low > high:
                    raise ValueError(f"a range runs from low to high, not from {low} to {high}")
            return self

    options: Options

    def skip(self, setting: Setting) -> str | None:
        if setting.images_per_class > self.options.candidates:
            return (
                f"candidates={self.options.candidates} are fewer than the "
                f"{setting.images_per_class} images a class that the track asks for"
            )
        return None

    def prepare(self, task: AttackTask) -> dict[str, Tensor]:
        """The initial selection, once for all classes.

        Returns ``latents`` ``(S, D)``, and ``best`` ``(K, candidates)``, the positions of the best ones for
        each of ``classes`` ``(K,)``, best first.
        """
        task = self._on(task, "selection")
        latents = task.prior.sample(self.options.search, task.generator, truncation=self.options.truncation)
        scores, classes, done = [], upload(task.classes, task.device), 0
        with torch.no_grad():
            for chunk in latents.split(task.batch_size):
                images = task.prior(upload(chunk, task.device))
                views = [
                    task.access.probabilities(view, draws=self.options.eot)
                    for view in (images, images.flip(3))
                ]
                scores.append(torch.stack(views).mean(0)[:, classes].cpu())
                done += len(chunk)
                task.progress(done, len(latents), "latent")
        best = torch.cat(scores).topk(self.options.candidates, dim=0).indices.T
        return {"classes": task.classes, "latents": latents, "best": best}

    def invert(self, task: AttackTask) -> Reconstructions:
        rows = task.rows(task.state["classes"])
        latents = task.state["latents"][task.state["best"][rows]]
        classes, each, width = latents.shape
        diagnostics: dict[str, Tensor] = {}
        if not self.options.steps:
            chosen = latents[:, : task.images_per_class]
        else:
            labels = task.classes.repeat_interleave(each)
            optimised, watched = self._optimise(self._on(task, "optimisation"), latents.flatten(0, 1), labels)
            diagnostics = {
                name: values.unflatten(0, (classes, each)).nanmean(1) for name, values in watched.items()
            }
            final = self._on(task, "final_selection")
            scores = self._final_scores(final, optimised, labels).view(classes, each)
            best = scores.topk(task.images_per_class, dim=1).indices
            index = best[:, :, None].expand(-1, -1, width)
            chosen = optimised.view(classes, each, width).gather(1, index)
        return dataclasses.replace(task.reconstructions(chosen), diagnostics=diagnostics)

    def _on(self, task: AttackTask, step: Step) -> AttackTask:
        """The task as a step sees it; a variant of the attack may put another target in place."""
        return task

    def _optimise(
        self, task: AttackTask, latents: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Optimise latents ``(N, D)`` for labels ``(N,)``, batch by batch; diagnostics ``(N, steps)``."""
        batches = list(zip(latents.split(task.batch_size), labels.split(task.batch_size), strict=True))
        total = len(batches) * self.options.steps
        results, watched = [], []
        for number, (start, label) in enumerate(batches):
            label = upload(label, task.device)
            w = upload(start, task.device).clone().requires_grad_(True)
            adam = torch.optim.Adam([w], lr=self.options.learning_rate, betas=self.options.betas, fused=False)
            before, seen = torch.full_like(w, torch.nan), []
            for step in range(self.options.steps):
                adam.zero_grad(set_to_none=True)
                images = task.prior(w)
                gradient, losses = self._gradient(task, images.detach(), label)
                images.backward(gradient)
                assert w.grad is not None
                largest = w.grad.abs().amax(1, keepdim=True)
                unit = w.grad / largest  # the square of a tiny gradient is 0; NaN where it is 0
                norms = (largest.squeeze(1) * unit.norm(dim=1)).nan_to_num(nan=0.0)
                seen.append(torch.stack([losses, norms, F.cosine_similarity(unit, before)], dim=1))
                before = unit
                adam.step()
                task.progress(number * self.options.steps + step + 1, total, "step")
            results.append(w.detach().cpu())
            watched.append(torch.stack(seen, dim=2).cpu())
        loss, norm, cosine = torch.cat(watched).unbind(1)
        return torch.cat(results), {"loss": loss, "gradient_norm": norm, "gradient_cosine": cosine}

    def _gradient(self, task: AttackTask, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient ``(N, 3, H, W)`` of each image's loss, and the loss ``(N,)``, averaged over random crops.

        As many crops pass through the target at once as fit in a batch.
        """
        images.requires_grad_(True)
        mean = torch.zeros(len(images), device=task.device)
        left, together = self.options.augment_average, max(1, task.batch_size // len(images))
        while left:
            crops = min(left, together)
            left -= crops
            views = random_resized_crop(
                images.repeat(crops, 1, 1, 1), task.generator, scale=self.options.crop
            )
            answers = task.access.answers(views, draws=self.options.eot)
            losses = LOSSES[self.options.loss](answers.flatten(0, 1), labels.repeat(len(answers) * crops))
            # A sum over candidates: the gradient of one must not depend on its batch.
            (losses.sum() / (len(answers) * self.options.augment_average)).backward()
            mean += losses.detach().view(-1, len(images)).sum(0) / len(answers)
        assert images.grad is not None
        return images.grad, mean / self.options.augment_average

    def _final_scores(self, task: AttackTask, latents: Tensor, labels: Tensor) -> Tensor:
        """Mean target confidence ``(N,)`` over random crops."""
        rows = []
        batches = zip(latents.split(task.batch_size), labels.split(task.batch_size), strict=True)
        with torch.no_grad():
            for chunk, label in batches:
                images, index = task.prior(upload(chunk, task.device)), upload(label, task.device)[:, None]
                total = torch.zeros(len(chunk), device=task.device)
                for _ in range(self.options.views):
                    views = random_resized_crop(
                        images, task.generator, scale=self.options.views_crop, ratio=(0.8, 1.2), flips=True
                    )
                    probabilities = task.access.probabilities(views, draws=self.options.eot)
                    total += probabilities.gather(1, index).squeeze(1)
                rows.append(total.cpu() / self.options.views)
        return torch.cat(rows)


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    register("ppa", PlugAndPlay)
