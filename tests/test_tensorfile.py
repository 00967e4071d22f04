"""Tensors in files: the bytes of the safetensors library, and no copies in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mia_bench.tensorfile import read_arrays, read_tensors, tensor_bytes

TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    path.write_bytes(b"".join(tensor_bytes(tensors)))
    return path


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 3), max_size=3)),
        max_size=5,
    )
)
def test_bytes_are_those_of_the_library(kinds: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    tensors = {name: torch.randint(0, 2, size).to(dtype) for name, (dtype, size) in kinds.items()}
    assert b"".join(tensor_bytes(tensors)) == safetensors.torch.save(tensors)


def test_views_and_other_layouts_are_written_as_they_read(tmp_path: Path) -> None:
    base = torch.arange(48.0).view(2, 3, 2, 4)
    tensors = {
        "channels-last": base.to(memory_format=torch.channels_last),
        "part": base[1],
        "turned": base.permute(3, 2, 1, 0),
        "grad": base.clone().requires_grad_(True),
        "expanded": torch.ones(1).expand(5),
    }
    found = read_tensors(write(tmp_path / "x", tensors))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert all((read_arrays(tmp_path / "x")[name] == t.detach().numpy()).all() for name, t in tensors.items())


def test_large_tensors_come_in_pieces() -> None:
    pieces = list(tensor_bytes({"x": torch.zeros(5 << 20)}))
    assert [len(piece) for piece in pieces[1:]] == [16 << 20, 4 << 20]


def test_what_was_read_can_be_changed_and_the_file_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"x": torch.zeros(3)})
    read_tensors(path)["x"].add_(1)
    read_arrays(path)["x"][:] = 1
    assert read_tensors(path)["x"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("content", [b"", b"abc", b"\x10" + bytes(7) + b"{}"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(safetensors.SafetensorError):
        read_tensors(tmp_path / "x")


# --- memory --------------------------------------------------------------------------------------

MEASURE = """
import re, sys
from pathlib import Path
import torch
from mia_bench.store import Store

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

how, store, megabytes = sys.argv[1], Store(Path(sys.argv[2])), int(sys.argv[3])
small = {"x": torch.zeros(8, dtype=torch.uint8)}
store.save("warm", "up", small, {})
store.tensors("warm", "up"), store.arrays("warm", "up")
before = peak()
if how == "write":
    tensors = {name: torch.full((megabytes << 19,), 7, dtype=torch.uint8) for name in "ab"}
    store.save("stage", "key", tensors, {})
elif how == "checkpoint":
    tensors = {name: torch.full((megabytes << 19,), 7, dtype=torch.uint8) for name in "ab"}
    store.checkpoint("stage", "key").save(tensors)
else:
    getattr(store, how)("stage", "key")
print((peak() - before) / megabytes)
"""


def peak_memory(how: str, store: Path, megabytes: int) -> float:
    """By how much the peak of a process's memory rises, in sizes of the artifact."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, how, str(store), str(megabytes)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_an_artifact_takes_its_size_of_memory_and_no_more(tmp_path: Path) -> None:
    limits = {"write": 1.2, "checkpoint": 1.2, "tensors": 1.2, "arrays": 1.2, "verify": 0.2}
    taken = {how: peak_memory(how, tmp_path / "store", 128) for how in limits}
    assert {how: part for how, part in taken.items() if part > limits[how]} == {}
