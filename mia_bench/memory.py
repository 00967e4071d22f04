"""The memory of a device: uploads that nobody waits for, batches that are halved until they fit."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from etils.epy import lazy_imports

from mia_bench.errors import OutOfMemory

with lazy_imports():
    import torch
    from torch import Tensor

ResultT = TypeVar("ResultT")

log = logging.getLogger(__name__)

_MESSAGES = ("DefaultCPUAllocator", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""In the errors of allocations for which torch has no class of its own."""

_noted: ContextVar[dict[str, str] | None] = ContextVar("noted", default=None)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; a copy from the CPU to a GPU is queued without waiting for the GPU.

    Do not modify a tensor in pinned memory afterwards.
    """
    return tensor.to(device, non_blocking=device.type != "mps")  # where such copies may come too late


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


@contextlib.contextmanager
def noting_halvings() -> Iterator[dict[str, str]]:
    """Collect what is halved within the block, and not within such a block inside it: a line by its name."""
    lines: dict[str, str] = {}
    token = _noted.set(lines)
    try:
        yield lines
    finally:
        _noted.reset(token)


@contextlib.contextmanager
def explaining(doing: str, advice: str) -> Iterator[None]:
    """Replace an error for lack of memory in what can't be done in smaller batches.

    Args:
        doing: what needs the memory.
        advice: what the user can do about it.

    Raises:
        OutOfMemory: one line with both.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory in {doing}; {advice}") from error


def halving(run: Callable[[int], ResultT], batch_size: int, what: str = "the batch") -> ResultT:
    """``run(batch_size)``; each time it runs out of memory, again with half the batch.

    Args:
        run: from a batch size to a result. An attack that draws its augmentation batch by batch draws another
            in batches of another size; the note says that the batch was halved.
        batch_size: to begin with.
        what: is halved, for the log and the record.

    Raises:
        torch.OutOfMemoryError, MemoryError: a batch of one does not fit.
    """
    while True:
        try:
            return run(batch_size)
        except (MemoryError, RuntimeError) as error:
            if batch_size <= 1 or not is_out_of_memory(error):
                raise
        # After the handler: its traceback would keep the tensors alive.
        batch_size //= 2
        line = f"out of memory; {what} was halved to {batch_size}"
        log.warning("%s", line)
        lines = _noted.get()
        if lines is not None:
            lines[what] = line
        _release()


def in_batches(
    compute: Callable[[Tensor], Tensor], rows: Tensor, batch_size: int, what: str = "a batch of inference"
) -> Tensor:
    """What ``compute`` makes of the rows, batch by batch, concatenated.

    Out of memory, it goes on with smaller batches where it was.

    Args:
        compute: from ``(B, ...)`` to ``(B, ...)``; each row's result depends on no other row.
        rows: ``(N, ...)``; no rows are one empty batch.
        batch_size: largest ``B``.
        what: is halved, for the log and the record.

    Raises:
        torch.OutOfMemoryError, MemoryError: a batch of one does not fit.
        ValueError: ``compute`` returned more or fewer rows than it was given.
    """
    made = torch.empty(0)
    done = 0

    def go_on(size: int) -> None:
        nonlocal made, done
        while done < len(rows) or not done:
            batch = rows[done : done + size]
            chunk = compute(batch)
            if len(chunk) != len(batch):
                raise ValueError(f"{len(chunk)} results of {len(batch)} rows")
            if not done:  # one tensor for all: of images there are gigabytes at paper scale
                made = chunk.new_empty((len(rows), *chunk.shape[1:]))
            made[done : done + len(chunk)] = chunk
            done += size

    halving(go_on, max(1, min(batch_size, len(rows))), what)
    return made


def _release() -> None:
    """Return to the GPU what torch keeps for later allocations."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
