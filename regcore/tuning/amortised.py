"""Tuning the hyperparameters of a trained hypernetwork without training: Section 3.2 of HyperMorph.

A forward pass gives the overlap of labels at any values of the hyperparameters.  :func:`sweep` evaluates it densely;
:func:`tune` follows its gradient (Eq. 4).  :mod:`regcore.tuning.optima` chooses values from the table of a sweep.
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


@dataclass(frozen=True)
class Tuned:
    """The best hyperparameters, as :func:`tune` finds them.

    Parameters
    ----------
    values : dict of str → float
        Hyperparameter → value.
    overlap : float
        Mean overlap at these values: soft Dice, averaged over labels and pairs.
    starts : list of dict
        End point of each start: the hyperparameters and ``overlap``.
    seconds : float
        Time of the search.

    Examples
    --------
    >>> from regcore.tuning.amortised import Tuned
    >>> starts = [{"lambda": 0.3, "overlap": 0.81}, {"lambda": 0.9, "overlap": 0.74}]
    >>> Tuned({"lambda": 0.3}, 0.81, starts, seconds=2.1).values
    {'lambda': 0.3}
    """

    values: dict[str, float]
    overlap: float
    starts: list[dict[str, float]]
    seconds: float


def rows_of(method: Hypernetworked, points: int | None = None) -> Tensor:
    """A grid of a hypernetwork's inputs, with both ends of every range.

    Parameters
    ----------
    method : Hypernetworked
        Its hyperparameters span the grid.
    points : int, optional
        Points along each; default: 101 for one hyperparameter, 21 for each of two, 9 for each of three.

    Returns
    -------
    Tensor, shape (rows, n)
        Positions in the ranges, 0 to 1, in the order of ``method.hyperparameters``; the last one varies fastest.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> from regcore.tuning.amortised import rows_of
    >>> method = make_method("hypermorph", {"prior": {"lambda": [0, 1], "gamma": [0, 1]}})
    >>> rows_of(method, points=2).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
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
        The pairs.
    codes : sequence of int
        Labels to score.
    rows : Tensor, shape (rows, n), optional
        Inputs of the hypernetwork, 0 to 1; a dense grid by default.

    Returns
    -------
    DataFrame
        One column per hyperparameter, then ``fixed moving label metric value``: ``dice`` of every label, warped by
        nearest neighbour, and under label -1 ``overlap``, the soft Dice of all labels.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.methods import make_method
    >>> from regcore.training.validation import LabelledPairs
    >>> from regcore.tuning.amortised import rows_of, sweep
    >>> labels = {"a": np.tri(32, dtype=np.int16), "b": np.tri(32, k=1, dtype=np.int16)}
    >>> images = {scan: torch.from_numpy(label).float()[None, None] for scan, label in labels.items()}
    >>> method = make_method("hypermorph", {"similarity": "mse", "hidden": [4]})
    >>> method.module = method.build(ndim=2).eval()  # untrained: it hardly moves anything
    >>> table = sweep(method, LabelledPairs([("a", "b")], images, labels), [1], rows_of(method, points=2))
    >>> table.round(2)
       lambda fixed moving  label   metric  value
    0     0.0     a      b      1     dice   0.97
    1     0.0     a      b     -1  overlap   0.97
    2     1.0     a      b      1     dice   0.97
    3     1.0     a      b     -1  overlap   0.97
    """
    rows = rows_of(method) if rows is None else rows
    settings = pd.DataFrame([method.values_of(row) for row in rows])

    def displacements(batch: Mapping[str, Any]) -> Iterator[Tensor]:
        for some in rows.split(AT_ONCE):
            yield from _displacements(method, batch, some).split(1)

    return _scores(method, labelled, codes, displacements, settings)


@torch.inference_mode()
def score(method: LearnedMethod, labelled: LabelledPairs, codes: Sequence[int]) -> pd.DataFrame:
    """Score every pair with a network without hyperparameters; columns as in :func:`sweep`, without these.

    Parameters
    ----------
    method : LearnedMethod
        With loaded weights.
    labelled : LabelledPairs
        The pairs.
    codes : sequence of int
        Labels to score.

    Returns
    -------
    DataFrame
        ``fixed moving label metric value``.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.methods import make_method
    >>> from regcore.training.validation import LabelledPairs
    >>> from regcore.tuning.amortised import score
    >>> labels = {"a": np.tri(32, dtype=np.int16), "b": np.tri(32, k=1, dtype=np.int16)}
    >>> images = {scan: torch.from_numpy(label).float()[None, None] for scan, label in labels.items()}
    >>> method = make_method("voxelmorph", {"similarity": "mse"})
    >>> method.module = method.build(ndim=2).eval()  # untrained: it hardly moves anything
    >>> score(method, LabelledPairs([("a", "b")], images, labels), [1]).round(2)
      fixed moving  label   metric  value
    0     a      b      1     dice   0.97
    1     a      b     -1  overlap   0.97
    """

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
    """Maximise the overlap of labels over the hyperparameters by gradient, with frozen weights (Eq. 4 of [1]_).

    The best points of a coarse sweep, without neighbours, are the starts. L-BFGS-B climbs from each within the
    ranges.

    Parameters
    ----------
    method : Hypernetworked
        With loaded weights.
    labelled : LabelledPairs
        Usually the validation pairs.
    codes : sequence of int
        Labels whose overlap counts.
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

    References
    ----------
    .. [1] Hoopes, Hoffmann, Fischl, Guttag and Dalca, "HyperMorph: Amortized hyperparameter learning for image
       registration", IPMI 2021, Section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.methods import make_method
    >>> from regcore.training.validation import LabelledPairs
    >>> from regcore.tuning.amortised import tune
    >>> labels = {"a": np.tri(32, dtype=np.int16), "b": np.tri(32, k=1, dtype=np.int16)}
    >>> images = {scan: torch.from_numpy(label).float()[None, None] for scan, label in labels.items()}
    >>> method = make_method("hypermorph", {"similarity": "mse", "hidden": [4]})
    >>> method.module = method.build(ndim=2).eval()
    >>> tuned = tune(method, LabelledPairs([("a", "b")], images, labels), [1], starts=1)
    >>> sorted(tuned.values), round(tuned.overlap, 2)
    (['lambda'], 0.97)
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
