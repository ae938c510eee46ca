"""Which labels are scored, what they are called, and how they are grouped."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from regcore.errors import InputError


def expand_codes(items: Iterable[int | str], where: str) -> set[int]:
    """Turn numbers and ranges such as ``"100-207"`` into a set of label codes."""
    codes: set[int] = set()
    for item in items:
        first, _, last = str(item).partition("-")
        try:
            codes |= set(range(int(first), int(last or first) + 1))
        except ValueError as error:
            raise InputError(f"{where}: '{item}' is neither a label number nor a range such as 100-207") from error
    return codes


def scored_labels(found: Iterable[int], settings: Mapping, table_path: str | Path | None) -> pd.DataFrame:
    """List the labels that a study scores.

    Parameters
    ----------
    found : iterable of int
        Codes that occur in the label maps; 0 is background.
    settings : mapping
        The study's ``labels`` section: ``exclude`` and ``groups``.
    table_path : path, optional
        TSV with the columns ``index name`` and optionally ``group``.

    Returns
    -------
    DataFrame
        Columns ``index name group``, sorted by code.

    Raises
    ------
    InputError
        The table lacks a column, or no label is left.
    """
    codes = set(found) - {0} - expand_codes(settings["exclude"], "labels.exclude")
    names, groups = {}, {}
    if table_path:
        table = read_label_table(table_path)
        names = dict(zip(table["index"], table["name"], strict=True))
        if "group" in table:
            groups = dict(zip(table["index"], table["group"], strict=True))
        codes &= set(names)
    for group, items in settings["groups"].items():
        groups |= dict.fromkeys(expand_codes(items, f"labels.groups.{group}"), group)
    if not codes:
        raise InputError("labels: no label is left to score; check 'labels.exclude' and 'labels.table'")
    rows = [(code, names.get(code, str(code)), groups.get(code, "all" if not groups else "other")) for code in codes]
    return pd.DataFrame(sorted(rows), columns=["index", "name", "group"])


def read_label_table(path: str | Path) -> pd.DataFrame:
    """Read a label table; raises :class:`InputError` when it is missing or lacks a column."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such label table")
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    missing = {"index", "name"} - set(table)
    if missing:
        raise InputError(f"{path}: the label table lacks the column(s) {', '.join(sorted(missing))} (tab-separated)")
    try:
        table["index"] = table["index"].astype(int)
    except ValueError as error:
        raise InputError(f"{path}: the column 'index' must hold whole numbers ({error})") from error
    return table
