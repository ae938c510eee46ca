"""The labels that are scored, their names and groups, and the labels that training sees."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regcore.cohort.settings import LabelSettings
from regcore.errors import InputError

#: The group of every label if a study has no groups, and of labels that belong to none.
NO_GROUPS, UNGROUPED = "all", "other"
#: What is observed by a training that makes images from whole label maps: every label, the largest first.
BY_SIZE = "every label, the largest first"


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


def found_labels(maps: Iterable[np.ndarray]) -> set[int]:
    """The label codes that occur in any of the arrays."""
    return set().union(*(set(np.unique(data).tolist()) for data in maps))


def scored_labels(found: Iterable[int], settings: LabelSettings, table_path: str | Path | None) -> pd.DataFrame:
    """List the labels that a study scores.

    Parameters
    ----------
    found : iterable of int
        Codes that occur in the label maps; 0 is background.
    settings : LabelSettings
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
    codes = set(found) - {0} - expand_codes(settings.exclude, "labels.exclude")
    names, groups = {}, {}
    if table_path:
        table = read_label_table(table_path)
        names = dict(zip(table["index"], table["name"], strict=True))
        if "group" in table:
            groups = {code: group for code, group in zip(table["index"], table["group"], strict=True) if group}
        codes &= set(names)
    for group, items in settings.groups.items():
        groups |= dict.fromkeys(expand_codes(items, f"labels.groups.{group}"), group)
    if not codes:
        raise InputError("labels: no label is left to score; check 'labels.exclude' and 'labels.table'")
    default = UNGROUPED if groups else NO_GROUPS
    rows = [(code, names.get(code, str(code)), groups.get(code, default)) for code in codes]
    return pd.DataFrame(sorted(rows), columns=["index", "name", "group"])


def structures(labels: pd.DataFrame) -> pd.Series:
    """Label code → name of its structure: the label's name without its side."""
    return labels.set_index("index")["name"].astype(str).str.replace("^(left|right|Left|Right)[- ]", "", regex=True)


def drawn_codes(labels: pd.DataFrame, observed: str, draw: int) -> list[int]:
    """The codes of one structure, which differs for every draw, or of half of them; both sides belong together."""
    names = structures(labels)
    different = sorted(set(names))
    if observed == "one":
        chosen = {different[np.random.default_rng(0).permutation(len(different))[(draw - 1) % len(different)]]}
    else:
        chosen = set(np.random.default_rng(draw).permutation(different)[: -(-len(different) // 2)])
    return list(names.index[names.isin(chosen)])


def observed_classes(labels: pd.DataFrame, observed: Any, where: str, draw: int = 1) -> dict[int, int]:
    """Number the classes that a training with labels distinguishes.

    Parameters
    ----------
    labels : DataFrame
        The study's labels, as from :func:`scored_labels`.
    observed : {"all", "half", "one", "groups"} or list
        All labels are classes; those of half the structures; or those of one.  With ``groups`` each group is one
        class and labels without a group are none.  With a list, only the listed numbers and ranges are classes.
    draw : int
        Which draw of half the structures, or of one.
    where : str
        The key that ``observed`` came from, for error messages.

    Returns
    -------
    dict of int → int
        Label code → class, 1 to K without gaps.

    Raises
    ------
    InputError
        Nothing is observed, or the study has no groups.
    """
    if observed == "groups":
        group = dict(zip(labels["index"], labels["group"], strict=True))
        names = sorted(set(group.values()) - {UNGROUPED})
        if names in ([], [NO_GROUPS]):
            raise InputError(f"{where}: the study has no groups; give 'labels.groups' or a column 'group' of the table")
        return {int(code): 1 + names.index(name) for code, name in group.items() if name in names}
    codes = sorted(map(int, labels["index"]))
    if observed in ("half", "one"):
        codes = sorted(drawn_codes(labels, observed, draw))
    elif observed != "all":
        wanted = expand_codes(observed, where)
        codes = [code for code in codes if code in wanted]
    if not codes:
        raise InputError(f"{where}: none of {observed} is a scored label of the study (see 'labels')")
    return {code: number for number, code in enumerate(codes, start=1)}


def classes_by_size(maps: Iterable[np.ndarray], where: str) -> dict[int, int]:
    """Number all labels except 0, the largest first: label code → class, 1 to K.

    Raises
    ------
    InputError
        There are fewer than two labels.
    """
    sizes: Counter[int] = Counter()
    for data in maps:
        codes, counts = np.unique(data[data != 0], return_counts=True)
        sizes.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
    if len(sizes) < 2:
        raise InputError(
            f"{where}: making images needs label maps with two labels or more; those of the training scans have "
            f"{len(sizes)} besides the background"
        )
    ordered = sorted(sizes, key=lambda code: (-sizes[code], code))
    return {code: number for number, code in enumerate(ordered, start=1)}


def classify(labels: np.ndarray, classes: Mapping[int, int]) -> np.ndarray:
    """Replace label codes by their class, and codes without one by 0.

    Returns
    -------
    ndarray of int16, same shape
    """
    codes = np.array(sorted(classes))
    numbers = np.array([classes[code] for code in codes], dtype=np.int16)
    place = np.searchsorted(codes, labels).clip(max=len(codes) - 1)
    return np.where(codes[place] == labels, numbers[place], np.int16(0))


def read_label_table(path: str | Path) -> pd.DataFrame:
    """Read a label table; raises :class:`InputError` if it is missing or lacks a column."""
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
