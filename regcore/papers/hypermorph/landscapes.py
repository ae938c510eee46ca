"""Numbers of a study's landscapes: gaps, spread over random starts, groups of pairs.

Dice is the mean over labels, then over pairs.  Gaps and standard deviations are in points of Dice × 100.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import RegularGridInterpolator

from regcore.experiments import hypermorph as paper
from regcore.experiments.hypermorph import SIMILARITIES, Landscape
from regcore.experiments.settings import asked
from regcore.study.results import Results
from regcore.tuning.optima import curve, optimum

#: Symbols of hyperparameters in headings.
SYMBOLS = {"lambda": "λ", "window": "window", "gamma": "γ"}
#: Kinds of groups of pairs: column of the study's pairs → heading.
GROUPS = {"dataset": "data set", "task": "task", "contrasts": "contrasts"}
#: Digits to which equal hyperparameters agree: a hypernetwork's values are in single precision.
DIGITS = 6


def planned(results: Results) -> dict[str, Landscape]:
    """The study's landscapes in the paper's order.

    Parameters
    ----------
    results : Results
        Of a study with the experiments.

    Returns
    -------
    dict of str → Landscape
        By name.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.hypermorph.landscapes import planned
    >>> values = {"lambda": {"lncc": [0.2, 0.8], "mse": [0.1, 0.5]}, "replicates": {"lambda": {}}}
    >>> results = SimpleNamespace(experiments=ExperimentSettings.read({"hypermorph": values}, "experiments"))
    >>> {name: shape.points for name, shape in planned(results).items()}
    {'mse': {'lambda': [0.1, 0.5]}, 'lncc': {'lambda': [0.2, 0.8]}}
    """
    settings = asked(results.experiments.hypermorph)
    found = paper.landscapes(settings, labelled=settings.landscapes.gamma is not None)  # γ is planned only with labels
    return {name: found[name] for name in (*SIMILARITIES, *paper.SECOND) if name in found}


def single(results: Results) -> list[Landscape]:
    """The landscapes over only λ, one per similarity.

    Parameters
    ----------
    results : Results
        Of a study with the experiments.

    Returns
    -------
    list of Landscape

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.hypermorph.landscapes import planned, single
    >>> windows = {"lambda": [0.1, 0.5], "window": [3, 7], "range": [3, 15]}
    >>> values = {"lambda": {"mse": [0.1, 0.5]}, "replicates": {"lambda": {}}, "landscapes": {"window": windows}}
    >>> results = SimpleNamespace(experiments=ExperimentSettings.read({"hypermorph": values}, "experiments"))
    >>> list(planned(results)), [shape.name for shape in single(results)]
    (['mse', 'window'], ['mse'])
    """
    return [shape for shape in planned(results).values() if len(shape.hyperparameters) == 1]


def repeated(results: Results) -> list[Landscape]:
    """The landscapes over λ whose networks are trained several times.

    Parameters
    ----------
    results : Results
        Of a study with the experiments.

    Returns
    -------
    list of Landscape

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.hypermorph.landscapes import repeated
    >>> again = {"count": 3, "lambda": {"mse": [0.3]}}
    >>> values = {"lambda": {"mse": [0.1, 0.5], "lncc": [0.2, 0.8]}, "replicates": again}
    >>> results = SimpleNamespace(experiments=ExperimentSettings.read({"hypermorph": values}, "experiments"))
    >>> [(shape.name, shape.replicates) for shape in repeated(results)]
    [('mse', 3)]
    """
    return [shape for shape in single(results) if shape.replicates > 1]


def first_grid(shape: Landscape) -> list[str]:
    """Names of the grid's networks with the first start.

    Parameters
    ----------
    shape : Landscape
        The landscape.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from regcore.experiments.hypermorph import Landscape
    >>> from regcore.papers.hypermorph.landscapes import first_grid
    >>> points, again = {"lambda": [0.2, 0.8]}, {"lambda": [0.2]}
    >>> shape = Landscape("mse", "mse", {"lambda": [0, 1]}, points, again, replicates=2)
    >>> first_grid(shape), len(shape.networks())
    (['grid-mse-lam~0.2', 'grid-mse-lam~0.8'], 3)
    """
    return [name for name, values in shape.networks().items() if values["replicate"] == 1]


def title(shape: Landscape) -> str:
    """A landscape by its similarity and hyperparameters.

    Parameters
    ----------
    shape : Landscape
        The landscape.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.hypermorph import Landscape
    >>> from regcore.papers.hypermorph.landscapes import title
    >>> prior = {"lambda": [0, 1], "window": [3, 15]}
    >>> title(Landscape("window", "lncc", prior, points={}, again={}, replicates=1))
    'NCC: λ, window'
    """
    return f"{similarity(shape)}: {', '.join(SYMBOLS[name] for name in shape.hyperparameters)}"


def similarity(shape: Landscape) -> str:
    """The paper's name of a landscape's similarity.

    Parameters
    ----------
    shape : Landscape
        The landscape.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.hypermorph import Landscape
    >>> from regcore.papers.hypermorph.landscapes import similarity
    >>> similarity(Landscape("lncc", "lncc", {"lambda": [0, 1]}, points={}, again={}, replicates=1))
    'NCC'
    """
    return SIMILARITIES[shape.similarity]


def tuned(results: Results, shape: Landscape) -> dict[str, Any]:
    """Tuned values of a landscape's first hypernetwork.

    Parameters
    ----------
    results : Results
        Of a study with the sweep of the landscape's hypernetworks.
    shape : Landscape
        The landscape.

    Returns
    -------
    dict of str → float
        A value for each hyperparameter; also ``pairs seconds overlap`` of the tuning.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments.hypermorph import Landscape
    >>> from regcore.papers.hypermorph.landscapes import tuned
    >>> optima = pd.DataFrame({"lambda": [0.25, 0.5], "seconds": 1.5}, index=["hyper-mse", "hyper-mse-2"])
    >>> shape = Landscape("mse", "mse", {"lambda": [0, 1]}, points={}, again={}, replicates=2)
    >>> tuned(SimpleNamespace(optima=lambda name: optima), shape)
    {'lambda': 0.25, 'seconds': 1.5}
    """
    line = results.optima(paper.dense(shape.name)).loc[next(iter(shape.hypernetworks()))]
    return {str(column): value for column, value in line.to_dict().items()}


def first_sweep(results: Results, name: str) -> pd.DataFrame:
    """The rows of a sweep with the first random start.

    Parameters
    ----------
    results : Results
        Of a study with the sweep.
    name : str
        The sweep.

    Returns
    -------
    DataFrame
        ``entry replicate split``, the hyperparameters, ``fixed moving label metric value``.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.papers.hypermorph.landscapes import first_sweep
    >>> rows = pd.DataFrame({"entry": ["hyper-mse", "hyper-mse-2"], "replicate": [1, 2], "value": [0.7, 0.8]})
    >>> first_sweep(SimpleNamespace(sweep=lambda name: rows), "mse-hyper")
           entry  replicate  value
    0  hyper-mse          1    0.7
    """
    rows = results.sweep(name)
    return rows[rows["replicate"] == 1]


def first_sweeps(results: Results, shape: Landscape) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of both sweeps of a landscape with the first random start.

    Parameters
    ----------
    results : Results
        Of a study with the sweeps.
    shape : Landscape
        The landscape.

    Returns
    -------
    DataFrame
        Of the hypernetwork, as from :func:`first_sweep`.
    DataFrame
        Of the grid of networks.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments.hypermorph import Landscape
    >>> from regcore.papers.hypermorph.landscapes import first_sweeps
    >>> sweep = lambda name: pd.DataFrame({"sweep": name, "replicate": [1, 2]})
    >>> shape = Landscape("mse", "mse", {"lambda": [0, 1]}, points={}, again={}, replicates=2)
    >>> hyper, grid = first_sweeps(SimpleNamespace(sweep=sweep), shape)
    >>> hyper["sweep"].to_list(), grid["sweep"].to_list()
    (['mse-hyper'], ['mse-grid'])
    """
    return first_sweep(results, paper.dense(shape.name)), first_sweep(results, paper.by_grid(shape.name))


def of_split(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of the validation or the test pairs.

    Parameters
    ----------
    rows : DataFrame
        Of a sweep.
    split : {"validation", "test"}
        The pairs.

    Returns
    -------
    DataFrame

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.papers.hypermorph.landscapes import of_split
    >>> of_split(pd.DataFrame({"split": ["validation", "test"], "value": [0.7, 0.8]}), "test")
      split  value
    1  test    0.8
    """
    return rows[rows["split"] == split]


def with_dice(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a Dice. A label that neither scan of a pair has, has none.

    Parameters
    ----------
    rows : DataFrame
        Of a sweep.

    Returns
    -------
    DataFrame

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.papers.hypermorph.landscapes import with_dice
    >>> rows = pd.DataFrame({"label": [1, 2, -1], "metric": ["dice", "dice", "overlap"], "value": [0.7, None, 0.6]})
    >>> with_dice(rows)
       label metric  value
    0      1   dice    0.7
    """
    return rows[rows["metric"] == "dice"].dropna(subset="value")


def tested(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Dice of the test pairs at each of the hyperparameters.

    Parameters
    ----------
    rows : DataFrame
        Of a sweep.
    names : sequence of str
        The hyperparameters.

    Returns
    -------
    DataFrame
        A column for each hyperparameter, ``mean`` and ``sd`` over pairs.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.papers.hypermorph.landscapes import tested
    >>> rows = pd.DataFrame({"split": ["validation", "test", "test"], "lambda": 0.5, "value": [0.1, 0.6, 0.8]})
    >>> rows = rows.assign(fixed="a", moving=["b", "c", "d"], label=1, metric="dice")
    >>> tested(rows, ["lambda"]).round(2)
       lambda  mean    sd
    0     0.5   0.7  0.14
    """
    return curve(of_split(rows, "test"), names)


def interpolated(found: pd.DataFrame, names: Sequence[str], points: pd.DataFrame | Mapping[str, Any]) -> np.ndarray:
    """Values of a curve or a landscape, interpolated linearly.

    Parameters
    ----------
    found : DataFrame
        As from :func:`tested`, at all points of a grid.
    names : sequence of str
        The hyperparameters.
    points : DataFrame or mapping
        The values of each hyperparameter where the curve is read; one point, or many.

    Returns
    -------
    ndarray, shape (number of points,)
        NaN outside the range of the curve.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.papers.hypermorph.landscapes import interpolated
    >>> found = pd.DataFrame({"lambda": [0.0, 0.5, 1.0], "mean": [0.6, 0.8, 0.7]})
    >>> interpolated(found, ["lambda"], {"lambda": [0.25, 0.5, 2]}).round(3).tolist()
    [0.7, 0.8, nan]
    """
    ordered = found.sort_values(list(names))
    lines = [np.unique(ordered[name].round(DIGITS)) for name in names]
    values = ordered["mean"].to_numpy().reshape([len(line) for line in lines])
    wanted = np.stack([np.atleast_1d(points[name]).astype(float) for name in names], axis=-1)
    return RegularGridInterpolator(lines, values, bounds_error=False)(wanted.round(DIGITS))


def compared(shape: Landscape, hyper: pd.DataFrame, grid: pd.DataFrame, tuned: Mapping[str, Any]) -> pd.DataFrame:
    """A hypernetwork and a grid of networks at the grid's points.

    Parameters
    ----------
    shape : Landscape
        The landscape.
    hyper, grid : DataFrame
        Rows of the two sweeps, of one start.
    tuned : mapping
        Tuned values of the hypernetwork: its row of the optima.

    Returns
    -------
    DataFrame
        For each point the hyperparameters, ``dice_grid dice_hyper`` on the test pairs and their ``gap`` (hypernetwork
        minus grid).  The same in all rows: ``max_gap``, the largest absolute gap; for each hyperparameter the tuned
        value (``_tuned``), the best on the validation pairs in the hypernetwork's sweep (``_sweep``) and among the
        grid's networks (``_grid``), and how much the last differs from the first (``_difference``) and the second
        (``_sweep_difference``); ``optimum_gap``, Dice of the test pairs at the tuned value minus that at the grid's
        best.

    Examples
    --------
    >>> from itertools import product
    >>> import pandas as pd
    >>> from regcore.experiments.hypermorph import Landscape
    >>> from regcore.papers.hypermorph.landscapes import compared
    >>> def sweep(lambdas, dice):
    ...     rows = pd.DataFrame(product(["validation", "test"], lambdas), columns=["split", "lambda"])
    ...     return rows.assign(fixed="a", moving="b", label=1, metric="dice", value=dice(rows["lambda"]))
    >>> shape = Landscape("mse", "mse", {"lambda": [0, 1]}, {"lambda": [0.2, 0.8]}, again={}, replicates=1)
    >>> hyper = sweep([0, 0.2, 0.4, 0.8, 1], lambda x: 0.8 - (x - 0.4) ** 2)
    >>> grid = sweep([0.2, 0.8], lambda x: 0.81 - (x - 0.4) ** 2)
    >>> table = compared(shape, hyper, grid, {"lambda": 0.4, "seconds": 1.5, "pairs": 8})
    >>> table[["lambda", "dice_grid", "dice_hyper", "gap"]].round(2)
       lambda  dice_grid  dice_hyper  gap
    0     0.2       0.77        0.76 -1.0
    1     0.8       0.65        0.64 -1.0
    >>> table[["lambda_tuned", "lambda_sweep", "lambda_grid", "optimum_gap"]].iloc[0].round(2).to_list()
    [0.4, 0.4, 0.2, 3.0]
    """
    names = shape.hyperparameters
    dense, trained = tested(hyper, names), tested(grid, names)
    table = trained[names].assign(dice_grid=trained["mean"], dice_hyper=interpolated(dense, names, trained))
    table["gap"] = 100 * (table["dice_hyper"] - table["dice_grid"])
    table["max_gap"] = table["gap"].abs().max()
    best = {"tuned": tuned} | {
        how: optimum(of_split(rows, "validation"), names).values for how, rows in (("sweep", hyper), ("grid", grid))
    }
    for name in names:
        for how, values in best.items():
            table[f"{name}_{how}"] = round(float(values[name]), DIGITS)
        table[f"{name}_difference"] = abs(table[f"{name}_tuned"] - table[f"{name}_grid"])
        table[f"{name}_sweep_difference"] = abs(table[f"{name}_sweep"] - table[f"{name}_grid"])
    with_tuned, with_grid = interpolated(dense, names, tuned), interpolated(trained, names, best["grid"])
    table["optimum_gap"] = 100 * float(with_tuned[0] - with_grid[0])
    pairs = hyper.loc[hyper["split"] == "test", ["fixed", "moving"]].drop_duplicates()
    return table.assign(tuning_seconds=tuned["seconds"], tuning_pairs=tuned["pairs"], test_pairs=len(pairs))


def by_start(results: Results, shape: Landscape) -> pd.DataFrame:
    """Mean and SD over starts, at all λ of the hypernetworks' sweep and of the networks.

    A single network's Dice is as uncertain as its random start, so the best of a grid of single networks is often just
    lucky.

    Parameters
    ----------
    results : Results
        Of a study with both sweeps.
    shape : Landscape
        A landscape over λ with several starts.

    Returns
    -------
    DataFrame
        ``similarity lambda hyper_mean hyper_sd grid_mean grid_sd gap`` in points of Dice × 100.  The same in all rows:
        ``replicates``; ``max_gap``, the largest gap of the means; ``lambda_hyper lambda_grid``, the λ with the best
        mean over starts on the validation pairs.

    Examples
    --------
    >>> from itertools import product
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments.hypermorph import Landscape
    >>> from regcore.papers.hypermorph.landscapes import by_start
    >>> def sweep(name):
    ...     rows = product([1, 2], ["validation", "test"], [0.2, 0.5, 0.8])
    ...     rows = pd.DataFrame(rows, columns=["replicate", "split", "lambda"])
    ...     luck = (0.01 if name == "mse-hyper" else 0.03) * rows["replicate"]
    ...     dice = 0.8 - (rows["lambda"] - 0.5) ** 2 + luck
    ...     return rows.assign(fixed="a", moving="b", label=1, metric="dice", value=dice)
    >>> shape = Landscape("mse", "mse", {"lambda": [0, 1]}, points={}, again={"lambda": [0.5]}, replicates=2)
    >>> table = by_start(SimpleNamespace(sweep=sweep), shape)
    >>> table[["lambda", "hyper_mean", "hyper_sd", "grid_mean", "grid_sd"]].round(2)
       lambda  hyper_mean  hyper_sd  grid_mean  grid_sd
    0     0.2        72.5      0.71        NaN      NaN
    1     0.5        81.5      0.71       84.5     2.12
    2     0.8        72.5      0.71        NaN      NaN
    """
    hyper, grid = results.sweep(paper.dense(shape.name)), results.sweep(paper.by_grid(shape.name))
    grid = grid[grid["lambda"].round(DIGITS).isin(shape.again["lambda"])]
    lambdas = pd.DataFrame({"lambda": np.union1d(hyper["lambda"].round(DIGITS), grid["lambda"].round(DIGITS))})
    curves, networks = (
        {start: tested(rows, ["lambda"]) for start, rows in starts.groupby("replicate")} for starts in (hyper, grid)
    )
    starts = pd.DataFrame({start: interpolated(found, ["lambda"], lambdas) for start, found in curves.items()})
    trained = pd.DataFrame(
        {start: found.set_index(found["lambda"].round(DIGITS))["mean"] for start, found in networks.items()}
    ).reindex(lambdas["lambda"])
    table = lambdas.assign(hyper_mean=100 * starts.mean(axis=1), hyper_sd=100 * starts.std(axis=1, ddof=1))
    table["grid_mean"] = 100 * trained.mean(axis=1).to_numpy()
    table["grid_sd"] = 100 * trained.std(axis=1, ddof=1).to_numpy()
    table["gap"] = table["hyper_mean"] - table["grid_mean"]
    table.insert(0, "similarity", shape.name)
    best = {
        f"lambda_{kind}": round(optimum(of_split(rows, "validation"), ["lambda"]).values["lambda"], DIGITS)
        for kind, rows in (("hyper", hyper), ("grid", grid))
    }
    return table.assign(replicates=starts.shape[1], max_gap=table["gap"].abs().max(), **best)


def by_group(results: Results, rows: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """The rows of each group of pairs: data sets, tasks and pairings of contrasts.

    Parameters
    ----------
    results : Results
        Of a study, whose pairs have the groups.
    rows : DataFrame
        Of a sweep.

    Returns
    -------
    dict of str → dict of str → DataFrame
        Kind of group → name → rows of its validation and test pairs with a Dice. Only kinds with several groups, and
        ``all`` with all pairs.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.papers.hypermorph.landscapes import by_group
    >>> pairs = pd.DataFrame({"split": ["validation", "test"] * 2, "fixed": list("abcd"), "moving": "m"})
    >>> pairs = pairs.assign(dataset=["one", "one", "two", "two"], task="across", contrasts="T1w to T1w")
    >>> rows = pairs[["split", "fixed", "moving"]].assign(label=1, metric="dice", value=0.8)
    >>> found = by_group(SimpleNamespace(plan=SimpleNamespace(pairs=pairs)), rows)
    >>> {kind: list(groups) for kind, groups in found.items()}
    {'dataset': ['one', 'two'], 'all': ['all']}
    """
    pairs = results.plan.pairs[["split", "fixed", "moving", *GROUPS]]
    rows = with_dice(rows).merge(pairs, on=["split", "fixed", "moving"])
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for kind in GROUPS:
        parts = {str(name): part for name, part in rows.groupby(kind) if name and part["split"].nunique() == 2}
        if len(parts) > 1:
            found[kind] = parts
    return {**found, "all": {"all": rows}}
