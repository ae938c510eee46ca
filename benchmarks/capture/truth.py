"""The affine map between two subjects that their labels tell: what a perfect alignment would come near.

With twenty labels or more it is the least-squares fit to their centroids, weighted by volume.  With fewer, as of a
hippocampus or a prostate, centroids do not determine it: the map is then the one with the largest soft Dice.
"""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from regcore.images.volume import Volume
from regcore.spatial import warp
from regcore.spatial.affine import affine_between_grids, affine_displacement, affine_matrix, fit_affine

#: Fewer common labels than this do not determine an affine map by their centroids.
ENOUGH = 20
#: Voxels that the indicator of a label is smoothed by, coarse to fine.
SMOOTHED = (3.0, 1.5, 0.7)


def fit_to_labels(fixed: Volume, moving: Volume) -> np.ndarray:
    """Fit the affine map that brings the labels of two subjects together, fixed world → moving world."""
    codes = np.intersect1d(np.unique(fixed.data), np.unique(moving.data))
    codes = codes[codes > 0]
    if len(codes) >= ENOUGH:
        (points, here), (targets, there) = (centroids(volume, codes) for volume in (fixed, moving))
        weights = torch.from_numpy(np.minimum(here, there))[None, None]
        return fit_affine(_columns(points), _columns(targets), weights)[0].numpy()
    return _largest_overlap(fixed, moving, codes)


def centroids(labels: Volume, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World position, (n, D), and volume in mm³, (n,), of every label."""
    order = np.argsort(codes)
    places = np.searchsorted(codes, labels.data, sorter=order).clip(max=len(codes) - 1)
    inside = codes[places] == labels.data
    places, voxels = places[inside], np.argwhere(inside)
    counts = np.bincount(places, minlength=len(codes))
    sums = [np.bincount(places, weights=voxels[:, axis], minlength=len(codes)) for axis in range(labels.data.ndim)]
    volume = abs(np.linalg.det(labels.grid.affine[:-1, :-1]))
    return labels.grid.to_world(np.stack(sums, axis=1) / counts[:, None]), counts * volume


def _columns(points: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(points.T.copy())[None]


def _largest_overlap(fixed: Volume, moving: Volume, codes: np.ndarray) -> np.ndarray:
    """Maximise the mean soft Dice of few labels by L-BFGS, from aligned centres, coarse to fine."""
    ndim = fixed.grid.ndim
    centres = [v.grid.to_world(np.argwhere(v.data > 0)).mean(0) for v in (fixed, moving)]
    places = fixed.grid.to_world(np.argwhere(fixed.data > 0))
    radius = float(np.sqrt(((places - centres[0]) ** 2).sum(1).mean()))
    turns = ndim * (ndim - 1) // 2
    mm = torch.zeros(ndim * (ndim + 1), dtype=torch.float64, requires_grad=True)
    centre, onto = torch.as_tensor(centres[0]), torch.as_tensor(centres[1] - centres[0])
    grids = [torch.tensor(v.grid.affine) for v in (fixed, moving)]

    def world(parameters: torch.Tensor) -> torch.Tensor:
        shift, rotation, scales, shear = parameters[None].split([ndim, turns, ndim, turns], dim=1)
        return affine_matrix(shift + onto, rotation / radius, (scales / radius).exp(), shear / radius, centre=centre)

    for width in SMOOTHED:
        ones, others = (_indicators(volume, codes, width) for volume in (fixed, moving))
        axes = tuple(range(2, 2 + ndim))
        optimiser = torch.optim.LBFGS([mm], max_iter=40, line_search_fn="strong_wolfe")

        def apart(ones=ones, others=others, axes=axes, optimiser=optimiser) -> torch.Tensor:
            optimiser.zero_grad()
            between = affine_between_grids(world(mm), *grids)
            warped = warp(others, affine_displacement(between, ones.shape[2:]).float())
            overlap = 2 * (ones * warped).sum(axes) / ((ones**2).sum(axes) + (warped**2).sum(axes))
            loss = 100 * (1 - overlap.mean())
            loss.backward()
            return loss

        optimiser.step(apart)
    return world(mm.detach())[0].numpy()


def _indicators(labels: Volume, codes: np.ndarray, width: float) -> torch.Tensor:
    maps = [gaussian_filter((labels.data == code).astype(np.float32), width) for code in codes]
    return torch.from_numpy(np.stack(maps))[None]
