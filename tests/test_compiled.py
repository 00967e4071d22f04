"""What is compiled while an attack runs, and what is said of it; with torch's tracer, without its backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import mia_bench
from mia_bench.models import compiled as compiled_module
from mia_bench.models.compiled import compiled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),  # torch's compiler looks
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated"),  # and uses it
]


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the graphs as they are: generating code takes minutes."""
    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda name: lambda graph, inputs: graph.forward)


class Chain(nn.Module):
    """As many layers as asked for: torch compiles each number of them anew."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def ask(network: nn.Module) -> list[str]:
    """Call a network within the block, as an attack does; what the block says of it."""
    with compiled({"target": network}) as compilation:
        network(torch.ones(3, 2, requires_grad=True)).sum().backward()
        with torch.no_grad():
            network(torch.ones(1, 2))
        return compilation.missing({"target"})


def test_every_target_of_a_long_run_is_compiled() -> None:
    for layers in range(1, 13):  # torch's limit is 8
        assert ask(Chain(layers)) == []


def test_nothing_is_left_on_the_network() -> None:
    network = Chain(1)
    before = dict(vars(network))
    assert ask(network) == []
    assert vars(network) == before


def test_a_network_that_reaches_the_limit_is_said_to_be_compiled_in_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled_module, "RECOMPILE_LIMIT", 1)
    assert ask(Chain(1)) == ["the target was compiled in part: Dynamo recompile limit exceeded"]


def test_networks_without_anything_to_compile_and_those_asked_otherwise_are_said_to_be_eager() -> None:
    assert ask(nn.Identity()) == ["the target was not compiled: torch.compile found nothing to do"]
    with compiled({"prior": Chain(1), "target": Chain(1)}) as compilation:
        assert compilation.missing({"target"}) == [
            "the target was not compiled: it answers by a method of its own"
        ]


def test_records_say_what_was_compiled(toy, store, tmp_path) -> None:
    store("data", "prior", "gallery", "evaluator")
    found = {
        (record.defense.name, record.attack.name): record
        for record in mia_bench.run(
            track="toy",
            defense=["none", "mid"],
            attack=["prior-sample", "ppa"],
            device="cpu",
            store=tmp_path / "store",
            compile=True,
        )
    }
    devices = {key: record.provenance.device for key, record in found.items()}
    plain = devices["none", "ppa"].split(",")[0]
    assert devices["none", "ppa"] == f"{plain}, {plain}, compiled"
    assert devices["mid", "prior-sample"] == f"{plain}, {plain}, compiled"
    assert devices["mid", "ppa"] == f"{plain}, {plain}, partly compiled"
    assert "the target was not compiled" in found["mid", "ppa"].notes["invert"]
    assert "invert" not in found["none", "ppa"].notes
