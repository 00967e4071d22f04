"""Two defenses that a third party might write."""

import os
import time

import torch
from pydantic import Field

from mia_bench import Defense


class ToyNoise(Defense):
    """Gaussian noise on the training images."""

    summary = "noise on the inputs"

    class Options(Defense.Options):
        std: float = Field(0.1, ge=0, description="standard deviation of the noise")

    options: Options

    def augment(self, images, generator):
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images + self.options.std * noise).clamp(0, 1)


class ToyFailing(Defense):
    """Raises in the loss."""

    summary = "raises in training"

    def loss(self, step):
        raise RuntimeError("toy failure")


class ToyDeadly(Defense):
    """Ends the process that trains it."""

    summary = "kills its process"

    def loss(self, step):
        os._exit(9)


class ToyHanging(Defense):
    """Waits for ever, whatever it is told, once it has made the file TOY_HANGING."""

    summary = "never ends"

    def loss(self, step):
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(os.environ["TOY_HANGING"], "w").close()
        while True:
            time.sleep(60)


class ToyDiverging(Defense):
    """A loss that is infinite from the second epoch on."""

    summary = "its loss grows beyond all bounds"

    def loss(self, step):
        return super().loss(step) * (float("inf") if step.epoch else 1.0)
