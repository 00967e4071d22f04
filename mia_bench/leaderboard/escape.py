"""A jinja2 environment whose values can't break out of the Markdown or the shell script they stand in.

Every printed value is escaped, by the suffix of its template: ``.md.j2`` as a line of Markdown prose,
``.sh.j2`` as shell words. Only ``Markup`` is printed as it is: what the functions here and macros return.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>~&$#]")
_START = re.compile(r"^(\d+(?=[.)](?: |$))|(?=[=%:(]|[-+](?!\d)))")
"""Where a backslash keeps a line from being a list, a heading, a comment, a directive or a target."""


def one_line(text: str) -> str:
    """``text`` on one line; control characters, format characters and surrogates become U+FFFD."""
    visible = (
        "\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and not c.isspace() else c for c in text
    )
    return " ".join("".join(visible).split())


def prose(text: str) -> Markup:
    """``text`` to be read as it is in a paragraph, heading, list item or table cell."""
    escaped = _START.sub(r"\1\\", _SPECIAL.sub(r"\\\g<0>", one_line(text)))
    return Markup(escaped.replace("|", "&#124;"))


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


def shell(word: str) -> Markup:
    """``word`` as one word for bash or zsh, on one line and without invisible characters."""
    if word.isprintable():
        return Markup(shlex.quote(word))
    escaped = (c if c.isprintable() and c not in "\\'" else f"\\U{ord(c):08x}" for c in word)
    return Markup(f"$'{''.join(escaped)}'")


@pass_context
def _escape(context: Context, value: Any) -> Markup:
    if isinstance(value, Markup):
        return value
    if not str(context.name).endswith(".sh.j2"):
        return prose(str(value))
    words = value if isinstance(value, (list, tuple)) else [value]
    return Markup(" ".join(shell(str(word)) for word in words))


def make_environment() -> Environment:
    """The environment of the templates in :data:`TEMPLATES`; an unknown name is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,  # so that macros return Markup; `finalize` escapes before HTML's rules could
        finalize=_escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A shell comment ends with its line and needs no other escape.
    environment.filters |= {"code": code, "comment": lambda text: Markup(one_line(text))}
    return environment
