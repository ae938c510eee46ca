"""Registration of two scans on any grids, with one field as the result.

A method sees images on one grid. Scans are resampled to it here, and the field is mapped back.
"""

from dataclasses import replace

import numpy as np

from regcore.alignment.content import foreground
from regcore.alignment.prepared import Prepared
from regcore.errors import RegistrationFailed
from regcore.images.background import background
from regcore.methods.base import Method, Registration
from regcore.process.cost import Cost

#: A field of view excludes nothing if at most this share of the other scan's content lies beyond it.
BEYOND = 0.01


def register_scans(
    method: Method, fixed: Prepared, moving: Prepared, cost: Cost | None = None, inverse: bool = True
) -> Registration:
    """Register two prepared scans.

    What lies beyond the field of view of one scan and is content in the other is left out.

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
    else:
        fixed, moving = _within_view(fixed, moving)
        moving, fixed = _within_view(moving, fixed)
    masks = {"fixed_mask": fixed.mask, "moving_mask": moving.mask} if method.uses_masks else {}
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


def _within_view(scan: Prepared, other: Prepared) -> tuple[Prepared, Prepared]:
    """Both scans, without what the other shows beyond this one's field of view.

    There this scan is background, onto which the other's content would be pulled together: so the other becomes
    background too, which keeps windows across the border alike, and a mask leaves it out.
    """
    in_view = scan.in_view()
    if in_view.all():
        return scan, other
    content, _ = foreground(other.image.data)
    if (content & ~in_view).sum() <= BEYOND * content.sum():
        return scan, other
    counting = in_view if scan.mask is None else in_view & (scan.mask.data > 0)
    cut = np.where(in_view, other.image.data, background(other.image)).astype(other.image.data.dtype)
    return (
        replace(scan, mask=scan.image.with_data(counting.astype(np.uint8))),
        replace(other, image=other.image.with_data(cut)),
    )


def _as_scanned(scan: Prepared) -> Prepared:
    return replace(scan, to_native=np.eye(scan.native.ndim + 1))
