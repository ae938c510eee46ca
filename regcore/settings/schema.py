"""JSON schemas of settings: plain ones, which editors complete from and tables of documentation are made of."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

#: Constraints that pydantic writes under its own names where several types are allowed.
BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


@cache
def plain_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a class of settings, without references and titles.

    Types that may be null or one of several are one list of ``type``, as a person would write it.

    Parameters
    ----------
    model : type
        A class derived from :class:`~regcore.settings.base.Settings`.

    Returns
    -------
    dict

    Examples
    --------
    >>> from pydantic import BaseModel, Field
    >>> from regcore.settings.schema import plain_schema
    >>> class Smoothing(BaseModel):
    ...     window: int | None = Field(9, ge=2)
    >>> plain_schema(Smoothing)["properties"]["window"]
    {'type': ['integer', 'null'], 'minimum': 2, 'default': 9}
    """
    schema = model.model_json_schema(by_alias=True)
    return _plain(schema, schema.get("$defs", {}))


def _plain(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_plain(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        named = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**named, **{key: value for key, value in schema.items() if key != "$ref"}}
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("$defs", "title") and not (key == "title" and isinstance(value, dict)):
            continue
        if key == "properties":
            kept[key] = {name: _plain(rule, definitions) for name, rule in value.items()}
        elif key == "patternProperties":  # of names that somebody chose: no other names are possible
            ((pattern, rule),) = value.items()
            kept |= {"propertyNames": {"pattern": pattern}, "additionalProperties": _plain(rule, definitions)}
        elif key in ("default", "enum", "const", "examples"):
            kept[key] = value
        else:
            kept[BOUNDS.get(key, key)] = _plain(value, definitions)
    if "const" in kept:  # one choice is written as several are
        kept["enum"] = [kept.pop("const")]
    return _merged(kept)


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """``anyOf`` of plain types as one rule, where that says the same."""
    parts = schema.get("anyOf")
    if not parts:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if all("enum" in part or "const" in part or part == {"type": "null"} for part in parts):
        values = [value for part in parts for value in part.get("enum", [part.get("const")])]
        return {"enum": list(dict.fromkeys(values)), **rest}
    types = [part.get("type") for part in parts]
    if any(type_ is None for type_ in types) or any("enum" in part or "const" in part for part in parts):
        return schema
    if len([part for part in parts if len(part) > 1]) > 1:  # constraints of several types cannot be told apart
        return schema
    flat = [name for type_ in types for name in (type_ if isinstance(type_, list) else [type_])]
    flat = [name for name in dict.fromkeys(flat) if not (name == "integer" and "number" in flat)]
    constraints = {key: value for part in parts for key, value in part.items() if key != "type"}
    return {"type": flat[0] if len(flat) == 1 else flat, **constraints, **rest}
