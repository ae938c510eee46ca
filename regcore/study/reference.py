"""The reference of settings: writes the tables of ``config/README.md`` and the schema for editors.

``python -m regcore.study.reference`` updates both, in the repository that it is called from.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from regcore.autoreg.settings import CellSearchSettings
from regcore.methods import METHODS, method_type, settings_type
from regcore.process.files import atomic_write
from regcore.settings.base import Settings
from regcore.settings.schema import plain_schema
from regcore.study.settings import StudySettings
from regcore.tuning.settings import SearchSettings

README, SCHEMA = Path("config/README.md"), Path("config/study.schema.json")


def _key_table(settings: type[Settings]) -> str:
    """A Markdown table of every key, its default and meaning; nested keys as ``a.b``."""
    return _table(_keys(plain_schema(settings)))


def _method_tables() -> str:
    """The settings of every method, as Markdown."""
    parts = []
    for name, info in METHODS.items():
        first_line = (method_type(name).__doc__ or "").strip().splitlines()[0]
        parts.append(f"### `{name}`{' (learned)' if info.learned else ''}\n\n{first_line}")
        if properties := _settings_of_method(name):
            parts.append(_table(properties.items()))
    return "\n\n".join(parts)


def _settings_of_method(name: str) -> dict[str, dict[str, Any]]:
    """Key → JSON schema of the settings of a method."""
    return settings_type(name).schema_of_keys()


def _fill(text: str, section: str, content: str) -> str:
    """Replace the text between the markers of ``section``."""
    pattern = rf"(<!-- {section}: begin.*?-->\n).*?(<!-- {section}: end -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{content}\n{match[2]}", text, flags=re.DOTALL)


def filled(text: str) -> str:
    r"""The README of the study file's keys with updated tables.

    Parameters
    ----------
    text : str
        Markdown, with markers around each table.

    Returns
    -------
    str
        The same text with the present keys, defaults and meanings between the markers.

    Examples
    --------
    >>> from regcore.study.reference import filled
    >>> for line in filled("<!-- search: begin -->\n<!-- search: end -->").splitlines()[:3]:
    ...     print(line)
    <!-- search: begin -->
    | key | default | meaning |
    |---|---|---|
    """
    for section, content in (
        ("keys", _key_table(StudySettings)),
        ("search", _key_table(SearchSettings)),
        ("cells", _key_table(CellSearchSettings)),
        ("methods", _method_tables()),
    ):
        text = _fill(text, section, content)
    return text


def _study_schema() -> dict[str, Any]:
    """JSON schema of a study file, with the settings of each entry's method.

    The method of an entry is the one it names, or else the one with the entry's name.  It may also come from an
    installed package; the schema does not describe the settings of such a method.
    """
    schema = plain_schema(StudySettings)
    methods = schema["properties"]["methods"]
    named = {"type": "object", "required": ["method"]}
    entries = {
        **{key: value for key, value in methods.items() if key != "additionalProperties"},
        "properties": {
            name: {"if": named, "then": _reference("entry"), "else": _reference(name)} for name in sorted(METHODS)
        },
        "additionalProperties": {"if": named, "then": _reference("entry")},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A regcore study",
        **schema,
        "properties": {**schema["properties"], "methods": entries},
        "definitions": {
            "tune": plain_schema(SearchSettings),
            "autosearch": plain_schema(CellSearchSettings),
            "entry": {
                "properties": {"method": {"anyOf": [_method(sorted(METHODS)), {"type": "string"}]}},
                "allOf": [
                    {"if": {"properties": {"method": {"const": name}}}, "then": _reference(name)}
                    for name in sorted(METHODS)
                ],
            },
            **{name: _entry(name) for name in sorted(METHODS)},
        },
    }


def _entry(name: str) -> dict[str, Any]:
    """Schema of an entry of a method."""
    searches: dict[str, Any] = {}
    if METHODS[name].learned:
        searches["tune"] = _search("tune", "search for hyperparameters; null for no search")
    if name == "autoreg":
        searches["autosearch"] = _search("autosearch", "search for cells and objective; null for no search")
    return {
        "type": ["object", "null"],
        "properties": {"method": _method([name]), **searches, **_settings_of_method(name)},
        "additionalProperties": False,
    }


def _method(names: list[str]) -> dict[str, Any]:
    return {"description": "the method, if the entry's name is not a method", "enum": names}


def _search(name: str, description: str) -> dict[str, Any]:
    return {"description": description, "anyOf": [_reference(name), {"type": "null"}]}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/definitions/{name}"}


def schema_text() -> str:
    """The content of ``config/study.schema.json``: the JSON schema of a study file.

    Returns
    -------
    str
        With the settings of every method of regcore, and a new line at the end.

    Examples
    --------
    >>> import json
    >>> from regcore.study.reference import schema_text
    >>> schema = json.loads(schema_text())
    >>> schema["required"], schema["properties"]["seed"]["default"]
    (['study', 'cohort', 'methods'], 1)
    """
    return json.dumps(_study_schema(), indent=1, ensure_ascii=False) + "\n"


def _keys(schema: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Mapping[str, Any]]]:
    for key, rule in schema.get("properties", {}).items():
        yield prefix + key, rule
        yield from _keys(rule, f"{prefix}{key}.")


def _table(keys: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, rule in keys:
        nested = "properties" in rule
        default = "" if nested or "default" not in rule else f"`{json.dumps(rule['default'])}`"
        lines.append(f"| `{key}` | {default} | {rule['description']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for file, content in ((README, filled(README.read_text())), (SCHEMA, schema_text())):
        with atomic_write(file) as path:
            path.write_text(content)
