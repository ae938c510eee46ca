"""What an image shows: where its content is, how large it is, and where the image knows nothing.

Everything is relative to the content's extent, never to millimetres, so that a mouse brain, a 0.01 mm specimen and a
whole body are treated alike.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from regcore.errors import InputError
from regcore.evaluation.likeness import cell_means
from regcore.images.volume import Grid, Volume
from regcore.kernels.class_information import sample
from regcore.process.devices import default_device

#: An image is averaged to about this many voxels across its content before anything else.
ACROSS = 96
#: A value that so large a share of the border and of the image has is padding: nothing was measured there.
PADDED_BORDER, PADDED_IMAGE = 0.2, 0.02
#: Air ends this far above its median: in its own spread, and in the range of intensities.
AIR_SPREADS, AIR_RANGE = 5.0, 0.08
#: A face of the image that less content than this touches does not cut the content: beyond it is background.
CLOSED = 0.02
#: Voxels that at most this share of is content have no intensity of their own.
LEAST_INSIDE = 0.3
#: Points that centre and extent are computed from.
POINTS = 20_000


@dataclass(frozen=True, eq=False)
class Content:
    """An image, averaged to a spacing that suits its extent, with its content.

    Parameters
    ----------
    value : ndarray, shape (*space)
        Mean intensity of the content in each voxel.
    inside : ndarray, shape (*space)
        Share of each voxel that is content, 0 to 1.
    valid : ndarray, shape (*space)
        Share of each voxel in which the image counts, 0 to 1; less than 1 only where a mask is given.
    grid : Grid
        Of the three arrays.
    points : ndarray, shape (n, D)
        World positions spread evenly over the content, mm.
    has_background : bool
        False if the content fills the image.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.content import content_of
    >>> from regcore.images.volume import Grid, Volume
    >>> data = np.pad(np.random.default_rng(0).uniform(5, 9, (20, 20)), 10)
    >>> found = content_of(Volume(data, Grid.centred((40, 40), spacing=(2, 2), centre=(0, 0))))
    >>> found.has_background, found.centre.round(3).tolist(), round(found.reach)
    (True, [0.0, 0.0], 24)
    """

    value: np.ndarray
    inside: np.ndarray
    valid: np.ndarray
    grid: Grid
    points: np.ndarray
    has_background: bool

    @cached_property
    def centre(self) -> np.ndarray:
        """Centre of the content, world mm."""
        return self.points.mean(0)

    @cached_property
    def reach(self) -> float:
        """Distance from the centre that all but the outermost content is within, mm."""
        return float(np.percentile(np.linalg.norm(self.points - self.centre, axis=1), 97))

    @cached_property
    def size(self) -> float:
        """Area or volume of the content, mm² or mm³."""
        voxel = abs(np.linalg.det(self.grid.affine[:-1, :-1]))
        return float((self.inside * self.valid).sum(dtype=np.float64) * voxel)

    def thickness(self) -> float:
        """Extent along the thinnest axis of the image relative to that along the longest."""
        projected = (self.points - self.centre) @ (self.grid.affine[:-1, :-1] / self.grid.spacing)
        extents = np.percentile(projected, 97, axis=0) - np.percentile(projected, 3, axis=0) + self.grid.spacing
        return float(extents.min() / extents.max())


def content_of(volume: Volume, mask: Volume | None = None) -> Content:
    """Find the content of an image.

    Parameters
    ----------
    volume : Volume
        With its own intensities, 2-D or 3-D.
    mask : Volume, optional
        On the image's grid: 0 where the image does not count.

    Returns
    -------
    Content

    Raises
    ------
    InputError
        Nothing is left inside the mask.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.content import content_of
    >>> from regcore.images.volume import Grid, Volume
    >>> data = np.pad(np.random.default_rng(0).uniform(5, 9, (20, 20)), 10)
    >>> content_of(Volume(data, Grid.centred((40, 40), spacing=(2, 2), centre=(0, 0)))).size
    1600.0
    """
    data = volume.data.astype(np.float32)
    content, has_background = foreground(data)
    valid = np.ones(data.shape, bool) if mask is None else mask.data > 0
    places = np.argwhere(content & valid)
    if not len(places):
        raise InputError(f"{volume.path}: nothing to align: the image has no content inside its mask")
    points = volume.grid.to_world(places[:: max(1, len(places) // POINTS)])
    reach = np.percentile(np.linalg.norm(points - points.mean(0), axis=1), 97)
    steps = np.clip(np.floor(2 * reach / ACROSS / volume.grid.spacing + 1e-6), 1, data.shape).astype(int)
    everywhere = tuple(slice(0, size) for size in data.shape)
    counted = (content & valid).astype(np.float32)
    inside, shares, total = (
        cell_means(values, everywhere, tuple(steps)) for values in (counted, valid.astype(np.float32), data * counted)
    )
    value = total / np.maximum(inside, 1e-6)
    affine = volume.grid.affine.copy()
    affine[:-1, -1] += affine[:-1, :-1] @ ((steps - 1) / 2)
    affine[:-1, :-1] *= steps
    return Content(value, inside, shares, Grid(inside.shape, affine), points, has_background)


def foreground(data: np.ndarray) -> tuple[np.ndarray, bool]:
    """Tell an image's content from padding and air.

    Parameters
    ----------
    data : ndarray
        Intensities, 2-D or 3-D.

    Returns
    -------
    ndarray of bool, same shape
        Where content is; everywhere if the image has no background.
    bool
        Whether it has one.

    Notes
    -----
    Padding is a value that the border and the image have often.  Otherwise air is what is darker than Otsu's threshold
    [1]_, if most of the border is; it ends close above its own median, because that threshold may lie between tissues.

    References
    ----------
    .. [1] Otsu, "A threshold selection method from gray-level histograms", IEEE TSMC 1979.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.content import foreground
    >>> content, has_background = foreground(np.pad(np.full((2, 2), 7.0), 2))
    >>> int(content.sum()), has_background
    (4, True)
    """
    border = np.concatenate([np.moveaxis(data, axis, 0)[end].ravel() for axis in range(data.ndim) for end in (0, -1)])
    values, counts = np.unique(border, return_counts=True)
    frequent = values[counts.argmax()]
    if counts.max() > PADDED_BORDER * border.size and (data == frequent).mean() > PADDED_IMAGE:
        return data != frequent, True
    low, high = np.percentile(data, (0.5, 99.5))
    threshold = _otsu(np.clip(data, low, high))
    air = border[border < threshold]
    if air.size <= 0.5 * border.size:
        return np.ones(data.shape, bool), False
    middle = float(np.median(air))
    spread = 1.4826 * float(np.median(np.abs(air - middle)))
    content = data > min(threshold, middle + max(AIR_SPREADS * spread, AIR_RANGE * (high - middle)))
    return (content, True) if content.any() else (np.ones(data.shape, bool), False)


class Level:
    """A content at one spacing, to be sampled anywhere.

    Parameters
    ----------
    content : Content
        The image.
    spacing : float
        mm; the image is smoothed and thinned to about this, but never refined.
    margin : float
        Faces that do not cut the content are continued with background by this, mm.

    Attributes
    ----------
    data : Tensor, shape (*space, 3)
        Rank of the intensity among all of the content (0 to 1) times share of content; share of content; share in
        which the image counts.
    affine : ndarray, shape (D + 1, D + 1)
        Voxels → world, mm.
    to_voxels : Tensor, shape (D, D + 1)
        World → voxels.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.alignment.content import Level, content_of
    >>> from regcore.images.volume import Grid, Volume
    >>> data = np.pad(np.random.default_rng(0).uniform(5, 9, (20, 20)), 10)
    >>> scan = content_of(Volume(data, Grid.centred((40, 40), spacing=(2, 2), centre=(0, 0))))
    >>> Level(scan, 4.0, 20.0).at(torch.tensor([[[0.0, 0.0], [300.0, 0.0]]]))[1].round().tolist()
    [[1.0, 0.0]]
    """

    def __init__(self, content: Content, spacing: float, margin: float):
        content, variances = _reduced(content, spacing)
        factors = np.maximum(spacing / content.grid.spacing, 1)
        steps = np.maximum(np.floor(factors + 1e-6), 1).astype(int)
        first = (np.array(content.grid.shape) - 1) % steps // 2
        widths = np.sqrt(np.maximum(0.25 * (factors**2 - 1) - variances, 0))
        averages = [_averages(*one) for one in zip(content.grid.shape, widths, first, steps, strict=True)]

        def smooth(values: np.ndarray) -> np.ndarray:
            for axis in np.argsort(-steps, kind="stable"):
                values = np.moveaxis(np.tensordot(averages[axis], values, (1, axis)), 0, axis)
            return values

        inside = smooth(content.inside)
        valid = smooth(content.valid) if (content.valid < 1).any() else np.ones_like(inside)
        value = smooth(content.value * content.inside) / np.maximum(inside, 1e-6)
        known = np.sort(value[inside > LEAST_INSIDE])
        rank = np.interp(value, known, np.linspace(0, 1, len(known))) if len(known) else np.zeros_like(value)
        affine = content.grid.affine.copy()
        affine[:-1, -1] += affine[:-1, :-1] @ first
        affine[:-1, :-1] *= steps
        spacings = np.linalg.norm(affine[:-1, :-1], axis=0)
        beyond = [_beyond(content, inside, valid, axis, margin / spacings[axis]) for axis in range(inside.ndim)]
        affine[:-1, -1] -= affine[:-1, :-1] @ np.array([before for before, _ in beyond])
        shape = [size + before + after for size, (before, after) in zip(inside.shape, beyond, strict=True)]
        within = tuple(slice(before, before + size) for size, (before, _) in zip(inside.shape, beyond, strict=True))
        data = np.zeros((*shape, 3), np.float32)
        data[..., 2] = 1
        for channel, values in enumerate((rank * inside, inside, valid)):
            data[..., channel][within] = values
        device = default_device()
        self.data = torch.from_numpy(data).to(device)
        self.affine = affine
        self.to_voxels = torch.from_numpy(np.linalg.inv(affine)[:-1]).float().to(device)

    def at(self, world: Tensor) -> Tensor:
        """Interpolate at world positions (B, n, D), mm → (3, B, n); zero outside, also the share that counts."""
        return sample(self.data, world @ self.to_voxels[:, :-1].T + self.to_voxels[:, -1])


def _reduced(content: Content, spacing: float) -> tuple[Content, np.ndarray]:
    """The content in cells of about a third of the spacing, and the cells' variance along each axis, in cells."""
    factors = np.clip(np.floor(spacing / content.grid.spacing / 3), 1, content.grid.shape).astype(int)
    variances = (1 - 1 / factors.astype(float) ** 2) / 12
    if factors.max() == 1:
        return content, variances
    everywhere = tuple(slice(0, size) for size in content.grid.shape)
    total, inside, valid = (
        cell_means(values, everywhere, tuple(factors))
        for values in (content.value * content.inside, content.inside, content.valid)
    )
    affine = content.grid.affine.copy()
    affine[:-1, -1] += affine[:-1, :-1] @ ((factors - 1) / 2)
    affine[:-1, :-1] *= factors
    value = total / np.maximum(inside, 1e-6)
    return replace(content, value=value, inside=inside, valid=valid, grid=Grid(inside.shape, affine)), variances


def _averages(size: int, width: float, first: int, step: int) -> np.ndarray:
    """Weights (n, size) of a Gaussian around every ``step``-th voxel; edges are continued by the last voxel."""
    middles = np.arange(first, size, step)
    reach = int(4 * width + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / max(width, 1e-6)) ** 2)
    places = np.clip(middles[:, None] + offsets, 0, size - 1)
    found = np.zeros((len(middles), size), np.float32)
    np.add.at(found, (np.arange(len(middles))[:, None], places), weights / weights.sum())
    return found


def _beyond(content: Content, inside: np.ndarray, valid: np.ndarray, axis: int, voxels: float) -> tuple[int, int]:
    """Voxels of background to add before and after an axis."""
    if not content.has_background or inside.shape[axis] < 4:
        return 0, 0
    faces = [np.moveaxis(values, axis, 0)[end].mean() for end in (0, -1) for values in (inside, valid)]
    amount = int(np.ceil(voxels))
    before, after = (amount if faces[i] < CLOSED and faces[i + 1] > 0.5 else 0 for i in (0, 2))
    return before, after


def _otsu(values: np.ndarray) -> float:
    counts, edges = np.histogram(values, 256)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts).astype(float)
    sums = np.cumsum(counts * middles)
    between = (sums[-1] * below / below[-1] - sums) ** 2 / np.maximum(below * (below[-1] - below), 1e-9)
    return float(middles[between[:-1].argmax()])
