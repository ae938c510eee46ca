"""Affine alignment of two images of any contrast by optimisation, from coarse to fine."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from regcore.alignment.resampling import coarsened
from regcore.errors import InputError
from regcore.images.volume import Volume
from regcore.losses import mind_ssc, nmi
from regcore.process.devices import default_device
from regcore.spatial import warp
from regcore.spatial.affine import affine_between_grids, affine_displacement, affine_matrix

SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nmi": lambda fixed, warped: nmi(fixed, warped, 32, fixed_range=(0, 1), warped_range=(0, 1)),
    "mind": mind_ssc,
}
#: Spacing of the levels, relative to the finer of the two images, and the iterations of L-BFGS at each.
LEVELS = ((8, 40), (4, 30), (2, 20))
#: A level on which an image has fewer voxels than this along an axis is skipped; the finest always runs.
FEWEST = 16
#: L-BFGS ends when no parameter moves by more than this, mm, or the loss by a millionth.
TOLERANCE_MM, LOSS_SCALE = 1e-3, 1e3


def optimise_affine(fixed: Volume, moving: Volume, similarity: str, start: np.ndarray | None = None) -> np.ndarray:
    """Find the affine map that makes two images most similar.

    6 parameters in 2-D, 12 in 3-D (Section IV-E of SynthMorph [1]_, as in its code): translation, rotation,
    logarithms of scales, and shears, about the centre of the fixed image's intensities. All parameters are in mm:
    angles, scales and shears by the shift they cause at the mean distance from the centre, so that steps in all of
    them are comparable.

    Parameters
    ----------
    fixed, moving : Volume
        Intensities from 0, the background, to 1.
    similarity : {"nmi", "mind"}
        Both work across contrasts.
    start : ndarray, shape (D + 1, D + 1), optional
        As the result; by default the shift that joins the centres of both images' intensities.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.

    Raises
    ------
    InputError
        An image is empty.

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Section IV-E.
    """
    ndim, device = fixed.grid.ndim, default_device()
    centres = [_centre(volume) for volume in (fixed, moving)]
    radius = _radius(fixed, centres[0])
    finest = float(min(fixed.grid.spacing.min(), moving.grid.spacing.min()))
    count = ndim * (ndim + 1)
    mm = torch.zeros(count, dtype=torch.float64, device=device, requires_grad=True)
    centre = torch.as_tensor(centres[0], device=device)
    first = np.eye(ndim + 1) if start is None else start
    if start is None:
        first[:-1, -1] = centres[1] - centres[0]
    then = torch.as_tensor(first, device=device)

    def world(parameters: Tensor) -> Tensor:
        turns = ndim * (ndim - 1) // 2
        shift, rotation, scales, shear = parameters[None].split([ndim, turns, ndim, turns], dim=1)
        parts = (rotation / radius, (scales / radius).exp(), shear / radius)
        return then @ affine_matrix(shift, *parts, centre=centre)

    for factor, iterations in LEVELS:
        spacing = factor * finest
        pair = [coarsened(volume, spacing) for volume in (fixed, moving)]
        if factor > LEVELS[-1][0] and min(min(volume.grid.shape) for volume in pair) < FEWEST:
            continue
        images = [torch.from_numpy(v.data.astype(np.float32))[None, None].to(device) for v in pair]
        grids = [torch.tensor(v.grid.affine, device=device) for v in pair]
        optimiser = torch.optim.LBFGS(
            [mm], max_iter=iterations, tolerance_change=TOLERANCE_MM, line_search_fn="strong_wolfe"
        )

        def unlikeness(images=images, grids=grids, optimiser=optimiser) -> Tensor:
            optimiser.zero_grad()
            matrix = affine_between_grids(world(mm), *grids)
            displacement = affine_displacement(matrix, images[0].shape[2:]).float()
            loss = LOSS_SCALE * SIMILARITIES[similarity](images[0], warp(images[1], displacement))
            loss.backward()
            return loss

        optimiser.step(unlikeness)
    return world(mm.detach())[0].cpu().numpy()


def _centre(volume: Volume) -> np.ndarray:
    """World position of the centre of the intensities, mm."""
    total = float(volume.data.sum(dtype=np.float64))
    if not total > 0:
        raise InputError(f"{volume.path}: the image is empty and cannot be aligned")
    axes = range(volume.data.ndim)
    means = [
        float(volume.data.sum(tuple(a for a in axes if a != axis), dtype=np.float64) @ np.arange(size)) / total
        for axis, size in enumerate(volume.grid.shape)
    ]
    return volume.grid.to_world(np.array([means]))[0]


def _radius(volume: Volume, centre: np.ndarray) -> float:
    """Root-mean-square distance of the intensities from their centre, mm."""
    places = np.argwhere(volume.data > 0.1 * volume.data.max())
    step = max(1, len(places) // 10_000)
    return float(np.sqrt(((volume.grid.to_world(places[::step]) - centre) ** 2).sum(1).mean()))
