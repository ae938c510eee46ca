"""Tuning the hyperparameters of a trained hypernetwork without training: Section 3.2 of HyperMorph.

A forward pass gives the overlap of labels at any values of the hyperparameters.  :func:`sweep` evaluates it densely;
:func:`tune` follows its gradient (Eq. 4).  Both return what is needed to choose values for all pairs or for some, such
as a data set, a task, a label or one pair.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from torch import Tensor

from regcore.errors import InputError
from regcore.losses import soft_dice
from regcore.methods.base import LearnedMethod
from regcore.methods.hypernetworked import Hypernetworked
from regcore.training.validation import LabelledPairs

#: Values of each hyperparameter in a dense sweep, by the number of hyperparameters.
POINTS = {1: 101, 2: 21, 3: 9}
#: Values of each in the coarse sweep before the gradient, and number of its best points used as starts.
COARSE, STARTS = {1: 11, 2: 5, 3: 4}, 3
#: Rows of hyperparameters evaluated together.
AT_ONCE = 8
#: Number of resamplings of the pairs for the uncertainty of an optimum, and the interval reported.
BOOTSTRAPS, INTERVAL = 1000, (2.5, 97.5)
#: Means that differ by no more than this are equal.
TIE = 1e-9


@dataclass(frozen=True)
class Tuned:
    """The best hyperparameters.

    Parameters
    ----------
    values : dict of str → float
    overlap : float
        Mean overlap at these values: soft Dice, averaged over labels and pairs.
    starts : list of dict
        End point of each start: the hyperparameters and ``overlap``.
    seconds : float
    """

    values: dict[str, float]
    overlap: float
    starts: list[dict[str, float]]
    seconds: float


def rows_of(method: Hypernetworked, points: int | None = None) -> Tensor:
    """A grid of inputs (rows, n), ``points`` along each hyperparameter, with both ends."""
    count = len(method.hyperparameters)
    line = torch.linspace(0, 1, points or POINTS[count])
    return torch.tensor(list(itertools.product(line.tolist(), repeat=count)))


@torch.inference_mode()
def sweep(
    method: Hypernetworked, labelled: LabelledPairs, codes: Sequence[int], rows: Tensor | None = None
) -> pd.DataFrame:
    """Score every pair at many hyperparameters.

    Parameters
    ----------
    method : Hypernetworked
        With loaded weights.
    labelled : LabelledPairs
    codes : sequence of int
        Labels to score.
    rows : Tensor, shape (rows, n), optional
        Inputs of the hypernetwork, 0 to 1; a dense grid by default.

    Returns
    -------
    DataFrame
        One column per hyperparameter, then ``fixed moving label metric value``: ``dice`` of every label, warped by
        nearest neighbour, and under label -1 ``overlap``, the soft Dice of all labels.
    """
    rows = rows_of(method) if rows is None else rows
    settings = pd.DataFrame([method.values_of(row) for row in rows])

    def displacements(batch: Mapping[str, Any]) -> Iterator[Tensor]:
        for some in rows.split(AT_ONCE):
            yield from _displacements(method, batch, some).split(1)

    return _scores(method, labelled, codes, displacements, settings)


@torch.inference_mode()
def score(method: LearnedMethod, labelled: LabelledPairs, codes: Sequence[int]) -> pd.DataFrame:
    """Score every pair with a network without hyperparameters; columns as in :func:`sweep`, without these."""

    def displacements(batch: Mapping[str, Any]) -> Iterator[Tensor]:
        flow = method.predict(method.network, batch["fixed"], batch["moving"])
        yield method.displacement(flow, batch["fixed"])

    return _scores(method, labelled, codes, displacements, pd.DataFrame(index=[0]))


def _scores(
    method: LearnedMethod,
    labelled: LabelledPairs,
    codes: Sequence[int],
    displacements: Callable[[Mapping[str, Any]], Iterable[Tensor]],
    settings: pd.DataFrame,
) -> pd.DataFrame:
    """Scores of every pair for its displacements at each of the ``settings``."""
    names = pd.MultiIndex.from_tuples([*(("dice", c) for c in codes), ("overlap", -1)], names=["metric", "label"])
    frames = []
    for pair in labelled.pairs:
        batch = labelled.batch(pair, method.device, _classes(codes))
        found = [
            [*labelled.dice(pair, displacement, codes), _overlap(batch, displacement).item()]
            for displacement in displacements(batch)
        ]
        # Both levels of the columns are stacked, so that a series remains.
        long = cast(pd.Series, pd.DataFrame(found, columns=names).stack(["metric", "label"], future_stack=True))
        values = long.rename("value").reset_index(level=[1, 2])
        frames.append(settings.join(values).assign(fixed=pair[0], moving=pair[1]))
    columns = [*settings.columns, "fixed", "moving", "label", "metric", "value"]
    return pd.concat(frames, ignore_index=True)[columns]


def _displacements(method: Hypernetworked, batch: Mapping[str, Any], rows: Tensor) -> Tensor:
    """The displacements (rows, D, *space) of one pair at rows of inputs."""
    flow = method.predict_at(method.network, batch["fixed"], batch["moving"], rows)
    return method.displacement(flow, batch["fixed"])


def _overlap(batch: Mapping[str, Any], displacement: Tensor) -> Tensor:
    """Soft Dice of a batch of one pair, averaged over labels."""
    return 1 - soft_dice(batch["fixed_labels"], batch["moving_labels"], displacement, batch["codes"])


def _classes(codes: Sequence[int]) -> dict[int, int]:
    return {code: number for number, code in enumerate(codes, start=1)}


def tune(
    method: Hypernetworked,
    labelled: LabelledPairs,
    codes: Sequence[int],
    starts: int = STARTS,
    fixed: Mapping[str, float] | None = None,
) -> Tuned:
    """Maximise the overlap of labels over the hyperparameters by gradient, with frozen weights (Eq. 4).

    The best points of a coarse sweep, without neighbours, are the starts. L-BFGS-B climbs from each within the
    ranges.

    Parameters
    ----------
    starts : int
        Number of points of the coarse sweep used as starts.
    fixed : mapping of str → float, optional
        Hyperparameters with fixed values.

    Returns
    -------
    Tuned

    Raises
    ------
    InputError
        The pairs have no label to score.
    """
    if not codes:
        raise InputError("tuning needs labels: the pairs have none of the labels to score")
    began = time.perf_counter()
    batches = [labelled.batch(pair, method.device, _classes(codes)) for pair in labelled.pairs]
    coarse, bounds = rows_of(method, COARSE[len(method.hyperparameters)]), []
    fixed = fixed or {}
    for place, (name, (low, high)) in enumerate(method.ranges.items()):
        if name in fixed:
            low = high = (fixed[name] - low) / (high - low)
            coarse[:, place] = low
            bounds.append((low, low))
        else:
            bounds.append((0, 1))
    coarse = coarse.unique(dim=0)
    with torch.inference_mode():
        overlaps = torch.stack([_mean_overlap(method, batches, row) for row in coarse]).cpu()
    found = []
    for start in _apart(coarse, overlaps, starts):
        end = minimize(
            _downhill(method, batches),
            start.double().numpy(),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 15, "ftol": 1e-6, "gtol": 1e-5},
        )
        found.append({**method.values_of(torch.from_numpy(end.x)), "overlap": -float(end.fun)})
    best = max(found, key=lambda end: end["overlap"])
    values = {name: best[name] for name in method.hyperparameters}
    return Tuned(values, best["overlap"], found, time.perf_counter() - began)


def _apart(rows: Tensor, overlaps: Tensor, count: int) -> list[Tensor]:
    """The best rows of a grid, no two of them neighbours."""
    step = 1 / (max(len(column.unique()) for column in rows.T) - 1)
    chosen: list[Tensor] = []
    for row in rows[overlaps.argsort(descending=True)]:
        if len(chosen) < count and all((row - other).abs().max() > 1.5 * step for other in chosen):
            chosen.append(row)
    return chosen


def _mean_overlap(method: Hypernetworked, batches: Sequence[Mapping[str, Any]], row: Tensor) -> Tensor:
    overlaps = [_overlap(batch, _displacements(method, batch, row[None])) for batch in batches]
    return torch.stack(overlaps).mean()


def _downhill(
    method: Hypernetworked, batches: Sequence[Mapping[str, Any]]
) -> Callable[[np.ndarray], tuple[float, Any]]:
    """Minus the mean overlap, and its gradient, as a function of one row of inputs; one pair in memory at a time."""

    def function(inputs: np.ndarray) -> tuple[float, np.ndarray]:
        row = torch.from_numpy(inputs).float().requires_grad_()
        total = 0.0
        for batch in batches:
            loss = -_overlap(batch, _displacements(method, batch, row[None])) / len(batches)
            loss.backward(inputs=[row])
            total += loss.item()
        assert row.grad is not None  # there is at least one pair
        return total, row.grad.double().numpy()

    return function


def curve(table: pd.DataFrame, hyperparameters: Sequence[str], metric: str = "dice") -> pd.DataFrame:
    """Mean over labels and then over pairs, at every setting of a sweep.

    Returns
    -------
    DataFrame
        A column per hyperparameter, ``mean``, and ``sd`` over pairs.
    """
    chosen = table[table["metric"] == metric]
    by_pair = chosen.groupby([*hyperparameters, "fixed", "moving"], sort=True)["value"].mean()
    return by_pair.groupby(list(hyperparameters)).agg(mean="mean", sd="std").reset_index()


@dataclass(frozen=True)
class Optimum:
    """The best point of a sweep.

    Parameters
    ----------
    values : dict of str → float
    score : float
        Mean of the metric at this point.
    interval : dict of str → (float, float)
        95 % interval of the best values when pairs are resampled with replacement. Pairs that share subjects are not
        independent, so it is rather too narrow.
    resampled : DataFrame
        These best values, one row per draw.
    """

    values: dict[str, float]
    score: float
    interval: dict[str, tuple[float, float]]
    resampled: pd.DataFrame


def optimum(table: pd.DataFrame, hyperparameters: Sequence[str], metric: str = "dice", seed: int = 0) -> Optimum:
    """The best setting of a sweep, or of some of its rows, such as one label, data set or pair.

    Raises
    ------
    ValueError
        No pair has a value of the metric.
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
