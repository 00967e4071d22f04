"""Three attacks that a third party might write."""

from typing import Literal

import torch
from pydantic import Field

from mia_bench import Attack, Reconstructions


def _samples(task):
    count = len(task.classes) * task.images_per_class
    latents = task.prior.sample(count, task.generator)
    images = task.prior.render(latents, device=task.device)
    shape = (len(task.classes), task.images_per_class)
    return Reconstructions(images.unflatten(0, shape), latents.unflatten(0, shape))


class ToyLabelOnly(Attack):
    """Asks for labels once."""

    summary = "asks for labels"
    access = "label-only"

    def invert(self, task):
        result = _samples(task)
        task.access.labels(result.images.flatten(0, 1).to(task.device))
        return result


class ToyPrepared(Attack):
    """Has a cached preparation."""

    summary = "has a prepare step"
    access = "black-box"

    def prepare(self, task):
        images = task.public.images[:8].float().to(task.device) / 255
        return {"mean": task.access.probabilities(images).mean(0).cpu()}

    def invert(self, task):
        assert torch.isfinite(task.state["mean"]).all()
        return _samples(task)


class ToyNeedsCritic(Attack):
    """Needs a discriminator."""

    summary = "is skipped"

    def skip(self, setting):
        return None if setting.prior.has_discriminator else "needs a prior with a discriminator"

    def invert(self, task):
        raise AssertionError("never called")


class ToyHungry(Attack):
    """Has memory for a few images at a time, in both stages."""

    summary = "runs out of memory"

    class Options(Attack.Options):
        fits: int = Field(4, ge=0, description="images that fit into memory")
        words: Literal["cuda", "cpu", "python"] = Field("cuda", description="who says so")

    options: Options

    def prepare(self, task):
        self._allocate(task.batch_size)
        return {"nothing": torch.zeros(1)}

    def invert(self, task):
        self._allocate(2 * task.batch_size)
        return _samples(task)

    def _allocate(self, images):
        if images > self.options.fits:
            raise {
                "cuda": torch.OutOfMemoryError("CUDA out of memory"),
                "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
                "python": MemoryError(),
            }[self.options.words]


class ToyWrong(Attack):
    """Does what an attack must not."""

    summary = "does what it must not"

    class Options(Attack.Options):
        how: str = Field("raise", description="what it does")

    options: Options

    def invert(self, task):
        result = _samples(task)
        images = result.images.float()
        match self.options.how:
            case "raise":
                raise ValueError("no idea\nwhat to do")
            case "shape":
                images = images[..., :-1]
            case "few":
                images = images[:, :1]
            case "nan":
                images[0, 0] = torch.nan
            case "range":
                images = 2 * images + 1
            case "nothing":
                return None
            case "weights":
                with torch.no_grad():
                    next(task.access.model.parameters()).mul_(2)
            case "mode":
                task.access.model.train()
            case "prior":
                next(task.prior.buffers()).add_(1)
        return Reconstructions(images, result.latents)
