"""Reads the pickles published for StyleGAN2 (``stylegan2-ada-pytorch``) without running what is in them.

Such a file holds Python objects, among them the source code of their classes, which the authors' loader
executes. This reader knows the few names that a file of networks needs and gives each a harmless
meaning: objects become plain descriptions, tensors are read by PyTorch's restricted loader, source code
stays text that nobody reads. Any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from mia_bench.errors import DataError
from mia_bench_plugins.priors.stylegan2_networks import Discriminator, Generator, Shape


@dataclass(frozen=True)
class Described:
    """An object of the file: the name of its class and its attributes."""

    class_name: str
    state: Mapping[str, Any]

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers by their dotted names."""
        for kind in ("_parameters", "_buffers"):
            for name, tensor in self.state.get(kind, {}).items():
                if tensor is not None:
                    yield prefix + name, tensor
        for name, child in self.state.get("_modules", {}).items():
            if isinstance(child, Described):
                yield from child.tensors(f"{prefix}{name}.")


class _Dict(dict[str, Any]):
    """``dnnlib.util.EasyDict``: a dict, whatever state the file gives it."""

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


def _storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def _tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    tensor: Tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)
    return tensor


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


class _Reader(pickle.Unpickler):
    """An unpickler whose vocabulary is :attr:`KNOWN`."""

    KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _described,
        ("dnnlib.util", "EasyDict"): _Dict,
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch.storage", "_load_from_bytes"): _storage,
        ("numpy", "dtype"): _Dtype,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("builtins", "set"): set,
        ("__builtin__", "set"): set,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the file means here.

        Raises:
            DataError: nothing.
        """
        if (module, name) in self.KNOWN:
            return self.KNOWN[module, name]
        hint = (
            ": it is of the TensorFlow version; the authors' legacy.py makes a PyTorch pickle of it"
            if module.startswith("dnnlib.tflib")
            else ": not a name that a file of StyleGAN2 networks needs"
        )
        raise DataError(f"it asks for {module}.{name}{hint}")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse references to what is outside of the file."""
        raise DataError("it refers to data outside of it")


@dataclass(frozen=True)
class Networks:
    """What a file holds: sizes and weights of the averaged generator and the discriminator."""

    shape: Shape
    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor]


def read_pickle(path: Path) -> Networks:
    """The networks of a published pickle.

    Raises:
        DataError: truncated, or it holds something else; the message begins with the file's name.
    """
    try:
        with path.open("rb") as file:
            content = _Reader(file).load()
        return _networks(content)
    except DataError as error:
        raise DataError(f"{path.name} is refused: {error}") from error
    except OSError as error:
        raise DataError(f"{path.name} can't be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path.name} is truncated or not a pickle of networks: {text}") from error


def _networks(content: Any) -> Networks:
    parts = []
    for name, wanted in (("G_ema", "Generator"), ("D", "Discriminator")):
        part = content.get(name) if isinstance(content, dict) else None
        if not isinstance(part, Described) or part.class_name != wanted:
            raise DataError(f"it holds no {name} of the class {wanted}")
        parts.append(part)
    shape = _shape(*parts)
    with torch.device("meta"):
        generator, discriminator = Generator(shape), Discriminator(shape)
    return Networks(shape, _weights(parts[0], generator), _weights(parts[1], discriminator))


GENERATOR = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
DISCRIMINATOR = ("c_dim", "img_resolution", "img_channels")
"""Names of the arguments that may be given by position."""

IGNORED = frozenset(
    [
        "num_fp16_res",
        "fp16_channels_last",
        "freeze_layers",
        "cmap_dim",
        "embed_features",
        "w_avg_beta",
    ]
)
"""Arguments that change nothing of what an unconditional network answers in float32."""

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
"""Arguments that ours has no choice of: what they must be, and are where a file does not say."""


def _shape(generator: Described, discriminator: Described) -> Shape:
    """The sizes, from the arguments that the networks were made with; all must be understood."""
    made = _arguments(generator, GENERATOR)
    judged = _arguments(discriminator, DISCRIMINATOR)
    if judged.get("mbstd_group_size", 4) is None:
        raise DataError(
            "its discriminator compares whole batches of images, which is not supported"
        )
    shape = Shape(
        resolution=made["img_resolution"],
        latent=made["z_dim"],
        style=made["w_dim"],
        layers=made.get("num_layers", 8),
        channel_base=made.get("channel_base", 32768),
        channel_max=made.get("channel_max", 512),
        clamp=made.get("conv_clamp"),
        group=judged.get("mbstd_group_size", 4),
    )
    # Both networks have the generator's sizes; what a file does not say has the authors' default.
    judged = {"channel_base": 32768, "channel_max": 512, "conv_clamp": None, **judged}
    sizes = {
        "img_resolution": shape.resolution,
        "channel_base": shape.channel_base,
        "channel_max": shape.channel_max,
        "conv_clamp": shape.clamp,
    }
    styles = {"z_dim": shape.latent, "w_dim": shape.style, "num_layers": shape.layers}
    _understood(
        "generator",
        made,
        {**FIXED, **sizes, **styles, "layer_features": shape.style, "architecture": "skip"},
    )
    _understood(
        "discriminator",
        judged,
        {**FIXED, **sizes, "mbstd_group_size": shape.group, "architecture": "resnet"},
    )
    return shape


def _arguments(part: Described, names: tuple[str, ...]) -> dict[str, Any]:
    """All arguments in one dict: those of the parts of a network have names of their own.

    An unconditional discriminator makes nothing of those of a mapping.
    """
    given = dict(zip(names, part.state.get("_init_args", ()), strict=False))
    given |= part.state.get("_init_kwargs", {})
    if part.class_name == "Discriminator":
        given.pop("mapping_kwargs", None)
    flat: dict[str, Any] = {}
    for name, value in given.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat


def _understood(network: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise for an argument that ours has not, or has otherwise; None stands for the default."""
    for name, value in given.items():
        if name in IGNORED or (value is None and name != "conv_clamp"):
            continue
        if name not in expected:
            raise DataError(f"its {network} was made with {name}={value!r}, which is not known")
        if value != expected[name]:
            raise DataError(
                f"its {network} was made with {name}={value!r}; supported is {expected[name]!r}"
            )


def _weights(part: Described, network: nn.Module) -> dict[str, Tensor]:
    """Tensors by name, those that the network has and no others."""
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
