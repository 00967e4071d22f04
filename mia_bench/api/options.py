"""Options of a component: a pydantic model whose fields carry type, default, bounds and help."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mia_bench.errors import MiaBenchError, UsageError, did_you_mean, summarize_error
from mia_bench.names import OPTION
from mia_bench.text import one_line, shortened


class Options(BaseModel):
    """Base of every ``Options`` class: unknown keys are refused, values are checked and frozen.

    Attributes:
        places: options that hold paths; they are left out of keys and records.
    """

    places: ClassVar[frozenset[str]] = frozenset()

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Raise TypeError where an option's name is no plain word."""
        for name in cls.model_fields:
            if not OPTION.matches(name):
                raise TypeError(f"{cls.__qualname__}: {name!r} is not {OPTION.rule}")


Share = Annotated[float, Field(ge=0, lt=1)]
"""The type of an option that is a share below 1, such as the decay rates of Adam."""

OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(owner: str, cls: type[OptionsT], values: Mapping[str, Any]) -> OptionsT:
    """Check ``values`` (strings from the command line are converted) against ``cls``.

    Raises:
        UsageError: one line with the option, the error and the allowed values.
    """
    prepared = {key: _from_text(cls, key, value) for key, value in values.items()}
    try:
        return cls(**prepared)
    except ValidationError as error:
        raise UsageError("; ".join(_explain(owner, cls, e) for e in error.errors())) from None
    except Exception as error:  # a plugin's validator may raise anything
        raise MiaBenchError(f"the options of {owner}: {summarize_error(error)}") from error


def _from_text(cls: type[Options], key: str, value: Any) -> Any:
    """Decode lists, objects and null, which the command line gives as JSON; pydantic converts scalars."""
    field = cls.model_fields.get(key)
    if not isinstance(value, str) or field is None or field.annotation is str:
        return value
    if value[:1] in "[{" or value == "null":
        try:
            return json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return value
    return value


def _explain(owner: str, cls: type[Options], error: Any) -> str:
    key = ".".join(map(str, error["loc"])) or "options"
    if error["type"] == "extra_forbidden":
        if not cls.model_fields:
            return f"{owner} has no options (got {key!r})"
        return f"{owner} has no option {key!r}; {did_you_mean(key, cls.model_fields)}"
    if error["type"] == "missing":
        return f"{owner}.{key} has no default: give one with -o {owner}.{key}=VALUE"
    message = one_line(error["msg"].removeprefix("Value error, "))
    return f"{owner}.{key}={shortened(str(error['input']), 200)}: {message[:1].lower()}{message[1:]}"


def describe_options(cls: type[Options]) -> list[dict[str, str]]:
    """One row per option with name, type, default, bounds and help, for ``mia-bench describe``."""
    schema = cls.model_json_schema()
    rows = []
    for name, field in cls.model_fields.items():
        entry = schema["properties"][name]
        rows.append(
            {
                "option": name,
                "type": _type_name(entry),
                "default": "none: required"
                if field.is_required()
                else json.dumps(field.get_default(call_default_factory=True), default=str),
                "bounds": _bounds(entry),
                "help": field.description or "",
            }
        )
    return rows


def _type_name(entry: Mapping[str, Any]) -> str:
    if "enum" in entry:
        return "|".join(map(str, entry["enum"]))
    if "const" in entry:
        return str(entry["const"])
    if "anyOf" in entry:
        return " or ".join(_type_name(part) for part in entry["anyOf"])
    if entry.get("type") == "array":
        return f"list of {_type_name(entry.get('items') or entry['prefixItems'][0])}"
    return str(entry.get("type", "any"))


def _bounds(entry: Mapping[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    parts = [entry, *entry.get("anyOf", [])]
    return ", ".join(f"{sign} {part[key]:g}" for part in parts for key, sign in signs.items() if key in part)
