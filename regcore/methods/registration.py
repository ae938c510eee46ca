"""Registration of two scans on any grids, with one field as the result.

A method sees images on one grid. Scans are resampled to it here, and the field is mapped back.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from regcore.alignment.content import foreground
from regcore.alignment.prepared import Prepared
from regcore.errors import InputError, RegistrationFailed
from regcore.images.background import background
from regcore.images.volume import Volume
from regcore.methods.base import Channel, GuidingLabels, Method, Registration
from regcore.process.cost import Cost

#: A field of view excludes nothing if at most this share of the other scan's content lies beyond it.
BEYOND = 0.01


def register_scans(
    method: Method,
    fixed: Prepared,
    moving: Prepared,
    cost: Cost | None = None,
    inverse: bool = True,
    weights: Sequence[float] | None = None,
    label_weight: float | None = None,
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
    weights : sequence of float, optional
        Weight of the similarity of the images and of each further channel; only ratios matter. By default, all are
        equal.
    label_weight : float, optional
        Weight of the overlap of the scans' labels; by default the method's own.

    Returns
    -------
    Registration
        Between the native scans: the field on the native fixed grid, the inverse on the native moving grid.  Without
        the affine alignment for a method that does not start from it.

    Raises
    ------
    InputError
        The labels have no code in common where both scans show something.
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
    given: dict[str, Any] = {}
    if not method.aligned:
        fixed, moving = _as_scanned(fixed), _as_scanned(moving)
    else:
        if method.uses_labels and fixed.labels is not None and moving.labels is not None:
            given["labels"] = _guiding(fixed, moving, fixed.labels, moving.labels, label_weight)
        fixed, moving = _both_within_view(fixed, moving)
    if method.uses_masks:
        given |= {"fixed_mask": fixed.mask, "moving_mask": moving.mask}
    if method.uses_channels and fixed.channels:
        given["channels"] = _channels(fixed, moving, weights)
    cost = cost or Cost()
    with cost.stage("compute"):
        found = method.register(fixed.image, moving.image, **given)
    if not found.field.displacement.isfinite().all():
        raise RegistrationFailed("the displacement has NaN or infinite values")
    with cost.stage("save"):
        field = found.field.between_scans(fixed.native, fixed.to_native, moving.to_native)
        back = found.inverse if inverse else None
        if back is not None:
            back = back.between_scans(moving.native, moving.to_native, fixed.to_native)
    return replace(found, field=field, inverse=back)


def _channels(fixed: Prepared, moving: Prepared, weights: Sequence[float] | None) -> list[Channel]:
    """The further channels; what lies beyond the field of view of an image is left out in its channel alone."""
    pairs = [_both_within_view(*pair) for pair in zip(fixed.channels, moving.channels, strict=True)]
    given = [1.0] * (1 + len(pairs)) if weights is None else list(weights)
    return [
        Channel(first.image, second.image, weight / sum(given), first.mask, second.mask)
        for (first, second), weight in zip(pairs, given[1:], strict=True)
    ]


def _guiding(
    fixed: Prepared, moving: Prepared, fixed_labels: Volume, moving_labels: Volume, weight: float | None
) -> GuidingLabels:
    """The labels, without what lies beyond the field of view of a scan: nothing can be pulled there."""
    in_view = fixed.in_view() & moving.in_view()
    maps = [labels.with_data(np.where(in_view, labels.data, 0)) for labels in (fixed_labels, moving_labels)]
    if not shared_codes(*maps):
        raise InputError(
            f"{fixed_labels.path}, {moving_labels.path}: no label is in both maps where both images show something; "
            "look whether the images are aligned (--affine), and whether the maps belong to them"
        )
    return GuidingLabels(maps[0], maps[1], weight)


def shared_codes(fixed: Volume, moving: Volume) -> list[int]:
    """The codes other than 0 that two label maps have in common, ascending.

    Parameters
    ----------
    fixed, moving : Volume
        Label maps, on any grids.

    Returns
    -------
    list of int

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods.registration import shared_codes
    >>> first = Volume(np.array([[0, 3], [2, 9]]), Grid.centred((2, 2), (1, 1), (0, 0)))
    >>> shared_codes(first, first.with_data(np.array([[0, 9], [9, 3]])))
    [3, 9]
    """
    return [int(code) for code in np.intersect1d(fixed.data, moving.data) if code != 0]


def _both_within_view(fixed: Prepared, moving: Prepared) -> tuple[Prepared, Prepared]:
    fixed, moving = _within_view(fixed, moving)
    moving, fixed = _within_view(moving, fixed)
    return fixed, moving


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
