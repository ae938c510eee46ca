"""Random numbers on a device, smooth in space: what label maps, deformations and bias fields are drawn from.

Every function draws from the ``torch.Generator`` it is given, on the generator's device, and from nothing else.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from regcore.spatial import resample


def random_generator(device: torch.device) -> Generator:
    """A generator on a device whose seed is drawn from torch's global random state, which a training step follows."""
    return Generator(device).manual_seed(int(torch.randint(2**62, ())))


def uniform(low: float, high: float, generator: Generator, shape: Sequence[int] = ()) -> Tensor:
    """Draws from U(low, high)."""
    return low + (high - low) * torch.rand(tuple(shape), generator=generator, device=generator.device)


def normal(shape: Sequence[int], generator: Generator) -> Tensor:
    """Draws from N(0, 1)."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device)


def coarse_shape(shape: Sequence[int], resolution: float) -> list[int]:
    """Size of a grid at relative resolution 1:``resolution``: each size divided and rounded up (Table I), 2 or more.

    One voxel could not be interpolated between.
    """
    return [max(2, -int(-n // resolution)) for n in shape]


def smooth_noise(shape: Sequence[int], resolution: float, generator: Generator) -> Tensor:
    """N(0, 1) at relative resolution 1:``resolution``, upsampled linearly to (1, 1, *shape)."""
    return resample(normal((1, 1, *coarse_shape(shape, resolution)), generator), shape)


def random_velocity(
    space: Sequence[int], resolutions: Sequence[float], largest_sd: float, generator: Generator
) -> Tensor:
    """A stationary velocity at half resolution, the sum of noise at several resolutions (Section II-C.3).

    The standard deviation is drawn anew from U(0, ``largest_sd``) at each resolution.

    Parameters
    ----------
    space : sequence of int
        Size of the images.
    resolutions : sequence of float
        r_v, relative to ``space``.
    largest_sd : float
        b_v, in voxels of the half-resolution grid.

    Returns
    -------
    Tensor, shape (1, D, *half)
        ``half`` as in :func:`coarse_shape` with 2.
    """
    half = coarse_shape(space, 2)
    velocity = torch.zeros(1, len(space), *half, device=generator.device)
    for resolution in resolutions:
        sd = uniform(0, largest_sd, generator)
        velocity += resample(sd * normal((1, len(space), *coarse_shape(space, resolution)), generator), half)
    return velocity
