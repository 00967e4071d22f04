"""A reader for the pickles of StyleGAN2 (``stylegan2-ada-pytorch``) that executes no code from them.

Such a file holds Python objects along with the source code of their classes, which the authors' loader
executes. This reader maps the few names that a file of networks needs to harmless substitutes: objects become
plain descriptions, tensors are read by PyTorch's restricted loader, source code is ignored. Other names are
refused.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from mia_bench.errors import DataError
from mia_bench_plugins.priors.stylegan2_networks import SHAPE, Discriminator, Generator, Shape


@dataclass(frozen=True)
class Described:
    """An object in the file: the name of its class and its attributes."""

    class_name: str
    state: Mapping[str, Any]

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield parameters and buffers with their dotted names."""
        for kind in ("_parameters", "_buffers"):
            for name, tensor in self.state.get(kind, {}).items():
                if tensor is not None:
                    yield prefix + name, tensor
        for name, child in self.state.get("_modules", {}).items():
            if isinstance(child, Described):
                yield from child.tensors(f"{prefix}{name}.")


class _Dict(dict[str, Any]):
    """``dnnlib.util.EasyDict``: a dict that ignores other state."""

    def __setstate__(self, state: object) -> None:
        pass


class _Dtype:
    """``numpy.dtype`` of a scalar."""

    def __init__(self, name: str, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        pass


def _described(meta: Mapping[str, Any]) -> Described:
    return Described(str(meta.get("class_name")), meta.get("state") or {})


def _scalar(dtype: _Dtype, data: bytes) -> float:
    formats = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}
    if dtype.name not in formats:
        raise pickle.UnpicklingError(f"a number of the type {dtype.name!r}")
    return float(struct.unpack(formats[dtype.name], data)[0])


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    tensor: Tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)
    return tensor


class _Reader(pickle.Unpickler):
    """An unpickler for the names in :attr:`KNOWN`."""

    KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _described,
        ("dnnlib.util", "EasyDict"): _Dict,
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        ("torch.storage", "_load_from_bytes"): lambda data: torch.load(
            io.BytesIO(data), weights_only=True, map_location="cpu"
        ),
        ("numpy", "dtype"): _Dtype,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("builtins", "set"): set,
        ("__builtin__", "set"): set,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.KNOWN:
            return self.KNOWN[module, name]
        hint = "not a name that a file of StyleGAN2 networks needs"
        if module.startswith("dnnlib.tflib"):
            hint = "it is of the TensorFlow version; the authors' legacy.py makes a PyTorch pickle of it"
        raise DataError(f"it asks for {module}.{name}: {hint}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise DataError("it refers to data outside of it")


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Sizes and weights of the averaged generator and the discriminator in a published pickle.

    Raises:
        DataError: the file is truncated or holds something else; the message begins with its name.
    """
    try:
        with path.open("rb") as file:
            content = _Reader(file).load()
        return _state(content)
    except DataError as error:
        raise DataError(f"{path.name} is refused: {error}") from error
    except OSError as error:
        raise DataError(f"{path.name} can't be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path.name} is truncated or not a pickle of networks: {text}") from error


def _state(content: Any) -> dict[str, Tensor]:
    parts = []
    for name, wanted in (("G_ema", "Generator"), ("D", "Discriminator")):
        part = content.get(name) if isinstance(content, dict) else None
        if not isinstance(part, Described) or part.class_name != wanted:
            raise DataError(f"it holds no {name} of the class {wanted}")
        parts.append(part)
    shape = _shape(*parts)
    state = {SHAPE: shape.as_tensor()}
    with torch.device("meta"):
        networks = {"generator": Generator(shape), "discriminator": Discriminator(shape)}
    for part, (name, network) in zip(parts, networks.items(), strict=True):
        state |= {f"{name}.{key}": tensor for key, tensor in _weights(part, network).items()}
    return state


GENERATOR = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
DISCRIMINATOR = ("c_dim", "img_resolution", "img_channels")
"""Names of positional arguments."""

SIZES = ("img_resolution", "z_dim", "w_dim", "num_layers", "channel_base", "channel_max", "conv_clamp")
"""Arguments with the sizes, in the order of those of :class:`Shape`."""
DEFAULTS: Mapping[str, Any] = {"channel_base": 32768, "channel_max": 512, "conv_clamp": None}
"""The authors', of arguments that may be missing."""

IGNORED = frozenset({
    "num_fp16_res", "fp16_channels_last", "freeze_layers", "cmap_dim", "embed_features", "w_avg_beta",
})  # fmt: skip
"""Arguments without effect on the output of an unconditional network in float32."""

FIXED: Mapping[str, Any] = {
    "c_dim": 0,
    "img_channels": 3,
    "activation": "lrelu",
    "resample_filter": [1, 3, 3, 1],
    "lr_multiplier": 0.01,
    "use_noise": True,
    "kernel_size": 3,
    "mbstd_num_channels": 1,
}
"""Arguments that are fixed in our networks, with their values, the authors' defaults."""


def _shape(generator: Described, discriminator: Described) -> Shape:
    """The sizes, from the arguments of both constructors; raise DataError if one is not supported."""
    given = {"num_layers": 8, **DEFAULTS, **_arguments(generator, GENERATOR)}
    others = {**DEFAULTS, **_arguments(discriminator, DISCRIMINATOR)}
    group = others.get("mbstd_group_size", 4)
    if group is None:
        raise DataError("its discriminator compares whole batches of images, which is not supported")
    sizes = {name: given[name] for name in SIZES}
    shape = replace(Shape(*sizes.values()), group=group)
    # Both networks have the generator's sizes.
    expected = {**FIXED, **sizes, "layer_features": shape.style, "mbstd_group_size": group}
    _check_arguments("generator", given, {**expected, "architecture": "skip"})
    _check_arguments("discriminator", others, {**expected, "architecture": "resnet"})
    return shape


def _arguments(part: Described, names: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of a network and of its parts in one dict; their names are distinct.

    An unconditional discriminator ignores those of a mapping.
    """
    given = dict(zip(names, part.state.get("_init_args", ()), strict=False))
    given |= part.state.get("_init_kwargs", {})
    if part.class_name == "Discriminator":
        given.pop("mapping_kwargs", None)
    flat: dict[str, Any] = {}
    for name, value in given.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat


def _check_arguments(network: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise DataError for an unknown argument or another value; None stands for the default."""
    for name, value in given.items():
        if name in IGNORED or (value is None and name != "conv_clamp"):
            continue
        if name not in expected:
            raise DataError(f"its {network} was made with {name}={value!r}, which is not known")
        if value != expected[name]:
            raise DataError(f"its {network} was made with {name}={value!r}; supported is {expected[name]!r}")


def _weights(part: Described, network: nn.Module) -> dict[str, Tensor]:
    """Tensors by name; raise DataError unless they are exactly those of the network."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    found = {}
    for name, tensor in part.tensors():
        if name.endswith("resample_filter"):
            if tensor.shape != (4, 4) or not torch.allclose(tensor, torch.outer(taps, taps)):
                raise DataError(f"{name} is not the filter [1, 3, 3, 1]")
            continue
        found[name] = tensor.detach().float().contiguous()
    expected = network.state_dict()
    for name in sorted(set(expected) ^ set(found)):
        kind = "lacks" if name in expected else "has the unknown tensor"
        raise DataError(f"its {type(network).__name__.lower()} {kind} {name}")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            raise DataError(f"{name} has the shape {shapes}")
    return found
