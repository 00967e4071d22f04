"""Tensors in files in the safetensors format, without copies in memory.

:func:`tensor_bytes` gives a file in pieces, the same bytes as ``safetensors.torch.save``.
:func:`read_tensors` and :func:`read_arrays` take of memory what the tensors take.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils.epy import lazy_imports

with lazy_imports():
    import safetensors
    import safetensors.torch
    import torch
    from torch import Tensor

_PIECE = 1 << 24
_ALIGNMENT = 8


def tensor_bytes(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """A safetensors file in pieces of at most 16 MiB.

    A tensor on another device, or not contiguous, is copied when its turn comes; the others are not copied.
    """
    # Of tensors without elements the header has names, types and the order of the format.
    empty = {name: torch.empty(0, dtype=tensor.dtype) for name, tensor in tensors.items()}
    header: dict[str, Any] = json.loads(safetensors.torch.save(empty)[8:])
    end = 0
    for name, entry in header.items():
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        entry.update(shape=list(tensors[name].shape), data_offsets=[begin, end])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for name in header:
        plain = tensors[name].detach().cpu().contiguous()
        data = plain.view(-1).view(torch.uint8).numpy().data
        for start in range(0, len(data), _PIECE):
            yield data[start : start + _PIECE]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, read into memory of their own.

    They are not mapped: where a file is truncated or a network disk fails, a mapped one ends the process.

    Raises:
        OSError, safetensors.SafetensorError: the file can't be read, or is none of the format.
    """
    return _read(path, "pt")


def read_arrays(path: Path) -> dict[str, Any]:
    """As :func:`read_tensors`, NumPy arrays, without importing torch."""
    return _read(path, "np")


def read_metadata(path: Path) -> dict[str, str]:
    """The texts by name in the header of a file; errors as of :func:`read_tensors`."""
    with safetensors.safe_open(path, framework="np") as file:
        return dict(file.metadata() or {})


def _read(path: Path, framework: str) -> dict[str, Any]:
    with safetensors.safe_open(path, framework=framework, backend="pread") as file:
        return {name: file.get_tensor(name) for name in file.offset_keys()}
