"""How well a displacement brings a pair together, and how regular it is."""

import numpy as np
import torch

from anatomies.pair import Pair
from regcore.evaluation import dice, folds, sd_log_jacobian, surface_distances_per_label
from regcore.images.field import DisplacementField


def score(pair: Pair, displacement: np.ndarray) -> dict[str, float]:
    """Measure a displacement, float32, (D, *space), in voxels.

    Returns
    -------
    dict
        ``dice`` and ``hd95_mm``, means over the labels that both scans have; ``error_mm``, the mean distance from the
        true map, where it is known; ``folds_percent`` and ``sd_log_jacobian`` over the fixed image's labelled voxels.
        Labels are warped with nearest neighbour.
    """
    field = DisplacementField(torch.from_numpy(displacement)[None], pair.fixed.grid)
    fixed = pair.fixed_labels.data
    warped = field.warp(pair.moving_labels, nearest=True).data
    if pair.moving_mask is not None:
        warped = np.where(pair.moving_mask.data > 0, warped, 0)
    shared = np.intersect1d(np.unique(fixed), np.unique(pair.moving_labels.data))
    codes = [int(code) for code in shared if code > 0]
    apart = surface_distances_per_label(fixed, warped, codes, pair.fixed.grid.spacing)
    found = {
        "dice": float(np.nanmean(dice(fixed, warped, codes))),
        "hd95_mm": float(apart["hd95_mm"].mean()),
        "folds_percent": folds(field.displacement, fixed > 0),
        "sd_log_jacobian": sd_log_jacobian(field.displacement, fixed > 0),
    }
    if len(pair.points):
        found["error_mm"] = float(np.linalg.norm(field.at(pair.points) - pair.targets, axis=1).mean())
    return found
