"""Lists that data sets bring as text files."""

from __future__ import annotations

import codecs
from pathlib import Path

from mia_bench.errors import DataError


def text_lines(path: Path, name: str) -> list[str]:
    """The lines that are not blank, with any line ends, with a byte order mark or without.

    Raises:
        DataError: the file can't be read, or is no text; the message starts with ``name``, the data set's.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: {path} can't be read: {error.strerror}") from error
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: {path} is no text") from error
    return [line for line in text.splitlines() if line.strip()]
