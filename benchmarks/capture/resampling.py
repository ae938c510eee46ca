"""The grids of a pair's images, and sampling scans on them.

Scans are smoothed to the size of the voxels beforehand, except for thick slices, which are means over their thickness.
"""

import numpy as np
from scipy.ndimage import affine_transform

from capture.kinds import Kind
from capture.motion import rotation
from regcore.images.grid import Grid
from regcore.images.volume import Volume

#: Voxel sizes of moving images relative to the fixed one's.
SPACINGS = (0.85, 1.25)
#: Margin around the content on every side, relative to its length.
MARGIN = (0.03, 0.12)
OBLIQUE_DEGREES = 10
THICK_MM = (1.0, 1.0, 5.0)


def resampled(volume: Volume, grid: Grid, to_volume: np.ndarray, nearest: bool = False, thick: bool = False) -> Volume:
    """Sample ``volume`` on ``grid``: at the grid's world position x, its value at ``to_volume · x``.

    Outside, the volume's lowest value.  ``thick``: the mean of as many samples across every voxel as the volume has.
    """
    to_voxels = volume.grid.inverse @ to_volume @ grid.affine
    across = np.linalg.norm(to_voxels[:-1, :-1], axis=0)  # voxels of the volume that one of the grid spans
    parts = np.maximum(np.round(across), 1).astype(int) if thick else np.ones(grid.ndim, int)
    fine = np.diag([*(1 / parts), 1.0])
    fine[:-1, -1] = (1 / parts - 1) / 2
    matrix = to_voxels @ fine
    data = affine_transform(
        volume.data, matrix[:-1, :-1], matrix[:-1, -1], tuple(np.array(grid.shape) * parts), order=0 if nearest else 1,
        mode="constant", cval=0 if nearest else float(volume.data.min()),
    )  # fmt: skip
    if thick:
        split = [number for pair in zip(grid.shape, parts, strict=True) for number in pair]
        data = data.reshape(split).mean(axis=tuple(range(1, 2 * grid.ndim, 2)))
    return Volume(data.astype(volume.data.dtype), grid)


def at_spacing(volume: Volume, spacing: float) -> Volume:
    """Sample a smoothed scan at isotropic voxels of this size on the axes of its own grid; a coarser one stays."""
    if np.all(volume.grid.spacing > 0.9 * spacing):
        return volume
    parts = spacing / volume.grid.spacing
    shape = np.maximum(np.ceil(np.array(volume.grid.shape) / parts), 2).astype(int)
    affine = volume.grid.affine.copy()
    affine[:-1, :-1] *= parts
    affine[:-1, -1] = volume.grid.to_world((parts - 1) / 2)
    return resampled(volume, Grid(tuple(shape), affine), np.eye(volume.grid.ndim + 1))


def moving_grid(content: np.ndarray, spacing: float, kind: Kind, generator: np.random.Generator) -> Grid:
    """A grid around ``content`` (world positions, (n, D)) with voxels, axes and a field of view of its own.

    The world axes in random order and direction, turned by up to 10°; ``kind`` says how much of the content it covers.
    """
    ndim = content.shape[1]
    axes = rotation(ndim, OBLIQUE_DEGREES, generator)[:, generator.permutation(ndim)]
    axes = axes * generator.choice([-1, 1], ndim)
    along = content @ axes
    low, high = along.min(0), along.max(0)
    length = high - low
    cut = int(generator.integers(ndim))
    if kind.keep < 1 or kind.slab_mm is not None:
        kept = kind.slab_mm if kind.slab_mm is not None else kind.keep * length[cut]
        # The middle of a slab, so that there is something in it.
        spare = length[cut] - kept
        inset = 0.2 if kind.slab_mm is not None else 0.0
        low[cut] += spare * generator.uniform(inset, 1 - inset)
        high[cut] = low[cut] + kept
    whole = np.arange(ndim) != cut if (kind.keep < 1 or kind.slab_mm is not None) else np.ones(ndim, bool)
    low = low - whole * length * generator.uniform(*MARGIN, ndim)
    high = high + whole * length * generator.uniform(*MARGIN, ndim)
    voxel = np.array(THICK_MM) if kind.thick else np.full(ndim, spacing) * generator.uniform(*SPACINGS)
    shape = np.maximum(np.round((high - low) / voxel), 4).astype(int)
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = axes * voxel
    affine[:-1, -1] = axes @ ((low + high) / 2 - voxel * (shape - 1) / 2)
    return Grid(tuple(shape), affine)
