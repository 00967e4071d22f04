"""Reading pickles of unknown origin: nothing that they name is called, and what they ask for is bounded.

:func:`load` interprets the instructions of a pickle itself. Containers, text and numbers become Python's
own; a name becomes the function that the caller has for it, or is refused. Functions get arguments from the
file, so they must check them, and do little work whatever these are. Byte strings stay in the file: a
:class:`Span` says where.

Before anything is allocated, lengths are compared with what is left of the file. Limited are the number of
instructions, and with it that of objects and references; the length of texts and numbers; and the depth.
"""

from __future__ import annotations

import pickletools
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, BinaryIO, NamedTuple, cast

from mia_bench.errors import DataError

INSTRUCTIONS = 300_000
"""A file of three networks of 1024 pixels has 40,000."""
LENGTH = 1 << 20
"""Bytes of a text or a number; the longest is the source code of the networks."""
DEPTH = 64
"""Containers within containers; in files of networks about 25."""

OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
SPANS = {"SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8}
"""Instructions whose bytes stay in the file, and the sizes of their lengths."""
VALUES = frozenset({
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
})  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

Function = Callable[..., Any]


class Span(NamedTuple):
    """Bytes that were left in a file, which is open in binary mode."""

    file: BinaryIO
    start: int
    length: int

    def read(self) -> bytes:
        """Read them; the position in the file stays."""
        position = self.file.tell()
        self.file.seek(self.start)
        data = self.file.read(self.length)
        self.file.seek(position)
        return data


class Source:
    """A part of a file, from which no more is read than it holds.

    Args:
        span: the part.
    """

    def __init__(self, span: Span) -> None:
        self._file = span.file
        self._left = span.length
        self._file.seek(span.start)

    def _take(self, length: int) -> None:
        if length > self._left:
            raise EOFError("it ends too early")
        self._left -= length

    def read(self, length: int) -> bytes:
        """Read the next bytes; raise EOFError if there are fewer. As ``pickletools`` expects it of a file."""
        if length > LENGTH:
            raise DataError(f"it holds a text or number of {length:,} bytes")
        self._take(length)
        return self._file.read(length)

    def readline(self) -> bytes:
        """Read up to the end of a line."""
        line = self._file.readline(min(LENGTH, self._left))
        self._take(len(line))
        return line

    def skip(self, length: int) -> Span:
        """Leave the next bytes in the file; raise EOFError if there are fewer."""
        self._take(length)
        start = self._file.tell()
        self._file.seek(length, 1)
        return Span(self._file, start, length)


def shown(value: object) -> str:
    """A value from the file for a message: short, and in one line."""
    text = reprlib.repr(value)
    return text if len(text) <= 100 else text[:100] + "…"


def named(name: str) -> str:
    """A name from the file for a message: as it is, or like other values if it is no ordinary one."""
    return name if re.fullmatch(r"[\w.]{1,100}", name, re.ASCII) else shown(name)


def load(
    source: Source,
    find: Callable[[str, str], Function],
    outside: Function | None = None,
    *,
    instructions: int = INSTRUCTIONS,
) -> Any:
    """The content of the next pickle in the source.

    Sets become lists. Keys of dicts are texts.

    Args:
        find: from a module and a name in it to a function; raises DataError for names that are refused.
        outside: makes a value of a reference to data outside the pickle; None refuses such references.
        instructions: their largest number.

    Raises:
        DataError: the pickle is too large or deep, or asks for what is refused.
        Exception: it is damaged; any.
    """
    content = _Machine(source, find, outside, instructions).run()
    _check_depth(content)
    return content


class _Machine:
    """The stack machine that pickles are written for, as far as protocols 2 to 5 use it for plain objects."""

    def __init__(
        self,
        source: Source,
        find: Callable[[str, str], Function],
        outside: Function | None,
        instructions: int,
    ) -> None:
        self.instructions = instructions
        self.source = source
        self.find = find
        self.outside = outside
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(self.instructions):
            code = self.source.read(1)
            if code not in OPCODES:
                raise ValueError("it holds what is no instruction")
            name, argument = OPCODES[code].name, OPCODES[code].arg
            if name == "STOP":
                return self.stack.pop()
            if name in SPANS:
                length = int.from_bytes(self.source.read(SPANS[name]), "little")
                self.stack.append(self.source.skip(length))
            else:
                file = cast(IO[bytes], self.source)  # has the methods that pickletools uses
                self._step(name, None if argument is None else argument.reader(file))
        raise DataError(f"it has more than {self.instructions:,} instructions")

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(self._top(TUPLES[name]))]
        else:
            self._other_step(name, argument)

    def _other_step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                if argument > self.instructions:
                    raise DataError(f"it numbers an object {argument:,}")
                self.memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise ValueError("it refers to an object that it does not hold")
                stack.append(self.memo[argument])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._marked())
            case "SETITEM":
                key, value = self._pop(2)
                self._update([key, value])
            case "SETITEMS":
                self._update(self._marked())
            case "GLOBAL":
                stack.append(self.find(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                module, name = self._pop(2)
                stack.append(self.find(_expect(module, str), _expect(name, str)))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self._pop(2)
                stack.append(_expect(function, Callable)(*self._arguments(arguments)))
            case "BUILD":
                stack.pop()  # Objects get nothing but the arguments of their function.
            case "BINPERSID" if self.outside is not None:
                stack.append(self.outside(stack.pop()))
            case "PERSID" | "BINPERSID":
                raise DataError("it refers to data outside of it")
            case _:
                raise DataError(f"it holds the instruction {name}, which files of networks do not need")

    @staticmethod
    def _arguments(value: Any) -> tuple[Any, ...]:
        """Check that a value is a tuple of the file, not one of ours."""
        if type(value) is not tuple:
            raise TypeError(f"it uses {type(value).__name__} as arguments")
        return value

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("its stack is empty")
        return self.stack[-count:]

    def _pop(self, count: int) -> list[Any]:
        values = self._top(count)
        del self.stack[-count:]
        return values

    def _marked(self) -> list[Any]:
        """Take everything above the last mark."""
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def _extend(self, values: list[Any]) -> None:
        _expect(self.stack[-1], list).extend(values)

    def _update(self, pairs: list[Any]) -> None:
        target = _expect(self.stack[-1], dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Hashes of other keys can be made to collide, and those of nested tuples recurse.
            target[_expect(key, str)] = value


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"it uses {type(value).__name__} as {kind.__name__}")
    return value


def _children(value: object) -> Iterable[Any]:
    """Containers in a container."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return (item for item in items if isinstance(item, dict | list | tuple))


def _check_depth(root: object) -> None:
    """Raise DataError if containers lie too deep or contain themselves; without recursion."""
    heights: dict[int, int] = {id(root): 0}  # 0 while a container is on the path
    path: list[tuple[object, Iterator[Any]]] = [(root, iter(_children(root)))]
    while path:
        value, children = path[-1]
        for child in children:
            if id(child) not in heights:
                heights[id(child)] = 0
                path.append((child, iter(_children(child))))
                break
            if not heights[id(child)]:
                raise DataError("it holds an object that contains itself")
        else:
            path.pop()
            heights[id(value)] = 1 + max((heights[id(child)] for child in _children(value)), default=0)
        if len(path) > DEPTH or heights[id(value)] > DEPTH:
            raise DataError(f"its objects lie more than {DEPTH} deep in one another")
