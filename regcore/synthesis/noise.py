"""Random numbers on a device, and smooth noise for label maps, deformations and bias fields.

Every function draws only from the :class:`Draws` it is given, on their device.  The same seed gives the same numbers
on every device, up to rounding.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from regcore.kernels import philox
from regcore.kernels.philox.reference import number_reference
from regcore.spatial import resample


class Draws:
    """A sequence of draws from a seed: each depends only on the seed and the next number of a counter.

    There is no state on the device, and single numbers are drawn on the CPU, so nothing waits for the device.

    Parameters
    ----------
    seed : int
        64 bits of it are used.
    device : torch.device
        Where tensors are drawn.

    Attributes
    ----------
    offset : int
        Number of draws so far.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu"):
        self.seed, self.device = seed, torch.device(device)
        self.offset = 0

    def next(self) -> tuple[int, int]:
        """Seed and offset of one more draw."""
        self.offset += 1
        return self.seed, self.offset - 1


def random_generator(device: torch.device) -> Draws:
    """Draws on a device, with a seed from torch's global random state, which training seeds at every step."""
    return Draws(int(torch.randint(2**62, ())), device)


def number(low: float, high: float, draws: Draws) -> float:
    """One draw from U(low, high), as a number."""
    return low + (high - low) * number_reference(*draws.next())


def normal_number(draws: Draws) -> float:
    """One draw from N(0, 1), as a number."""
    radius = math.sqrt(-2 * math.log(1 - number(0, 1, draws)))
    return radius * math.cos(number(0, 2 * math.pi, draws))


def uniform(low: float, high: float, draws: Draws, shape: Sequence[int]) -> Tensor:
    """Draws from U(low, high); element i of their order in memory does not depend on the shape."""
    return philox.uniform(shape, *draws.next(), draws.device).mul_(high - low).add_(low)


def normal(shape: Sequence[int], draws: Draws) -> Tensor:
    """Draws from N(0, 1); element i of their order in memory does not depend on the shape."""
    return philox.normal(shape, *draws.next(), draws.device)


def coarse_shape(shape: Sequence[int], resolution: float) -> list[int]:
    """Size of a grid at relative resolution 1:``resolution``: each size divided and rounded up (Table I), 2 or more.

    A single voxel could not be interpolated.
    """
    return [max(2, -int(-n // resolution)) for n in shape]


def smooth_noise(shape: Sequence[int], resolution: float, draws: Draws) -> Tensor:
    """N(0, 1) at relative resolution 1:``resolution``, upsampled linearly to (1, 1, *shape)."""
    return resample(normal((1, 1, *coarse_shape(shape, resolution)), draws), shape)


def random_velocity(space: Sequence[int], resolutions: Sequence[float], largest_sd: float, draws: Draws) -> Tensor:
    """A stationary velocity at half resolution, the sum of noise at several resolutions (Section II-C.3).

    The standard deviation is drawn from U(0, ``largest_sd``) at each resolution.

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
    velocity = torch.zeros(1, len(space), *half, device=draws.device)
    for resolution in resolutions:
        sd = number(0, largest_sd, draws)
        velocity += resample(sd * normal((1, len(space), *coarse_shape(space, resolution)), draws), half)
    return velocity
