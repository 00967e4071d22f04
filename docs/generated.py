"""The generated part of the documentation: what the code says of itself, as Markdown.

A page asks for it with a comment, ``<!-- generated: options -->``, which :func:`fill` replaces when the
site is built. What is short also stands in the file, up to ``<!-- end -->``, for those who read that:
``python docs/generated.py`` writes it anew. :func:`inventory` lists everything that must be documented,
with the id it has in the built pages; :func:`missing` says what of it isn't there.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from bs4 import BeautifulSoup, Tag
from pydantic import BaseModel

import mia_bench
from mia_bench import hookspecs, record, testing
from mia_bench import track as track_module
from mia_bench.api.access import LEVELS
from mia_bench.api.defense import Defense
from mia_bench.api.metric import Quantity
from mia_bench.api.options import describe_options
from mia_bench.cli.group import cli as command_line
from mia_bench.engine.plan import CELL_STAGES, STAGE_VERSIONS
from mia_bench.plugins import host
from mia_bench.registry import BASES, KINDS, Entry, Registry
from mia_bench.testing.checks import CHECKS
from mia_bench.testing.checks import KINDS as ALL_KINDS
from mia_bench.track import load_track

DISTRIBUTION = "mia-bench"
"""What others have installed beside it is no part of the site."""

END = "<!-- end -->"
MARK = re.compile(rf"^<!-- generated: ([^>]+) -->$(\n(?:(?!<!-- generated)[\s\S])*?^{END}$)?", re.MULTILINE)
"""What is asked for, and what the file has of it."""

TITLES = {
    "defense": "Defenses",
    "attack": "Attacks",
    "prior": "Priors",
    "dataset": "Data sets",
    "model": "Architectures",
    "encoder": "Identity encoders",
    "metric": "Metrics",
}
UNITS = {
    "share": "share, from 0 to 1",
    "rank": "rank, from 1",
    "bits": "bits, 0 or more",
    "distance": "distance, 0 or more",
    "count": "count, 0 or more",
    "amount": "0 or more",
    "number": "number",
}
RECORD = (
    record.Record,
    record.TrackRef,
    record.ComponentRef,
    record.About,
    record.Matched,
    record.MetricValue,
    record.Cost,
    record.Provenance,
)
TRACK = (
    track_module.Track,
    track_module.Data,
    track_module.Choice,
    track_module.ClassifierSpec,
    track_module.Recipe,
    track_module.Colour,
    track_module.AttackDefaults,
    track_module.Standard,
    track_module.StandardAttack,
)


@dataclass(frozen=True)
class Item:
    """Something that must be documented: its id in the pages, and what the code says of it."""

    anchor: str
    text: str


def fill(text: str) -> str:
    """A page with the generated parts in place of their marks."""
    return MARK.sub(lambda match: _section(match[1]), text)


def renew(text: str) -> str:
    """A page whose parts in the file say what the code says."""

    def part(match: re.Match[str]) -> str:
        if match[2] is None:
            return match[0]
        return f"<!-- generated: {match[1]} -->\n\n{_section(match[1]).strip()}\n\n{END}"

    return MARK.sub(part, text)


def _section(what: str) -> str:
    name, _, argument = what.partition(" ")
    try:
        return SECTIONS[name](argument)
    except KeyError:
        raise ValueError(f"nothing is generated under the name {what!r}") from None


# --- text ------------------------------------------------------------------------------------


def markdown(text: str) -> str:
    """What a docstring or a help text says, as one paragraph of Markdown."""
    text = " ".join(text.split())
    text = re.sub(r":\w+:`~(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text).replace("``", "`")
    parts = text.split("`")
    parts[::2] = [re.sub(r"([<\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


def plain(text: str) -> str:
    """The letters and digits of a text, for comparisons that markup must not disturb."""
    text = re.sub(r":\w+:`~(?:[\w.]+\.)?(\w+)`", r"\1", text)
    return "".join(re.findall(r"\w+", re.sub(r":\w+:`", "`", text)))


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`" if text else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _anchor(*words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def _target(*words: str) -> str:
    return f"({_anchor(*words)})="


def _cell(name: str, *words: str) -> str:
    """The first cell of a row that others can be pointed to."""
    return f"[{_code(name)}]{{#{_anchor(*words)}}}"


# --- the command line ------------------------------------------------------------------------


def commands(
    command: click.Command = command_line, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of ours with its words (none for ``mia-bench`` itself), in the order of ``--help``."""
    yield above, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and _ours(below):
                yield from commands(below, (*above, name))


def _ours(command: click.Command) -> bool:
    module = getattr(command.callback, "__module__", "")
    return not module or module.partition(".")[0] in ("mia_bench", "mia_bench_plugins")


def _options(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def _long(option: click.Option) -> str:
    return max(option.opts, key=len)


def cli(_: str = "") -> str:
    """A section for each command: usage, help, options."""
    parts = []
    for words, command in commands():
        name = " ".join(("mia-bench", *words))
        with click.Context(command, info_name=name) as context:
            usage = command.get_usage(context).removeprefix("Usage: ")
        parts += [_target("command", *words), f"{'#' * min(2 + len(words), 3)} {name}", ""]
        parts += [f"```text\n{' '.join(usage.split())}\n```", ""]
        parts += [f"{markdown(block)}\n" for block in (command.help or "").split("\n\n")]
        rows = []
        for option in _options(command):
            names = ", ".join(_code(text) for text in option.opts if text != _long(option))
            shown, help_ = option.get_help_record(click.Context(command)) or ("", "")
            value = "" if option.is_flag else re.sub(r"^(-[\w-]+(, | / )?)+ ?", "", shown)
            first = _cell(_long(option), "command-option", *words, _long(option))
            first += f", {names}" if names else ""
            rows.append([first, _code(value), markdown(help_)])
        if rows:
            parts.append(_table(["option", "value", "what it does"], rows))
    return "\n".join(parts)


# --- components ------------------------------------------------------------------------------


def entries(registry: Registry, kind: str) -> list[Entry]:
    """The components of a kind that come with mia-bench."""
    return [e for e in registry.entries(kind) if e.plugin.distribution == DISTRIBUTION]


def options(_: str = "") -> str:
    """A section for each component of each kind: what it is, and a table of its options."""
    registry, parts = host().registry, []
    for kind, title in TITLES.items():
        parts += [f"## {title}", ""]
        for entry in entries(registry, kind):
            component = entry.load()
            parts += [_target(kind, entry.name), f"### {entry.name}", ""]
            parts += [markdown(component.summary), ""]
            for label in ("paper", "access", "terms", "layout", "origin"):
                if value := getattr(component, label, ""):
                    parts.append(f"- {label}: {markdown(value)}")
            parts += [f"- version: {markdown(entry.identity()['version'])}", ""]
            rows = [
                [
                    _cell(row["option"], "option", kind, entry.name, row["option"]),
                    _code(row["type"]),
                    _code(row["default"]),
                    markdown(row["bounds"]),
                    markdown(row["help"]),
                ]
                for row in describe_options(component.Options)
            ]
            header = ["option", "type", "default", "bounds", "what it sets"]
            parts.append(_table(header, rows) if rows else "No options.\n")
    return "\n".join(parts)


def attacks(_: str = "") -> str:
    """The access of each attack."""
    rows = [
        [_code(entry.name), entry.load().access, markdown(entry.load().summary)]
        for entry in entries(host().registry, "attack")
    ]
    return _table(["attack", "access", "what it is"], rows)


def _families(registry: Registry) -> Iterator[tuple[str, str, Mapping[str, Quantity], Any]]:
    """(kind, name, metrics with a line each, class) of what gives metrics."""
    for entry in entries(registry, "metric"):
        family = entry.load()
        yield "metric", entry.name, family.quantities, family
    for entry in entries(registry, "defense"):
        defense: type[Defense] = entry.load()
        if defense.reports:
            yield "defense", entry.name, defense.reports, defense


def metrics(_: str = "") -> str:
    """A section for each family: where its definition is from, and a table of its metrics."""
    parts = []
    for kind, name, described, family in _families(host().registry):
        parts += [f"## Family {name}" if kind == "metric" else f"## Reported by {name}", ""]
        if kind == "metric":
            documented = inspect.getdoc(inspect.getmodule(family)) or ""
            parts += [f"{markdown(block)}\n" for block in documented.split("\n\n")]
        if family.paper:
            parts += [f"Source: {markdown(family.paper)}.", ""]
        if getattr(family, "needs_gallery", False):
            parts += ["Null on tracks without an identity encoder, and where it is missing.", ""]
        rows = [
            [
                _cell(metric, kind, name, metric),
                markdown(quantity.description),
                UNITS[quantity.kind],
                quantity.better,
            ]
            for metric, quantity in described.items()
        ]
        header = ["metric", "what it is", "unit", "better for the defender"]
        parts.append(_table(header, rows))
    return "\n".join(parts)


# --- models of files -------------------------------------------------------------------------


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """What stands below each field of a pydantic model, by the field's name."""
    module = ast.parse(inspect.getsource(inspect.getmodule(model) or record))
    (node,) = (n for n in module.body if isinstance(n, ast.ClassDef) and n.name == model.__name__)
    found = dict.fromkeys(model.model_fields, "")
    for statement, below in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[statement.target.id] = str(below.value.value)
    return found


def _fields(what: str, models: Sequence[type[BaseModel]]) -> str:
    parts = []
    for model in models:
        parts += [_target(what, model.__name__), f"### {model.__name__}", ""]
        parts += [f"{markdown(block)}\n" for block in (inspect.getdoc(model) or "").split("\n\n")]
        rows = []
        for name, text in field_texts(model).items():
            field = model.model_fields[name]
            default = "" if field.is_required() else field.get_default(call_default_factory=True)
            default = "" if default == "" or isinstance(default, BaseModel) else _code(repr(default))
            shown = field.alias or name
            annotation = str(inspect.get_annotations(model)[name])
            rows.append(
                [
                    _cell(shown, what, model.__name__, shown),
                    _code(annotation),
                    default,
                    markdown(text),
                ]
            )
        parts.append(_table(["field", "type", "default", "what it says"], rows))
    return "\n".join(parts)


def record_fields(_: str = "") -> str:
    """The fields of a record."""
    return _fields("record", RECORD)


def track_fields(_: str = "") -> str:
    """The fields of a track file."""
    return _fields("trackfile", TRACK)


def tracks(_: str = "") -> str:
    """A section for each track: its protocol in words, its settings, its file."""
    from mia_bench.cli.describe import describe_track

    registry, parts = host().registry, []
    for entry in entries(registry, "track"):
        track = load_track(registry, entry.name)
        parts += [_target("track", entry.name), f"### {entry.name}", ""]
        parts += [f"{markdown(track.summary)}. Version {track.version}.", ""]
        parts += [markdown(track.protocol), ""]
        parts += [f"```text\n{describe_track(registry, entry)}\n```", ""]
        text = Path(str(entry.component)).read_text(encoding="utf-8").strip()
        parts += ["The file:", "", f"```toml\n{text}\n```", ""]
    return "\n".join(parts)


# --- hooks and stages ------------------------------------------------------------------------


def hooks(module: ModuleType = hookspecs) -> dict[str, Callable[..., None]]:
    """Every hook by its name."""
    found = inspect.getmembers(module, inspect.isfunction)
    ordered = sorted(found, key=lambda pair: inspect.getsourcelines(pair[1])[1])
    return {name: hook for name, hook in ordered if hasattr(hook, "mia_bench_spec")}


def signature(name: str, hook: Callable[..., None]) -> str:
    """``mia_bench_cell_finished(cell: FinishedCell)``."""
    given = inspect.signature(hook).parameters.values()
    return f"{name}({', '.join(f'{p.name}: {p.annotation}' for p in given)})"


def hook(name: str) -> str:
    """The head of a hook's page."""
    found = hooks()[name]
    plural = name.removeprefix("mia_bench_register_")
    kinds = [kind for kind, known in KINDS.items() if known == plural and kind in BASES]
    lines = [
        "## The hook",
        "",
        f'<a id="{_anchor("hook", name)}"></a>',
        "",
        f"```python\n{signature(name, found)}\n```",
        "",
    ]
    lines += [markdown(inspect.getdoc(found) or ""), ""]
    if kinds:
        base = BASES[kinds[0]]
        lines += [f"`python -m pydoc mia_bench.{base.__name__}` prints the base class.", ""]
    return "\n".join(lines)


def _page(hook: str) -> str:
    return hook.removeprefix("mia_bench_").replace("_", "-") + ".md"


def hook_table(_: str = "") -> str:
    """All hooks, with a link to the page of each."""
    rows = [
        [f"[{_code(name)}]({_page(name)})", markdown(inspect.getdoc(found) or "")]
        for name, found in hooks().items()
    ]
    return _table(["hook", "what it does"], rows)


def checks(_: str = "") -> str:
    """The checks of the conformance kit: their kinds, and what each asks for."""
    titles = {**TITLES, "reporter": "Reporters"}
    rows = []
    for part in CHECKS:
        left_out = [kind for kind in ALL_KINDS if kind not in part.kinds]
        kinds = ", ".join(titles[kind] for kind in part.kinds).lower()
        if len(left_out) < 2:
            kinds = " but ".join(["all", *(titles[kind].lower() for kind in left_out)])
        rows.append([_code(part.name), kinds, markdown(part.words)])
    return _table(["check", "of", "what it asks for"], rows)


def stages(_: str = "") -> str:
    """The stages with their versions."""
    rows = [
        [_code(name), "the cell" if name in CELL_STAGES else "the track", str(version)]
        for name, version in STAGE_VERSIONS.items()
    ]
    return _table(["stage", "belongs to", "version of the host's code"], rows)


def levels(_: str = "") -> str:
    """The access levels, and what each lets through."""
    rows = [[_code(level), markdown(inspect.getdoc(access) or "")] for level, access in LEVELS.items()]
    return _table(["level", "what is seen"], rows)


# --- Python ----------------------------------------------------------------------------------

FURTHER = (
    "mia_bench.api.access.Access",
    "mia_bench.api.metric.AttackEvidence",
    "mia_bench.api.metric.Gallery",
    "mia_bench.api.metric.TargetEvidence",
    "mia_bench.cell.FinishedCell",
    "mia_bench.api.classifier.Activations",
    "mia_bench.api.classifier.Classifier",
    "mia_bench.api.generative.GenerativeModel",
)
"""What plugins meet beside the names of the package itself."""


def python(_: str = "") -> str:
    """Every public name of the package, from its docstrings."""
    parts = []
    public = [name for name in mia_bench.__all__ if name not in ("__version__", "hookimpl")]
    paths = [f"mia_bench.{name}" for name in public]
    paths += [f"mia_bench.testing.{name}" for name in testing.__all__]
    for path in [*paths, *FURTHER]:
        name = path.rpartition(".")[2]
        kind = "autoclass" if name[0].isupper() else "autofunction"
        members = "\n   :members:\n   :show-inheritance:" if kind == "autoclass" else ""
        parts += [_target("api", name), f"## {name}", ""]
        parts += [f"```{{eval-rst}}\n.. {kind}:: {path}{members}\n```", ""]
    return "\n".join(parts)


SECTIONS: dict[str, Callable[[str], str]] = {
    "attacks": attacks,
    "checks": checks,
    "cli": cli,
    "hook": hook,
    "hooks": hook_table,
    "levels": levels,
    "metrics": metrics,
    "options": options,
    "python": python,
    "record": record_fields,
    "stages": stages,
    "track-fields": track_fields,
    "tracks": tracks,
}


# --- what must be there ----------------------------------------------------------------------


def inventory(
    registry: Registry | None = None,
    root: click.Command = command_line,
    hooks_of: ModuleType = hookspecs,
) -> list[Item]:
    """Everything that the site must document, from the code."""
    registry = registry or host().registry
    found = [
        Item(_anchor("hook", name), inspect.getdoc(hook) or "") for name, hook in hooks(hooks_of).items()
    ]
    for words, command in commands(root):
        found.append(Item(_anchor("command", *words), command.help or ""))
        for option in _options(command):
            found.append(Item(_anchor("command-option", *words, _long(option)), option.help or ""))
    for kind in TITLES:
        for entry in entries(registry, kind):
            component = entry.load()
            found.append(Item(_anchor(kind, entry.name), component.summary))
            for row in describe_options(component.Options):
                anchor = _anchor("option", kind, entry.name, row["option"])
                found.append(Item(anchor, row["help"]))
    for kind, name, described, _ in _families(registry):
        found += [Item(_anchor(kind, name, key), quantity.description) for key, quantity in described.items()]
    for entry in entries(registry, "track"):
        found.append(Item(_anchor("track", entry.name), load_track(registry, entry.name).summary))
    for what, models in (("record", RECORD), ("trackfile", TRACK)):
        for model in models:
            for name, text in field_texts(model).items():
                shown = model.model_fields[name].alias or name
                found.append(Item(_anchor(what, model.__name__, shown), text))
    return found


def places(pages: Iterable[str]) -> dict[str, str]:
    """What stands around each id of the built pages."""
    found: dict[str, str] = {}
    for text in pages:
        for element in BeautifulSoup(text, "html.parser").find_all(id=True):
            found.setdefault(str(element["id"]), plain(_around(element)))
    return found


def missing(found: Mapping[str, str], items: Sequence[Item]) -> list[str]:
    """One line for each item that the code doesn't describe or no page shows with its text.

    Args:
        found: of :func:`places`.
        items: of :func:`inventory`.
    """
    problems = []
    for item in items:
        if not plain(item.text):
            problems.append(f"{item.anchor}: the code does not say what it is")
        elif item.anchor not in found:
            problems.append(f"{item.anchor}: no page shows it")
        elif plain(item.text) not in found[item.anchor]:
            problems.append(f"{item.anchor}: its page does not say what the code says")
    return problems


def _around(element: Tag) -> str:
    """The text of the row, or the section, that an id belongs to."""
    place = element.find_parent("tr") or element.find_parent("section") or element
    if element.name == "section":
        place = element
    return place.get_text(" ")


if __name__ == "__main__":
    for page in sorted(Path(__file__).parent.rglob("*.md")):
        old = page.read_text(encoding="utf-8")
        if (new := renew(old)) != old:
            page.write_text(new, encoding="utf-8")
            print(page)
