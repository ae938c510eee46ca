"""How alike two images are in many poses, whatever their contrasts, at a coarse resolution.

Here: what an image shows of its anatomy (its content), a coarse view of it, and the likeness of a fixed view and a
moving one under any map between them.  All sizes are relative to the extent of the content, so that a mouse in 0.1 mm
voxels and a man in 1 mm voxels are judged alike.  Not here: which poses to try, and what their likeness says
(``verdict``).
"""

import functools
import operator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_dilation, binary_fill_holes, binary_opening, label
from torch import Tensor

from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume

#: Cells along the longest side of a view, by the number of axes.
CELLS = {2: 64, 3: 32}
#: Background is a level that this share of the border has, to within this part of the range of intensities.
BORDER_SHARE, LEVEL_WIDTH = 0.3, 0.08
#: An image whose background leaves less than this share of it is taken as content as a whole.
LEAST_CONTENT = 0.003
#: Half the width of the windows in which two images are compared, cells.
RADIUS = 2
#: Variance, of intensities between 0 and 1, below which a window shows no structure.
FLAT = 1e-3
#: Maps that are compared at once, which bounds the memory.
AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class View:
    """The content of an image in coarse cells.

    Parameters
    ----------
    image : Volume
        Means over the cells of a box around the content; its content's 1st and 99th percentile are 0 and 1.
    content : ndarray of bool, shape (*image.grid.shape)
        Which cells show anatomy rather than air or padding.
    voxels : tuple of slice
        The voxels of the original image that the cells consist of.
    factors : tuple of int
        Voxels a cell along each axis.
    native : Grid
        Grid of the original image, its field of view.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.likeness import view
    >>> from regcore.images.volume import Grid, Volume
    >>> image = np.zeros((256, 256))
    >>> image[64:192, 64:192] = 50 + np.arange(128)
    >>> found = view(Volume(image, Grid.centred((256, 256), spacing=(1, 1), centre=(0, 0))))
    >>> found.factors, round(found.extent)
    ((2, 2), 128)
    """

    image: Volume
    content: np.ndarray
    voxels: tuple[slice, ...]
    factors: tuple[int, ...]
    native: Grid

    @functools.cached_property
    def points(self) -> np.ndarray:
        """World positions of the content's cells, shape (n, D), RAS mm."""
        return self.image.grid.to_world(np.argwhere(self.content))

    @functools.cached_property
    def centre(self) -> np.ndarray:
        """Centre of the content, shape (D,), RAS mm."""
        return self.points.mean(0)

    @property
    def extent(self) -> float:
        """Length of the content along its longest array axis, mm."""
        return float(self.sides.max())

    @functools.cached_property
    def sides(self) -> np.ndarray:
        """Length of the content along each array axis, shape (D,), mm."""
        places = np.argwhere(self.content)
        return (places.max(0) + 1 - places.min(0)) * self.image.grid.spacing

    @property
    def directions(self) -> np.ndarray:
        """Unit vectors of the array axes in the world, as columns, shape (D, D)."""
        return self.image.grid.affine[:-1, :-1] / self.image.grid.spacing


def view(volume: Volume) -> View:
    """Make the coarse view of an image.

    Parameters
    ----------
    volume : Volume
        With its own intensities and background.

    Returns
    -------
    View

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.likeness import view
    >>> from regcore.images.volume import Grid, Volume
    >>> image = np.zeros((256, 256))
    >>> image[64:192, 64:192] = 50 + np.arange(128)
    >>> view(Volume(image, Grid.centred((256, 256), spacing=(1, 1), centre=(0, 0)))).image.grid.shape
    (68, 68)
    """
    everything = tuple(slice(0, n) for n in volume.grid.shape)
    whole, factors = _cells(volume, everything)
    places = np.argwhere(content(whole.data))
    low = np.maximum((places.min(0) - 1) * factors, 0)
    high = np.minimum((places.max(0) + 2) * factors, volume.grid.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    cells, factors = _cells(volume, box)
    shown = content(cells.data)
    # In a box around the content the border shows less of the background than before.
    if shown.all() and len(places) < 0.9 * whole.data.size:
        cells, factors, box, shown = whole, _cells(volume, everything)[1], everything, content(whole.data)
    darkest, brightest = np.percentile(cells.data[shown], [1, 99])
    scaled = np.clip((cells.data - darkest) / max(brightest - darkest, 1e-12), -0.5, 1.5)
    return View(cells.with_data(scaled.astype(np.float32)), shown, box, tuple(int(n) for n in factors), volume.grid)


def content(data: np.ndarray) -> np.ndarray:
    """Which voxels of an image show anatomy, rather than air or padding.

    Background has one level on a large part of the image's border, and is connected with it: so black air, padding with
    any constant, and the bright surroundings of an inverted image are found, and dark fluid inside is not.  An image
    without such a level, such as a crop out of an organ, is content as a whole.

    Parameters
    ----------
    data : ndarray, 2-D or 3-D
        Intensities.

    Returns
    -------
    ndarray of bool, same shape

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.likeness import content
    >>> image = np.full((12, 12), -1000.0)
    >>> image[3:9, 3:9] = 40.0
    >>> bool(content(image)[4:8, 4:8].all()), bool(content(image)[:3].any())
    (True, False)
    """
    border = np.ones(data.shape, dtype=bool)
    border[(slice(1, -1),) * data.ndim] = False
    low, high = np.percentile(data, [0.5, 99.5])
    width = LEVEL_WIDTH * max(high - low, 1e-12)
    counts, edges = np.histogram(data[border], bins=64, range=(low - width / 2, high + width / 2))
    level = edges[counts.argmax()] + (edges[1] - edges[0]) / 2
    near = np.abs(data - level) < width
    if near[border].mean() < BORDER_SHARE:
        return np.ones(data.shape, dtype=bool)
    regions, _ = label(near)
    outside = np.isin(regions, np.setdiff1d(np.unique(regions[border]), [0]))
    opened = binary_opening(~outside)
    found = binary_fill_holes(opened if opened.mean() > LEAST_CONTENT else ~outside)
    return found if found.mean() > LEAST_CONTENT else np.ones(data.shape, dtype=bool)


def cell_means(data: np.ndarray, box: tuple[slice, ...], factors: tuple[int, ...]) -> np.ndarray:
    """Means over the cells of a box; voxels that fill no cell are left out.

    Parameters
    ----------
    data : ndarray, 2-D or 3-D
    box : tuple of slice
        A part of the array.
    factors : tuple of int
        Voxels a cell along each axis.

    Returns
    -------
    ndarray of float32

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.likeness import cell_means
    >>> cell_means(np.arange(10).reshape(2, 5), (slice(0, 2), slice(1, 5)), (2, 2)).tolist()
    [[4.0, 6.0]]
    """
    cells = [(s.stop - s.start) // n for s, n in zip(box, factors, strict=True)]
    inside = tuple(slice(s.start, s.start + k * n) for s, k, n in zip(box, cells, factors, strict=True))
    found = data[inside]
    for axis, (count, factor) in enumerate(zip(cells, factors, strict=True)):
        if factor > 1:
            split = found.reshape(*found.shape[:axis], count, factor, *found.shape[axis + 1 :])
            found = split.mean(axis + 1, dtype=np.float32)
    return np.asarray(found, dtype=np.float32)


class Likeness:
    """How alike a fixed and a moving image are under any map.

    In every window the two images are compared by their squared correlation, which any linear relation of intensities
    leaves unchanged, also an inverted one; across a window the relation of two contrasts is nearly linear.  With V the
    variance and C the covariance over the cells of a window that show content in both images::

        likeness = Σ n C² / ((V_fixed + ε) (V_moving + ε))      over windows, around every other cell

    with n the cells of a window that show content in both images, relative to the same sum for the fixed image and
    itself. That is the same for all maps, so that a small overlap cannot win.

    Parameters
    ----------
    fixed, moving : View
        ``points`` are the world positions (n, D) of the fixed view's cells that take part, ``inside`` (n,) tells which
        of them are content.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.likeness import Likeness, view
    >>> from regcore.images.volume import Grid, Volume
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> grid = Grid.centred((64, 64), spacing=(1, 1), centre=(0, 0))
    >>> both = Likeness(view(Volume(image, grid)), view(Volume(1 - image, grid)))
    >>> turned = np.diag([-1.0, -1.0, 1.0])
    >>> here, there = both.of(np.stack([both.targets(np.eye(3)), both.targets(turned)]))
    >>> bool(here > 0.95), bool(there < 0.2)
    (True, True)
    """

    def __init__(self, fixed: View, moving: View):
        self.fixed, self.moving = fixed, moving
        # One cell more than the content, so that its outline counts.
        self._near = binary_dilation(fixed.content)
        self._where = torch.from_numpy(np.flatnonzero(self._near))
        self.points = fixed.image.grid.to_world(np.argwhere(self._near))
        self.inside = fixed.content[self._near]
        self._fixed = torch.from_numpy(fixed.image.data)[None]
        self._content = torch.from_numpy(fixed.content.astype(np.float32))[None]
        self._moving = torch.from_numpy(np.stack([moving.image.data, moving.content.astype(np.float32)]))[None]
        self._most = _correlated(self._fixed, self._fixed, self._content).clamp(min=1e-6)

    def targets(self, matrix: np.ndarray) -> np.ndarray:
        """Where a matrix, fixed world → moving world, maps ``points``, shape (n, D)."""
        return self.points @ matrix[:-1, :-1].T + matrix[:-1, -1]

    def targets_of(self, field: DisplacementField) -> np.ndarray:
        """Where a field on the fixed image's grid maps ``points``, shape (n, D).

        The displacement of a cell is that of its middle voxel.
        """
        view, grid = self.fixed, self.fixed.native
        start, factors = np.array([s.start for s in view.voxels]), np.array(view.factors)
        middle = np.argwhere(self._near) * factors + start + (factors - 1) // 2
        found = field.displacement[0].flatten(1)[:, np.ravel_multi_index(tuple(middle.T), grid.shape)]
        return grid.to_world(grid.to_voxels(self.points) + found.double().T.cpu().numpy())

    def of(self, targets: np.ndarray) -> np.ndarray:
        """Likeness under maps.

        Parameters
        ----------
        targets : ndarray, shape (maps, n, D)
            World positions in the moving image of ``points``, RAS mm.

        Returns
        -------
        ndarray, shape (maps,)
            0: nothing in common; 1: as alike as the fixed image and itself.
        """
        return np.concatenate([self._of(targets[k : k + AT_ONCE]) for k in range(0, len(targets), AT_ONCE)])

    def _of(self, targets: np.ndarray) -> np.ndarray:
        return (_correlated(self._fixed, *self._sampled(targets)) / self._most).double().numpy()

    def coverage(self, targets: np.ndarray) -> float:
        """Share of the fixed content that the moving image's field of view covers; ``targets`` of one map, (n, D)."""
        voxels = self.moving.native.to_voxels(targets[self.inside])
        edge = np.array(self.moving.native.shape) - 0.5
        return float(((voxels > -0.5) & (voxels < edge)).all(1).mean())

    def _sampled(self, targets: np.ndarray) -> tuple[Tensor, Tensor]:
        """The moving image on the fixed view's grid, and where both have content, each (maps, *space)."""
        shape = self.fixed.image.grid.shape
        voxels = torch.from_numpy(self.moving.image.grid.to_voxels(targets)).float()
        ends = torch.tensor(self.moving.image.grid.shape, dtype=torch.float32) - 1
        scaled = (2 * voxels / ends.clamp(min=1) - 1).flip(-1)
        maps, count, ndim = scaled.shape
        # All maps are one long list of points, so that the image is not repeated for each.
        listed = scaled.reshape(1, maps * count, *[1] * (ndim - 1), ndim)
        found = F.grid_sample(self._moving, listed, align_corners=True, padding_mode="zeros")
        found = found.reshape(2, maps, count)
        full = torch.zeros(2, maps, self._near.size)
        full[:, :, self._where] = found
        values, shown = full.reshape(2, maps, *shape)
        return values, shown * self._content


def _correlated(fixed: Tensor, moving: Tensor, both: Tensor) -> Tensor:
    """Sum over windows of their squared correlation times the cells in them; images (B, *space), result (B,)."""
    count = _window_sums(both).clamp(min=1e-6)

    def mean(image: Tensor) -> Tensor:
        return _window_sums(image * both) / count

    means = mean(fixed), mean(moving)
    variances = [
        (mean(image.square()) - middle.square()).clamp(min=0) + FLAT
        for image, middle in zip((fixed, moving), means, strict=True)
    ]
    covariance = mean(fixed * moving) - means[0] * means[1]
    return (count * covariance.square() / (variances[0] * variances[1])).flatten(1).sum(1)


def _window_sums(image: Tensor) -> Tensor:
    """Sums over windows of 2 · ``RADIUS`` + 1 cells a side, zero outside, around every other cell; (B, *space)."""
    for axis in range(1, image.ndim):
        size = (image.shape[axis] + 1) // 2
        padded = F.pad(image, [0, 0] * (image.ndim - 1 - axis) + [RADIUS, RADIUS + 1])
        every = padded.unfold(axis, 2, 2)  # pairs of cells
        even, odd = every.select(-1, 0), every.select(-1, 1)
        parts = [(even, odd)[k % 2].narrow(axis, k // 2, size) for k in range(2 * RADIUS + 1)]
        image = functools.reduce(operator.add, parts)
    return image


def _cells(volume: Volume, box: tuple[slice, ...]) -> tuple[Volume, np.ndarray]:
    """Means over cells of a box, about ``CELLS`` along its longest side, and the voxels in a cell along each axis."""
    spacing = volume.grid.spacing
    sizes = np.array([s.stop - s.start for s in box])
    wanted = (sizes * spacing).max() / CELLS[volume.grid.ndim]
    factors = np.clip(np.floor(wanted / spacing + 0.2), 1, sizes).astype(int)
    affine = volume.grid.affine.copy()
    affine[:-1, -1] = volume.grid.to_world(np.array([s.start for s in box]) + (factors - 1) / 2)
    affine[:-1, :-1] *= factors
    data = cell_means(volume.data, box, tuple(factors))
    return Volume(data, Grid(data.shape, affine), volume.path), factors
