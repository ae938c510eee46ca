"""Registration of two scans on any grids, with one field as the result.

A method sees images on one grid. Scans are resampled to it here, and the field is mapped back.
"""

from dataclasses import replace

import numpy as np

from regcore.alignment.prepared import Prepared
from regcore.errors import RegistrationFailed
from regcore.images.volume import Grid, Volume, transform_points
from regcore.methods.base import Method, Registration
from regcore.process.cost import Cost

#: Normalised intensities above this are content.
CONTENT = 0.05
#: A field of view that misses more than this share of the other image's content masks what it misses.
MISSED = 0.01


def register_scans(
    method: Method, fixed: Prepared, moving: Prepared, cost: Cost | None = None, inverse: bool = True
) -> Registration:
    """Register two prepared scans.

    Parameters
    ----------
    cost : Cost, optional
        Measures the stages ``compute`` and ``save``.
    inverse : bool
        Whether to keep the inverse, if the method has one.

    Returns
    -------
    Registration
        Between the native scans: the field on the native fixed grid, the inverse on the native moving grid.  Without
        the affine alignment for a method that does not start from it.

    Raises
    ------
    RegistrationFailed
        The field has NaN or infinite values, or a tool failed.
    """
    if not method.aligned:
        fixed, moving = _as_scanned(fixed), _as_scanned(moving)
    masks = {}
    if method.uses_masks:
        masks = {"fixed_mask": covered_mask(fixed, moving), "moving_mask": covered_mask(moving, fixed)}
    cost = cost or Cost()
    with cost.stage("compute"):
        found = method.register(fixed.image, moving.image, **masks)
    if not found.field.displacement.isfinite().all():
        raise RegistrationFailed("the displacement has NaN or infinite values")
    with cost.stage("save"):
        field = found.field.between_scans(fixed.native, fixed.to_native, moving.to_native)
        back = found.inverse if inverse else None
        if back is not None:
            back = back.between_scans(moving.native, moving.to_native, fixed.to_native)
    return replace(found, field=field, inverse=back)


def covered_mask(scan: Prepared, other: Prepared) -> Volume | None:
    """The mask of a scan, without what its field of view misses of the other scan's content, if that matters.

    Beyond its field of view a scan has no anatomy that could be compared: a slab would be stretched over all that the
    other image shows.

    Returns
    -------
    Volume or None
        On the common grid, zero where the scan is ignored; None if all of it counts.
    """
    covered = _covered(scan)
    content = other.image.data > CONTENT
    if covered is None or (content & ~covered).sum() <= MISSED * content.sum():
        return scan.mask
    return scan.image.with_data((covered if scan.mask is None else covered & (scan.mask.data > 0)).astype(np.uint8))


def _covered(scan: Prepared) -> np.ndarray | None:
    """Which voxels of the common grid lie in the scan's own field of view; None if all do."""
    grid = scan.image.grid
    to_voxels = scan.native.inverse @ scan.to_native
    if _inside(transform_points(to_voxels, grid.corners()), scan.native).all():
        return None
    places = np.moveaxis(np.indices(grid.shape), 0, -1)
    return _inside(transform_points(to_voxels @ grid.affine, places), scan.native)


def _inside(voxels: np.ndarray, grid: Grid) -> np.ndarray:
    """Whether voxel coordinates (..., D) lie in a grid, to half a voxel beyond its outer centres."""
    return np.all((voxels > -0.5) & (voxels < np.array(grid.shape) - 0.5), axis=-1)


def _as_scanned(scan: Prepared) -> Prepared:
    return replace(scan, to_native=np.eye(scan.native.ndim + 1))
