"""Choosing where to compute."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, get_args

from mia_bench.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
"""What networks compute in."""

PRECISIONS: tuple[str, ...] = get_args(Precision)

_FORM = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


def check_device_form(text: str) -> str:
    """``text`` if it is ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; no torch.

    Raises:
        UsageError: it is something else.
    """
    if not _FORM.fullmatch(text):
        raise UsageError(f"no device {text!r}: use auto, cpu, cuda, cuda:N or mps")
    return text


def choose_device(text: str) -> torch.device:
    """The torch device; ``auto`` takes a CUDA GPU, then an Apple GPU, then the CPU.

    Raises:
        UsageError: a device was asked for that is not here.
    """
    import torch

    check_device_form(text)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, on every device
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(text)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not count:
            raise UsageError(f"--device {text}: no CUDA GPU is available here; use --device cpu")
        if (device.index or 0) >= count:
            raise UsageError(f"--device {text}: only {count} CUDA GPU(s) here, numbered from 0")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: no Apple GPU is available here; use --device cpu")
    return device


def networks_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Within it convolutions and matrix products on ``device`` are computed in ``precision``.

    Weights and what the networks are given stay float32 (:class:`torch.autocast`).
    """
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
