"""Grid search: a network for every point of a grid of hyperparameters, each a job of the workflow."""

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd

#: Names of hyperparameters in the names of grid points: ``lambda`` is a keyword of Python, which Snakemake's parameter
#: spaces cannot have as a column.
COLUMNS = {"lambda": "lam"}


def grid(values: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """All combinations of the hyperparameters' values, one row each.

    Parameters
    ----------
    values : mapping of str → sequence of float
        Hyperparameter → its values.

    Returns
    -------
    DataFrame
        One column per hyperparameter; the last one varies fastest.

    Examples
    --------
    >>> from regcore.tuning.grid import grid
    >>> grid({"lambda": [0.1, 1.0], "window": [7, 9]})
       lambda  window
    0     0.1       7
    1     0.1       9
    2     1.0       7
    3     1.0       9
    """
    return pd.DataFrame(list(itertools.product(*values.values())), columns=list(values))


def names(points: pd.DataFrame) -> list[str]:
    """A name for every point.

    Parameters
    ----------
    points : DataFrame
        As from :func:`grid`.

    Returns
    -------
    list of str
        In the form of Snakemake's parameter spaces, where ``lambda`` is ``lam``.

    Examples
    --------
    >>> from regcore.tuning.grid import grid, names
    >>> names(grid({"lambda": [0.3, 1.0], "window": [9]}))
    ['lam~0.3_window~9', 'lam~1.0_window~9']
    """
    from snakemake.utils import Paramspace  # here, so that Snakemake is needed only for a grid

    space = Paramspace(points.rename(columns=COLUMNS), filename_params="*")
    return list(space.instance_patterns)
