"""Grid search: a network for every point of a grid of hyperparameters, each a job of the workflow."""

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd

#: Names of hyperparameters in the names of grid points: ``lambda`` is a keyword of Python, which Snakemake's parameter
#: spaces cannot have as a column.
COLUMNS = {"lambda": "lam"}


def grid(values: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """All combinations of the hyperparameters' values, one row each."""
    return pd.DataFrame(list(itertools.product(*values.values())), columns=list(values))


def names(points: pd.DataFrame) -> list[str]:
    """A name for every point: ``lam~0.3_window~9``."""
    from snakemake.utils import Paramspace  # here, so that Snakemake is needed only for a grid

    space = Paramspace(points.rename(columns=COLUMNS), filename_params="*")
    return list(space.instance_patterns)
