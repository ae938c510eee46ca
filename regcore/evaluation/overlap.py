"""How well labels overlap."""

from collections.abc import Sequence

import numpy as np


def dice_per_label(fixed: np.ndarray, warped: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Dice of each label, from integer counts (Eq. 8 of VoxelMorph).

    Parameters
    ----------
    fixed, warped : ndarray of int, same shape
    labels : sequence of int

    Returns
    -------
    ndarray, shape (len(labels),)
        2 |A ∩ B| / (|A| + |B|).  A label absent from one image scores 0; absent from both, NaN, and
        means leave it out.
    """
    codes = np.asarray(labels, dtype=int)
    top = int(max(fixed.max(initial=0), warped.max(initial=0), codes.max(initial=0))) + 1
    sizes = np.bincount(fixed.ravel(), minlength=top) + np.bincount(warped.ravel(), minlength=top)
    both = np.bincount(fixed[fixed == warped].ravel(), minlength=top)
    with np.errstate(invalid="ignore"):
        return (2 * both[codes] / sizes[codes]).astype(float)
