"""Weighted mean squared forward difference in plain torch.

For a field u of C components, L = 1/C² Σₐ mean(w(p + eₐ) |u(p + eₐ) − u(p)|²), where a mean is over the voxels that
have a neighbour along axis a: a difference has the weight of the voxel in front.
"""

from torch import Tensor


def weighted_diffusion_reference(field: Tensor, weight: Tensor) -> Tensor:
    """The mean over ``field`` (B, C, *space), each difference times ``weight`` (B, 1, *space) at the voxel in front."""
    total = field.new_zeros(())
    for axis in range(2, field.ndim):
        squared_length = field.diff(dim=axis).square().sum(1, keepdim=True)
        total = total + (weight.narrow(axis, 1, squared_length.shape[axis]) * squared_length).mean()
    return total / field.shape[1] ** 2
