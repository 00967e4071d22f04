"""Group normalisation in place of batch normalisation, which mixes the images of a batch.

Wu and He, *Group Normalization*, ECCV 2018.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def replace_batch_norm(network: NetworkT, groups: int) -> NetworkT:
    """Put a freshly initialised ``GroupNorm`` where a batch normalisation was, in ``network`` itself.

    Each takes the largest number of groups, at most ``groups``, that divides its channels.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(module, name, _group_norm(child.num_features, groups))
    return network


def _group_norm(channels: int, groups: int) -> nn.GroupNorm:
    fitting = max(g for g in range(1, min(groups, channels) + 1) if channels % g == 0)
    return nn.GroupNorm(fitting, channels)
