r"""GMI, the generative model inversion attack.

Zhang, Jia, Pei, Wang, Li, Song, *The Secret Revealer: Generative Model-Inversion Attacks Against Deep
Neural Networks*, CVPR 2020 (arXiv 1911.07135). With the generator ``G`` and the critic ``D`` of a
WGAN-GP trained on public images, each image is the latent that minimises

.. math:: -D(G(z)) + \lambda\,\bigl(-\log p_y(G(z))\bigr)

by gradient descent with Nesterov momentum, with ``z`` clipped to ``[-clip, clip]`` after every step. Of
``restarts`` random starts of each image, the one with the highest target confidence is kept (in the authors'
code that with the highest logit, which differs where several confidences are 1).

The losses of a batch are summed, so that an image does not depend on its batch. The authors' code takes the
mean over its batch of 100 images, with a learning rate of 0.02: the same steps as the sum's with 0.0002, the
default here.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mia_bench import Attack, AttackTask, Reconstructions, Register, Setting, hookimpl, lazy_imports
from mia_bench.memory import upload

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F


class GenerativeModelInversion(Attack):
    """Gradient descent from random latents on the losses of the target and the critic."""

    summary = "GMI: gradient descent on the latents of a WGAN-GP, with its critic"
    paper = "Zhang et al., CVPR 2020, arXiv 1911.07135"
    version = "1"
    access = "white-box"
    trial_options: ClassVar = {"steps": 3, "restarts": 2}

    class Options(Attack.Options):
        """Options of ``gmi``; the defaults take the steps of the paper's settings."""

        steps: int = Field(1500, ge=0, description="steps of the descent")
        restarts: int = Field(5, ge=1, description="random starts for each image")
        learning_rate: float = Field(
            0.0002,
            gt=0,
            description="of the descent on the sum of a batch's losses; a hundredth of the paper's",
        )
        momentum: float = Field(0.9, gt=0, lt=1, description="Nesterov momentum")
        identity_weight: float = Field(100.0, ge=0, description="weight of the cross-entropy")
        clip: float = Field(1.0, gt=0, description="largest magnitude of a latent's entries")
        eot: int = Field(8, ge=1, description="answers averaged where the target answers at random")

    options: Options

    def skip(self, setting: Setting) -> str | None:
        if not setting.prior.has_discriminator:
            return "gmi needs a prior with a discriminator, such as wgan-gp"
        if not setting.prior.normal_latents:
            return "gmi clips standard normal latents; this prior's are mapped ones"
        return None

    def invert(self, task: AttackTask) -> Reconstructions:
        """Optimise all restarts of all images and return the best restart of each."""
        classes, each, restarts = len(task.classes), task.images_per_class, self.options.restarts
        starts = task.prior.sample(classes * each * restarts, task.generator)
        labels = task.classes.repeat_interleave(each * restarts)
        batches = list(zip(starts.split(task.batch_size), labels.split(task.batch_size), strict=True))
        ends, scores = [], []
        for number, (latents, wanted) in enumerate(batches):
            done = number * self.options.steps
            end = self._descend(task, latents, wanted, done, len(batches) * self.options.steps)
            ends.append(end)
            scores.append(self._confidence(task, end, wanted))
        found = torch.cat(ends).view(classes, each, restarts, -1)
        score = torch.cat(scores).view(classes, each, restarts)
        best = score.argmax(2)
        index = best[:, :, None, None].expand(-1, -1, 1, found.shape[3])
        chosen = found.gather(2, index).squeeze(2)
        # Best first, as every attack returns them.
        order = score.amax(2).argsort(dim=1, descending=True)
        return task.reconstructions(chosen.gather(1, order[:, :, None].expand_as(chosen)))

    def _descend(self, task: AttackTask, latents: Tensor, labels: Tensor, done: int, total: int) -> Tensor:
        """Optimise latents ``(N, D)``; ``done`` of ``total`` steps precede, for the progress report."""
        options = self.options
        wanted = upload(labels, task.device)
        z = upload(latents, task.device).clone().requires_grad_(True)
        descent = torch.optim.SGD([z], lr=options.learning_rate, momentum=options.momentum, nesterov=True)
        for step in range(options.steps):
            descent.zero_grad(set_to_none=True)
            self._objective(task, z, wanted).sum().backward()
            descent.step()
            with torch.no_grad():
                z.clamp_(-options.clip, options.clip)
            task.progress(done + step + 1, total, "step")
        return z.detach().cpu()

    def _objective(self, task: AttackTask, latents: Tensor, labels: Tensor) -> Tensor:
        """The loss of each latent, ``(N,)``."""
        images = task.prior(latents)
        answers = task.access.answers(images, draws=self.options.eot)
        losses = F.cross_entropy(answers.flatten(0, 1), labels.repeat(len(answers)), reduction="none")
        identity = losses.view(len(answers), -1).mean(0)
        return self.options.identity_weight * identity - task.prior.discriminate(images).float()

    def _confidence(self, task: AttackTask, latents: Tensor, labels: Tensor) -> Tensor:
        """The target's probability of the class of each latent, ``(N,)`` on the CPU."""
        with torch.no_grad():
            images = task.prior(upload(latents, task.device))
        answers = task.access.probabilities(images, draws=self.options.eot)
        return answers.gather(1, upload(labels, task.device)[:, None]).squeeze(1).cpu()


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    register("gmi", GenerativeModelInversion)
