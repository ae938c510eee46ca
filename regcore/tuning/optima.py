"""The best hyperparameters of a sweep, from its table: for all pairs, or for one data set, task, label or pair.

Needs no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

#: Number of resamplings of the pairs for the uncertainty of an optimum, and the interval reported.
BOOTSTRAPS, INTERVAL = 1000, (2.5, 97.5)
#: Means that differ by no more than this are equal.
TIE = 1e-9


def curve(table: pd.DataFrame, hyperparameters: Sequence[str], metric: str = "dice") -> pd.DataFrame:
    """Mean over labels and then over pairs, at every setting of a sweep.

    Parameters
    ----------
    table : DataFrame
        As from :func:`regcore.tuning.amortised.sweep`, or some of its rows.
    hyperparameters : sequence of str
        The columns with the settings.
    metric : str
        ``dice`` or ``overlap``.

    Returns
    -------
    DataFrame
        A column per hyperparameter, ``mean``, and ``sd`` over pairs.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.tuning.optima import curve
    >>> rows = [(0.1, "a", 0.6), (0.1, "b", 0.8), (0.5, "a", 0.7), (0.5, "b", 0.9)]
    >>> table = pd.DataFrame(rows, columns=["lambda", "fixed", "value"]).assign(moving="m", label=1, metric="dice")
    >>> curve(table, ["lambda"]).round(2)
       lambda  mean    sd
    0     0.1   0.7  0.14
    1     0.5   0.8  0.14
    """
    chosen = table[table["metric"] == metric]
    by_pair = chosen.groupby([*hyperparameters, "fixed", "moving"], sort=True)["value"].mean()
    return by_pair.groupby(list(hyperparameters)).agg(mean="mean", sd="std").reset_index()


@dataclass(frozen=True)
class Optimum:
    """The best point of a sweep, as :func:`optimum` finds it.

    Parameters
    ----------
    values : dict of str → float
        Hyperparameter → value.
    score : float
        Mean of the metric at this point.
    interval : dict of str → (float, float)
        95 % interval of the best values when pairs are resampled with replacement. Pairs that share subjects are not
        independent, so it is rather too narrow.
    resampled : DataFrame
        These best values, one row per draw.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.tuning.optima import Optimum
    >>> best = Optimum({"lambda": 0.5}, 0.8, {"lambda": (0.4, 0.6)}, pd.DataFrame({"lambda": [0.4, 0.5, 0.6]}))
    >>> low, high = best.interval["lambda"]
    >>> low <= best.values["lambda"] <= high
    True
    """

    values: dict[str, float]
    score: float
    interval: dict[str, tuple[float, float]]
    resampled: pd.DataFrame


def optimum(table: pd.DataFrame, hyperparameters: Sequence[str], metric: str = "dice", seed: int = 0) -> Optimum:
    """The best setting of a sweep, or of some of its rows, such as one label, data set or pair.

    The score of a setting is the mean over labels, then over pairs.  The middle one of several best settings is taken.

    Parameters
    ----------
    table : DataFrame
        As from :func:`regcore.tuning.amortised.sweep`, or some of its rows.
    hyperparameters : sequence of str
        The columns with the settings.
    metric : str
        ``dice`` or ``overlap``.
    seed : int
        Seed of the resampling of pairs.

    Returns
    -------
    Optimum

    Raises
    ------
    ValueError
        No pair has a value of the metric.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.tuning.optima import optimum
    >>> rows = [(0.1, "a", 0.9), (0.1, "b", 0.6), (0.5, "a", 0.8), (0.5, "b", 0.9)]
    >>> table = pd.DataFrame(rows, columns=["lambda", "fixed", "value"]).assign(moving="m", label=1, metric="dice")
    >>> best = optimum(table, ["lambda"])
    >>> best.values, round(best.score, 2), best.interval  # the two pairs disagree
    ({'lambda': 0.5}, 0.85, {'lambda': (0.1, 0.5)})
    """
    chosen = table[table["metric"] == metric]
    by_pair = chosen.groupby([*hyperparameters, "fixed", "moving"], sort=True)["value"].mean()
    wide = by_pair.unstack(["fixed", "moving"]).dropna(axis=1, how="all")
    if wide.empty:
        raise ValueError(f"no pair of the sweep has a value of '{metric}'")
    settings, scores = wide.index.to_frame(index=False), wide.to_numpy()
    best = _best(scores)
    drawn = np.random.default_rng(seed).integers(scores.shape[1], size=(BOOTSTRAPS, scores.shape[1]))
    resampled = settings.iloc[[_best(scores[:, pairs]) for pairs in drawn]].reset_index(drop=True)
    interval = {name: tuple(np.percentile(resampled[name], INTERVAL).tolist()) for name in hyperparameters}
    values = {str(name): value for name, value in settings.iloc[best].to_dict().items()}
    return Optimum(values, float(np.nanmean(scores[best])), interval, resampled)


def _best(scores: np.ndarray) -> int:
    """The row with the highest mean over pairs, or the middle one if several share it. NaN is ignored."""
    counted = np.isfinite(scores)
    means = np.where(counted, scores, 0).sum(1) / np.maximum(counted.sum(1), 1)
    shared = np.flatnonzero(means >= means.max() - TIE)
    return int(shared[len(shared) // 2])
