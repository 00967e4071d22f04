"""Plug & Play on a student that was distilled from the target's answers.

A black-box attacker who does not follow the target's gradients. A student is trained to give the target's
probabilities (Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, 2015, arXiv
1503.02531) on public images and on samples of the prior. ``ppa`` then attacks the student in the target's
place, as surrogate attacks do (LOMMA, Nguyen et al., CVPR 2023, arXiv 2304.01669): what masks the gradient of
the target is not in the student. The student is the small residual network of this suite, whatever the target
is. It is trained by Adam on the Kullback-Leibler divergence, with images mirrored at random and a learning
rate that falls to 0 by a cosine.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pydantic import Field

from mia_bench import AttackTask, Register, hookimpl, lazy_imports
from mia_bench.api.access import open_access
from mia_bench.api.images import to_float
from mia_bench.memory import upload
from mia_bench.seeds import seeded
from mia_bench_plugins.attacks.ppa import PlugAndPlay, Step

with lazy_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from mia_bench_plugins.models import networks

_STATE = "student."


class DistilledPlugAndPlay(PlugAndPlay):
    """``ppa`` on a student that was trained on the target's answers."""

    summary = "Plug & Play on a student distilled from the target's answers on public images"
    paper = "Hinton et al., 2015, arXiv 1503.02531"
    version = "2"
    by_name = True
    access = "black-box"
    trial_options: ClassVar = {**PlugAndPlay.trial_options, "samples": 16, "student_steps": 2}

    class Options(PlugAndPlay.Options):
        """Options of ``ppa-distilled``: those of ``ppa``, and of the student."""

        samples: int = Field(4000, ge=1, description="samples of the prior beside the public images")
        public: int = Field(4000, ge=0, description="public images at most, drawn at random")
        student_widths: tuple[int, ...] = Field((32, 64, 128), min_length=1, description="of its stages")
        student_steps: int = Field(1000, ge=1, description="training steps of the student")
        student_batch: int = Field(64, ge=2, description="images a step")
        student_rate: float = Field(2e-3, gt=0, description="learning rate of Adam at the start")

    options: Options

    def prepare(self, task: AttackTask) -> dict[str, Tensor]:
        images, answers = self._asked(task)
        student = self._trained(task, images, answers)
        state = {f"{_STATE}{name}": tensor.cpu() for name, tensor in student.state_dict().items()}
        return {**super().prepare(dataclasses.replace(task, state=state)), **state}

    def _asked(self, task: AttackTask) -> tuple[Tensor, Tensor]:
        """Images ``(N, 3, H, W)`` uint8 and the target's probabilities ``(N, C)``, on the device."""
        latents = task.prior.sample(self.options.samples, task.generator, truncation=1.0)
        made = task.prior.pictures(latents, device=task.device, batch_size=task.batch_size)
        chosen = torch.randperm(len(task.public), generator=task.generator)[: self.options.public]
        images = torch.cat([task.public.images[chosen], made])
        answers = []
        for number, chunk in enumerate(images.split(task.batch_size)):
            seen = to_float(upload(chunk, task.device))
            answers.append(task.access.probabilities(seen, draws=self.options.eot))
            task.progress(min((number + 1) * task.batch_size, len(images)), len(images), "image")
        return images.to(task.device), torch.cat(answers)

    def _network(self, task: AttackTask, seed: int) -> networks.Network:
        """A student that is not trained yet; it follows from the seed."""
        with seeded(seed, "student"):
            student = networks.residual_network(self.options.student_widths, task.access.num_classes)
        return student.to(task.device)

    def _trained(self, task: AttackTask, images: Tensor, answers: Tensor) -> networks.Network:
        """The student, in training mode until it has been trained."""
        draws, options = task.generator, self.options
        student = self._network(task, int(torch.randint(2**62, (), generator=draws))).train()
        adam = torch.optim.Adam(student.parameters(), lr=options.student_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, options.student_steps)
        for step in range(options.student_steps):
            index = torch.randint(len(images), (options.student_batch,), generator=draws)
            mirrored = upload(torch.rand(len(index), generator=draws) < 0.5, task.device)
            index = upload(index, task.device)
            batch = to_float(images[index])
            batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
            adam.zero_grad(set_to_none=True)
            logs = student(batch).float().log_softmax(1)
            F.kl_div(logs, answers[index], reduction="batchmean").backward()
            adam.step()
            schedule.step()
            task.progress(step + 1, options.student_steps, "step")
        return student.eval()

    def _on(self, task: AttackTask, step: Step) -> AttackTask:
        """The task with the student in the target's place."""
        student = self._network(task, 0)
        own = {k.removeprefix(_STATE): v for k, v in task.state.items() if k.startswith(_STATE)}
        student.load_state_dict(own)
        access = open_access("white-box", student.eval(), task.access.num_classes)
        return dataclasses.replace(task, access=access)


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    register("ppa-distilled", DistilledPlugAndPlay)
