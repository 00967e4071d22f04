"""Snapshots of a network, to detect changes."""

from __future__ import annotations

from dataclasses import dataclass

from etils.epy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Snapshot:
    """A network's tensors by name, and the mode, hooks and overridden ``forward`` of each module."""

    tensors: dict[str, Tensor]
    training: tuple[bool, ...]
    behaviour: dict[str, tuple[object, ...]]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """Take a snapshot."""
        tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        return cls(tensors, _modes(model), _behaviour(model))

    def changed(self, model: nn.Module) -> list[str]:
        """What has changed: names of tensors, modules with other hooks or ``forward``, the mode."""
        now = model.state_dict()
        kept = [n for n, tensor in self.tensors.items() if n in now and equal(tensor, now[n])]
        behaviour = _behaviour(model)
        others = [n for n in (self.behaviour | behaviour) if self.behaviour.get(n) != behaviour.get(n)]
        return [
            *(name for name in (self.tensors | now) if name not in kept),
            *(f"hooks or forward of {name or 'the module'}" for name in others),
            *(["the mode"] if _modes(model) != self.training else []),
        ]


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
    """The ``forward`` set on the instance, if any, and the hooks of every module by name."""
    return {
        name: (vars(module).get("forward"), *(tuple(getattr(module, hooks)) for hooks in _HOOKS))
        for name, module in model.named_modules()
    }
