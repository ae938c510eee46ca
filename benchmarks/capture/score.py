"""How near a found matrix is to the truth of a pair."""

import numpy as np
from scipy.ndimage import affine_transform

from capture.pairs import Pair
from regcore.evaluation import dice
from regcore.images.grid import transform_points
from regcore.images.volume import Volume

#: A known map is found if the mean error is less than this part of the content's extent.
NEAR = 0.05
#: Dice may be this much below that of the true or fitted map, and at most this much below that of the start.
POINT = 0.01


def score(pair: Pair, matrix: np.ndarray) -> dict[str, float | bool]:
    """Error, Dice and success of a matrix, fixed world → moving world.

    Returns
    -------
    dict
        ``error_mm`` over the fixed image's content and ``error_seen_mm`` over what the moving image shows of it,
        ``error`` (the first relative to the content's extent), ``dice``, ``dice_start`` (identity: by the headers),
        ``dice_truth``, ``success`` (error below 5 % where the map is known; else Dice within a point of the map
        fitted to the labels), ``worse`` (Dice more than a point below the start's).
    """
    away = np.linalg.norm(transform_points(matrix, pair.points) - transform_points(pair.truth, pair.points), axis=1)
    error = float(away.mean())
    found, start, best = (overlap(pair, m) for m in (matrix, np.eye(len(matrix)), pair.truth))
    near = error < NEAR * pair.extent if pair.known else found > best - POINT
    return {
        "error_mm": error,
        "error_seen_mm": float(away[pair.seen].mean()) if pair.seen.any() else error,
        "error": error / pair.extent,
        "dice": found,
        "dice_start": start,
        "dice_truth": best,
        "success": bool(near),
        "worse": bool(found < start - POINT),
    }


def overlap(pair: Pair, matrix: np.ndarray) -> float:
    """Mean Dice over the labels that both scans have, where the moving image shows the fixed one, by the truth."""
    return mean_dice(pair.fixed_labels, pair.moving_labels, matrix, pair.covered)


def mean_dice(fixed: Volume, moving: Volume, matrix: np.ndarray, counted: np.ndarray | bool = True) -> float:
    """Mean Dice of two label maps over the labels that both have, under a map fixed world → moving world."""
    between = moving.grid.inverse @ matrix @ fixed.grid.affine
    warped = affine_transform(moving.data, between[:-1, :-1], between[:-1, -1], fixed.grid.shape, order=0)
    still = np.where(counted, fixed.data, 0)
    codes = np.intersect1d(np.unique(still), np.unique(moving.data))
    return float(np.nanmean(dice(still, np.where(counted, warped, 0), codes[codes > 0])))
