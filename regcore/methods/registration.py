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
    method : Method
        Ready to register.
    fixed, moving : Prepared
        Scans on one grid.
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

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.prepared import Prepared
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> from regcore.methods.registration import register_scans
    >>> native, common = (Grid.centred((n, n), (32 / n, 32 / n), (0, 0)) for n in (64, 32))
    >>> image = Volume(np.eye(32, dtype=np.float32), common)
    >>> shifted = np.eye(3)
    >>> shifted[0, 2] = 5  # the alignment of the moving scan: 5 mm along x
    >>> fixed, moving = Prepared(image, np.eye(3), native), Prepared(image, shifted, native)
    >>> field = register_scans(make_method("affine"), fixed, moving).field
    >>> field.grid.shape, (field.targets() - DisplacementField.identity(native).targets())[0, 0].round(6).tolist()
    ((64, 64), [5.0, 0.0])
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

    Parameters
    ----------
    scan, other : Prepared
        On one grid.

    Returns
    -------
    Volume or None
        On the common grid, zero where the scan is ignored; None if all of it counts.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.prepared import Prepared
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods.registration import covered_mask
    >>> grid = Grid.centred((4, 2), spacing=(1, 1), centre=(0, 0))
    >>> half = Grid((2, 2), grid.affine)
    >>> image = Volume(np.ones((4, 2)), grid)
    >>> whole, part = Prepared(image, np.eye(3), grid), Prepared(image, np.eye(3), half)
    >>> covered_mask(part, whole).data.tolist(), covered_mask(whole, part)
    ([[1, 1], [1, 1], [0, 0], [0, 0]], None)
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
