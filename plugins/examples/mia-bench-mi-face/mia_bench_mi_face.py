r"""MI-Face: gradient descent on the pixels, without a prior.

Fredrikson, Jha, Ristenpart, *Model Inversion Attacks that Exploit Confidence Information and Basic
Countermeasures*, CCS 2015 (doi 10.1145/2810103.2813677). With the target's probability :math:`p_y` of the
class and the total variation, the mean absolute difference of neighbouring pixels, each image minimises

.. math:: -\log p_y(x) + \lambda \operatorname{TV}(x)

by Adam, projected on [0, 1] after each step. It starts at the mean public image with noise. Of all steps the
image with the lowest loss is kept.

The authors minimise :math:`1 - p_y`, whose gradient vanishes where the class is unlikely, by plain descent
from a blank image, and denoise each image instead of penalising its variation.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mia_bench import Attack, AttackTask, Reconstructions, Register, hookimpl, lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, vertical and horizontal ones added, ``(N,)``."""
    vertical, horizontal = images.diff(dim=2).abs(), images.diff(dim=3).abs()
    return vertical.mean((1, 2, 3)) + horizontal.mean((1, 2, 3))


class PixelDescent(Attack):
    """Gradient descent on pixels for the target's confidence and little variation."""

    summary = "MI-Face: gradient descent on pixels, with total variation and no prior"
    paper = "Fredrikson et al., CCS 2015, doi 10.1145/2810103.2813677"
    version = "1"
    access = "white-box"
    trial_options: ClassVar = {"steps": 4}

    class Options(Attack.Options):
        """Options of ``mi-face``."""

        steps: int = Field(200, ge=1, description="steps of the descent, a query each")
        learning_rate: float = Field(0.02, gt=0, description="of Adam, for pixels from 0 to 1")
        variation: float = Field(5.0, ge=0, description="weight of the total variation")
        noise: float = Field(0.1, ge=0, description="standard deviation of the starts' noise")
        eot: int = Field(8, ge=1, description="answers averaged where the target answers at random")

    options: Options

    def invert(self, task: AttackTask) -> Reconstructions:
        """Optimise every image of every class from its own start, and sort each class by its loss."""
        classes, each = len(task.classes), task.images_per_class
        mean = task.public.images.float().mean(0) / 255
        noise = torch.randn(classes * each, *mean.shape, generator=task.generator)
        starts = (mean + self.options.noise * noise).clamp(0, 1)
        labels = task.classes.repeat_interleave(each)
        batches = list(zip(starts.split(task.batch_size), labels.split(task.batch_size), strict=True))
        images, losses = [], []
        for number, (start, label) in enumerate(batches):
            best, lowest = self._descend(task, start.to(task.device), label.to(task.device))
            images.append(best.cpu())
            losses.append(lowest.cpu())
            task.progress(number + 1, len(batches), "batch")
        order = torch.cat(losses).view(classes, each).argsort(dim=1, stable=True)
        found = torch.cat(images).unflatten(0, (classes, each))
        return Reconstructions(torch.stack([found[k, order[k]] for k in range(classes)]))

    def _descend(self, task: AttackTask, starts: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The best images ``(N, 3, H, W)`` on the way, and their losses ``(N,)``."""
        images = starts.clone().requires_grad_(True)
        adam = torch.optim.Adam([images], lr=self.options.learning_rate)
        best, lowest = starts, torch.full((len(starts),), torch.inf, device=starts.device)
        for _ in range(self.options.steps):
            losses = self._losses(task, images, labels)
            lower = losses.detach() < lowest
            best = images.detach().clone().where(lower[:, None, None, None], best)
            lowest = torch.minimum(losses.detach(), lowest)
            adam.zero_grad()
            losses.sum().backward()  # a sum: an image does not depend on its batch
            adam.step()
            with torch.no_grad():
                images.clamp_(0, 1)
        return best, lowest

    def _losses(self, task: AttackTask, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of each image ``(N,)``, averaged over the answers of a random target."""
        answers = task.access.answers(images, draws=self.options.eot)
        entropies = F.cross_entropy(answers.flatten(0, 1), labels.repeat(len(answers)), reduction="none")
        return entropies.view(len(answers), -1).mean(0) + self.options.variation * total_variation(images)


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    """Register ``mi-face``."""
    register("mi-face", PixelDescent)
