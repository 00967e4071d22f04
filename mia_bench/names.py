"""The forms that names and versions have, in one place: what registers them and what reads them asks here.

What has a form can stand in a file name, a command or a page as it is. Everything else that plugins and
records say is free text, and is made safe where it is printed (:mod:`mia_bench.text`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from packaging.version import VERSION_PATTERN
from pydantic import AfterValidator


@dataclass(frozen=True)
class Form:
    """What a kind of name must look like.

    Attributes:
        rule: it in words, after "is not".
        pattern: it as a regular expression for the whole name.
        longest: the maximum number of characters.
    """

    rule: str
    pattern: re.Pattern[str]
    longest: int

    def matches(self, name: Any) -> bool:
        """Whether ``name`` is a string of this form."""
        return isinstance(name, str) and len(name) <= self.longest and bool(self.pattern.fullmatch(name))

    def check(self, name: str) -> str:
        """Return the name.

        Raises:
            ValueError: it has another form.
        """
        if not self.matches(name):
            shown = ascii(name)
            shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
            raise ValueError(f"{shown} is not {self.rule}")
        return name


COMPONENT = Form("lower-case words joined by '-'", re.compile(r"[a-z0-9]+(-[a-z0-9]+)*"), 64)
"""Names of components and tracks."""

STANDARD = "standard"
"""What stands for a track's standard set of attacks in place of an attack's name: no attack may have it."""

PLUGIN = Form(
    "a plugin's name: letters, digits, '.', '_' and '-'", re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*)"), 64
)
"""Names of entry points and of plugins' commands."""

DISTRIBUTION = Form(
    "the name of a Python distribution", re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"), 100
)
"""As PEP 508 has it; pip takes such a name for a package's, not for an option, an address or a path."""

RELEASE = Form(
    "the version of a Python distribution", re.compile(VERSION_PATTERN, re.VERBOSE | re.IGNORECASE), 100
)
"""As PEP 440 has it."""

_ONE_VERSION = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
VERSION = Form(
    "a version: letters, digits, '.', '_', '+' and '-'",
    re.compile(rf"{_ONE_VERSION}(/{_ONE_VERSION})*"),
    200,
)
"""Versions of components; a ``/`` stands before those of the base classes."""

OPTION = Form(
    "an option's name: letters, digits and '_', not a digit first", re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), 64
)

KEY = Form("letters, digits, '-' and '_'", re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*"), 100)
"""Keys of cells, which become names of files."""

ComponentName = Annotated[str, AfterValidator(COMPONENT.check)]
DistributionName = Annotated[str, AfterValidator(DISTRIBUTION.check)]
ComponentVersion = Annotated[str, AfterValidator(VERSION.check)]
OptionName = Annotated[str, AfterValidator(OPTION.check)]
Key = Annotated[str, AfterValidator(KEY.check)]
