"""Label maps of random shapes, made from noise: SynthMorph (Hoffmann et al., TMI 2022), Section II-C.1."""

from collections.abc import Sequence

import torch
from torch import Tensor

from regcore.spatial import identity, integrate, resample, warp
from regcore.synthesis.noise import Draws, coarse_shape, normal, number

#: Squarings of the integration of a shape's velocity, as everywhere in the paper.
STEPS = 5


def random_shapes(
    shape: Sequence[int], draws: Draws, labels: int = 26, resolution: float = 32, warp_sd: float = 100
) -> Tensor:
    """A map of ``labels`` random shapes: at every voxel, the index of the brightest of as many warped noise images.

    See Section II-C.1 of SynthMorph [1]_.  The images are made one after the other, so memory does not grow with their
    number.

    Parameters
    ----------
    shape : sequence of int
        Shape of the map: two or three axes of 2 or more voxels.
    draws : Draws
        The map is made on their device; the same seed gives the same map on every device, up to ties.
    labels : int
        J, at most 256.
    resolution : float
        r_p: noise and velocities are drawn at 1:r_p of the size.
    warp_sd : float
        b_p: the velocity's standard deviation is drawn from U(0, b_p), voxels of the map.

    Returns
    -------
    Tensor of uint8, shape (1, 1, *shape)
        0 to J - 1; a label may be absent.

    Raises
    ------
    ValueError
        J is below 1 or above 256, or the shape is not that of an image.

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Section II-C.1.

    Examples
    --------
    >>> from regcore.synthesis.noise import Draws
    >>> from regcore.synthesis.shapes import random_shapes
    >>> shapes = random_shapes((16, 16), Draws(seed=7), labels=4, resolution=4)
    >>> tuple(shapes.shape), shapes.unique().tolist()
    ((1, 1, 16, 16), [0, 1, 2, 3])
    """
    if not 1 <= labels <= 256:
        raise ValueError(f"a map has 1 to 256 labels, not {labels}")
    if len(shape) not in (2, 3) or min(shape) < 2:
        raise ValueError(f"a map has two or three axes of 2 voxels or more, not the shape {tuple(shape)}")
    coarse = coarse_shape(shape, resolution)
    ratios = [(m - 1) / (n - 1) for m, n in zip(coarse, shape, strict=True)]
    voxels = torch.stack([torch.full((), ratio, device=draws.device) for ratio in ratios])
    per_voxel = voxels.view(1, -1, *[1] * len(shape))
    here = identity(coarse, voxels)
    full = identity(shape, voxels)
    found = torch.zeros(1, 1, *shape, dtype=torch.uint8, device=draws.device)
    brightest = torch.full((1, 1, *shape), -torch.inf, device=draws.device)
    for label in range(labels):
        noise = normal((1, 1, *coarse), draws)
        velocity = number(0, warp_sd, draws) * per_voxel * normal((1, len(shape), *coarse), draws)
        points = resample(here + integrate(velocity, STEPS), shape)
        image = warp(noise, points - full, border="edge")
        found.masked_fill_(image > brightest, label)
        brightest = torch.maximum(brightest, image)
    return found
