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

    Examples
    --------
    >>> from regcore.synthesis.noise import Draws
    >>> draws = Draws(seed=7)
    >>> draws.next(), draws.next()
    ((7, 0), (7, 1))
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu"):
        self.seed, self.device = seed, torch.device(device)
        self.offset = 0

    def next(self) -> tuple[int, int]:
        """Seed and offset of one more draw."""
        self.offset += 1
        return self.seed, self.offset - 1


def random_generator(device: torch.device) -> Draws:
    """Draws on a device, with a seed from torch's global random state, which training seeds at every step.

    Parameters
    ----------
    device : torch.device
        Where tensors are drawn.

    Returns
    -------
    Draws

    Examples
    --------
    >>> import torch
    >>> from regcore.synthesis.noise import random_generator
    >>> _ = torch.manual_seed(0)
    >>> draws = random_generator(torch.device("cpu"))
    >>> draws.offset, draws.device.type
    (0, 'cpu')
    """
    return Draws(int(torch.randint(2**62, ())), device)


def number(low: float, high: float, draws: Draws) -> float:
    """One draw from U(low, high), as a number.

    Parameters
    ----------
    low, high : float
        Ends of the range.
    draws : Draws
        Where the number comes from.

    Returns
    -------
    float

    Examples
    --------
    >>> from regcore.synthesis.noise import Draws, number
    >>> draws = Draws(seed=7)
    >>> round(number(0, 10, draws), 3), round(number(0, 10, draws), 3)
    (9.546, 4.95)
    """
    return low + (high - low) * number_reference(*draws.next())


def normal_number(draws: Draws) -> float:
    """One draw from N(0, 1), as a number.

    Parameters
    ----------
    draws : Draws
        Where the number comes from.

    Returns
    -------
    float

    Examples
    --------
    >>> from regcore.synthesis.noise import Draws, normal_number
    >>> round(normal_number(Draws(seed=7)), 3)
    -2.486
    """
    radius = math.sqrt(-2 * math.log(1 - number(0, 1, draws)))
    return radius * math.cos(number(0, 2 * math.pi, draws))


def uniform(low: float, high: float, draws: Draws, shape: Sequence[int]) -> Tensor:
    """Draws from U(low, high); element i of their order in memory does not depend on the shape.

    Parameters
    ----------
    low, high : float
        Ends of the range.
    draws : Draws
        Where the numbers come from.
    shape : sequence of int
        Of the result.

    Returns
    -------
    Tensor of float32, shape (*shape)

    Examples
    --------
    >>> from regcore.synthesis.noise import Draws, uniform
    >>> [round(value, 3) for value in uniform(0, 10, Draws(seed=7), (3,)).tolist()]
    [9.546, 7.502, 1.142]
    """
    return philox.uniform(shape, *draws.next(), draws.device).mul_(high - low).add_(low)


def normal(shape: Sequence[int], draws: Draws) -> Tensor:
    """Draws from N(0, 1); element i of their order in memory does not depend on the shape.

    Parameters
    ----------
    shape : sequence of int
        Of the result.
    draws : Draws
        Where the numbers come from.

    Returns
    -------
    Tensor of float32, shape (*shape)

    Examples
    --------
    >>> from regcore.synthesis.noise import Draws, normal
    >>> [round(value, 3) for value in normal((3,), Draws(seed=7)).tolist()]
    [0.0, -0.305, 1.789]
    """
    return philox.normal(shape, *draws.next(), draws.device)


def coarse_shape(shape: Sequence[int], resolution: float) -> list[int]:
    """Size of a grid at relative resolution 1:``resolution``: each size divided and rounded up, 2 or more.

    The rounding is that of Table I [1]_.  A single voxel could not be interpolated.

    Parameters
    ----------
    shape : sequence of int
        Voxels along each array axis.
    resolution : float
        How many voxels of the grid are one of the coarse grid.

    Returns
    -------
    list of int

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Table I.

    Examples
    --------
    >>> from regcore.synthesis.noise import coarse_shape
    >>> coarse_shape((160, 192, 20), resolution=16)
    [10, 12, 2]
    """
    return [max(2, -int(-n // resolution)) for n in shape]


def smooth_noise(shape: Sequence[int], resolution: float, draws: Draws) -> Tensor:
    """N(0, 1) at relative resolution 1:``resolution``, upsampled linearly to (1, 1, *shape).

    Parameters
    ----------
    shape : sequence of int
        Voxels along each array axis.
    resolution : float
        As for :func:`coarse_shape`.
    draws : Draws
        Where the numbers come from.

    Returns
    -------
    Tensor of float32, shape (1, 1, *shape)

    Examples
    --------
    >>> from regcore.synthesis.noise import Draws, smooth_noise
    >>> noise = smooth_noise((16, 16), resolution=8, draws=Draws(seed=7))
    >>> tuple(noise.shape), round(noise[0, 0, 8, 8].item(), 3)
    ((1, 1, 16, 16), 0.673)
    """
    return resample(normal((1, 1, *coarse_shape(shape, resolution)), draws), shape)


def random_velocity(space: Sequence[int], resolutions: Sequence[float], largest_sd: float, draws: Draws) -> Tensor:
    """A stationary velocity at half resolution, the sum of noise at several resolutions (Section II-C.3 [1]_).

    The standard deviation is drawn from U(0, ``largest_sd``) at each resolution.

    Parameters
    ----------
    space : sequence of int
        Size of the images.
    resolutions : sequence of float
        r_v, relative to ``space``.
    largest_sd : float
        b_v, in voxels of the half-resolution grid.
    draws : Draws
        Where the numbers come from.

    Returns
    -------
    Tensor, shape (1, D, *half)
        ``half`` as in :func:`coarse_shape` with 2.

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Section II-C.

    Examples
    --------
    >>> from regcore.synthesis.noise import Draws, random_velocity
    >>> tuple(random_velocity((16, 20), resolutions=[8], largest_sd=3, draws=Draws(seed=7)).shape)
    (1, 2, 8, 10)
    """
    half = coarse_shape(space, 2)
    velocity = torch.zeros(1, len(space), *half, device=draws.device)
    for resolution in resolutions:
        sd = number(0, largest_sd, draws)
        velocity += resample(sd * normal((1, len(space), *coarse_shape(space, resolution)), draws), half)
    return velocity
