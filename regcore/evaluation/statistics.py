"""Paired comparison of methods on the same cases: tests, correction, and an interval for the difference."""

from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from regcore.checks import describe, require_same_shape

#: Resamples drawn at a time; limits the memory of a bootstrap over thousands of cases.
BATCH = 500


@dataclass(frozen=True)
class PairedComparison:
    """Result of :func:`paired_comparison`; differences are first minus second, in their unit.

    Parameters
    ----------
    n, dropped : int
        Pairs compared, and pairs left out because a value is NaN.
    mean_difference : float
        NaN if there is no pair.
    ci_low, ci_high : float
        Bootstrap confidence interval of the mean difference; NaN with fewer than two pairs.
    p_wilcoxon, p_t : float
        Two-sided p-values, not corrected; NaN with fewer than two pairs.

    Examples
    --------
    >>> from regcore.evaluation import paired_comparison
    >>> found = paired_comparison([0.81, 0.84, 0.79, 0.88], [0.78, 0.80, 0.77, float("nan")])
    >>> found.n, found.dropped, round(found.mean_difference, 3)
    (3, 1, 0.03)
    """

    n: int
    dropped: int
    mean_difference: float
    ci_low: float
    ci_high: float
    p_wilcoxon: float
    p_t: float


def paired_comparison(
    a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> PairedComparison:
    """Compare two methods measured on the same cases.

    The Wilcoxon signed-rank test [1]_ drops differences of zero and is exact
    for up to 50 pairs without ties.  The t-test is Student's on the differences.  The interval is the
    bias-corrected and accelerated bootstrap (BCa [2]_) of the mean difference, over pairs.

    If all differences are zero, both p-values are 1.  If all are the same nonzero number, the t statistic is
    infinite and its p-value 0.  In both cases the interval is that single number.

    Parameters
    ----------
    a, b : sequence of float, shape (n,)
        Element i of both belongs to case i.  Pairs with a NaN are left out and counted.
    confidence : float
        Between 0 and 1.
    resamples, seed : int
        Resamples and seed of the bootstrap; the same seed gives the same interval.

    Returns
    -------
    PairedComparison

    Raises
    ------
    ValueError
        The shapes differ or are not one-dimensional, a value is infinite, or ``confidence`` or ``resamples``
        is out of range.

    References
    ----------
    .. [1] Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1945.
    .. [2] Efron, "Better bootstrap confidence intervals", Journal of the American Statistical Association 1987.

    Examples
    --------
    >>> from regcore.evaluation import paired_comparison
    >>> ours, theirs = [0.81, 0.84, 0.79, 0.88, 0.83], [0.78, 0.80, 0.77, 0.86, 0.82]
    >>> found = paired_comparison(ours, theirs, resamples=999)
    >>> round(found.mean_difference, 3), round(found.p_wilcoxon, 4), found.ci_low > 0
    (0.024, 0.0625, True)
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"confidence {confidence} must be between 0 and 1, and resamples {resamples} 1 or more")
    differences, dropped = _differences(a, b)
    n = len(differences)
    if n < 2:
        mean = float(differences[0]) if n else np.nan
        return PairedComparison(n, dropped, mean, np.nan, np.nan, np.nan, np.nan)
    mean = float(differences.mean())
    if not differences.any():
        return PairedComparison(n, dropped, 0.0, 0.0, 0.0, 1.0, 1.0)
    from scipy import stats  # here: loading it takes longer than the rest of this room, and few need a test

    p_wilcoxon = float(stats.wilcoxon(differences).pvalue)
    if np.allclose(differences, differences[0], rtol=1e-9, atol=1e-12):  # SciPy would warn and give no interval
        same = float(differences[0])
        return PairedComparison(n, dropped, same, same, same, p_wilcoxon, 0.0)
    p_t = float(stats.ttest_1samp(differences, 0).pvalue)
    low, high = _interval(differences, confidence, resamples, seed)
    return PairedComparison(n, dropped, mean, low, high, p_wilcoxon, p_t)


def compare_methods(
    scores: pd.DataFrame, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> pd.DataFrame:
    """Compare all pairs of methods, and correct each test for the number of comparisons.

    Parameters
    ----------
    scores : DataFrame
        One row for each case, one column for each method.
    confidence, resamples, seed
        As for :func:`paired_comparison`.

    Returns
    -------
    DataFrame
        One row for each pair of columns: ``first second``, the fields of :class:`PairedComparison`, and
        ``p_wilcoxon_holm`` and ``p_t_holm``.

    Raises
    ------
    ValueError
        A value is infinite.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.evaluation import compare_methods
    >>> scores = pd.DataFrame({"ours": [0.81, 0.84, 0.79, 0.88], "theirs": [0.78, 0.80, 0.77, 0.86]})
    >>> table = compare_methods(scores, resamples=99)
    >>> table[["first", "second", "n"]].values.tolist()
    [['ours', 'theirs', 4]]
    """
    rows = []
    for first, second in combinations(scores.columns, 2):
        found = paired_comparison(scores[first], scores[second], confidence, resamples, seed)
        rows.append({"first": first, "second": second, **asdict(found)})
    table = pd.DataFrame(rows, columns=["first", "second", *PairedComparison.__dataclass_fields__])
    return table.assign(p_wilcoxon_holm=holm(table["p_wilcoxon"]), p_t_holm=holm(table["p_t"]))


def holm(p_values: npt.ArrayLike) -> np.ndarray:
    """Adjust p-values for multiple tests [1]_.

    With p₍₁₎ ≤ … ≤ p₍ₘ₎ the adjusted p₍ᵢ₎ is min(1, max over j ≤ i of (m − j + 1) p₍ⱼ₎).  Rejecting
    tests with an adjusted p below α keeps the probability of any false rejection at α, for any dependence between
    tests.

    Parameters
    ----------
    p_values : sequence of float, shape (n,)
        Between 0 and 1; NaN stays NaN and does not count as a test.

    Returns
    -------
    ndarray of float64, shape (n,)
        In the order of ``p_values``.

    Raises
    ------
    ValueError
        Not one-dimensional, or a value is outside 0 to 1.

    References
    ----------
    .. [1] Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.

    Examples
    --------
    >>> from regcore.evaluation import holm
    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=float)
    if values.ndim != 1 or np.any((values < 0) | (values > 1)):
        raise ValueError(f"{describe('p_values', values)} must be a list of numbers from 0 to 1, or NaN")
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested])]
    adjusted = np.full(values.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(np.arange(len(order), 0, -1) * values[order]), 1)
    return adjusted


def _differences(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[np.ndarray, int]:
    """Differences of the complete pairs, and the number of the others."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    require_same_shape("a", a, "b", b)
    for name, values in (("a", a), ("b", b)):
        if values.ndim != 1 or np.isinf(values).any():
            raise ValueError(f"{describe(name, values)} must be one-dimensional, without infinite values")
    differences = a - b
    complete = ~np.isnan(differences)
    return differences[complete], int(np.count_nonzero(~complete))


def _interval(differences: np.ndarray, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    from scipy import stats

    found = stats.bootstrap(
        (differences,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=BATCH,
        method="BCa",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
