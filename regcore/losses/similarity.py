"""How alike two images are."""

from torch import Tensor


def mean_squared_error(fixed: Tensor, warped: Tensor) -> Tensor:
    """Mean squared intensity difference, Eq. 5 of VoxelMorph; images (B, 1, *space)."""
    return (fixed - warped).square().mean()
