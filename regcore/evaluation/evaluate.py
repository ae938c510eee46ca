"""A field and a pair of scans → tidy rows; learned, classical and true fields pass through here alike.

Labels are warped once, with nearest neighbour, onto the native grid of the fixed scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regcore.errors import InputError
from regcore.evaluation.accuracy import random_points, target_registration_error_mm, true_error_mm
from regcore.evaluation.overlap import dice
from regcore.evaluation.regularity import folds, sd_log_jacobian
from regcore.field import DisplacementField
from regcore.volume import Volume


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known about a pair besides its labels.

    Parameters
    ----------
    field : DisplacementField, optional
        The true map, on the fixed grid.
    landmarks : tuple of DataFrame, optional
        Of the fixed and the moving scan.
    """

    field: DisplacementField | None = None
    landmarks: tuple[pd.DataFrame, pd.DataFrame] | None = None


def evaluate_field(
    field: DisplacementField,
    fixed_labels: Volume,
    moving_labels: Volume,
    labels: Sequence[int],
    truth: Truth | None = None,
    points: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure one field.

    Parameters
    ----------
    labels : sequence of int
        Codes to score.
    points : int
        Random points in the labelled region at which the true error is taken.

    Returns
    -------
    DataFrame
        Columns ``label metric value``: ``dice`` per label; ``folds_percent``, ``folds_count`` (voxels) and
        ``sd_log_jacobian`` over the labelled region of the fixed scan; ``true_error_mm`` and
        ``landmark_error_mm`` (means) where the truth is known.  ``label`` is -1 for what is no label's.

    Raises
    ------
    InputError
        The field is not on the grid of ``fixed_labels``, or these hold no label.
    """
    if not field.grid.same_as(fixed_labels.grid, tolerance_mm=0.01):
        raise InputError(
            f"{fixed_labels.path}: shape {fixed_labels.grid.shape} and position differ from the displacement's "
            f"grid ({field.grid.shape}); evaluate on the fixed image's own grid"
        )
    mask = fixed_labels.data > 0
    if not mask.any():
        raise InputError(f"{fixed_labels.path}: the label map is empty (all zero)")
    warped = field.warp(moving_labels, nearest=True)
    rows = [
        (int(code), "dice", value)
        for code, value in zip(labels, dice(fixed_labels.data, warped.data, labels), strict=True)
    ]
    folded = folds(field.displacement, mask)
    rows.append((-1, "folds_percent", folded))
    rows.append((-1, "folds_count", folded * mask.sum() / 100))
    rows.append((-1, "sd_log_jacobian", sd_log_jacobian(field.displacement, mask)))
    if truth and truth.field is not None:
        where = random_points(mask, field.grid, points, np.random.default_rng(seed))
        rows.append((-1, "true_error_mm", true_error_mm(field, truth.field, where).mean()))
    if truth and truth.landmarks is not None:
        rows.append((-1, "landmark_error_mm", target_registration_error_mm(field, *truth.landmarks).mean()))
    return pd.DataFrame(rows, columns=["label", "metric", "value"])
