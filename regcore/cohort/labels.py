"""The labels that are scored, their names and groups, and the labels that training sees."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regcore.cohort.settings import LabelSettings
from regcore.cohort.tsv import read_tsv
from regcore.errors import InputError

#: The group of every label if a study has no groups, and of labels that belong to none.
NO_GROUPS, UNGROUPED = "all", "other"
#: What is observed by a training that makes images from whole label maps: every label, the largest first.
BY_SIZE = "every label, the largest first"


def expand_codes(items: Iterable[int | str], where: str) -> set[int]:
    """Turn numbers and ranges such as ``"100-207"`` into a set of label codes.

    Parameters
    ----------
    items : iterable of int or str
        Codes, and ranges that include both ends.
    where : str
        The key that they came from, for error messages.

    Returns
    -------
    set of int

    Raises
    ------
    InputError
        An item is neither a number nor a range.

    Examples
    --------
    >>> from regcore.cohort.labels import expand_codes
    >>> sorted(expand_codes([2, "41-43"], "labels.exclude"))
    [2, 41, 42, 43]
    """
    codes: set[int] = set()
    for item in items:
        first, _, last = str(item).partition("-")
        try:
            codes |= set(range(int(first), int(last or first) + 1))
        except ValueError as error:
            raise InputError(f"{where}: '{item}' is neither a label number nor a range such as 100-207") from error
    return codes


def found_labels(maps: Iterable[np.ndarray]) -> set[int]:
    """The label codes that occur in any of the arrays.

    Parameters
    ----------
    maps : iterable of ndarray
        Label maps of any shape.

    Returns
    -------
    set of int
        With 0, if it occurs.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.cohort.labels import found_labels
    >>> sorted(found_labels([np.array([0, 2]), np.array([[2, 5]])]))
    [0, 2, 5]
    """
    return set().union(*(set(np.unique(data).tolist()) for data in maps))


def scored_labels(found: Iterable[int], settings: LabelSettings, table_path: str | Path | None) -> pd.DataFrame:
    """List the labels that a study scores.

    Parameters
    ----------
    found : iterable of int
        Codes that occur in the label maps; 0 is background.
    settings : LabelSettings
        ``exclude`` and ``groups``.
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

    Examples
    --------
    >>> from regcore.cohort.labels import scored_labels
    >>> from regcore.cohort.settings import LabelSettings
    >>> settings = LabelSettings(exclude=["41-99"], groups={"deep": [10]})
    >>> scored_labels([0, 3, 10, 42], settings, table_path=None).values.tolist()
    [[3, '3', 'other'], [10, '10', 'deep']]
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
    """Label code → name of its structure: the label's name without its side.

    Parameters
    ----------
    labels : DataFrame
        Columns ``index name``, as from :func:`scored_labels`.

    Returns
    -------
    Series of str
        Indexed by code.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.cohort.labels import structures
    >>> labels = pd.DataFrame({"index": [10, 49], "name": ["left thalamus", "right thalamus"]})
    >>> structures(labels).to_dict()
    {10: 'thalamus', 49: 'thalamus'}
    """
    return labels.set_index("index")["name"].astype(str).str.replace("^(left|right|Left|Right)[- ]", "", regex=True)


def drawn_codes(labels: pd.DataFrame, observed: str, draw: int) -> list[int]:
    """The codes of one structure, which differs for every draw, or of half of them; both sides belong together.

    Parameters
    ----------
    labels : DataFrame
        Columns ``index name``, as from :func:`scored_labels`.
    observed : {"one", "half"}
        How many structures.
    draw : int
        Which draw, from 1 on.

    Returns
    -------
    list of int

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.cohort.labels import drawn_codes
    >>> labels = pd.DataFrame({"index": [10, 49], "name": ["left thalamus", "right thalamus"]})
    >>> drawn_codes(labels, "one", draw=1)
    [10, 49]
    """
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

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.cohort.labels import observed_classes
    >>> labels = pd.DataFrame({"index": [3, 10, 42], "name": ["cortex", "thalamus", "cortex"], "group": list("aba")})
    >>> observed_classes(labels, "all", "methods.mine.labels")
    {3: 1, 10: 2, 42: 3}
    >>> observed_classes(labels, "groups", "methods.mine.labels")
    {3: 1, 10: 2, 42: 1}
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

    Parameters
    ----------
    maps : iterable of ndarray of int
        Label maps; 0 is background.
    where : str
        The key that asked for them, for error messages.

    Returns
    -------
    dict of int → int

    Raises
    ------
    InputError
        There are fewer than two labels.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.cohort.labels import classes_by_size
    >>> classes_by_size([np.array([0, 7, 4, 4])], "methods.mine.labels")
    {4: 1, 7: 2}
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

    Parameters
    ----------
    labels : ndarray of int
        A label map of any shape.
    classes : mapping of int → int
        Label code → class.

    Returns
    -------
    ndarray of int16, same shape

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.cohort.labels import classify
    >>> classify(np.array([0, 3, 10, 42]), {3: 1, 42: 2}).tolist()
    [0, 1, 0, 2]
    """
    codes = np.array(sorted(classes))
    numbers = np.array([classes[code] for code in codes], dtype=np.int16)
    place = np.searchsorted(codes, labels).clip(max=len(codes) - 1)
    return np.where(codes[place] == labels, numbers[place], np.int16(0))


def read_label_table(path: str | Path) -> pd.DataFrame:
    r"""Read a label table.

    Parameters
    ----------
    path : path
        TSV with the columns ``index name`` and optionally ``group``.

    Returns
    -------
    DataFrame
        With whole numbers in ``index``.

    Raises
    ------
    InputError
        As for :func:`regcore.cohort.tsv.read_tsv`; or an ``index`` is not a whole number, or is listed twice.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.cohort.labels import read_label_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "labels.tsv").write_text("index\tname\n10\tleft thalamus\n")
    ...     read_label_table(Path(folder, "labels.tsv")).values.tolist()
    [[10, 'left thalamus']]
    """
    table = read_tsv(path, "label table", ("index", "name"))
    for line, text in table["index"].items():
        if not str(text).isdecimal():
            raise InputError(
                f"{path}, line {line}: the column 'index' must hold whole numbers from 0 on, not '{text!s}'"
            )
    table["index"] = table["index"].astype(int)
    for line, code in table["index"][table["index"].duplicated()].items():
        raise InputError(f"{path}, line {line}: the label {code} is listed twice; give each label one name")
    return table
