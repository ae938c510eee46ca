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
    """The study's landscapes in the paper's order."""
    settings = asked(results.experiments.hypermorph)
    found = paper.landscapes(settings, labelled=settings.landscapes.gamma is not None)  # γ is planned only with labels
    return {name: found[name] for name in (*SIMILARITIES, *paper.SECOND) if name in found}


def single(results: Results) -> list[Landscape]:
    """The landscapes over only λ, one per similarity."""
    return [shape for shape in planned(results).values() if len(shape.hyperparameters) == 1]


def repeated(results: Results) -> list[Landscape]:
    """The landscapes over λ whose networks are trained several times."""
    return [shape for shape in single(results) if shape.replicates > 1]


def first_grid(shape: Landscape) -> list[str]:
    """Names of the grid's networks with the first start."""
    return [name for name, values in shape.networks().items() if values["replicate"] == 1]


def title(shape: Landscape) -> str:
    """A landscape by its similarity and hyperparameters: "NCC: λ, window"."""
    return f"{similarity(shape)}: {', '.join(SYMBOLS[name] for name in shape.hyperparameters)}"


def similarity(shape: Landscape) -> str:
    """The paper's name of a landscape's similarity."""
    return SIMILARITIES[shape.similarity]


def tuned(results: Results, shape: Landscape) -> dict[str, Any]:
    """Tuned values of a landscape's first hypernetwork."""
    line = results.optima(paper.dense(shape.name)).loc[next(iter(shape.hypernetworks()))]
    return {str(column): value for column, value in line.to_dict().items()}


def first_sweep(results: Results, name: str) -> pd.DataFrame:
    """Rows of the first start."""
    rows = results.sweep(name)
    return rows[rows["replicate"] == 1]


def first_sweeps(results: Results, shape: Landscape) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the first start of a landscape's hypernetwork, and of its grid of networks."""
    return first_sweep(results, paper.dense(shape.name)), first_sweep(results, paper.by_grid(shape.name))


def of_split(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """Rows of the validation or test pairs."""
    return rows[rows["split"] == split]


def with_dice(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a Dice. A label that neither scan of a pair has, has none."""
    return rows[rows["metric"] == "dice"].dropna(subset="value")


def tested(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Dice of the test pairs at each of the hyperparameters."""
    return curve(of_split(rows, "test"), names)


def interpolated(found: pd.DataFrame, names: Sequence[str], points: pd.DataFrame | Mapping[str, Any]) -> np.ndarray:
    """A curve or landscape, interpolated linearly; NaN outside its range."""
    ordered = found.sort_values(list(names))
    lines = [np.unique(ordered[name].round(DIGITS)) for name in names]
    values = ordered["mean"].to_numpy().reshape([len(line) for line in lines])
    wanted = np.stack([np.atleast_1d(points[name]).astype(float) for name in names], axis=-1)
    return RegularGridInterpolator(lines, values, bounds_error=False)(wanted.round(DIGITS))


def compared(shape: Landscape, hyper: pd.DataFrame, grid: pd.DataFrame, tuned: Mapping[str, Any]) -> pd.DataFrame:
    """A hypernetwork and a grid of networks at the grid's points.

    Parameters
    ----------
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
    """Mean and SD over starts, in points of Dice, at all λ of the hypernetworks' sweep and of the networks.

    The same in all rows: the largest gap of the means, and for both kinds the λ with the best mean over starts on the
    validation pairs.  A single network's Dice is as uncertain as its random start, so the best of a grid of single
    networks is often just lucky.
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
    """Kind of group → name → rows of its validation and test pairs; all pairs, and kinds with several groups."""
    pairs = results.plan.pairs[["split", "fixed", "moving", *GROUPS]]
    rows = with_dice(rows).merge(pairs, on=["split", "fixed", "moving"])
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for kind in GROUPS:
        parts = {str(name): part for name, part in rows.groupby(kind) if name and part["split"].nunique() == 2}
        if len(parts) > 1:
            found[kind] = parts
    return {**found, "all": {"all": rows}}
