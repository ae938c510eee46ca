"""The tables of ``config/README.md``, made from the schemas, so that they cannot be wrong.

``python -m regcore.study.reference workflow/schemas/config.schema.yaml config/README.md`` writes them anew.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regcore.autoreg.search import SEARCH as CELL_SEARCH
from regcore.methods import METHODS, make_method
from regcore.process.files import atomic_write
from regcore.settings.validation import load_yaml
from regcore.tuning.search import SEARCH


def key_table(schema: Mapping) -> str:
    """Every key of a study, with its default and meaning, as a Markdown table."""
    return _table(_keys(schema))


def method_tables() -> str:
    """The settings of every method, as Markdown."""
    parts = []
    for name, info in METHODS.items():
        method = make_method(name)
        first_line = (type(method).__doc__ or "").strip().splitlines()[0]
        parts.append(f"### `{name}`{' (learned)' if info.learned else ''}\n\n{first_line}")
        if method.properties:
            parts.append(_table((key, rule) for key, rule in method.properties.items()))
    return "\n\n".join(parts)


def search_table() -> str:
    """The keys of a search for hyperparameters, as a Markdown table."""
    return _table(SEARCH.items())


def cell_search_table() -> str:
    """The keys of a search for AutoReg's cells and objective, as a Markdown table."""
    return _table(CELL_SEARCH.items())


def fill(text: str, section: str, content: str) -> str:
    """Replace what stands between the markers of ``section``."""
    pattern = rf"(<!-- {section}: begin.*?-->\n).*?(<!-- {section}: end -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{content}\n{match[2]}", text, flags=re.DOTALL)


def filled(text: str, schema: Mapping) -> str:
    """The README with its tables up to date."""
    for section, content in (
        ("keys", key_table(schema)),
        ("search", search_table()),
        ("cells", cell_search_table()),
        ("methods", method_tables()),
    ):
        text = fill(text, section, content)
    return text


def _keys(schema: Mapping, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, rule in schema.get("properties", {}).items():
        yield prefix + key, rule
        yield from _keys(rule, f"{prefix}{key}.")


def _table(keys: Iterator[tuple[str, Mapping]]) -> str:
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, rule in keys:
        nested = "properties" in rule
        default = "" if nested or "default" not in rule else f"`{json.dumps(rule['default'])}`"
        lines.append(f"| `{key}` | {default} | {rule['description']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    schema_path, readme = map(Path, sys.argv[1:3])
    with atomic_write(readme) as path:
        path.write_text(filled(readme.read_text(), load_yaml(schema_path)))
