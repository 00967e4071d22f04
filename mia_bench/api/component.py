"""The base class of all components: summary, paper, version and options."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mia_bench.api.options import Options as BaseOptions
from mia_bench.names import VERSION


@dataclass(frozen=True)
class Published:
    """A file that somebody else publishes.

    Attributes:
        name: of the file.
        url: to download it from, empty if there is no such address.
        sha256: prefix of its SHA-256, empty if none is published.
        how: how mia-bench downloads it, in words that follow "is missing"; empty if it does not.
    """

    name: str
    url: str
    sha256: str = ""
    how: str = ""


class Component:
    """Base of :class:`Defense`, :class:`Attack`, :class:`Prior` and the other kinds.

    A subclass states a one-line ``summary``, the ``paper`` it implements, and a nested ``Options``
    class. ``version`` is part of every cache key: raise it whenever results change. Left out, it is
    a hash of the module's source, so that editing the file never serves a stale result.
    """

    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    version: ClassVar[str] = ""

    trial_options: ClassVar[Mapping[str, Any]] = {}
    """Options with which it runs in seconds; the conformance kit uses them where no others are given."""

    class Options(BaseOptions):
        """No options."""

    options: Options

    def __init_subclass__(cls) -> None:
        """Raise TypeError unless summary, paper and version are strings, and Options a class of options."""
        super().__init_subclass__()
        for name in ("summary", "paper", "version"):
            if not isinstance(value := getattr(cls, name), str):
                raise TypeError(f"{cls.__name__}: {name} is {value!r}, not a string")
        if cls.version and not VERSION.matches(cls.version):
            raise TypeError(f"{cls.__name__}: {cls.version!r} is not {VERSION.rule}")
        if not (isinstance(cls.Options, type) and issubclass(cls.Options, BaseOptions)):
            raise TypeError(f"{cls.__name__}: Options is not a subclass of mia_bench.Options")

    def __init__(self, options: BaseOptions | None = None) -> None:
        self.options = options if isinstance(options, self.Options) else self.Options()

    def weight_files(self) -> tuple[Published, ...]:
        """The weight files that it needs with its options, which lie in the folder of weights.

        Those that are missing are named before a run begins. Must not import torch.
        """
        return ()


def component_version(cls: type[Component]) -> str:
    """The version declared in the module of ``cls``, else ``src-`` and a hash of its source file.

    The versions of base classes from other modules outside mia_bench.api are appended.
    """
    parents: dict[str, type[Component]] = {}
    for base in cls.__mro__:
        foreign = base.__module__ != cls.__module__
        if foreign and issubclass(base, Component) and not base.__module__.startswith("mia_bench.api."):
            parents.setdefault(base.__module__, base)
    return "/".join([_own_version(cls), *(_own_version(base) for base in parents.values())])


def _own_version(cls: type[Component]) -> str:
    for base in cls.__mro__:
        if base.__module__ == cls.__module__ and base.__dict__.get("version"):
            return str(base.__dict__["version"])
    try:
        source = Path(inspect.getfile(cls)).read_bytes()
    except (OSError, TypeError):
        source = f"{cls.__module__}.{cls.__qualname__}".encode()
    return "src-" + hashlib.sha256(source).hexdigest()[:12]
