"""A pretend accelerator: tensors that say they are on ``pretend:0``; the numbers are on the CPU, or nowhere.

:func:`install` once a process, then run any code with :func:`device` within ``with Accelerator():``. What a
CUDA device refuses is refused:

- tensors of two devices in one operation, other than scalars, indices and copies;
- a generator of the CPU that draws on the device, and the other way round;
- ``.numpy()``, and float64 with ``float64=False`` (Apple's GPUs).

What waits for a CUDA device is counted by the line of the project that asks for it, see
:attr:`Accelerator.waits`. With ``real=False`` nothing is computed: tensors know their sizes only, so that a
laptop can count the memory that networks of any size take.

It uses private parts of torch: :func:`why_missing` says what a version of torch lacks.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "pretend"
PROJECT = ("mia_bench", "plugins/")
_PlainGenerator = torch.Generator


def why_missing() -> str | None:
    """Why this version of torch can't have the device; None if it can."""
    from torch.utils import backend_registration as registration

    for owner, name in (
        (registration, "_DummyBackendModule"),
        (registration, "_setup_privateuseone_for_python_backend"),
        (Tensor, "_make_wrapper_subclass"),
    ):
        if not hasattr(owner, name):
            return f"torch {torch.__version__} has no {name}"
    return None


def install() -> None:
    """Register the device in this process, once."""
    if hasattr(torch, NAME):
        return
    from torch.utils import backend_registration as registration

    class Module(registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

        def manual_seed_all(self, seed: int) -> None:
            pass

    registration._setup_privateuseone_for_python_backend(NAME, Module())


def device() -> torch.device:
    """The device."""
    return torch.device(NAME, 0)


class DeviceMismatch(RuntimeError):
    """An operation that a CUDA device refuses."""


class Generator(_PlainGenerator):
    """``torch.Generator``, also of the device."""

    ours: ClassVar[set[int]] = set()
    """Generators of the device, by the address of what is behind them."""

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        device = torch.device(device)
        made = super().__new__(cls, "cpu" if device.type == NAME else device)
        if device.type == NAME:
            cls.ours.add(made._cdata)
        return made


class OnDevice(Tensor):
    """A tensor of the device around ``inner``, which is on the CPU or on ``meta``."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        return Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=device(),
            requires_grad=False,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner
        if Accelerator.current is not None:
            Accelerator.current.born(self)

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert Accelerator.current is not None, "outside of the accelerator"
        return Accelerator.current.run(func, args, kwargs or {})


class _Made(TorchFunctionMode):
    """``torch.tensor(…, device=device())``, which no dispatch mode sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        wanted = kwargs.get("device")
        makes = func in (torch.tensor, torch.as_tensor, torch.asarray)
        if not makes or wanted is None or torch.device(wanted).type != NAME or isinstance(args[0], OnDevice):
            return func(*args, **kwargs)
        rest = {key: value for key, value in kwargs.items() if key not in ("device", "requires_grad")}
        return func(*args, **rest).to(wanted).requires_grad_(kwargs.get("requires_grad", False))


_SHAPED = ("nonzero", "_unique", "_unique2", "unique_dim", "unique_consecutive", "masked_select")
"""Operations whose result's size the CPU must know."""

_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


class Accelerator(TorchDispatchMode):
    """The device, while it is switched on.

    Args:
        real: compute; else tensors know their sizes only.
        float64: whether it has such numbers.
        capacity: bytes of its memory; None for no limit.

    Attributes:
        waits: by kind, how often each line waited: ``item`` (a number is read), ``download``, ``upload`` (a
            copy that is not queued) and ``shape`` (a size is read).
        queued: uploads without a wait, by line.
        bytes, peak: alive now, and at most; ``peak_at`` is the line.
    """

    current: ClassVar[Accelerator | None] = None

    def __init__(self, *, real: bool = True, float64: bool = True, capacity: float | None = None) -> None:
        super().__init__()
        self.real, self.float64, self.capacity = real, float64, capacity
        self.waits: dict[str, Counter[str]] = defaultdict(Counter)
        self.queued: Counter[str] = Counter()
        self.bytes = self.peak = 0
        self.peak_at = ""
        self._alive: dict[int, list[int]] = {}

    def waited(self) -> Counter[str]:
        """How often it was waited for, by kind and line."""
        return Counter({f"{kind} {at}": n for kind, lines in self.waits.items() for at, n in lines.items()})

    # --- memory

    def born(self, tensor: OnDevice) -> None:
        """Count a tensor's memory, unless it shares that of another."""
        storage = tensor.inner.untyped_storage()
        key = storage._cdata
        entry = self._alive.setdefault(key, [0, 0])
        entry[0] += 1
        weakref.finalize(tensor, self._died, key)
        if entry[0] > 1:
            return
        entry[1] = storage.nbytes()
        self.bytes += entry[1]
        if self.bytes > self.peak:
            self.peak, self.peak_at = self.bytes, where()
        if self.capacity is not None and self.bytes > self.capacity:
            gigabytes = f"{self.bytes / 1e9:.1f} of {self.capacity / 1e9:.1f} GB"
            raise torch.OutOfMemoryError(f"{NAME} out of memory: {gigabytes} at {where()}")

    def _died(self, key: int) -> None:
        entry = self._alive[key]
        entry[0] -= 1
        if not entry[0]:
            self.bytes -= entry[1]
            del self._alive[key]

    # --- operations

    def __enter__(self) -> Accelerator:
        self._outer, Accelerator.current = Accelerator.current, self
        torch.Generator = Generator  # type: ignore[misc]
        self._made = _Made()
        self._made.__enter__()
        return super().__enter__()

    def __exit__(self, *what: Any) -> None:
        super().__exit__(*what)
        self._made.__exit__(*what)
        torch.Generator = _PlainGenerator  # type: ignore[misc]
        Accelerator.current = self._outer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(one, OnDevice) or _is_device(one) for one in _leaves([args, kwargs])):
            return self.run(func, args, kwargs)
        return func(*args, **kwargs)

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operation with a tensor of the device, or that makes one."""
        name = func._schema.name.removeprefix("aten::")
        flat = _leaves([args, kwargs])
        for one in flat:
            if isinstance(one, _PlainGenerator) and one._cdata not in Generator.ours:
                raise DeviceMismatch(f"{name}: a generator of the CPU draws on the device, at {where()}")
        if name in ("_to_copy", "to"):
            return self._move(func, args, kwargs)
        if name == "copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
            return self._copy(func, args, kwargs)
        if name in ("_local_scalar_dense", "equal", "allclose"):
            return self._read(func, args, kwargs)
        if name == "is_pinned":
            return False
        self._count_sizes_read(name, args)
        self._refuse_mixed(name, args, flat)
        ours = {id(one.inner): one for one in flat if isinstance(one, OnDevice)}
        low_args, low_kwargs = _map(self._lower, (args, kwargs))
        self._refuse_double(name, low_args)
        made = func(*low_args, **low_kwargs)
        self._refuse_double(name, made)

        def lift(one: Any) -> Any:
            if not isinstance(one, Tensor) or isinstance(one, OnDevice):
                return one
            return ours[id(one)] if id(one) in ours else OnDevice(one)

        return _map(lift, made)

    def _lower(self, one: Any) -> Any:
        """What the operation is really given."""
        if isinstance(one, OnDevice):
            return one.inner
        if isinstance(one, Tensor):
            return one if self.real else one.to("meta")
        return torch.device("cpu" if self.real else "meta") if _is_device(one) else one

    def _count_sizes_read(self, name: str, args: Any) -> None:
        index = [one for one in args[1] if one is not None] if name in _INDEXING else []
        if name in _SHAPED or any(one.dtype in (torch.bool, torch.uint8) for one in index):
            self.waits["shape"][where()] += 1
        if any(not isinstance(one, OnDevice) for one in index):
            self.waits["upload"][where()] += 1

    def _refuse_mixed(self, name: str, args: Any, flat: list[Any]) -> None:
        index = {id(one) for one in args[1]} if name in _INDEXING else set()
        for one in flat:
            if not isinstance(one, Tensor) or isinstance(one, OnDevice) or id(one) in index:
                continue
            if one.dim() and name not in ("lift_fresh", "set_", "record_stream"):
                shape = tuple(one.shape)
                raise DeviceMismatch(f"{name}: {shape} of the CPU beside the device's, at {where()}")

    def _refuse_double(self, name: str, tensors: Any) -> None:
        if self.float64:
            return
        for one in _leaves(tensors):
            if isinstance(one, Tensor) and one.dtype in (torch.float64, torch.complex128):
                raise TypeError(f"{name}: the device has no float64, at {where()}")

    def _read(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        self.waits["item"][where()] += 1
        if self.real:
            return func(*_map(self._lower, args), **kwargs)
        kind = args[0].dtype
        return True if len(args) > 1 or kind == torch.bool else 0.5 if kind.is_floating_point else 0

    def _copy(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        to, source, *rest = args
        if isinstance(to, OnDevice):
            self._uploads(queued=bool(rest and rest[0]))
            func(to.inner, self._lower(source), *rest, **kwargs)
            return to
        self.waits["download"][where()] += 1
        return func(to, self._down(source), *rest, **kwargs)

    def _move(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        source, *rest = args
        target = torch.device(kwargs.get("device") or source.device)
        if isinstance(source, OnDevice) and target.type != NAME:
            self.waits["download"][where()] += 1
            return func(self._down(source), *rest, **{**kwargs, "device": target})
        kwargs = {**kwargs, "device": torch.device("cpu" if self.real else "meta")}
        if isinstance(source, OnDevice):
            made = func(source.inner, *rest, **kwargs)
            self._refuse_double("to", made)
            return OnDevice(made)
        if source.device.type != "meta":
            self._uploads(queued=bool(kwargs.get("non_blocking")))
        made = func(source, *rest, **kwargs)
        shared = self.real and made.untyped_storage()._cdata == source.untyped_storage()._cdata
        self._refuse_double("to", made)
        return OnDevice(made.clone() if shared else made)

    def _uploads(self, *, queued: bool) -> None:
        (self.queued if queued else self.waits["upload"])[where()] += 1

    def _down(self, source: OnDevice) -> Tensor:
        return source.inner if self.real else torch.zeros(source.shape, dtype=source.dtype)


def _leaves(content: Any) -> list[Any]:
    """What is in nested lists, tuples and dictionaries."""
    if type(content) in (list, tuple):
        return [leaf for part in content for leaf in _leaves(part)]
    if type(content) is dict:
        return _leaves(list(content.values()))
    return [content]


def _map(function: Callable[[Any], Any], content: Any) -> Any:
    """The same with the function applied to each; much faster than torch's for any containers."""
    if type(content) in (list, tuple):
        return type(content)(_map(function, part) for part in content)
    if type(content) is dict:
        return {key: _map(function, part) for key, part in content.items()}
    return function(content)


def _is_device(one: Any) -> bool:
    return isinstance(one, torch.device) and one.type == NAME


def where() -> str:
    """The innermost line of the project that runs."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        starts = [name.rfind(part) for part in PROJECT if part in name and "/tests/" not in name]
        if starts and not name.endswith("mia_bench/memory.py"):  # its caller is meant
            return f"{name[max(starts) :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch"
