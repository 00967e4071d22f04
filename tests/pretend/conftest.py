"""The pretend device, or a skip with the reason where this version of torch can't have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pretend_device
import pytest
import torch

HERE = Path(__file__).parent
MISSING = pretend_device.why_missing()

if MISSING is None:
    # Before any test of this process: autograd knows the devices that there are at its first backward pass.
    pretend_device.install()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if MISSING and HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=MISSING))


@pytest.fixture
def pretend() -> torch.device:
    """The device; code runs on it within ``with pretend_device.Accelerator():``."""
    return pretend_device.device()


@pytest.fixture
def on_pretend(
    pretend: torch.device, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pretend_device.Accelerator]:
    """Runs of this process compute on the device."""
    monkeypatch.setattr("mia_bench.engine.worker.choose_device", lambda text: pretend)
    monkeypatch.setattr("mia_bench.protocol.prior.MONITORED_IMAGES", 64)
    with pretend_device.Accelerator() as machine:
        yield machine
