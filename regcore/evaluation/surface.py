"""Distances between the surfaces of labels, in millimetres.

A surface is the set of voxels of a mask of which at least one face neighbour (4 in 2-D, 6 in 3-D) is outside the
mask; beyond the edge of the image everything is outside.  This is the default of MONAI and medpy.  Distances are
Euclidean, between voxel centres, on the anisotropic grid.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

from regcore.checks import require_same_shape
from regcore.evaluation.overlap import label_maps, positions, sorted_codes


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances (mm) from each surface voxel of one mask to the nearest surface voxel of the other.

    Every summary is symmetric in the two masks, and NaN if one of them is empty.

    Parameters
    ----------
    a_to_b, b_to_a : ndarray of float64, one-dimensional
        One distance for each surface voxel of the first mask, in array order; NaN if the other mask has no
        surface.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation import SurfaceDistances
    >>> found = SurfaceDistances(np.array([0.0, 3.0]), np.array([1.0, 0.0]))
    >>> found.hausdorff(), found.mean
    (3.0, 1.0)
    """

    a_to_b: np.ndarray
    b_to_a: np.ndarray

    @property
    def hd95(self) -> float:
        """95th percentile Hausdorff distance (mm): the larger of the two directed 95th percentiles.

        HD95 = max(P₉₅{d(x, B) : x ∈ A}, P₉₅{d(x, A) : x ∈ B}), with linear interpolation between ranks.

        This is the definition of MONAI, of DeepMind's ``compute_robust_hausdorff`` (which weights voxels by
        their area) and of Learn2Reg, which uses the latter.  medpy's ``hd95`` differs: it is the percentile of
        both sets of distances pooled, and usually a little smaller.
        """
        return self.hausdorff(95)

    def hausdorff(self, percentile: float = 100) -> float:
        """Return the larger of the two directed percentiles (mm); at 100 the Hausdorff distance."""
        if not self.complete:
            return float("nan")
        return float(max(np.percentile(self.a_to_b, percentile), np.percentile(self.b_to_a, percentile)))

    @property
    def mean(self) -> float:
        """Mean symmetric surface distance (mm), over the surface voxels of both masks pooled.

        As in MONAI (``symmetric=True``).  The mean of the two directed means, which others give the same name,
        differs if the two surfaces have different numbers of voxels.
        """
        return float(np.concatenate([self.a_to_b, self.b_to_a]).mean()) if self.complete else float("nan")

    @property
    def complete(self) -> bool:
        """Whether both masks have a surface."""
        return bool(self.a_to_b.size and self.b_to_a.size)


def surface_distances(a: np.ndarray, b: np.ndarray, spacing: npt.ArrayLike) -> SurfaceDistances:
    """Compute the exact distances between the surfaces of two masks.

    Parameters
    ----------
    a, b : ndarray of bool, same shape, 2-D or 3-D
        Masks on one grid.
    spacing : sequence of float, length D
        Voxel size in mm along each array axis, as :attr:`regcore.images.volume.Grid.spacing`.

    Returns
    -------
    SurfaceDistances
        ``.hd95`` and ``.mean`` in mm; NaN if a mask is empty.

    Raises
    ------
    ValueError
        The masks are not boolean, not 2-D or 3-D, or differ in shape; the spacing is not D positive numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation import surface_distances
    >>> a, b = np.zeros((8, 8), dtype=bool), np.zeros((8, 8), dtype=bool)
    >>> a[2:5, 2:5], b[2:5, 3:6] = True, True
    >>> surface_distances(a, b, spacing=(1, 2)).hausdorff()
    2.0
    """
    a, b = np.asarray(a), np.asarray(b)
    require_same_shape("a", a, "b", b)
    for name, mask in (("a", a), ("b", b)):
        if mask.dtype != bool:
            raise ValueError(f"{name} {mask.shape} of {mask.dtype} must be a boolean mask, such as labels == 17")
    sizes = _spacing(spacing, a)
    region = find_objects((a | b).view(np.uint8))
    return _distances(a[region[0]], b[region[0]], sizes) if region else SurfaceDistances(np.empty(0), np.empty(0))


def surface_distances_per_label(
    a: np.ndarray, b: np.ndarray, labels: Iterable[int], spacing: npt.ArrayLike
) -> pd.DataFrame:
    """Summarise :func:`surface_distances` of each label, within its bounding box.

    Parameters
    ----------
    a, b : ndarray of int or bool, same shape, 2-D or 3-D
        Label maps on one grid.
    labels : iterable of int
        Codes to score, in any order.
    spacing : sequence of float, length D
        Voxel size in mm along each array axis.

    Returns
    -------
    DataFrame
        Index ``label``, in the order of ``labels``; columns ``hd95_mm`` and ``mean_surface_distance_mm``,
        NaN for a label that an image lacks.

    Raises
    ------
    ValueError
        The shapes differ, a map is not of integers or not 2-D or 3-D, a label is not an integer, or the
        spacing is not D positive numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation import surface_distances_per_label
    >>> a, b = np.zeros((8, 8), dtype=int), np.zeros((8, 8), dtype=int)
    >>> a[2:5, 2:5], b[2:5, 3:6] = 4, 4
    >>> surface_distances_per_label(a, b, [4], spacing=(1, 2)).round(3).loc[4].to_dict()
    {'hd95_mm': 2.0, 'mean_surface_distance_mm': 0.875}
    """
    a, b = label_maps(a, b)
    sizes = _spacing(spacing, a)
    codes, asked = sorted_codes(labels)
    in_a, in_b = positions(a, codes), positions(b, codes)
    boxes_a, boxes_b = find_objects(in_a, len(codes)), find_objects(in_b, len(codes))
    summaries = [(np.nan, np.nan)]  # of position 0, which is not a label
    for position, (box_a, box_b) in enumerate(zip(boxes_a, boxes_b, strict=True), start=1):
        summary = (np.nan, np.nan)
        if box_a and box_b:
            box = tuple(slice(min(i.start, j.start), max(i.stop, j.stop)) for i, j in zip(box_a, box_b, strict=True))
            found = _distances(in_a[box] == position, in_b[box] == position, sizes)
            summary = (found.hd95, found.mean)
        summaries.append(summary)
    codes = pd.Index([codes[place - 1] for place in asked], name="label")
    values = np.array([summaries[place] for place in asked], dtype=float).reshape(-1, 2)
    return pd.DataFrame(values, codes, ["hd95_mm", "mean_surface_distance_mm"])


def _spacing(spacing: npt.ArrayLike, image: np.ndarray) -> np.ndarray:
    values = np.asarray(spacing, dtype=float)
    if image.ndim not in (2, 3):
        raise ValueError(f"a {image.shape} must have two or three axes")
    if values.shape != (image.ndim,) or not np.isfinite(values).all() or values.min() <= 0:
        raise ValueError(
            f"spacing {values.tolist()} must be {image.ndim} positive numbers (mm), one for each axis of {image.shape}"
        )
    return values


def _distances(a: np.ndarray, b: np.ndarray, spacing: np.ndarray) -> SurfaceDistances:
    """Distances between the surfaces of two masks, cropped to a box around both."""
    surface_a, surface_b = (mask & ~binary_erosion(mask) for mask in (a, b))
    return SurfaceDistances(_to(surface_b, surface_a, spacing), _to(surface_a, surface_b, spacing))


def _to(target: np.ndarray, start: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance (mm) of each voxel of ``start`` to the nearest of ``target``; NaN if that is empty."""
    if not target.any():
        return np.full(np.count_nonzero(start), np.nan)
    return distance_transform_edt(~target, sampling=spacing)[start]
