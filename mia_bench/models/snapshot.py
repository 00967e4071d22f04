"""Weights, buffers and mode of a network at a moment, to see what was changed since."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Snapshot:
    """Tensors by name, and of every module the mode, hooks and a ``forward`` of its own."""

    tensors: dict[str, Tensor]
    training: tuple[bool, ...]
    behaviour: dict[str, tuple[object, ...]]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """Of now."""
        tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        return cls(tensors, _modes(model), _behaviour(model))

    def changed(self, model: nn.Module) -> list[str]:
        """Names of the tensors that are others now, are gone or are new; and whose hooks or forward are."""
        now = model.state_dict()
        kept = [n for n, tensor in self.tensors.items() if n in now and equal(tensor, now[n])]
        ways = _behaviour(model)
        others = [n for n in (self.behaviour | ways) if self.behaviour.get(n) != ways.get(n)]
        return [name for name in (self.tensors | now) if name not in kept] + [
            f"hooks or forward of {name or 'the module'}" for name in others
        ]

    def mode_changed(self, model: nn.Module) -> bool:
        """Whether a module is in another mode now."""
        return _modes(model) != self.training


def equal(first: Tensor, second: Tensor) -> bool:
    """Same shape, dtype and values; NaN equals NaN."""
    return (
        first.shape == second.shape
        and first.dtype == second.dtype
        and bool(torch.allclose(first, second, rtol=0, atol=0, equal_nan=True))
    )


def _modes(model: nn.Module) -> tuple[bool, ...]:
    return tuple(module.training for module in model.modules())


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _behaviour(model: nn.Module) -> dict[str, tuple[object, ...]]:
    """Of every module by name: its own ``forward``, if it has one, and its hooks."""
    return {
        name: (vars(module).get("forward"), *(tuple(getattr(module, hooks)) for hooks in _HOOKS))
        for name, module in model.named_modules()
    }
