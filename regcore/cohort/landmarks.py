"""Landmarks: points of a scan by name, in a table of their own."""

from pathlib import Path

import numpy as np
import pandas as pd

from regcore.cohort.tsv import read_tsv
from regcore.errors import InputError


def read_landmarks(path: str | Path, ndim: int) -> pd.DataFrame:
    r"""Read a landmark TSV (columns ``name x y [z]``, RAS mm), indexed by name.

    Parameters
    ----------
    path : path
        A tab-separated file.
    ndim : {2, 3}
        How many coordinates to read.

    Returns
    -------
    DataFrame, shape (n, D)
        World coordinates in mm, one row for each landmark.

    Raises
    ------
    InputError
        As for :func:`regcore.cohort.tsv.read_tsv`; a coordinate is not a finite number; a name is missing or listed
        twice; or there are no landmarks.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.cohort.landmarks import read_landmarks
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "landmarks.tsv").write_text("name\tx\ty\ntip\t1.5\t-2\n")
    ...     read_landmarks(Path(folder, "landmarks.tsv"), ndim=2).loc["tip"].tolist()
    [1.5, -2.0]
    """
    axes = list("xyz")[:ndim]
    table = read_tsv(path, "landmark table", ["name", *axes])
    if table.empty:
        raise InputError(f"{path}: the landmark table has no rows; remove it from the cohort, or fill it")
    points = table[axes].apply(pd.to_numeric, errors="coerce")
    for line in table.index[~np.isfinite(points).all(axis=1)]:
        given = ", ".join(table.loc[line, axes])
        raise InputError(f"{path}, line {line}: {' '.join(axes)} must be finite numbers (RAS millimetres), not {given}")
    for line in table.index[(table["name"] == "") | table["name"].duplicated()]:
        name = str(table.at[line, "name"])
        raise InputError(f"{path}, line {line}: " + (f"'{name}' is listed twice" if name else "the name is missing"))
    return points.set_index(table["name"])
