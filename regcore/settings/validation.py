"""Configuration: checking it against a JSON schema, filling in defaults, and fingerprints.

One mechanism serves the study's YAML, the settings of each method and the rows of a cohort table: a JSON
schema says what is valid, and :func:`validated` turns its complaints into sentences.
"""

import copy
from typing import Any

import jsonschema

from regcore.errors import InputError, did_you_mean


def settings_schema(properties: dict, required: tuple[str, ...] = ()) -> dict:
    """Make the schema of an object that has these properties and no others.

    Parameters
    ----------
    properties : dict
        Key → JSON schema of its value.
    required : tuple of str
        Keys that must be given.

    Returns
    -------
    dict
        JSON schema, draft 2020-12.

    Examples
    --------
    >>> from regcore.settings.validation import settings_schema
    >>> schema = settings_schema({"window": {"type": "integer"}})
    >>> schema["additionalProperties"], schema["required"]
    (False, [])
    """
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def validated(config: Any, schema: dict, where: str) -> Any:
    """Return ``config`` with defaults filled in.

    Parameters
    ----------
    config : mapping
        As read from YAML.
    schema : dict
        JSON schema, draft 2020-12.
    where : str
        What the configuration is called in messages: a file or a key.

    Returns
    -------
    mapping
        A copy of ``config``, complete.

    Raises
    ------
    InputError
        Naming each wrong key, what is allowed there, and the nearest known key for a misspelt one.

    Examples
    --------
    >>> from regcore.settings.validation import settings_schema, validated
    >>> schema = settings_schema({"window": {"type": "integer", "default": 9}})
    >>> validated({}, schema, "methods.mine")
    {'window': 9}
    >>> validated({"windw": 5}, schema, "methods.mine")
    Traceback (most recent call last):
    ...
    regcore.errors.InputError: methods.mine: unknown key 'windw'; did you mean 'window'?
    """
    config = _with_defaults(copy.deepcopy(config), schema)
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(config), key=lambda error: list(map(str, error.absolute_path)))
    if errors:
        raise InputError("\n".join(_explain(error, where) for error in errors))
    return config


def _with_defaults(config: Any, schema: dict) -> Any:
    if isinstance(config, dict):
        for key, rule in schema.get("properties", {}).items():
            if key not in config and "default" in rule:
                config[key] = copy.deepcopy(rule["default"])
            if key in config:
                config[key] = _with_defaults(config[key], rule)
    return config


def _explain(error: jsonschema.ValidationError, where: str) -> str:
    place = ".".join(str(part) for part in error.absolute_path)
    subject = f"{where}: {place}" if place else where
    schema = error.schema if isinstance(error.schema, dict) else {}
    asked: Any = error.validator_value
    found: Any = error.instance
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        unknown = sorted(set(found) - set(known))
        return "\n".join(f"{subject}: unknown key '{key}'{did_you_mean(key, known)}" for key in unknown)
    if error.validator == "required":
        missing = [key for key in asked if key not in found]
        return f"{subject}: missing key {', '.join(map(repr, missing))}"
    if error.validator == "enum":
        hint = did_you_mean(str(error.instance), map(str, asked))
        return f"{subject}: {error.instance!r} is not possible{hint}"
    if error.validator in ("oneOf", "anyOf"):
        reason = schema.get("errorMessage") or schema.get("description", error.message)
        return f"{subject}: {reason}"
    described = schema.get("description")
    return f"{subject}: {error.message}" + (f" ({described})" if described else "")
