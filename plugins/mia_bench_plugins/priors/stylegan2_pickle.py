"""A reader for the pickles of StyleGAN2 that executes no code from them.

Such a file holds Python objects along with the source code of their classes, which the authors' loader
executes. This reader maps the few names that a file of networks needs to harmless substitutes: objects become
plain descriptions, source code is ignored, tensors stay in the file until they are known to be those that the
networks need. Other names are refused. :mod:`bounded_pickle` limits what a file can ask for.

Read are networks of StyleGAN2 written by the code of ``stylegan2-ada-pytorch`` or of ``stylegan3``. Networks
of StyleGAN3 and those for TensorFlow are refused by name.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mia_bench.errors import DataError, MiaBenchError
from mia_bench_plugins.priors.bounded_pickle import Source, Span, load, named, shown
from mia_bench_plugins.priors.stylegan2_networks import SHAPE, Discriminator, Generator, Shape

LARGEST = 4 << 30
"""Bytes of a file; the published ones have up to 0.4 GB."""
MODULES = 500
"""Modules of a network, and in a module; those for 1024 pixels have fewer than 100."""
STORAGE_INSTRUCTIONS = 200
"""Of each of the pickles in a storage; PyTorch's have about 30."""


class Described(NamedTuple):
    """An object in the file: the name of its class and its attributes."""

    class_name: str
    state: dict[str, Any]

    def child(self, name: str) -> Described:
        """A module of this one; an empty description if there is none."""
        found = self.named("_modules").get(name)
        return found if isinstance(found, Described) else Described("", {})

    def named(self, kind: str) -> dict[str, Any]:
        """Modules, parameters or buffers by name."""
        found = _dict(self.state.get(kind))
        if len(found) > MODULES:
            raise DataError(f"its {named(self.class_name)} has too many modules or tensors")
        if any(len(name) > 100 for name in found):  # Names are joined with those of the modules above.
            raise DataError("it holds a module or tensor with a very long name")
        return found

    def modules(self) -> Iterator[tuple[str, Described]]:
        """Yield this module and those in it with their dotted names; raise DataError if one comes twice."""
        seen: set[int] = set()
        todo = [("", self)]
        while todo:
            name, module = todo.pop()
            if id(module) in seen or len(seen) >= MODULES:
                raise DataError(f"its {named(self.class_name)} shares modules or has too many")
            seen.add(id(module))
            yield name, module
            children = module.named("_modules").items()
            todo += [(f"{name}{key}.", child) for key, child in children if isinstance(child, Described)]

    def tensors(self) -> Iterator[tuple[str, StoredTensor]]:
        """Yield parameters and buffers with their dotted names."""
        for prefix, module in self.modules():
            for kind in ("_parameters", "_buffers"):
                for name, tensor in module.named(kind).items():
                    if isinstance(tensor, StoredTensor):
                        yield prefix + name, tensor
                    elif tensor is not None:
                        raise DataError(f"{named(prefix + name)} is no tensor")


class StoredTensor(NamedTuple):
    """A tensor that was left in the file."""

    storage: Span
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def is_dense(self) -> bool:
        """Whether the elements fill consecutive places of the storage, each once, in any order."""
        expected = 1
        for stride, size in sorted(zip(self.stride, self.size, strict=True)):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


class Opaque(NamedTuple):
    """An object of which nothing is needed."""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _described(meta: object) -> Described:
    class_name = _dict(meta).get("class_name")
    return Described(class_name if isinstance(class_name, str) else "", _dict(_dict(meta).get("state")))


def _scalar(dtype: object, data: object) -> float | Opaque:
    formats = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}
    if not isinstance(dtype, str) or dtype not in formats or not isinstance(data, Span) or data.length > 8:
        return Opaque()
    return float(struct.unpack(formats[dtype], data.read())[0])


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> StoredTensor:
    tensor = StoredTensor(storage, offset, size, stride)  # type: ignore[arg-type]  # checked here
    if not isinstance(storage, Span) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise TypeError("it holds a tensor without a storage")
    if len(size) > 8 or len(size) != len(stride):
        raise DataError(f"it holds a tensor of the size {shown(size)} with strides {shown(stride)}")
    numbers = (offset, *size, *stride)
    if any(type(number) is not int or not 0 <= number < 1 << 40 for number in numbers):
        raise DataError(f"it holds a tensor of the size {shown(size)} with strides {shown(stride)}")
    if not tensor.is_dense():
        raise DataError(f"it holds a tensor of the size {shown(size)} whose elements overlap or lie apart")
    return tensor


def _span(data: object) -> Span:
    if not isinstance(data, Span):
        raise TypeError("it holds a storage without data")
    return data


def _empty(*arguments: object) -> dict[str, Any]:
    if any(arguments):
        raise TypeError("it makes a dict of another")
    return {}


FUNCTIONS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _described,
    ("dnnlib.util", "EasyDict"): _empty,
    ("collections", "OrderedDict"): _empty,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch.storage", "_load_from_bytes"): _span,
    ("numpy", "dtype"): lambda name, *_: name,
    ("numpy", "ndarray"): Opaque,
    ("builtins", "set"): lambda items=(): items,
    **{
        (f"numpy.{core}.multiarray", name): function
        for core in ("core", "_core")
        for name, function in (("scalar", _scalar), ("_reconstruct", lambda *_: Opaque()))
    },
}


def _find(module: str, name: str) -> Callable[..., Any]:
    if (module, name) in FUNCTIONS:
        return FUNCTIONS[module, name]
    asked = f"it asks for {named(module)}.{named(name)}"
    if module.startswith("dnnlib.tflib"):
        hint = "its networks are for TensorFlow (StyleGAN or StyleGAN2)"
        raise DataError(f"{asked}: {hint}; of StyleGAN2's, the authors' legacy.py makes a PyTorch pickle")
    raise DataError(f"{asked}: not a name that a file of StyleGAN2 networks needs")


MAGIC = 0x1950A86A20F9469CFC6C
"""PyTorch's first number in a storage."""
STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
}


class _Storage(NamedTuple):
    dtype: torch.dtype
    numbers: int


def _storage(kind: str, dtype: object, key: object, place: object, count: object, *_: object) -> _Storage:
    if kind != "storage" or not isinstance(dtype, torch.dtype) or type(count) is not int:
        raise TypeError("it holds a storage of another kind")
    return _Storage(dtype, count)


def _find_in_storage(module: str, name: str) -> Callable[..., Any]:
    if module == "torch" and name in STORAGES:
        # A name that is not called; isinstance tells it from values of the file.
        return STORAGES[name]  # type: ignore[return-value]
    raise DataError(f"a storage asks for {named(module)}.{named(name)}")


def _read_tensor(tensor: StoredTensor) -> Tensor:
    """The numbers of a tensor in float32, contiguous; raise DataError if its storage is too small."""
    source = Source(tensor.storage)
    # As torch.save wrote storages before it used zip files, and still does within pickles.
    magic, _, _, storage, _ = (
        load(
            source,
            _find_in_storage,
            lambda reference: _storage(*reference),
            instructions=STORAGE_INSTRUCTIONS,
        )
        for _ in range(5)
    )
    if magic != MAGIC or not isinstance(storage, _Storage):
        raise DataError("it holds a storage that torch did not write")
    width = torch.finfo(storage.dtype).bits // 8
    count, needed = int.from_bytes(source.read(8), "little"), math.prod(tensor.size)
    numbers = source.skip(count * width)
    if not 0 < tensor.offset + needed <= count == storage.numbers:
        raise DataError(f"it holds a tensor of the size {shown(tensor.size)} in a storage of {count} numbers")
    part = Span(numbers.file, numbers.start + tensor.offset * width, needed * width)
    data = torch.frombuffer(bytearray(part.read()), dtype=storage.dtype)
    return data.as_strided(tensor.size, tensor.stride).float().contiguous()


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Sizes and weights of the averaged generator and the discriminator in a published pickle.

    Raises:
        DataError: the file is truncated or holds something else; the message begins with its name.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError("it is no regular file")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size > LARGEST:
                raise DataError(f"it has {size:,} bytes; the limit is {LARGEST:,}")
            file.seek(0)
            if file.read(4) == b"PK\x03\x04":
                raise DataError("it is a zip file, as torch.save writes, not a pickle of StyleGAN2 networks")
            return _state(load(Source(Span(file, 0, size)), _find))
    except MiaBenchError as error:
        raise DataError(f"{path.name} is refused: {error}") from error
    except OSError as error:
        raise DataError(f"{path.name} can't be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path.name} is truncated or not a pickle of networks: {text}") from error


def _network(content: object, name: str, class_name: str) -> Described:
    part = _dict(content).get(name)
    if not isinstance(part, Described) or part.class_name != class_name:
        raise DataError(f"it holds no {name} of the class {class_name}")
    return part


def _state(content: object) -> dict[str, Tensor]:
    generator = _network(content, "G_ema", "Generator")
    discriminator = _network(content, "D", "Discriminator")
    author = _author(generator)
    try:
        shape = _shape(generator, discriminator, DEFAULTS[author])
        with torch.device("meta"):
            networks = Generator(shape), Discriminator(shape)
        stored = {
            **_weights("generator", generator, networks[0]),
            **_weights("discriminator", discriminator, networks[1]),
        }
        storages = {tensor.storage for tensor in stored.values()}
        if len(storages) < len(stored):
            raise DataError("its tensors share their numbers")
        return {SHAPE: shape.as_tensor(), **{name: _read_tensor(t) for name, t in stored.items()}}
    except MiaBenchError as error:
        raise DataError(f"{error} (StyleGAN2 networks, written by {author})") from error


GENERATOR = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
DISCRIMINATOR = ("c_dim", "img_resolution", "img_channels")
"""Names of positional arguments."""

SIZES = ("img_resolution", "z_dim", "w_dim", "num_layers", "channel_base", "channel_max", "conv_clamp")
"""Arguments with the sizes, in the order of those of :class:`Shape`."""
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "stylegan2-ada-pytorch": {"channel_base": 32768, "channel_max": 512, "conv_clamp": None},
    "stylegan3": {"channel_base": 32768, "channel_max": 512, "conv_clamp": 256},
}
"""Of arguments that may be missing, by the repository whose code wrote the networks."""

IGNORED = frozenset({
    "num_fp16_res", "fp16_channels_last", "freeze_layers", "cmap_dim", "embed_features", "w_avg_beta",
    "fused_modconv_default",
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


def _author(generator: Described) -> str:
    """The repository whose code wrote a generator of StyleGAN2; raise DataError if it is one of StyleGAN3."""
    synthesis = generator.child("synthesis")
    if synthesis.child("input").class_name == "SynthesisInput":
        config = "r" if _dict(generator.state.get("_init_kwargs")).get("conv_kernel") == 1 else "t"
        raise DataError(
            f"its generator is one of StyleGAN3 (config {config}); supported are those of StyleGAN2"
        )
    # Only stylegan3's code keeps this argument as an attribute.
    return "stylegan3" if "num_fp16_res" in synthesis.state else "stylegan2-ada-pytorch"


def _shape(generator: Described, discriminator: Described, defaults: Mapping[str, Any]) -> Shape:
    """The sizes, from the arguments of both constructors; raise DataError if one is not supported."""
    given = {"num_layers": 8, **defaults, **_arguments(generator, GENERATOR)}
    others = {**defaults, **_arguments(discriminator, DISCRIMINATOR)}
    group = others.get("mbstd_group_size", 4)
    if group is None:
        raise DataError("its discriminator compares whole batches of images, which is not supported")
    sizes = {name: given.get(name) for name in SIZES}
    shape = replace(Shape(*sizes.values()), group=group)  # type: ignore[arg-type]  # Shape checks them
    # Both networks have the generator's sizes.
    expected = {**FIXED, **sizes, "layer_features": shape.style, "mbstd_group_size": group}
    _check_arguments("generator", given, {**expected, "architecture": "skip"})
    _check_arguments("discriminator", others, {**expected, "architecture": "resnet"})
    for part in (generator, discriminator):
        for name, module in part.modules():
            clamp = module.state.get("conv_clamp", shape.clamp)
            if clamp != shape.clamp and not name.endswith("skip."):  # which has none
                raise DataError(f"{named(name[:-1])} has conv_clamp={shown(clamp)}, not {shape.clamp!r}")
    return shape


def _arguments(part: Described, names: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of a network and of its parts in one dict; their names are distinct.

    An unconditional discriminator ignores those of a mapping.
    """
    positional = part.state.get("_init_args", ())
    given = dict(zip(names, positional if isinstance(positional, tuple) else (), strict=False))
    given |= _dict(part.state.get("_init_kwargs"))
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
        made = f"its {network} was made with {named(name)}={shown(value)}"
        if name not in expected:
            raise DataError(f"{made}, which is not known")
        if value != expected[name]:
            raise DataError(f"{made}; supported is {expected[name]!r}")


def _weights(role: str, part: Described, network: nn.Module) -> dict[str, StoredTensor]:
    """Tensors by name; raise DataError unless they are exactly those of the network."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    found = {}
    for name, tensor in part.tensors():
        if name.split(".")[-1] == "resample_filter":
            if tensor.size != (4, 4) or not torch.allclose(_read_tensor(tensor), taps.outer(taps)):
                raise DataError(f"{named(name)} is not the filter [1, 3, 3, 1]")
            continue
        found[name] = tensor
    expected = network.state_dict()
    for name in sorted(set(expected) ^ set(found)):
        kind = "lacks" if name in expected else "has the unknown tensor"
        raise DataError(f"its {role} {kind} {named(name)}")
    for name, tensor in found.items():
        if tensor.size != tuple(expected[name].shape):
            raise DataError(f"{name} has the shape {shown(tensor.size)}, not {tuple(expected[name].shape)}")
    return {f"{role}.{name}": tensor for name, tensor in found.items()}
