"""A field and a pair of scans → tidy rows, in the same way for learned, classical and true fields.

Labels are warped once, with nearest neighbour, onto the native grid of the fixed scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regcore.errors import InputError
from regcore.evaluation.accuracy import correlation, random_points, target_registration_error_mm, true_error_mm
from regcore.evaluation.overlap import dice
from regcore.evaluation.regularity import (
    folds,
    mean_jacobian,
    non_diffeomorphic_points,
    non_diffeomorphic_volume,
    sd_log_jacobian,
)
from regcore.evaluation.surface import surface_distances_per_label
from regcore.evaluation.verdict import measure
from regcore.images.field import DisplacementField
from regcore.images.volume import Volume

#: Start of the names of metrics that a verdict rests on.
VERDICT = "verdict_"


@dataclass(frozen=True, eq=False)
class Truth:
    """The known truth about a pair, besides its labels.

    Parameters
    ----------
    field : DisplacementField, optional
        The true map, on the fixed grid.
    landmarks : tuple of DataFrame, optional
        Landmarks of the fixed and the moving scan.

    Examples
    --------
    >>> from regcore.evaluation.evaluate import Truth
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid
    >>> grid = Grid.centred((4, 4), spacing=(1, 1), centre=(0, 0))
    >>> truth = Truth(field=DisplacementField.identity(grid))
    >>> truth.field.grid.shape, truth.landmarks
    ((4, 4), None)
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
    images: Sequence[Volume] | None = None,
) -> pd.DataFrame:
    """Measure one field.

    Parameters
    ----------
    field : DisplacementField
        On the grid of ``fixed_labels``.
    fixed_labels, moving_labels : Volume
        Label maps of the two scans, each on its own grid; 0 is background.
    labels : sequence of int
        Codes to score.
    truth : Truth, optional
        What is known of the true map.
    points : int
        Number of random points in the labelled region at which the true error is measured.
    seed : int
        Of these points.
    images : pair of Volume, optional
        The fixed and the moving image, each on its own grid; the first on that of the labels.

    Returns
    -------
    DataFrame
        Columns ``label metric value``.  Per label: ``dice``, and ``hd95_mm`` and ``mean_surface_distance_mm``
        (:mod:`regcore.evaluation.surface`); a label that one image lacks has Dice 0 and no distance (NaN); a label that
        both lack is NaN in all.  With label -1, over the labelled region of the fixed scan: ``folds_percent`` and
        ``folds_count`` (voxels), ``ndv_percent`` and ``ndp_percent`` (non-diffeomorphic volume and points),
        ``sd_log_jacobian`` and ``mean_jacobian``; if the images are given, their ``correlation`` over the whole grid,
        and what the verdict rests on (:func:`regcore.evaluation.verdict.measure`), as ``verdict_<measure>``;
        ``true_error_mm`` and ``landmark_error_mm`` (means) if the truth is known.

    Raises
    ------
    InputError
        The field is not on the grid of ``fixed_labels``, or these contain no label.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.evaluate import evaluate_field
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> codes = np.zeros((8, 8), dtype=np.int32)
    >>> codes[2:6, 2:6] = 1
    >>> labels = Volume(codes, Grid.centred((8, 8), spacing=(2, 2), centre=(0, 0)))
    >>> table = evaluate_field(DisplacementField.identity(labels.grid), labels, labels, [1])
    >>> table.set_index("metric")["value"][["dice", "hd95_mm", "folds_percent"]].to_dict()
    {'dice': 1.0, 'hd95_mm': 0.0, 'folds_percent': 0.0}
    """
    require_grid(field, fixed_labels)
    mask = fixed_labels.data > 0
    if not mask.any():
        raise InputError(f"{fixed_labels.path}: the label map is empty (all zero)")
    warped = field.warp(moving_labels, nearest=True)
    rows = [
        (int(code), "dice", value)
        for code, value in zip(labels, dice(fixed_labels.data, warped.data, labels), strict=True)
    ]
    distances = surface_distances_per_label(fixed_labels.data, warped.data, labels, field.grid.spacing)
    for metric in distances.columns:
        rows += [(int(code), metric, value) for code, value in zip(labels, distances[metric], strict=True)]
    folded = folds(field.displacement, mask)
    rows.append((-1, "folds_percent", folded))
    rows.append((-1, "folds_count", folded * mask.sum() / 100))
    rows.append((-1, "ndv_percent", non_diffeomorphic_volume(field.displacement, mask)))
    rows.append((-1, "ndp_percent", non_diffeomorphic_points(field.displacement, mask)))
    rows.append((-1, "sd_log_jacobian", sd_log_jacobian(field.displacement, mask)))
    rows.append((-1, "mean_jacobian", mean_jacobian(field.displacement, mask)))
    if images is not None:
        fixed, moving = images
        rows.append((-1, "correlation", correlation(fixed.data, field.warp(moving).data)))
        rows += [(-1, VERDICT + name, value) for name, value in measure(fixed, moving, field).items()]
    if truth and truth.field is not None:
        where = random_points(mask, field.grid, points, np.random.default_rng(seed))
        rows.append((-1, "true_error_mm", true_error_mm(field, truth.field, where).mean()))
    if truth and truth.landmarks is not None:
        rows.append((-1, "landmark_error_mm", target_registration_error_mm(field, *truth.landmarks).mean()))
    return pd.DataFrame(rows, columns=["label", "metric", "value"])


def require_grid(field: DisplacementField, fixed_labels: Volume) -> None:
    """Raise :class:`InputError` if a field is not on the grid of the fixed scan's labels.

    Parameters
    ----------
    field : DisplacementField
        The field to be evaluated.
    fixed_labels : Volume
        Labels of the fixed scan.

    Raises
    ------
    InputError
        A voxel of the two grids differs by more than a hundredth of a voxel, or the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.evaluate import require_grid
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> grid = Grid.centred((4, 4), spacing=(1, 1), centre=(0, 0))
    >>> require_grid(DisplacementField.identity(grid), Volume(np.zeros((4, 4)), grid))
    """
    if not field.grid.same_as(fixed_labels.grid, voxels=0.01):
        raise InputError(
            f"{fixed_labels.path}: shape {fixed_labels.grid.shape} and position differ from the displacement's "
            f"grid ({field.grid.shape}); evaluate on the fixed image's own grid"
        )
