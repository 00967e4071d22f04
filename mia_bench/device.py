"""Devices, precision and torch's process-wide settings."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from etils.epy import lazy_imports

from mia_bench.errors import MiaBenchError, UsageError

with lazy_imports():
    import torch

Precision = Literal["float32", "tf32", "bfloat16"]
"""What networks compute convolutions and matrix products in."""

_FORM = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


def check_device_form(text: str) -> str:
    """Return ``text`` if it is ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``, else raise UsageError."""
    if not _FORM.fullmatch(text):
        raise UsageError(f"no device {text!r}: use auto, cpu, cuda, cuda:N or mps")
    return text


def choose_device(text: str) -> torch.device:
    """The torch device; ``auto`` prefers a CUDA GPU, then an Apple GPU, then the CPU.

    Raises:
        UsageError: the device is not available.
    """
    check_device_form(text)
    _allow_tf32(False, False)  # float32 means float32, on every device
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


@contextlib.contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute convolutions and matrix products on ``device`` in ``precision``.

    Weights and inputs stay float32. ``tf32`` rounds the inputs of both to 10 bits of mantissa and adds up in
    float32; where a device has no TF32, they are computed in float32.
    """
    before = _tf32()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        tf32 = precision == "tf32" and has_tf32(device)
        _allow_tf32(tf32, tf32)
        try:
            yield
        finally:
            _allow_tf32(*before)


def has_tf32(device: torch.device) -> bool:
    """Whether the device has TF32: NVIDIA GPUs since Ampere."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def precision_notes(precision: Precision, device: torch.device) -> dict[str, str]:
    """A note for the record where networks can't compute in ``precision``."""
    if precision != "tf32" or has_tf32(device):
        return {}
    return {"precision": "attacked in float32: TF32 needs an NVIDIA GPU of the generation Ampere or later"}


def _tf32() -> tuple[bool, bool]:
    """Whether convolutions, and matrix products, may be computed in TF32."""
    convolutions = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    products = torch.backends.cuda.matmul.fp32_precision
    return convolutions == "tf32", products == "tf32"


def _allow_tf32(convolutions: bool, products: bool) -> None:
    # These set the newer flags, fp32_precision, as well. Where only the newer ones are set, reading these
    # raises, and torch's compiler reads them.
    now = _tf32()
    if now[0] != convolutions:
        torch.backends.cudnn.allow_tf32 = convolutions
    if now[1] != products:
        torch.backends.cuda.matmul.allow_tf32 = products


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with ``count`` CPU threads within the block, whatever the environment says; None: as outside.

    Sums are computed in another order by other numbers of threads, so results depend on it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_KERNELS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""Variables by which libraries below torch are told what a CPU has."""


def capability(device: torch.device) -> str | None:
    """What decides which kernels run: a CPU's vector instructions, an NVIDIA GPU's compute capability."""
    if device.type == "cpu":
        told = {name: re.sub(r"\W+", "_", os.environ[name])[:20] for name in _KERNELS if name in os.environ}
        return " ".join([torch.backends.cpu.get_cpu_capability(), *(f"{n}={v}" for n, v in told.items())])
    if device.type == "cuda":
        return ".".join(map(str, torch.cuda.get_device_capability(device)))
    return None


@functools.cache
def processor() -> str | None:
    """Vendor, family, model and stepping of the CPU; None where the system does not say.

    Libraries choose kernels by more than the vector instructions: sums may differ in their last digits.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return platform.processor() or None
    said = dict(re.findall(r"^([^\t:]+)\s*:\s*(.*)$", lines, re.MULTILINE))
    numbers = "-".join(said.get(name, "?") for name in ("cpu family", "model", "stepping"))
    return f"{said['vendor_id']} {numbers}" if "vendor_id" in said else platform.processor() or None


def torch_settings() -> dict[str, Any]:
    """The process-wide settings of torch that a plugin could change."""
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's use of TF32": _tf32(),
    }


def restore_settings(settings: Mapping[str, Any]) -> None:
    """Restore what :func:`torch_settings` returned."""
    dtype, gradients, threads, deterministic, tf32 = settings.values()
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(gradients)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    _allow_tf32(*tf32)


@contextlib.contextmanager
def preserve_torch_settings() -> Iterator[None]:
    """Restore torch's settings after the block.

    Raises:
        MiaBenchError: the block changed one.
    """
    before = torch_settings()
    try:
        yield
    finally:
        after = torch_settings()
        changed = [name for name, value in after.items() if value != before[name]]
        if changed:
            restore_settings(before)
    if changed:
        raise MiaBenchError(f"it changes {changed[0]} for the whole process")
