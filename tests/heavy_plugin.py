"""A defense whose module imports torch."""

import torch

from mia_bench import Defense


class Heavy(Defense):
    summary = "heavy"
    paper = "none"
    kind = torch.float32

    def report(self, setup):
        return super().report(setup)
