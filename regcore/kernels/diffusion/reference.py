"""Mean squared forward difference in plain torch.

For a field u of D axes, L = 1/D Σₐ mean((u(p + eₐ) − u(p))²), where each mean is over all components and all voxels
that have a neighbour along axis a.  Its gradient is ∂L/∂u(p) = Σₐ 2 / (D Nₐ) Σ (u(p) − u(q)), summed over the
neighbours q = p ± eₐ that exist, where Nₐ is the number of differences along a.
"""

import torch
from torch import Tensor


def diffusion_reference(field: Tensor) -> Tensor:
    """Mean over the axes of the mean squared forward difference of ``field`` (B, C, *space)."""
    axes = range(2, field.ndim)
    return torch.stack([field.diff(dim=axis).square().mean() for axis in axes]).mean()


def numbers(field: Tensor) -> list[int]:
    """Number of differences along (Z, Y, X), times the number of axes; 0 for a missing axis."""
    space = field.shape[2:]
    return [0] * (3 - len(space)) + [field.numel() // size * (size - 1) * len(space) for size in space]
