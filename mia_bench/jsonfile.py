"""JSON objects in files: read without trusting them, written as valid JSON, sealed with a hash.

A sealed object has the field :data:`SEAL`: the SHA-256 of the canonical JSON of all its other fields, so
that a changed number is found. The layout of the file doesn't count.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from mia_bench.text import encodable

SEAL = "sha256"
"""Name of the field that holds the hash."""

DEEPEST = 50
"""Objects and lists within each other that are read at most."""

LARGEST = 64 * 2**20
"""Bytes of JSON that are read at most."""

Object: TypeAlias = dict[str, Any]


def file_size(path: Path) -> int:
    """The size of a regular file in bytes.

    Raises:
        ValueError: something else lies there.
        OSError: it is missing or can't be read.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("it is a link that leads to itself") from error
        raise
    _check_regular(found)
    return found.st_size


def read_file(path: Path, largest: int | None = None) -> bytes:
    """The bytes of a regular file. Never waits for a pipe or a device.

    Raises:
        ValueError: something else lies there, or it is larger than ``largest`` bytes.
        OSError: it is missing or can't be read.
    """
    file_size(path)
    # What lies there may be replaced now: a pipe opened this way has no data instead of waiting for them.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        _check_regular(found)
        if largest is not None and found.st_size > largest:
            raise ValueError(f"it has {found.st_size} bytes, more than {largest}")
        return file.read()


def _check_regular(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no regular file")


def read_object(path: Path) -> Object:
    """The JSON object in a file.

    Raises:
        ValueError: there is no valid one; says why.
        OSError: the file is missing or can't be read.
    """
    return parse_object(read_file(path, LARGEST))


def parse_object(data: bytes) -> Object:
    """The JSON object in UTF-8 text: finite numbers, no key twice, at most :data:`DEEPEST` levels.

    Raises:
        ValueError: it is not; says why.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise ValueError(f"more than {DEEPEST} objects and lists within each other") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error}" if data else "it is empty") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if not _surely_right(data):
        _check(value)
    return value


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_SHAPES = bytes.maketrans(b"123456789E", b"000000000e")
_TOO_LARGE = (b"e00", b"e+00", b"0" * 200)
"""One of these is in every number that no float can hold, outside strings and with 0 for every digit."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _surely_right(data: bytes) -> bool:
    """Whether :func:`_check` need not look, which takes longer: it would find nothing in this JSON text."""
    if b"\\u" in data:
        return False
    bare = _STRING.sub(b"", data)
    shapes = bare.translate(_SHAPES)
    if any(part in shapes for part in _TOO_LARGE):
        return False
    depth = 0
    for bracket in bare.translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> Object:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def _check(value: Any) -> None:
    """Refuse what can't be written again: deep nesting, infinite numbers, halves of characters."""
    left: list[tuple[Any, int]] = [(value, 1)]
    while left:
        one, depth = left.pop()
        if isinstance(one, (dict, list)):
            if depth > DEEPEST:
                raise ValueError(f"more than {DEEPEST} objects and lists within each other")
            inner: Iterable[Any] = [*one, *one.values()] if isinstance(one, dict) else one
            left += [(part, depth + 1) for part in inner]
        elif isinstance(one, float) and not math.isfinite(one):
            raise ValueError("a number is too large")
        elif isinstance(one, str) and not one.isascii():
            one.encode()  # a UnicodeEncodeError is a ValueError


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: null for numbers that are not finite, no halves of characters.

    Raises:
        TypeError: it is no value of JSON.
    """
    if isinstance(value, Mapping):
        return {plain(_key(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):  # names of files may hold bytes that are no text
        return encodable(value)
    return value


def _key(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)


def seal(content: Mapping[str, Any]) -> Object:
    """The object as JSON can hold it, with the hash of its other fields."""
    held: Object = plain(content)
    return {**held, SEAL: digest(held)}


def seal_holds(content: Mapping[str, Any]) -> bool:
    """Whether the object has a hash, and it is that of its other fields."""
    try:
        return SEAL in content and content[SEAL] == digest(content)
    except (TypeError, ValueError, RecursionError):
        return False


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of all fields but the hash itself.

    Raises:
        ValueError, TypeError: it can't be written as JSON.
    """
    return _hash(_canonical(content))


def _canonical(content: Mapping[str, Any]) -> str:
    fields = {name: value for name, value in content.items() if name != SEAL}
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sealed_text(content: Mapping[str, Any]) -> str:
    """:func:`file_text` of the sealed object."""
    try:
        text = _canonical(content)
    except (TypeError, ValueError):
        text = ""
    if not text or "\\ud" in text:  # half a character, perhaps
        return file_text(seal(content))
    return file_text({**content, SEAL: _hash(text)})


def file_text(content: Any) -> str:
    """The text of a file of JSON: sorted keys, one value a line.

    Raises:
        ValueError, TypeError: it can't be written as JSON.
    """
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
