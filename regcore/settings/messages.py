"""What pydantic finds wrong with settings, as sentences that name the key, the mistake and the remedy."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from regcore.errors import did_you_mean
from regcore.settings.schema import plain_schema

#: Kinds of mistakes whose sentence needs the value and one number.
BOUNDS = {
    "greater_than_equal": ("ge", "is less than the minimum of"),
    "greater_than": ("gt", "is not greater than"),
    "less_than_equal": ("le", "is greater than the maximum of"),
    "less_than": ("lt", "is not less than"),
}
LENGTHS = {"too_short": ("min_length", "fewer than"), "too_long": ("max_length", "more than")}
#: How pydantic marks that the key of a mapping is wrong, not its value.
KEY = "[key]"
TYPES = {
    "number": "a number",
    "integer": "a whole number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys to values",
    "null": "null",
}


def sentences(error: ValidationError, model: type[BaseModel], given: Any, where: str) -> Iterator[str]:
    """One sentence for each place that is wrong.

    Parameters
    ----------
    model : type
        The class of settings that refused.
    given : mapping
        What it was given.
    where : str
        What the settings are called.
    """
    schema = plain_schema(model)
    places: dict[tuple[tuple[int | str, ...], bool], list[Any]] = {}
    for found in error.errors():
        place = _place(found["loc"], given, found["type"])
        places.setdefault((place, found["loc"][-1:] == (KEY,)), []).append(found)
    for (place, about_key), errors in places.items():
        if about_key:
            yield _about_key(list(place), errors[0], schema, where)
        else:
            yield _sentence(list(place), errors, schema, given, where)


def _place(location: tuple[int | str, ...], given: Any, kind: str) -> tuple[int | str, ...]:
    """The part of pydantic's location that is a way into what was given; the rest names branches of a union."""
    way: list[int | str] = []
    for step in location:
        known = range(len(given)) if isinstance(given, list) else given if isinstance(given, Mapping) else ()
        if step in known:
            given = given[step]
        elif kind != "missing" or step != location[-1]:
            break
        way.append(step)
    return tuple(way)


def _sentence(place: list[int | str], errors: list[Any], schema: Mapping, given: Any, where: str) -> str:
    first = next((error for error in errors if not _is_about_type(error["type"])), errors[0])
    kind = first["type"]
    if kind in ("extra_forbidden", "missing"):
        *parents, key = place
        subject = _subject(parents, where)
        if kind == "missing":
            return f"{subject}: missing key '{key}'"
        known = _rule(schema, parents).get("properties", {})
        return f"{subject}: unknown key '{key}'{did_you_mean(str(key), known)}"
    subject, rule, value = _subject(place, where), _rule(schema, place), _value(given, place)
    explained = f" ({rule['description']})" if place and "description" in rule else ""
    if kind == "value_error":
        return f"{subject}: {first['ctx']['error']}"
    if kind in BOUNDS:
        limit, words = BOUNDS[kind]
        return f"{subject}: {value!r} {words} {first['ctx'][limit]:g}{explained}"
    if kind in LENGTHS:
        limit, words = LENGTHS[kind]
        count = first["ctx"][limit]
        return f"{subject}: {value!r} has {words} {count} item{'s' if count != 1 else ''}{explained}"
    if kind == "string_pattern_mismatch":
        return f"{subject}: {value!r} does not match {first['ctx']['pattern']!r}{explained}"
    if kind == "string_too_short":
        return f"{subject}: {value!r} is too short{explained}"
    if "enum" in rule:
        return f"{subject}: {value!r} is not possible{did_you_mean(str(value), map(str, rule['enum']))}"
    if kind == "finite_number":
        return f"{subject}: {value!r} is not a finite number{explained}"
    if not _is_about_type(kind):
        return f"{subject}: {first['msg']}{explained}"
    return f"{subject}: {value!r} is not {expected(rule)}{explained}"


def _about_key(place: list[int | str], error: Any, schema: Mapping, where: str) -> str:
    """What is wrong with a name that somebody chose, such as a method's."""
    *parents, name = place
    subject = _subject(parents, where)
    if error["type"] == "literal_error":
        known = _rule(schema, parents).get("propertyNames", {}).get("enum", [])
        return f"{subject}: {name!r} is not possible{did_you_mean(str(name), known)}"
    if error["type"] == "string_pattern_mismatch":
        return f"{subject}: {name!r} does not match {error['ctx']['pattern']!r}"
    return f"{subject}: {name!r} is not a text"


def _is_about_type(kind: str) -> bool:
    return kind.endswith("_type") or kind in ("literal_error", "finite_number")


def expected(rule: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words: "a number or null".

    Parameters
    ----------
    rule : mapping
        Part of a JSON schema.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.settings.messages import expected
    >>> expected({"type": ["number", "null"]}), expected({"enum": ["paper", "code"]})
    ('a number or null', 'paper or code')
    """
    if "anyOf" in rule:
        return " or ".join(dict.fromkeys(expected(part) for part in rule["anyOf"]))
    if "enum" in rule or "const" in rule:
        return " or ".join(str(value) for value in rule.get("enum", [rule.get("const")]))
    types = rule.get("type", [])
    return " or ".join(TYPES[name] for name in ([types] if isinstance(types, str) else types)) or "valid"


def _subject(place: list[int | str], where: str) -> str:
    joined = ".".join(map(str, place))
    return f"{where}: {joined}" if joined else where


def _rule(schema: Mapping[str, Any], place: list[int | str]) -> Mapping[str, Any]:
    """The schema of what lies at a place; empty where the schema does not say."""
    for step in place:
        if isinstance(step, int):
            schema = schema.get("items", {})
        else:
            more = schema.get("additionalProperties")
            schema = schema.get("properties", {}).get(step, more if isinstance(more, Mapping) else {})
    return schema


def _value(given: Any, place: list[int | str]) -> Any:
    for step in place:
        given = given[step]
    return given
