"""How far a field is from the truth, and how alike two images are."""

from pathlib import Path

import numpy as np
import pandas as pd

from regcore.checks import describe, require_same_shape
from regcore.errors import InputError
from regcore.field import DisplacementField
from regcore.volume import Grid


def true_error_mm(field: DisplacementField, truth: DisplacementField, points: np.ndarray) -> np.ndarray:
    """Distance (mm) between where two fields send world points (n, D); shape (n,)."""
    return np.linalg.norm(field.at(points) - truth.at(points), axis=1)


def target_registration_error_mm(field: DisplacementField, fixed: pd.DataFrame, moving: pd.DataFrame) -> np.ndarray:
    """Distance (mm) between mapped fixed landmarks and their moving partners, matched by name.

    Parameters
    ----------
    fixed, moving : DataFrame
        From :func:`read_landmarks`.
    """
    both = fixed.join(moving, how="inner", lsuffix="_fixed", rsuffix="_moving")
    axes = list(fixed.columns)
    mapped = field.at(both[[f"{axis}_fixed" for axis in axes]].to_numpy())
    return np.linalg.norm(mapped - both[[f"{axis}_moving" for axis in axes]].to_numpy(), axis=1)


def read_landmarks(path: str | Path, ndim: int) -> pd.DataFrame:
    """Read a landmark TSV (columns ``name x y [z]``, RAS mm), indexed by name.

    Raises
    ------
    InputError
        A column is missing.
    """
    table = pd.read_csv(path, sep="\t")
    axes = list("xyz")[:ndim]
    missing = {"name", *axes} - set(table)
    if missing:
        raise InputError(f"{path}: the landmark table lacks the column(s) {', '.join(sorted(missing))}")
    return table.set_index("name")[axes]


def random_points(mask: np.ndarray, grid: Grid, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw world points (count, D) uniformly from the voxels of ``mask``, anywhere inside each voxel."""
    voxels = np.argwhere(mask)
    chosen = voxels[generator.integers(len(voxels), size=count)] + generator.uniform(-0.5, 0.5, (count, mask.ndim))
    return grid.to_world(np.clip(chosen, 0, np.array(mask.shape) - 1))


def correlation(fixed: np.ndarray, warped: np.ndarray) -> float:
    """Pearson correlation of two images over all voxels: Σ ab / √(Σ a² Σ b²) with a and b about their means.

    Sums are taken in float64, so that an offset far above the contrast does not matter.

    Parameters
    ----------
    fixed, warped : ndarray, same shape

    Returns
    -------
    float
        Between -1 and 1; 0 where one image is constant.

    Raises
    ------
    ValueError
        The shapes differ, an image is empty, or a value is NaN or infinite.
    """
    require_same_shape("fixed", fixed, "warped", warped)
    deviations = []
    for name, image in (("fixed", fixed), ("warped", warped)):
        if not image.size or not np.isfinite(image).all():
            raise ValueError(f"{describe(name, image)} must not be empty, nor hold NaN or infinite values")
        if image.min() == image.max():  # its mean may be rounded, and the deviations from it would not be zero
            return 0.0
        values = image.ravel().astype(np.float64)
        deviations.append(values - values.mean())
    a, b = deviations
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))
