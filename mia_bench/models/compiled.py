"""Networks that are compiled while an attack uses them, and what became of that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from etils.epy import lazy_imports

with lazy_imports():
    import torch
    from torch import nn
    from torch._dynamo import utils as dynamo

RECOMPILE_LIMIT = 64
"""Variants of a function that are compiled before torch falls back to running it eagerly.

All networks share one function, the call of a module. Torch's limit of 8 is reached by one attack: batches of
two sizes, with and without gradients, under autocast and not.
"""


class CompiledNetwork:
    """The backend of one network: compiles as torch's default does, and counts.

    Attributes:
        calls: of the network as a module.
        graphs: that were compiled for it.
    """

    def __init__(self, network: nn.Module) -> None:
        self.calls = 0
        self.graphs = 0
        network.compile(backend=self)
        # Private, but what Module.compile() sets and Module.__call__() reads.
        call = network._compiled_call_impl
        assert call is not None

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return call(*args, **kwargs)

        network._compiled_call_impl = counted

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        """Compile a graph."""
        self.graphs += 1
        compiled: Callable[..., Any] = torch._dynamo.lookup_backend("inductor")(graph, inputs)
        return compiled


class Compilation:
    """What was compiled within a block of :func:`compiled`."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._networks = {name: CompiledNetwork(network) for name, network in networks.items()}
        self._failed, self._reasons = _failures()

    def missing(self, used: Collection[str]) -> list[str]:
        """A line for each network of those used that did not run compiled throughout, with the reason."""
        failed, reasons = _failures()
        new = "; ".join(reason for reason in reasons if reason not in self._reasons)
        lines = []
        for name, network in self._networks.items():
            if name not in used:
                continue
            if not network.calls:
                lines.append(f"the {name} was not compiled: it answers by a method of its own")
            elif not network.graphs:
                lines.append(f"the {name} was not compiled: {new or 'torch.compile found nothing to do'}")
            elif failed > self._failed:
                lines.append(f"the {name} was compiled in part: {new or 'torch.compile gave up'}")
        return lines


@contextlib.contextmanager
def compiled(networks: Mapping[str, nn.Module]) -> Iterator[Compilation]:
    """Compile networks at their first call within the block; no longer after it.

    What was compiled before is forgotten: torch compiles a limited number of variants of a function.
    """
    torch.compiler.reset()
    try:
        with torch._dynamo.config.patch(recompile_limit=RECOMPILE_LIMIT):
            yield Compilation(networks)
    finally:
        for network in networks.values():
            vars(network).pop("_compiled_call_impl", None)
        torch.compiler.reset()


def _failures() -> tuple[int, list[str]]:
    """How many functions torch failed to compile in this process, and the first line of each reason."""
    frames = dynamo.counters["frames"]
    reasons = [str(reason).splitlines()[0] for reason in dynamo.counters["unimplemented"]]
    return frames["total"] - frames["ok"], reasons
