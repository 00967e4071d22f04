"""Free text made safe to print, one function for each medium.

Text that plugins, records, files and exceptions carry may be anything. :func:`one_line`, :func:`unbroken`
and :func:`lines` are for terminals and logs, :func:`prose` and :func:`code` for Markdown and the HTML made
from it, :func:`html` for HTML in Markdown, :func:`shell` for commands.
"""

from __future__ import annotations

import re
import shlex
import unicodedata

from markupsafe import Markup, escape

_INVISIBLE = ("Cc", "Cf", "Cs")
"""Categories of Unicode that steer a terminal, reorder or hide text, or can't be encoded."""

_PILED = 3
"""How many marks may stand on one character; more would reach into other lines."""

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>~&$#]")
_START = re.compile(r"^(\d+(?=[.)](?: |$))|(?=[=%:(]|[-+](?!\d)))")
"""Where a backslash keeps a line from being a list, a heading, a comment, a directive or a target."""

_ADDRESS = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)
"""What GitHub makes a link of, with a wrong address where characters are escaped."""


def _visible(text: str) -> str:
    """``text`` with U+FFFD for control and format characters and surrogates, except white space."""
    if text.isascii() and text.isprintable():
        return text
    kept, marks = [], 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        hidden = category in _INVISIBLE and not character.isspace()
        kept += ["\ufffd" if hidden else character] if marks <= _PILED else []
    return "".join(kept)


def one_line(text: str) -> str:
    """``text`` on one line, without characters that a terminal would obey."""
    return " ".join(_visible(text).split())


def unbroken(text: str) -> str:
    """As :func:`one_line`, with its indentation and columns."""
    return "".join(" " if c.isspace() else c for c in _visible(text.expandtabs())).rstrip()


def lines(text: str) -> str:
    """``text`` with its line ends, without characters that a terminal would obey."""
    return "\n".join(map(unbroken, text.split("\n")))


def encodable(text: str) -> str:
    """``text`` with U+FFFD for what no file can hold: the halves of surrogate pairs."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def shortened(text: str, longest: int) -> str:
    """The beginning of ``text`` and an ellipsis, where it is longer than ``longest`` characters."""
    return text if len(text) <= longest else f"{text[:longest]} …"


def prose(text: str) -> Markup:
    """``text`` to be read as it is in a Markdown paragraph, heading, list item or table cell."""
    escaped = _SPECIAL.sub(r"\\\g<0>", one_line(text))
    apart = _ADDRESS.sub(lambda found: f"&#{ord(found[0])};", escaped).replace("|", "&#124;")
    return Markup(_START.sub(r"\1\\", apart))


def code(text: str) -> Markup:
    """``text`` as code spans; backticks and pipes stand between them, so it is the same in a table."""
    parts = re.split(r"( *[`|][`| ]*)", one_line(text))
    return Markup(
        "".join(
            part.replace("`", "&#96;").replace("|", "&#124;") if number % 2 else f"`{part}`"
            for number, part in enumerate(parts)
            if part
        )
    )


def html(text: str) -> Markup:
    """``text`` in an HTML element on one line of a Markdown file, where Markdown is not read."""
    return escape(one_line(text))


def shell(word: str) -> Markup:
    """``word`` as one word for bash or zsh, on one line and without invisible characters."""
    if word.isprintable():
        return Markup(shlex.quote(word))
    escaped = (c if c.isprintable() and c not in "\\'" else f"\\U{ord(c):08x}" for c in word)
    return Markup(f"$'{''.join(escaped)}'")
