"""Distance of a field from the truth, and similarity of two images."""

import numpy as np
import pandas as pd

from regcore.checks import describe, require_finite, require_same_shape
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid


def true_error_mm(field: DisplacementField, truth: DisplacementField, points: np.ndarray) -> np.ndarray:
    """Distance (mm) between the positions to which two fields map points.

    Parameters
    ----------
    field, truth : DisplacementField
        The field to measure, and the true one.
    points : ndarray, shape (n, D)
        World coordinates of the fixed image, mm.

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    ValueError
        The points have another shape or are not finite; the fields have different numbers of axes; or a field is
        not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.evaluation import true_error_mm
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid
    >>> grid = Grid.centred((8, 8), spacing=(2, 2), centre=(0, 0))
    >>> truth = DisplacementField.identity(grid)
    >>> field = DisplacementField(torch.ones(1, 2, 8, 8), grid)
    >>> true_error_mm(field, truth, np.zeros((1, 2))).round(3).tolist()
    [2.828]
    """
    if truth.grid.ndim != field.grid.ndim:
        raise ValueError(f"truth has {truth.grid.ndim} axes and field {field.grid.ndim}")
    return np.linalg.norm(_mapped("field", field, "points", points) - _mapped("truth", truth, "points", points), axis=1)


def target_registration_error_mm(field: DisplacementField, fixed: pd.DataFrame, moving: pd.DataFrame) -> np.ndarray:
    """Distance (mm) between mapped fixed landmarks and their moving partners, matched by name.

    Parameters
    ----------
    field : DisplacementField
        Of the pair of scans that the landmarks belong to.
    fixed, moving : DataFrame, shape (n, D)
        World coordinates in mm, from :func:`regcore.cohort.landmarks.read_landmarks`.

    Returns
    -------
    ndarray, shape (pairs,)
        In the order of ``fixed``; a landmark without a partner is left out.

    Raises
    ------
    ValueError
        No name is in both tables; a name is in a table twice; the number of coordinates is not that of the field;
        or a value is not finite.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.evaluation import target_registration_error_mm
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid
    >>> field = DisplacementField.identity(Grid.centred((8, 8), spacing=(2, 2), centre=(0, 0)))
    >>> fixed = pd.DataFrame({"x": [0.0, 1.0], "y": [0.0, 1.0]}, index=["tip", "notch"])
    >>> moving = pd.DataFrame({"x": [3.0], "y": [4.0]}, index=["tip"])
    >>> target_registration_error_mm(field, fixed, moving).round(3).tolist()
    [5.0]
    """
    for name, table in (("fixed", fixed), ("moving", moving)):
        if table.shape[1] != field.grid.ndim or not np.isfinite(table.to_numpy(dtype=float)).all():
            raise ValueError(f"{name} landmarks {table.shape} must be {field.grid.ndim} finite numbers for each name")
        if table.index.has_duplicates:
            raise ValueError(f"{name} landmarks {sorted(table.index[table.index.duplicated()])} are listed twice")
    if not set(fixed.index) & set(moving.index):
        raise ValueError("fixed and moving landmarks have no name in common")
    both = fixed.join(moving, how="inner", lsuffix="_fixed", rsuffix="_moving")
    axes = list(fixed.columns)
    mapped = _mapped("field", field, "fixed", both[[f"{axis}_fixed" for axis in axes]].to_numpy())
    return np.linalg.norm(mapped - both[[f"{axis}_moving" for axis in axes]].to_numpy(), axis=1)


def _mapped(name: str, field: DisplacementField, points_name: str, points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != field.grid.ndim or not np.isfinite(points).all():
        raise ValueError(f"{describe(points_name, points)} must be finite coordinates (n, {field.grid.ndim})")
    require_finite(f"{name}.displacement", field.displacement)
    return field.at(points)


def random_points(mask: np.ndarray, grid: Grid, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw world points (count, D) uniformly from the voxels of ``mask``, anywhere inside each voxel.

    Parameters
    ----------
    mask : ndarray of bool, shape (*space)
        At least one voxel.
    grid : Grid
        That of the mask.
    count : int
        Number of points.
    generator : numpy Generator
        The same state gives the same points.

    Returns
    -------
    ndarray, shape (count, D)
        World coordinates, RAS mm.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.accuracy import random_points
    >>> from regcore.images.volume import Grid
    >>> grid = Grid.centred((9, 9), spacing=(2, 2), centre=(0, 0))
    >>> mask = np.zeros((9, 9), dtype=bool)
    >>> mask[4, 4] = True
    >>> points = random_points(mask, grid, 5, np.random.default_rng(0))
    >>> points.shape, bool((abs(points) <= 1).all())
    ((5, 2), True)
    """
    voxels = np.argwhere(mask)
    chosen = voxels[generator.integers(len(voxels), size=count)] + generator.uniform(-0.5, 0.5, (count, mask.ndim))
    return grid.to_world(np.clip(chosen, 0, np.array(mask.shape) - 1))


def correlation(fixed: np.ndarray, warped: np.ndarray) -> float:
    """Pearson correlation of two images over all voxels: Σ ab / √(Σ a² Σ b²), with the means of a and b subtracted.

    Sums are computed in float64, so that a large offset does not matter.

    Parameters
    ----------
    fixed, warped : ndarray, same shape
        Any intensities.

    Returns
    -------
    float
        Between -1 and 1; 0 where one image is constant.

    Raises
    ------
    ValueError
        The shapes differ, an image is empty, or a value is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation import correlation
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> round(correlation(image, 3 * image + 1), 4), round(correlation(image, -image), 4)
    (1.0, -1.0)
    """
    require_same_shape("fixed", fixed, "warped", warped)
    deviations = []
    for name, image in (("fixed", fixed), ("warped", warped)):
        if not image.size or not np.isfinite(image).all():
            raise ValueError(f"{describe(name, image)} must not be empty or contain NaN or infinite values")
        if image.min() == image.max():  # rounding of the mean would leave deviations that are not zero
            return 0.0
        values = image.ravel().astype(np.float64)
        deviations.append(values - values.mean())
    a, b = deviations
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))
