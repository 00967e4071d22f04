"""A jinja2 environment whose values can't break out of the Markdown or the shell script they stand in.

Every printed value is escaped, by the suffix of its template: ``.md.j2`` as a line of Markdown prose,
``.sh.j2`` as shell words. Only ``Markup`` is printed as it is: what the functions of :mod:`mia_bench.text`
and macros return.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from mia_bench.text import code, html, one_line, prose, shell

TEMPLATES = Path(__file__).parent / "templates"


@pass_context
def _escape(context: Context, value: Any) -> Markup:
    if isinstance(value, Markup):
        return value
    if not str(context.name).endswith(".sh.j2"):
        return prose(str(value))
    words = value if isinstance(value, (list, tuple)) else [value]
    return Markup(" ".join(shell(str(word)) for word in words))


def make_environment(folder: Path | None = None) -> Environment:
    """The environment of the templates in a folder, or in :data:`TEMPLATES`; an unknown name is an error."""
    environment = Environment(
        loader=FileSystemLoader(folder or TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,  # so that macros return Markup; `finalize` escapes before HTML's rules could
        finalize=_escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A shell comment ends with its line and needs no other escape.
    environment.filters |= {"code": code, "comment": lambda text: Markup(one_line(text)), "html": html}
    return environment


def page_text(environment: Environment, template: str, values: Mapping[str, Any]) -> str:
    """The text of a page, with one empty line where the templates leave several."""
    text = environment.get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def as_it_is(number: Callable[..., str]) -> Callable[..., Markup]:
    """The function, its brackets not escaped, and its numbers not broken into two lines."""
    return lambda *values, **more: Markup(number(*values, **more).replace(" ", "\N{NO-BREAK SPACE}"))
