"""An image on another grid: its own but coarser, or any other through an affine map."""

import numpy as np
from scipy.ndimage import gaussian_filter

from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume


def coarsened(volume: Volume, spacing_mm: float) -> Volume:
    """Smooth and resample an image with voxels finer than ``spacing_mm``; return others unchanged."""
    factors = np.maximum(spacing_mm / volume.grid.spacing, 1)
    if np.all(factors < 1.2):
        return volume
    smooth = gaussian_filter(volume.data, 0.5 * np.sqrt(factors**2 - 1))
    shape = np.maximum(np.round(np.array(volume.grid.shape) / factors), 2).astype(int)
    affine = volume.grid.affine.copy()
    affine[:-1, :-1] *= (np.array(volume.grid.shape) - 1) / (shape - 1)
    return resample(volume.with_data(smooth), Grid(shape, affine), np.eye(volume.grid.ndim + 1))


def resample(volume: Volume, grid: Grid, to_native: np.ndarray, nearest: bool = False) -> Volume:
    """Resample a native volume onto the common grid: ``result(x) = volume(to_native · x)``."""
    identity = DisplacementField.identity(grid)
    field = identity.between_scans(grid, np.eye(grid.ndim + 1), to_native)
    return field.warp(volume, nearest=nearest)
