"""How smooth a displacement or velocity is."""

import torch
from torch import Tensor


def diffusion(field: Tensor) -> Tensor:
    """Mean squared forward difference between neighbouring voxels, Eq. 7 of VoxelMorph.

    Parameters
    ----------
    field : Tensor, shape (B, D, *space)
        In voxels.

    Returns
    -------
    Tensor, scalar
        The mean over components and voxels, averaged over the D axes (as the authors' code does; the
        paper's sum differs by a constant factor that λ absorbs).
    """
    axes = range(2, field.ndim)
    return torch.stack([field.diff(dim=axis).square().mean() for axis in axes]).mean()
