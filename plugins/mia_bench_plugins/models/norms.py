"""Group normalisation instead of batch normalisation, which mixes the images of a batch.

Wu and He, *Group Normalization*, ECCV 2018.
"""

from __future__ import annotations

from typing import TypeVar

from mia_bench import lazy_imports

with lazy_imports():
    from torch import nn

NetworkT = TypeVar("NetworkT", bound="nn.Module")


def replace_batch_norm(network: NetworkT, groups: int) -> NetworkT:
    """Replace each batch normalisation by a newly initialised ``GroupNorm``, in place.

    The number of groups is the largest divisor of the channels that is at most ``groups``.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                channels = child.num_features
                fitting = max(g for g in range(1, min(groups, channels) + 1) if channels % g == 0)
                setattr(module, name, nn.GroupNorm(fitting, channels))
    return network
